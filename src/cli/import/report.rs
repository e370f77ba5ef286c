//! What an import tells: a line for each thing that was to be moved, and how many there were of each outcome.

use std::fmt;

use anyhow::bail;
use serde_json::{Value, json};

use crate::cli::args::{Output, print_line, printable};

/// Where a thing stands in the source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The line of a file, from 1.
    Line(u64),
    /// The path of a resource.
    Path(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Path(path) => f.write_str(&printable(path)),
        }
    }
}

/// A thing that is to be moved.
#[derive(Clone, Debug)]
pub(super) struct Item {
    /// Where it stands.
    pub place: Place,
    /// `account`, `event type` or `endpoint`.
    pub kind: &'static str,
    /// What people know it by.
    pub name: String,
}

/// Why something cannot be moved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Fault {
    /// The attribute at fault, if it is one.
    pub field: Option<String>,
    /// In words.
    pub detail: String,
}

impl Fault {
    /// A fault of this attribute.
    pub fn of(field: &str, detail: impl Into<String>) -> Self {
        Self { field: Some(field.to_owned()), detail: detail.into() }
    }
}

/// What came of a thing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It was made, and has this id; on a dry run it would be made.
    Made(Option<String>),
    /// This was there already, and stays as it is.
    Exists(String),
    /// There is no need to move it: why.
    Left(&'static str),
    /// It cannot be moved.
    Refused(Vec<Fault>),
}

/// What was told so far.
pub(super) struct Report {
    output: Output,
    dry_run: bool,
    made: u64,
    existing: u64,
    left: u64,
    refused: u64,
}

impl Report {
    pub fn new(output: Output, dry_run: bool) -> Self {
        Self { output, dry_run, made: 0, existing: 0, left: 0, refused: 0 }
    }

    /// Tells what came of a thing, and what else its owner should know.
    pub fn tell(&mut self, item: &Item, outcome: &Outcome, notes: &[String]) -> anyhow::Result<()> {
        let count = match outcome {
            Outcome::Made(_) => &mut self.made,
            Outcome::Exists(_) => &mut self.existing,
            Outcome::Left(_) => &mut self.left,
            Outcome::Refused(_) => &mut self.refused,
        };
        *count += 1;
        if self.output.json {
            return print_line(as_json(item, outcome, notes, self.dry_run));
        }
        lines(item, outcome, notes, self.dry_run).into_iter().try_for_each(print_line)
    }

    /// Tells how many there were of each. Where something cannot be moved, that is an error.
    pub fn finish(self) -> anyhow::Result<()> {
        let Self { output, dry_run, made, existing, left, refused } = self;
        let verb = if dry_run { "would be made" } else { "were made" };
        let told = json!({ "dry_run": dry_run, "made": made, "exist": existing, "left": left, "refused": refused });
        let text =
            format!("{made} {verb}, {existing} are there already, {left} are left out, {refused} cannot be moved");
        output.print(&told, &text)?;
        if refused > 0 {
            bail!("{refused} of {} cannot be moved: see the reasons above", made + existing + left + refused);
        }
        Ok(())
    }
}

/// The lines for people: one, or one for each fault.
fn lines(Item { place, kind, name }: &Item, outcome: &Outcome, notes: &[String], dry_run: bool) -> Vec<String> {
    let subject = format!("{kind} {}", printable(name));
    let notes = if notes.is_empty() { String::new() } else { format!(" ({})", printable(&notes.join("; "))) };
    match outcome {
        Outcome::Made(_) if dry_run => vec![format!("{place}: {subject} would be made{notes}")],
        Outcome::Made(id) => {
            let id = id.as_deref().unwrap_or_default();
            vec![format!("{place}: {subject} was made: {id}{notes}")]
        }
        Outcome::Exists(id) => vec![format!("{place}: {subject} is there already: {}{notes}", printable(id))],
        Outcome::Left(why) => vec![format!("{place}: {subject} is left out: {why}{notes}")],
        Outcome::Refused(faults) => faults
            .iter()
            .map(|Fault { field, detail }| {
                let column = if matches!(place, Place::Line(_)) { "column " } else { "" };
                let field =
                    field.as_deref().map_or_else(String::new, |field| format!(", {column}{}", printable(field)));
                format!("{place}{field}: {subject} cannot be moved: {}{notes}", printable(detail))
            })
            .collect(),
    }
}

/// The same for programs.
fn as_json(Item { place, kind, name }: &Item, outcome: &Outcome, notes: &[String], dry_run: bool) -> Value {
    let mut told = match place {
        Place::Line(line) => json!({ "line": line }),
        Place::Path(path) => json!({ "path": path }),
    };
    told["kind"] = (*kind).into();
    told["name"] = name.as_str().into();
    told["outcome"] = match outcome {
        Outcome::Made(_) if dry_run => "would_be_made",
        Outcome::Made(_) => "made",
        Outcome::Exists(_) => "exists",
        Outcome::Left(_) => "left",
        Outcome::Refused(_) => "refused",
    }
    .into();
    match outcome {
        Outcome::Made(id) => told["id"] = id.as_deref().into(),
        Outcome::Exists(id) => told["id"] = id.as_str().into(),
        Outcome::Left(why) => told["reason"] = (*why).into(),
        Outcome::Refused(faults) => {
            told["faults"] = faults.iter().map(|f| json!({ "field": f.field, "detail": f.detail })).collect();
        }
    }
    told["notes"] = notes.into();
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(place: Place, name: &str) -> Item {
        Item { place, kind: "endpoint", name: name.into() }
    }

    #[test]
    fn each_outcome_has_a_line_and_each_fault_has_one_of_its_own() {
        let endpoint = item(Place::Line(3), "https://a.example/\u{1b}[2J");
        let shown = "line 3: endpoint https://a.example/·[2J";
        let made = Outcome::Made(Some("7".into()));
        assert_eq!(lines(&endpoint, &made, &[], false), [format!("{shown} was made: 7")]);
        assert_eq!(lines(&endpoint, &made, &["a".into(), "b".into()], true), [format!("{shown} would be made (a; b)")]);
        let exists = Outcome::Exists("7".into());
        assert_eq!(lines(&endpoint, &exists, &[], false), [format!("{shown} is there already: 7")]);
        let faults = vec![Fault::of("url", "url must use https."), Fault { field: None, detail: "It is late.".into() }];
        let refused = Outcome::Refused(faults);
        let subject = "endpoint https://a.example/·[2J cannot be moved";
        assert_eq!(
            lines(&endpoint, &refused, &[], false),
            [format!("line 3, column url: {subject}: url must use https."), format!("line 3: {subject}: It is late.")]
        );
        let of_path = lines(&item(Place::Path("/api/v1/app/a".into()), "b"), &refused, &[], false);
        assert_eq!(of_path[0], "/api/v1/app/a, url: endpoint b cannot be moved: url must use https.");
    }

    #[test]
    fn programs_get_an_object_for_each_thing() {
        let endpoint = item(Place::Line(3), "a");
        let told = as_json(&endpoint, &Outcome::Made(None), &[], true);
        let expected = json!({
            "line": 3, "kind": "endpoint", "name": "a", "outcome": "would_be_made", "id": null, "notes": [],
        });
        assert_eq!(told, expected);
        let refused = Outcome::Refused(vec![Fault::of("url", "no")]);
        let told = as_json(&endpoint, &refused, &[], false);
        assert_eq!(
            (&told["outcome"], &told["faults"]),
            (&json!("refused"), &json!([{ "field": "url", "detail": "no" }]))
        );
    }
}
