//! The document as the pages of the reference read it: what they show of it, under the names of OpenAPI 3.1 and JSON
//! Schema.

use axum::http::Method;
use serde::Deserialize;
use serde_json::{Number, Value};

use super::Route;
use crate::api::entries::Entries;

/// The document.
#[derive(Deserialize)]
pub struct Reference {
    /// The resources.
    pub tags: Vec<Tag>,
    /// Calls by path, and by method in lowercase.
    paths: Entries<Entries<Operation>>,
    components: Components,
}

#[derive(Deserialize)]
struct Components {
    schemas: Entries<Schema>,
}

/// A resource.
#[derive(Deserialize)]
pub struct Tag {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
}

/// A call.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Its name for programs.
    #[serde(rename = "operationId")]
    pub id: String,
    /// Its resource.
    pub tags: [String; 1],
    /// Its title.
    pub summary: String,
    /// What it does, in Markdown.
    pub description: String,
    /// `public` or `operator`.
    #[serde(rename = "x-audience")]
    pub audience: String,
    /// The permission that it takes.
    #[serde(rename = "x-permission")]
    pub permission: String,
    /// The bucket that it counts in.
    #[serde(rename = "x-rate-limit-bucket")]
    pub bucket: String,
    /// The guide that shows it in use.
    #[serde(rename = "x-guide")]
    pub guide: Option<String>,
    /// Names of calls that belong together with it.
    #[serde(rename = "x-related")]
    pub related: Vec<String>,
    /// What it takes in its path, its query and its headers.
    pub parameters: Vec<Parameter>,
    /// The body that it takes.
    pub request_body: Option<RequestBody>,
    /// What it answers, by status.
    pub responses: Entries<Response>,
    /// Its error codes.
    #[serde(rename = "x-errors")]
    pub errors: Vec<ErrorCode>,
}

/// An error code.
#[derive(Deserialize)]
pub struct ErrorCode {
    /// The status of the answer.
    pub status: u16,
    /// The code.
    pub code: String,
}

/// A parameter outside the body.
#[derive(Deserialize)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// `path`, `query` or `header`.
    #[serde(rename = "in")]
    pub place: String,
    /// Whether the call needs it.
    pub required: bool,
    /// What it is.
    pub description: String,
    /// What it takes.
    pub schema: Schema,
    /// The value that the example gives it.
    pub example: Option<Value>,
}

/// The body of a request.
#[derive(Deserialize)]
pub struct RequestBody {
    /// Whether the call needs one.
    pub required: bool,
    /// What it can be.
    pub content: Contents,
}

/// An answer.
#[derive(Deserialize)]
pub struct Response {
    /// What it means.
    pub description: String,
    /// Its headers.
    pub headers: Entries<Header>,
    /// Its body; `None` where it has none.
    pub content: Option<Contents>,
}

/// A header of an answer.
#[derive(Deserialize)]
pub struct Header {
    /// What it is.
    pub description: String,
    /// What it holds.
    pub schema: Schema,
}

/// A body, by media type.
#[derive(Deserialize)]
pub struct Contents {
    /// As JSON; a file is not.
    #[serde(rename = "application/json")]
    pub json: Option<Content>,
}

/// A body of JSON.
#[derive(Deserialize)]
pub struct Content {
    /// What it holds.
    pub schema: Schema,
    /// An example.
    pub example: Option<Value>,
    /// Two of them, where the call needs no body.
    pub examples: Option<Examples>,
}

/// Examples of a body that the call does not need.
#[derive(Deserialize)]
pub struct Examples {
    /// The one that is not empty.
    pub with: Example,
}

/// An example of a body.
#[derive(Deserialize)]
pub struct Example {
    /// What it shows.
    pub summary: String,
    /// The body.
    pub value: Value,
}

/// What a value is like.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Schema {
    #[serde(rename = "$ref")]
    reference: Option<String>,
    /// Its types.
    pub r#type: Types,
    /// The format of a string.
    pub format: Option<String>,
    /// What it is.
    pub description: String,
    /// Fields that are always there, or needed.
    pub required: Vec<String>,
    /// The fields of an object.
    pub properties: Entries<Schema>,
    /// The members of a list.
    pub items: Option<Box<Schema>>,
    /// The values that it can have.
    pub r#enum: Vec<Value>,
    /// The only value that it has.
    pub r#const: Option<String>,
    /// The value that counts where none is given.
    pub default: Option<Value>,
    /// The least number.
    pub minimum: Option<Number>,
    /// The largest number.
    pub maximum: Option<Number>,
    /// The fewest characters.
    pub min_length: Option<Number>,
    /// The most characters.
    pub max_length: Option<Number>,
    /// The fewest members.
    pub min_items: Option<Number>,
    /// The most members.
    pub max_items: Option<Number>,
    /// The regular expression of a string.
    pub pattern: Option<String>,
}

/// One type or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Types {
    /// One.
    One(String),
    /// Several.
    Several(Vec<String>),
}

impl Default for Types {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Types {
    /// Their names.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

impl Schema {
    /// The name of the component that it refers to.
    pub fn component(&self) -> Option<&str> {
        self.reference.as_deref()?.rsplit('/').next()
    }

    /// What an answer of this schema has as `data`.
    pub fn data(&self) -> Option<&Self> {
        self.properties.of("data")
    }
}

impl Reference {
    /// The document for these routes.
    pub fn of(routes: &[Route]) -> Self {
        serde_json::from_value(super::document(routes)).expect("the document has what the reference shows")
    }

    /// A call of one of the routes.
    pub fn operation(&self, path: &str, method: &Method) -> &Operation {
        let methods = self.paths.of(path);
        let operation = methods.and_then(|methods| methods.of(&method.as_str().to_ascii_lowercase()));
        operation.expect("the document has every route")
    }

    /// The component that a schema refers to, or the schema itself.
    pub fn resolved<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        schema.component().and_then(|name| self.components.schemas.of(name)).unwrap_or(schema)
    }
}
