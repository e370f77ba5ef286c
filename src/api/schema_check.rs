//! Checks of JSON against the JSON Schemas of event types, which are compiled once and kept.

use std::sync::Arc;

use foldhash::HashMap;
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::error::Words;
use super::schema_bound::{TooHeavy, steps};
use crate::domain::event::EventType;
use crate::lock::Mutex;

/// Work that one call may do on a thread that serves requests: steps of its schemas for one value, times the bytes of
/// the data. A value has two bytes at least and a step takes some 10 ns, so that this is some milliseconds at most, and
/// for ordinary data less than one.
const MAX_WORK: u64 = 500_000;

/// Steps that a pattern may go back for one string. Without backtracking, which look-arounds and references to groups
/// need, there are none.
const MAX_BACKTRACKS: usize = 100_000;

/// The reason where a value is no object.
pub fn no_object() -> Words {
    Words::new("it is no object", "no es un objeto")
}

/// The reason where a text is no JSON.
pub fn unreadable() -> Words {
    Words::new("it cannot be read", "no se puede leer")
}

/// The reason where a stored schema is no JSON.
pub fn unreadable_schema() -> Words {
    Words::new("the schema cannot be read", "el esquema no se puede leer")
}

/// Compiles a schema that is to be stored, or tells why it is not valid or what it may not cost.
pub fn compile_new(schema: &Value) -> Result<Validator, Words> {
    // What takes long to check may take long to compile.
    steps(schema).map_err(TooHeavy::words)?;
    compile(schema)
}

/// Compiles a schema that is stored already. The number is the most steps that one value of the data can take, and the
/// highest number where a schema was stored by a version that did not count them.
pub fn compile_stored(schema: &Value) -> Result<(Validator, u64), Words> {
    let steps = match steps(schema) {
        Ok(steps) => steps,
        // Its check could end the process.
        Err(TooHeavy::Nesting) => return Err(TooHeavy::Nesting.words()),
        Err(_) => u64::MAX,
    };
    Ok((compile(schema)?, steps))
}

fn compile(schema: &Value) -> Result<Validator, Words> {
    if !schema.is_object() && !schema.is_boolean() {
        return Err(Words::new("a schema is an object", "un esquema es un objeto"));
    }
    let patterns = PatternOptions::fancy_regex().backtrack_limit(MAX_BACKTRACKS);
    // Who writes `"format": "uuid"` wants it to be one, which the standard leaves open.
    let options = jsonschema::options().should_validate_formats(true).with_pattern_options(patterns);
    let invalid = |error: ValidationError<'_>| {
        let place = error.instance_path().as_str();
        Words::new(error.to_string(), format!("no es un JSON Schema válido en {}", place_in_spanish(place)))
    };
    options.build(schema).map_err(invalid)
}

/// Checks data against a schema; the error is the first mismatch.
pub fn first_mismatch(schema: &Validator, data: &Value) -> Result<(), Words> {
    schema.validate(data).map_err(|error| {
        let place = error.instance_path().as_str();
        let english = if place.is_empty() { "the top" } else { place };
        Words::new(
            format!("{} at {english}", error.masked()),
            format!("no cumple el esquema en {}", place_in_spanish(place)),
        )
    })
}

fn place_in_spanish(pointer: &str) -> &str {
    if pointer.is_empty() { "el nivel superior" } else { pointer }
}

/// How much checking a call may still do on its thread.
pub struct Allowance(Option<u64>);

impl Allowance {
    /// On a thread that serves requests.
    pub fn of_request() -> Self {
        Self(Some(MAX_WORK))
    }

    /// On a thread for heavy work.
    pub fn unbounded() -> Self {
        Self(None)
    }

    fn take(&mut self, work: u64) -> bool {
        let Some(left) = &mut self.0 else { return true };
        let is_enough = *left >= work;
        *left -= if is_enough { work } else { 0 };
        is_enough
    }
}

/// Why data was not found to match its schema.
#[derive(PartialEq, Debug, thiserror::Error)]
pub enum CheckError {
    /// It does not.
    #[error("{0}")]
    Mismatch(Words),
    /// The check was not made: it may take longer than is allowed.
    #[error("the check may take long")]
    Slow,
}

