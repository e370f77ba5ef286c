//! `/v1/event-types`: the operator's catalog.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Api;
use super::call::ApiCall;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault, Words};
use super::fields::{Field, Property, RequestBody as _, Shape, Slot, Text, body};
use super::openapi::schemas::{NullableObject, NullableSchema};
use super::schema_check::{compile_new, compile_stored, first_mismatch, no_object, unreadable_schema};
use crate::domain::event::{EventType, MAX_TYPE_CHARS, Operational, TEST_TYPE, is_type_name};
use crate::domain::id::AccountId;
use crate::store::{Catalog, Paged, Snapshot, StoreError};

/// Deepest nesting of a schema or an example: readers of JSON that give up do so at some 100.
const MAX_DEPTH: usize = 64;

/// Longest description, in characters.
const MAX_DESCRIPTION_CHARS: usize = 1_000;

/// An entry of the catalog.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Attributes {
    /// The name that publishers and endpoints use.
    #[schema(pattern = r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", max_length = 128)]
    pub name: String,
    /// What it means, for people.
    #[schema(required)]
    pub description: Option<String>,
    /// JSON Schema that the `data` of its events must match.
    #[schema(required, value_type = NullableSchema, inline)]
    pub schema: Option<Value>,
    /// An example of `data`.
    #[schema(required, value_type = NullableObject, inline)]
    pub example: Option<Value>,
    /// When it was added.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    pub updated_at: String,
}

fn resource(entry: &EventType) -> Resource<Attributes> {
    let json = |text: &Option<String>| text.as_deref().and_then(|text| serde_json::from_str(text).ok());
    Resource {
        r#type: "event_type".into(),
        id: entry.name.clone(),
        attributes: Attributes {
            name: entry.name.clone(),
            description: entry.description.clone(),
            schema: json(&entry.schema),
            example: json(&entry.example),
            created_at: time(entry.created_at),
            updated_at: time(entry.updated_at),
        },
    }
}

/// `GET /v1/event-types`
pub async fn list(call: ApiCall) -> Result<Answer, ApiError> {
    call.api.store.refresh().await?;
    let catalog = call.api.store.view().event_types();
    let mut entries: Vec<&EventType> = catalog.values().collect();
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let page = call.page();
    // What is beyond the greatest index is beyond the list.
    let skip = usize::try_from(page.offset()).unwrap_or(usize::MAX);
    let total = entries.len() as u64;
    let items = entries.into_iter().skip(skip).take(page.limit() as usize).collect();
    Ok(Answer::page(&Paged::exact(items, total), page, |entry| resource(entry)))
}

/// `POST /v1/event-types`
pub async fn create(call: ApiCall) -> Result<Answer, ApiError> {
    let new = new_event_type(&call.api, call.caller.account(), call.json()?).await?;
    let shown = new.name.clone();
    let pending_reply = call.pending_reply(|made: &EventType| Answer::new(201, &resource(made)));
    match call.store().create_event_type(new, pending_reply).await {
        Ok(made) => Ok(Answer::new(201, &resource(&made))),
        Err(StoreError::Exists) => Err(exists(shown)),
        Err(error) => Err(error.into()),
    }
}

/// Reads a new event type with every check that comes before the database, for a caller of this account.
pub async fn new_event_type(
    api: &Api,
    account: Option<AccountId>,
    body: Map<String, Value>,
) -> Result<EventType, ApiError> {
    // Schemas are compiled.
    let read = move || CreateEventType::read(&body, &TypeContext::of(&body, None));
    let read = api.heavy.run(account, read).await?;
    let CreateEventType { name, description, schema, example } = read?;
    if Operational::parse(&name).is_some() {
        return Err(exists(name));
    }
    let now = api.clock.now();
    Ok(EventType { name, description, schema, example, created_at: now, updated_at: now })
}

fn exists(name: String) -> ApiError {
    Fault::of_field(Code::EventTypeExists, "name").naming(name).into()
}

/// `PUT /v1/event-types/{name}`
pub async fn update(call: ApiCall) -> Result<Answer, ApiError> {
    let name = call.param("name", |name| Some(name.to_owned()))?;
    call.api.store.refresh().await?;
    let entry =
        call.api.store.view().event_types().get(&name).cloned().ok_or_else(|| ApiError::from(Code::NotFound))?;
    let body = call.json()?;
    // As in `new_event_type`.
    let read = move || (UpdateEventType::read_change(&body, &TypeContext::of(&body, Some(&entry))), entry);
    let (change, entry) = call.api.heavy.run(call.caller.account(), read).await?;
    let change = change?;
    let entry = EventType {
        description: change.description.unwrap_or(entry.description),
        schema: change.schema.unwrap_or(entry.schema),
        example: change.example.unwrap_or(entry.example),
        ..entry
    };
    let updated = call.store().update_event_type(entry).await?;
    Ok(Answer::new(200, &resource(&updated)))
}

/// `DELETE /v1/event-types/{name}`
pub async fn delete(call: ApiCall) -> Result<Answer, ApiError> {
    let name = call.param("name", |name| Some(name.to_owned()))?;
    call.store().delete_event_type(name).await?;
    Ok(Answer::no_content())
}

/// What the fields of an event type are read with.
#[derive(Default)]
pub struct TypeContext {
    /// The schema that the type will have, as far as the body's can be read.
    schema: Option<String>,
    /// The example that the type has.
    example: Option<String>,
}

