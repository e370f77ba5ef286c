//! What a check examines, and what it finds.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::config::{Config, EffectiveSettings};

/// What every check can read.
pub(super) struct Context {
    pub config: Config,
    pub effective: EffectiveSettings,
    /// The settings file that was read.
    pub file: Option<PathBuf>,
    /// The name that the name servers are asked for, if one was given.
    pub name: Option<String>,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    /// The server works now, but perhaps not for long or not for everybody.
    Warning,
    /// The server would not start, or not work.
    Problem,
}

/// One thing that was found.
pub(super) struct Finding {
    pub check: &'static str,
    pub status: Status,
    pub found: String,
    /// What to do.
    pub advice: Option<String>,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

impl Finding {
    pub fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, found: found.into(), advice: None }
    }

    pub fn warning(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, found: found.into(), advice: Some(advice.into()) }
    }

    pub fn problem(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, status: Status::Problem, found: found.into(), advice: Some(advice.into()) }
    }

    /// A line for people. Statements that a message names stand below it.
    pub fn line(&self) -> String {
        let advice = self.advice.as_ref().map_or_else(String::new, |advice| format!(": {advice}"));
        let text = format!("{:<8} {:<10} {}{advice}", self.status.name(), self.check, self.found);
        text.trim_end().replace('\n', "\n    ")
    }

    pub fn json(&self) -> Value {
        json!({ "check": self.check, "status": self.status.name(), "found": self.found, "advice": self.advice })
    }
}
