//! Checks of JSON against the JSON Schemas of event types, which are compiled once and kept.

use std::sync::Arc;

use foldhash::HashMap;
use serde_json::Value;

use super::error::Words;
use crate::domain::event::EventType;
use crate::lock::Mutex;

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

/// Compiles a schema, or tells why it is not valid.
pub fn compile(schema: &Value) -> Result<Arc<jsonschema::Validator>, Words> {
    if !schema.is_object() && !schema.is_boolean() {
        return Err(Words::new("a schema is an object", "un esquema es un objeto"));
    }
    // Who writes `"format": "uuid"` wants it to be one, which the standard leaves open.
    let options = jsonschema::options().should_validate_formats(true);
    let invalid = |error: jsonschema::ValidationError<'_>| {
        let place = error.instance_path().as_str();
        Words::new(error.to_string(), format!("no es un JSON Schema válido en {}", place_in_spanish(place)))
    };
    options.build(schema).map(Arc::new).map_err(invalid)
}

/// Checks data against a schema; the error is the first mismatch.
pub fn first_mismatch(schema: &jsonschema::Validator, data: &Value) -> Result<(), Words> {
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

/// Compiled schemas, by event type. Bounded by the catalog.
#[derive(Default)]
pub struct Schemas(Mutex<HashMap<String, (String, Arc<jsonschema::Validator>)>>);

impl Schemas {
    /// Whether `data` (JSON text) matches the type's schema; the reason where it does not.
    pub fn check(&self, entry: &EventType, data: &str) -> Result<(), Words> {
        let Some(schema) = &entry.schema else { return Ok(()) };
        let validator = self.compiled(&entry.name, schema)?;
        let data = serde_json::from_str(data).map_err(|_| unreadable())?;
        first_mismatch(&validator, &data)
    }

    fn compiled(&self, name: &str, schema: &str) -> Result<Arc<jsonschema::Validator>, Words> {
        let mut known = self.0.lock();
        if let Some((text, validator)) = known.get(name)
            && text == schema
        {
            return Ok(validator.clone());
        }
        let parsed = serde_json::from_str(schema).map_err(|_| unreadable_schema())?;
        let validator = compile(&parsed)?;
        known.insert(name.to_owned(), (schema.to_owned(), validator.clone()));
        Ok(validator)
    }
}