impl TypeContext {
    fn of(body: &Map<String, Value>, entry: Option<&EventType>) -> Self {
        let (schema, example) = entry.map(|entry| (entry.schema.clone(), entry.example.clone())).unwrap_or_default();
        let named = body.get("schema").and_then(|schema| (SCHEMA.read)(&Self::default(), schema).ok());
        Self { schema: named.unwrap_or(schema), example }
    }
}

const NAME: Field<TypeContext, String> = Field {
    about: "The name: lowercase letters, digits and underscores in parts separated by dots. `test` is taken.",
    shape: Shape::Text(Text { pattern: Some(NAME_PATTERN), max: Some(MAX_TYPE_CHARS), ..Text::ANY }),
    nullable: false,
    codes: &[Code::TypeNameInvalid],
    read: |_, value| {
        let name = value.as_str().filter(|name| is_type_name(name) && *name != TEST_TYPE);
        name.map(str::to_owned).ok_or_else(|| vec![Fault::new(Code::TypeNameInvalid)])
    },
};

const NAME_PATTERN: &str = r"^[a-z0-9_]+(\.[a-z0-9_]+)*$";

const DESCRIPTION: Field<TypeContext, Option<String>> = Field {
    about: "What it means, for people.",
    shape: Shape::Text(Text { max: Some(MAX_DESCRIPTION_CHARS), ..Text::ANY }),
    nullable: true,
    codes: &[Code::TypeDescriptionInvalid],
    read: |_, value| match value {
        Value::Null => Ok(None),
        Value::String(text) if text.chars().count() <= MAX_DESCRIPTION_CHARS => Ok(Some(text.clone())),
        _ => Err(vec![Fault::new(Code::TypeDescriptionInvalid)]),
    },
};

/// A schema as JSON text.
const SCHEMA: Field<TypeContext, Option<String>> = Field {
    about: "JSON Schema that the `data` of its events must match, without references to other documents and quick to \
            check: the error says what is allowed.",
    shape: Shape::JsonSchema,
    nullable: true,
    codes: &[Code::TypeSchemaInvalid],
    read: |_, value| {
        if value.is_null() {
            return Ok(None);
        }
        let compiled = if depth(value) > MAX_DEPTH { Err(too_deep()) } else { compile_new(value) };
        match compiled {
            Ok(_) => Ok(Some(value.to_string())),
            Err(reason) => Err(vec![Fault::new(Code::TypeSchemaInvalid).because(&reason)]),
        }
    },
};

/// An example as JSON text.
const EXAMPLE: Field<TypeContext, Option<String>> = Field {
    about: "An example of `data`, which must match the schema.",
    shape: Shape::Object,
    nullable: true,
    codes: &[Code::TypeExampleInvalid],
    read: |context, value| {
        if value.is_null() {
            return Ok(None);
        }
        let checked = if depth(value) > MAX_DEPTH { Err(too_deep()) } else { context.check(value) };
        match checked {
            Ok(()) => Ok(Some(value.to_string())),
            Err(reason) => Err(vec![Fault::new(Code::TypeExampleInvalid).because(&reason)]),
        }
    },
};

/// The example in a change: one that stays must match a new schema.
struct ChangedExample;

impl Slot<TypeContext> for ChangedExample {
    type Value = Option<Option<String>>;

    fn property(&self, name: &'static str) -> Property {
        EXAMPLE.about("An example of `data`; `null` removes it.").change().property(name)
    }

    fn read(&self, context: &TypeContext, value: Option<&Value>) -> Result<Self::Value, Vec<Fault>> {
        let stored = context.example.as_deref().and_then(|example| serde_json::from_str(example).ok());
        match (value, stored) {
            (None, Some(stored)) => (EXAMPLE.read)(context, &stored).map(|_| None),
            (value, _) => EXAMPLE.change().read(context, value),
        }
    }
}

body! {
    /// A new entry of the catalog.
    pub struct CreateEventType(TypeContext) {
        name: String = NAME.required(Code::TypeNameRequired),
        description: Option<String> = DESCRIPTION.or_default(),
        schema: Option<String> = SCHEMA.or_default(),
        example: Option<String> = EXAMPLE.or_default(),
    }
}

body! {
    /// Changes what it names, and nothing else. At least one field.
    pub struct UpdateEventType(TypeContext) {
        description: Option<Option<String>> = DESCRIPTION
            .about("What it means, for people; `null` removes it.")
            .change(),
        schema: Option<Option<String>> = SCHEMA
            .about("JSON Schema that the `data` of its events must match; `null` removes it.")
            .change(),
        example: Option<Option<String>> = ChangedExample,
    }
}

/// How deep lists and objects stand in each other.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn too_deep() -> Words {
    let (english, spanish) = ("lists and objects may stand", "las listas y los objetos pueden anidarse");
    Words::new(
        format!("{english} in each other up to {MAX_DEPTH} deep"),
        format!("{spanish} hasta {MAX_DEPTH} niveles"),
    )
}

impl TypeContext {
    /// Whether an example is an object that matches the schema.
    fn check(&self, example: &Value) -> Result<(), Words> {
        if !example.is_object() {
            return Err(no_object());
        }
        let Some(schema) = &self.schema else { return Ok(()) };
        let schema = serde_json::from_str(schema).map_err(|_| unreadable_schema())?;
        let (schema, _) = compile_stored(&schema)?;
        first_mismatch(&schema, example)
    }
}