/// A schema that is ready for checks.
struct Checker {
    text: String,
    compiled: Result<(Validator, u64), Words>,
}

impl Checker {
    fn new(text: &str) -> Self {
        let schema = serde_json::from_str(text).map_err(|_| unreadable_schema());
        let compiled = schema.and_then(|schema| compile_stored(&schema));
        Self { text: text.to_owned(), compiled }
    }
}

/// Schemas that are ready for checks, by event type. Bounded by the catalog.
#[derive(Default)]
pub struct Schemas(Mutex<HashMap<String, Arc<Checker>>>);

impl Schemas {
    /// Whether `data` (JSON text) matches the type's schema, as far as the check is allowed here. A schema is compiled
    /// on threads for heavy work only.
    pub fn check(&self, entry: &EventType, data: &str, allowance: &mut Allowance) -> Result<(), CheckError> {
        let Some(schema) = &entry.schema else { return Ok(()) };
        let known = self.0.lock().get(&entry.name).filter(|checker| checker.text == *schema).cloned();
        let checker = match known {
            Some(checker) => checker,
            None if allowance.0.is_some() => return Err(CheckError::Slow),
            // Nobody waits for the lock meanwhile.
            None => {
                let checker = Arc::new(Checker::new(schema));
                self.0.lock().insert(entry.name.clone(), checker.clone());
                checker
            }
        };
        let compiled = checker.compiled.as_ref().map_err(|reason| CheckError::Mismatch(reason.clone()));
        let (validator, steps) = compiled?;
        if !allowance.take(steps.saturating_mul(data.len() as u64)) {
            return Err(CheckError::Slow);
        }
        let data = serde_json::from_str(data).map_err(|_| CheckError::Mismatch(unreadable()))?;
        first_mismatch(validator, &data).map_err(CheckError::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::Timestamp;

    fn entry(schema: &str) -> EventType {
        let now = Timestamp::from_millis(0);
        let (name, schema) = ("a.b".to_owned(), Some(schema.to_owned()));
        EventType { name, description: None, schema, example: None, created_at: now, updated_at: now }
    }

    #[test]
    fn a_thread_that_serves_requests_compiles_nothing_and_checks_what_is_quick() {
        let (schemas, quick) = (Schemas::default(), entry(r#"{"maxProperties":1}"#));
        let (small, large) = ("{}", format!(r#"{{"a":"{}"}}"#, "x".repeat(200_000)));
        let here = |entry: &EventType, data: &str| schemas.check(entry, data, &mut Allowance::of_request());
        assert_eq!(here(&quick, small), Err(CheckError::Slow), "it is not compiled");
        assert_eq!(schemas.check(&quick, small, &mut Allowance::unbounded()), Ok(()));
        assert_eq!(here(&quick, small), Ok(()));
        let mut batch = Allowance::of_request();
        let checked: Vec<_> = (0..2).map(|_| schemas.check(&quick, &large, &mut batch)).collect();
        assert_eq!(checked, [Ok(()), Err(CheckError::Slow)], "the second is beyond what one call may do");
        assert_eq!(here(&entry(r#"{"maxProperties":0}"#), small), Err(CheckError::Slow), "it is another schema");
    }

    #[test]
    fn a_schema_that_would_not_be_stored_now_is_checked_on_threads_for_heavy_work_only() {
        let schemas = Schemas::default();
        let heavy = entry(r##"{"additionalProperties":{"allOf":[{"$ref":"#"},{"$ref":"#"}]}}"##);
        for _ in 0..2 {
            assert_eq!(schemas.check(&heavy, "{}", &mut Allowance::of_request()), Err(CheckError::Slow));
            assert_eq!(schemas.check(&heavy, "{}", &mut Allowance::unbounded()), Ok(()));
        }
        let mut deep = r##"{"$ref":"#/$defs/n0","$defs":{"##.to_owned();
        deep.extend((0..700).map(|n| format!(r##""n{n}":{{"$ref":"#/$defs/n{}"}},"##, n + 1)));
        deep.push_str(r#""n700":true}}"#);
        let refused = schemas.check(&entry(&deep), "{}", &mut Allowance::unbounded());
        assert_eq!(refused, Err(CheckError::Mismatch(TooHeavy::Nesting.words())));
    }
}
