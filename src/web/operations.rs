//! The operations of the OpenAPI document as the pages show them: one structure for each, and fields with their types
//! in words.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::api;

/// The document, made once.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| api::openapi::document(&api::routes()));

/// Every call, in the order of the routes.
static CALLS: LazyLock<Vec<Operation>> = LazyLock::new(|| api::routes().iter().map(Operation::read).collect());

/// A resource and what it is for.
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// In one sentence.
    pub about: &'static str,
    /// Its calls.
    pub operations: Vec<&'static Operation>,
}

/// A call, as its page tells it.
pub struct Operation {
    /// The `operationId`.
    pub id: &'static str,
    /// The resource.
    pub group: &'static str,
    /// The HTTP method.
    pub method: String,
    /// The path with its `{names}`.
    pub path: &'static str,
    /// The title.
    pub title: &'static str,
    /// Markdown.
    pub about: &'static str,
    /// `public` or `operator`.
    pub audience: &'static str,
    /// The permission.
    pub permission: &'static str,
    /// The rate limit's bucket.
    pub bucket: &'static str,
    /// The guide that shows it in use.
    pub guide: Option<&'static str>,
    /// Ids of calls that belong together with it.
    pub related: Vec<&'static str>,
    /// Path, query and header parameters.
    pub parameters: Vec<Parameter>,
    /// The request body.
    pub body: Option<RequestBody>,
    /// The status of the success, and what it means.
    pub success: (u16, &'static str),
    /// The name of the resource in the answer, whether it is a list, and its fields.
    pub answer: Option<(&'static str, bool, Vec<Field>)>,
    /// Whether the answer is a file.
    pub is_file: bool,
    /// An answer as the server gave it.
    pub example: Option<&'static Value>,
    /// Every status: number, meaning, the name of the body's schema, and response headers.
    pub statuses: Vec<Status>,
    /// Every error code after its status.
    pub errors: Vec<(u16, &'static str)>,
}

/// A parameter outside the body.
pub struct Parameter {
    /// The name.
    pub name: &'static str,
    /// `path`, `query` or `header`.
    pub location: &'static str,
    /// Its type in words.
    pub kind: String,
    /// Whether the call needs it.
    pub required: bool,
    /// What it is.
    pub about: &'static str,
    /// The value that the example gives it.
    pub example: Option<&'static Value>,
}

/// A request body.
pub struct RequestBody {
    /// Whether the call needs one.
    pub required: bool,
    /// What it is.
    pub about: &'static str,
    /// Its fields.
    pub fields: Vec<Field>,
    /// An example.
    pub example: &'static Value,
    /// What the example shows, where the call has another one without a body.
    pub example_title: Option<&'static str>,
}

/// A field, with those below it.
pub struct Field {
    /// The name.
    pub name: &'static str,
    /// Its type in words.
    pub kind: String,
    /// Whether it is always there, or needed.
    pub required: bool,
    /// What it is.
    pub about: &'static str,
    /// Bounds and allowed values, in words.
    pub bounds: Vec<String>,
    /// Fields of an object, or of the members of a list.
    pub fields: Vec<Field>,
}

/// A status that a call can answer with.
pub struct Status {
    /// The number.
    pub number: u16,
    /// What it means.
    pub about: &'static str,
    /// The name of the body's schema, or `file`; `None` without a body.
    pub body: Option<&'static str>,
    /// Its headers: name, type, what it is.
    pub headers: Vec<(&'static str, &'static str, &'static str)>,
    /// The envelope of an error, as it may read.
    pub example: Option<&'static Value>,
}

/// Every resource with its calls.
pub fn groups() -> Vec<Group> {
    let tags = DOCUMENT["tags"].as_array().map_or(&[][..], Vec::as_slice);
    let group = |tag: &'static Value| {
        let name = text(&tag["name"]);
        let operations = CALLS.iter().filter(|operation| operation.group == name).collect();
        Group { name, about: text(&tag["description"]), operations }
    };
    tags.iter().map(group).collect()
}

/// The call with this id.
pub fn operation(id: &str) -> Option<&'static Operation> {
    CALLS.iter().find(|operation| operation.id == id)
}

/// The last part of a page's address: a name with hyphens.
pub fn slug(name: &str) -> String {
    name.to_ascii_lowercase().replace([' ', '_'], "-")
}

impl Operation {
    fn read(route: &api::Route) -> Self {
        let operation: &'static Value = &DOCUMENT["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
        let responses = operation["responses"].as_object();
        let statuses: Vec<Status> =
            responses.into_iter().flatten().map(|(number, response)| Status::read(number, response)).collect();
        let success = statuses.iter().find(|status| status.number < 300).map_or((200, ""), |s| (s.number, s.about));
        let contents = &operation["responses"][success.0.to_string()]["content"];
        let content = &contents["application/json"];
        let errors = list(&operation["x-errors"]).map(|error| {
            let status = error["status"].as_u64().and_then(|status| u16::try_from(status).ok()).unwrap_or(500);
            (status, text(&error["code"]))
        });
        Self {
            id: text(&operation["operationId"]),
            group: text(&operation["tags"][0]),
            method: route.method.to_string(),
            path: route.path,
            title: text(&operation["summary"]),
            about: text(&operation["description"]),
            audience: text(&operation["x-audience"]),
            permission: text(&operation["x-permission"]),
            bucket: text(&operation["x-rate-limit-bucket"]),
            guide: operation["x-guide"].as_str(),
            related: list(&operation["x-related"]).map(text).collect(),
            parameters: list(&operation["parameters"]).map(Parameter::read).collect(),
            body: RequestBody::read(&operation["requestBody"]),
            success,
            answer: answer(&content["schema"]["properties"]["data"]),
            is_file: contents.is_object() && content.is_null(),
            example: content.get("example"),
            statuses,
            errors: errors.collect(),
        }
    }

    /// The names of its body's fields.
    pub fn body_fields(&self) -> String {
        let fields = self.body.iter().flat_map(|body| &body.fields);
        fields.map(|field| field.name).collect::<Vec<_>>().join(", ")
    }

    /// The address of its page, below the site's root and without the ending.
    pub fn page(&self) -> String {
        format!("/docs/{}/{}", slug(self.group), slug(self.id))
    }
}

impl Parameter {
    fn read(parameter: &'static Value) -> Self {
        let mut kind = kind(&parameter["schema"]);
        if let Some(default) = parameter["schema"].get("default") {
            kind = format!("{kind} = {default}");
        }
        Self {
            name: text(&parameter["name"]),
            location: text(&parameter["in"]),
            kind,
            required: parameter["required"] == true,
            about: text(&parameter["description"]),
            example: parameter.get("example"),
        }
    }
}

impl RequestBody {
    fn read(body: &'static Value) -> Option<Self> {
        let content = body["content"].get("application/json")?;
        let schema = resolved(&content["schema"]);
        Some(Self {
            required: body["required"] == true,
            about: text(&schema["description"]),
            fields: fields(schema),
            example: content.get("example").unwrap_or(&content["examples"]["with"]["value"]),
            example_title: content["examples"]["with"]["summary"].as_str(),
        })
    }
}

impl Status {
    fn read(number: &str, response: &'static Value) -> Self {
        let schema = &response["content"]["application/json"]["schema"];
        let is_file = response["content"].is_object() && schema.is_null();
        let reference = schema["$ref"].as_str().or_else(|| {
            let data = &schema["properties"]["data"];
            data["$ref"].as_str().or_else(|| data["items"]["$ref"].as_str())
        });
        let headers = response["headers"].as_object().into_iter().flatten();
        let headers = headers
            .map(|(name, header)| (name.as_str(), text(&header["schema"]["type"]), text(&header["description"])));
        Self {
            number: number.parse().unwrap_or(500),
            about: text(&response["description"]),
            body: reference.and_then(|reference| reference.rsplit('/').next()).or(is_file.then_some("file")),
            headers: headers.collect(),
            example: response["content"]["application/json"].get("example"),
        }
    }
}

/// What `data` holds: the resource's name, whether it is a list, and the fields of one.
fn answer(data: &'static Value) -> Option<(&'static str, bool, Vec<Field>)> {
    let is_list = data.get("items").is_some();
    let one = if is_list { &data["items"] } else { data };
    let name = one["$ref"].as_str()?.rsplit('/').next()?;
    Some((name, is_list, fields(resolved(one))))
}

fn fields(schema: &'static Value) -> Vec<Field> {
    let required: Vec<&str> = list(&schema["required"]).map(text).collect();
    let properties = schema["properties"].as_object().into_iter().flat_map(Map::iter);
    let field = |(name, property): (&'static String, &'static Value)| {
        let property = resolved(property);
        let below = if property.get("items").is_some() { resolved(&property["items"]) } else { property };
        Field {
            name,
            kind: kind(property),
            required: required.contains(&name.as_str()),
            about: text(&property["description"]),
            bounds: bounds(property),
            fields: fields(below),
        }
    };
    properties.map(field).collect()
}

/// `string (uuid)`, `integer`, `array of string`, `string | null`.
fn kind(schema: &'static Value) -> String {
    let one = |name: &'static str| match (name, schema["format"].as_str()) {
        ("array", _) => format!("array of {}", kind(resolved(&schema["items"]))),
        ("string", Some(format)) => format!("string ({format})"),
        (name, _) => name.to_owned(),
    };
    match &schema["type"] {
        Value::Array(names) => names.iter().map(|name| one(text(name))).collect::<Vec<_>>().join(" | "),
        name => one(text(name)),
    }
}

/// Bounds and allowed values, as code.
fn bounds(schema: &'static Value) -> Vec<String> {
    let mut bounds = Vec::new();
    let values = if schema.get("enum").is_some() { &schema["enum"] } else { &schema["items"]["enum"] };
    bounds.extend(list(values).filter_map(Value::as_str).map(str::to_owned));
    bounds.extend(schema["const"].as_str().map(str::to_owned));
    for (name, words) in [
        ("minimum", "≥"),
        ("maximum", "≤"),
        ("minLength", "length ≥"),
        ("maxLength", "length ≤"),
        ("minItems", "items ≥"),
        ("maxItems", "items ≤"),
        ("pattern", ""),
    ] {
        match &schema[name] {
            Value::Null => {}
            Value::Number(zero) if name == "minimum" && zero.as_i64() == Some(0) => {}
            Value::String(pattern) => bounds.push(pattern.clone()),
            value => bounds.push(format!("{words} {value}")),
        }
    }
    bounds
}

fn resolved(schema: &'static Value) -> &'static Value {
    let reference = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
    reference.and_then(|pointer| DOCUMENT.pointer(pointer)).unwrap_or(schema)
}

fn list(value: &'static Value) -> impl Iterator<Item = &'static Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &'static Value) -> &'static str {
    value.as_str().unwrap_or("")
}
