//! The operations of the OpenAPI document as the pages show them: one structure for each, and fields with their types
//! in words.

use std::sync::LazyLock;

use serde_json::Value;

use crate::api;
use crate::api::openapi::reference::{self, Reference, Response, Schema, Tag};

/// The document, made once.
static DOCUMENT: LazyLock<Reference> = LazyLock::new(|| Reference::of(&api::routes()));

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
    let group = |tag: &'static Tag| {
        let operations = CALLS.iter().filter(|operation| operation.group == tag.name).collect();
        Group { name: &tag.name, about: &tag.description, operations }
    };
    DOCUMENT.tags.iter().map(group).collect()
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
        let operation = DOCUMENT.operation(route.path, &route.method);
        let (_, success) = operation.responses.pairs().next().expect("the first response is the success");
        let content = success.content.as_ref();
        let json = content.and_then(|content| content.json.as_ref());
        Self {
            id: &operation.id,
            group: &operation.tags[0],
            method: route.method.to_string(),
            path: route.path,
            title: &operation.summary,
            about: &operation.description,
            audience: &operation.audience,
            permission: &operation.permission,
            bucket: &operation.bucket,
            guide: operation.guide.as_deref(),
            related: operation.related.iter().map(String::as_str).collect(),
            parameters: operation.parameters.iter().map(Parameter::read).collect(),
            body: operation.request_body.as_ref().and_then(RequestBody::read),
            success: (route.description.status, &success.description),
            answer: json.and_then(|content| answer(content.schema.data()?)),
            is_file: content.is_some() && json.is_none(),
            example: json.and_then(|content| content.example.as_ref()),
            statuses: operation.responses.pairs().map(|(number, response)| Status::read(number, response)).collect(),
            errors: operation.errors.iter().map(|error| (error.status, error.code.as_str())).collect(),
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
    fn read(parameter: &'static reference::Parameter) -> Self {
        let mut kind = kind(&parameter.schema);
        if let Some(default) = &parameter.schema.default {
            kind = format!("{kind} = {default}");
        }
        Self {
            name: &parameter.name,
            location: &parameter.place,
            kind,
            required: parameter.required,
            about: &parameter.description,
            example: parameter.example.as_ref(),
        }
    }
}

impl RequestBody {
    fn read(body: &'static reference::RequestBody) -> Option<Self> {
        let content = body.content.json.as_ref()?;
        let schema = DOCUMENT.resolved(&content.schema);
        let second = content.examples.as_ref().map(|examples| &examples.with);
        let example = content.example.as_ref().or(second.map(|example| &example.value));
        Some(Self {
            required: body.required,
            about: &schema.description,
            fields: fields(schema),
            example: example.expect("a body has an example"),
            example_title: second.map(|example| example.summary.as_str()),
        })
    }
}

impl Status {
    fn read(number: &str, response: &'static Response) -> Self {
        let json = response.content.as_ref().and_then(|content| content.json.as_ref());
        let is_file = response.content.is_some() && json.is_none();
        let component = json.and_then(|content| {
            let data = content.schema.data();
            let items = data.and_then(|data| data.items.as_deref());
            [Some(&content.schema), data, items].into_iter().flatten().find_map(Schema::component)
        });
        let headers = response.headers.pairs().map(|(name, header)| {
            let kind = header.schema.r#type.names().first();
            (name, kind.map_or("", String::as_str), header.description.as_str())
        });
        Self {
            number: number.parse().expect("the document has its answers by status"),
            about: &response.description,
            body: component.or(is_file.then_some("file")),
            headers: headers.collect(),
            example: json.and_then(|content| content.example.as_ref()),
        }
    }
}

/// What `data` holds: the resource's name, whether it is a list, and the fields of one.
fn answer(data: &'static Schema) -> Option<(&'static str, bool, Vec<Field>)> {
    let one = data.items.as_deref().unwrap_or(data);
    Some((one.component()?, data.items.is_some(), fields(DOCUMENT.resolved(one))))
}

fn fields(schema: &'static Schema) -> Vec<Field> {
    let field = |(name, property): (&'static str, &'static Schema)| {
        let property = DOCUMENT.resolved(property);
        let below = property.items.as_deref().map_or(property, |items| DOCUMENT.resolved(items));
        Field {
            name,
            kind: kind(property),
            required: schema.required.iter().any(|required| required == name),
            about: &property.description,
            bounds: bounds(property),
            fields: fields(below),
        }
    };
    schema.properties.pairs().map(field).collect()
}

/// `string (uuid)`, `integer`, `array of string`, `string | null`.
fn kind(schema: &Schema) -> String {
    let one = |name: &String| match (name.as_str(), &schema.items, &schema.format) {
        ("array", Some(items), _) => format!("array of {}", kind(DOCUMENT.resolved(items))),
        ("string", _, Some(format)) => format!("string ({format})"),
        (name, _, _) => name.to_owned(),
    };
    schema.r#type.names().iter().map(one).collect::<Vec<_>>().join(" | ")
}

/// Bounds and allowed values, as code.
fn bounds(schema: &Schema) -> Vec<String> {
    let values = match &schema.items {
        Some(items) if schema.r#enum.is_empty() => &items.r#enum,
        _ => &schema.r#enum,
    };
    let mut bounds: Vec<String> = values.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    bounds.extend(schema.r#const.clone());
    let least = schema.minimum.as_ref().filter(|least| least.as_i64() != Some(0));
    for (words, bound) in [
        ("≥", least),
        ("≤", schema.maximum.as_ref()),
        ("length ≥", schema.min_length.as_ref()),
        ("length ≤", schema.max_length.as_ref()),
        ("items ≥", schema.min_items.as_ref()),
        ("items ≤", schema.max_items.as_ref()),
    ] {
        bounds.extend(bound.map(|bound| format!("{words} {bound}")));
    }
    bounds.extend(schema.pattern.clone());
    bounds
}
