//! The OpenAPI 3.1 document, made from what the router serves: method, path, permission and bucket of every call come
//! from the routes themselves, the shapes of answers from the structures that are serialised, codes and details from
//! [`Code`]. What only people can say of a call is in `calls`.

pub(super) mod calls;
mod components;
pub(super) mod description;
mod filters;
pub(crate) mod reference;
pub(super) mod schemas;

use std::sync::LazyLock;

use axum::http::Method;
use serde_json::{Map, Value, json};

use super::bodies::MAX_BATCH_BODY;
use super::error::{Code, Language};
use super::export::MAX_ROWS;
use super::fields::BodySchema;
use super::rules::{KeyScope, RouteRules};
use super::trace_context;
use crate::table::Format;
use description::{Body, Description, Kind, Shape, Tag};

/// What the server answered to each call's example, with ids, times and secrets replaced by fixed ones. The tests write
/// this file and fail when an answer has changed.
static ANSWERS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("answers.json")).expect("the tests have written JSON"));

/// A call that the router serves.
#[derive(Clone, Debug)]
pub struct Route {
    /// The HTTP method.
    pub method: Method,
    /// The path, with `{names}` for its parts.
    pub path: &'static str,
    /// What is checked before the handler.
    pub rules: RouteRules,
    /// What the reference says of it.
    pub description: &'static Description,
}

/// The document for these routes.
pub fn document(routes: &[Route]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    let tags: Vec<Value> = Tag::ALL.iter().map(|t| json!({ "name": t.name(), "description": t.about() })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Aldaba API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Webhooks that arrive: register endpoints, publish events, see every delivery.\n\nEvery \
                            call takes `Authorization: Bearer <key>`. Answers are `{\"data\", \"meta\"}` or \
                            `{\"errors\", \"meta\"}`; error details are English or Spanish by `Accept-Language`, error \
                            codes never change. Times are ISO 8601 in UTC with whole seconds and `Z`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "This server." }],
        "security": [{ "key": [] }],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": { "key": {
                "type": "http",
                "scheme": "bearer",
                "description": "An API key: a prefix (by default `mxcep_`) and 64 lowercase hex characters.",
            } },
            "schemas": components::components(routes),
        },
    })
}

fn operation(route: &Route) -> Value {
    let Description { id, tag, title, about, guide, related, .. } = *route.description;
    let mut operation = json!({
        "operationId": id,
        "tags": [tag.name()],
        "summary": title,
        "description": about,
        "x-permission": route.rules.permission.name(),
        "x-audience": if route.rules.keys == KeyScope::Operator { "operator" } else { "public" },
        "x-rate-limit-bucket": route.rules.bucket.name(),
        "x-related": related,
        "parameters": parameters(route),
    });
    if let Some(guide) = guide {
        operation["x-guide"] = guide.into();
    }
    if let Some(body) = request_body(&route.description.body) {
        operation["requestBody"] = body;
    }
    let codes = codes(route);
    operation["responses"] = responses(route, &codes);
    operation["x-errors"] = codes
        .iter()
        .map(|code| json!({ "status": code.status(), "code": code.name(), "detail": detail(route, *code) }))
        .collect();
    operation
}

/// The detail of a code as a call may answer it.
fn detail(route: &Route, code: Code) -> String {
    let fields = route.description.body.schema().map(|body| body.names()).unwrap_or_default();
    code.example_of(Language::English, &fields)
}

/// Every code that a call can answer with, by status.
fn codes(route: &Route) -> Vec<Code> {
    let mut codes =
        vec![Code::Unauthorized, Code::Forbidden, Code::RateLimitExceeded, Code::InternalError, Code::Unavailable];
    if route.path.contains('{') {
        codes.push(Code::NotFound);
    }
    if route.method == Method::POST {
        codes.extend([Code::InvalidIdempotencyKey, Code::IdempotencyKeyInProgress, Code::IdempotencyKeyReused]);
    }
    let of_json = [Code::InvalidJson, Code::BodyTooLarge, Code::UnsupportedMediaType];
    match route.description.body {
        Body::None => {}
        Body::Json(..) | Body::Batch(..) => {
            codes.push(Code::BodyEmpty);
            codes.extend(of_json);
        }
        Body::Optional(..) | Body::Ignored => codes.extend(of_json),
    }
    if !route.description.filters.is_empty() {
        codes.push(Code::InvalidFilter);
    }
    codes.extend(route.description.errors);
    codes.extend(route.description.body.schema().into_iter().flat_map(|body| body.properties).flat_map(|p| p.codes));
    codes.sort_by_key(|code| (code.status(), Code::ALL.iter().position(|known| known == code)));
    codes.dedup();
    codes
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut parameters = Vec::new();
    for name in route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
        let (about, uuid) = match (route.description.tag, name) {
            _ if route.path.starts_with("/v1/webhooks/deliveries/") => {
                ("Id of the delivery: a decimal integer.", false)
            }
            _ if route.path.starts_with("/v1/webhooks/replays/") => ("UUID of the replay.", true),
            (Tag::Webhooks | Tag::Deliveries, _) => ("UUID of the webhook endpoint, or its `external_id`.", false),
            (Tag::Events, _) => ("UUID of the event.", true),
            (Tag::EventTypes, _) => ("Name of the event type.", false),
            (_, "key_id") => ("UUID of the key, not the key.", true),
            _ => ("UUID of the account, or its `external_id`.", false),
        };
        let schema = if uuid { json!({ "type": "string", "format": "uuid" }) } else { json!({ "type": "string" }) };
        let parameter = json!({ "name": name, "in": "path", "required": true, "description": about, "schema": schema });
        parameters.push(parameter);
    }
    if matches!(route.description.answer, Shape::Page(..)) {
        for (name, default, most, about) in [
            (
                "page",
                1,
                None,
                "Which page, from 1. What is out of range or no number is clamped. Pages hold the newest 100,000 rows; \
                 later pages are empty.",
            ),
            ("per_page", 50, Some(100), "Rows on a page, 1 to 100. What is out of range or no number is clamped."),
        ] {
            let mut schema = json!({ "type": "integer", "minimum": 1, "default": default });
            let mut parameter = json!({ "name": name, "in": "query", "required": false, "description": about });
            if let Some(most) = most {
                schema["maximum"] = most.into();
                parameter["example"] = 2.into();
            }
            parameter["schema"] = schema;
            parameters.push(parameter);
        }
    }
    if matches!(route.description.answer, Shape::File(..)) {
        parameters.push(json!({
            "name": "format", "in": "query", "required": false,
            "description": "`csv` or `xlsx`; what is unknown is CSV.",
            "schema": { "type": "string", "default": "csv" },
        }));
        parameters.push(json!({
            "name": "limit", "in": "query", "required": false,
            "description": "Rows of the file, 1 to 100,000. What is out of range or no number is clamped.",
            "schema": { "type": "integer", "minimum": 1, "maximum": MAX_ROWS, "default": MAX_ROWS },
            "example": 1000,
        }));
    }
    parameters.extend(route.description.filters.iter().map(filter));
    if route.method == Method::POST {
        parameters.push(json!({
            "name": "Idempotency-Key",
            "in": "header",
            "required": false,
            "description": "Makes the call safe to repeat: for 24 hours the same key and body get the first answer \
                            again.",
            "schema": { "type": "string", "pattern": "^[A-Za-z0-9_-]{1,255}$" },
        }));
        if route.description.tag == Tag::Events {
            parameters.extend(trace_context::parameters());
        }
    }
    parameters
}

/// A filter as a parameter.
fn filter((name, about): &(&str, &str)) -> Value {
    let number = name.starts_with("min_");
    let schema = if number { json!({ "type": "integer", "minimum": 0 }) } else { json!({ "type": "string" }) };
    json!({ "name": name, "in": "query", "required": false, "description": about, "schema": schema })
}

fn request_body(body: &Body) -> Option<Value> {
    let reference = |schema: fn() -> BodySchema| json!({ "$ref": format!("#/components/schemas/{}", schema().name) });
    let parsed = |example: &str| serde_json::from_str::<Value>(example).expect("an example of a body is JSON");
    let content =
        |schema: fn() -> BodySchema, example: &str| json!({ "schema": reference(schema), "example": parsed(example) });
    match *body {
        Body::None | Body::Ignored => None,
        Body::Json(schema, example) => {
            Some(json!({ "required": true, "content": { "application/json": content(schema, example) } }))
        }
        Body::Optional(schema, example, about) => {
            let examples = json!({
                "without": { "summary": "Without options", "value": {} },
                "with": { "summary": about, "value": parsed(example) },
            });
            let content = json!({ "schema": reference(schema), "examples": examples });
            Some(json!({ "required": false, "content": { "application/json": content } }))
        }
        Body::Batch(schema, example) => Some(json!({
            "required": true,
            "description": format!("Up to {} MiB.", MAX_BATCH_BODY >> 20),
            "content": {
                "application/json": content(schema, example),
                "application/x-ndjson": { "schema": {
                    "type": "string",
                    "description": "One event on each line, each a JSON object like the members of `events`.",
                } },
            },
        })),
    }
}

fn responses(route: &Route, codes: &[Code]) -> Value {
    let mut responses = Map::new();
    let Description { status, answer, .. } = *route.description;
    let reference = |kind: Kind| json!({ "$ref": format!("#/components/schemas/{}", kind.names().0) });
    let list = |kind: Kind| json!({ "type": "array", "items": reference(kind) });
    let (about, data, meta) = match answer {
        Shape::Nothing(about) | Shape::File(about) => (about, None, ""),
        Shape::One(kind, about) => (about, Some(reference(kind)), "Meta"),
        Shape::List(kind, about) => (about, Some(list(kind)), "Meta"),
        Shape::Page(kind, about) => (about, Some(list(kind)), "PageMeta"),
    };
    let mut success = json!({ "description": about, "headers": headers(route, status) });
    if let Some(data) = data {
        success["content"] = json!({ "application/json": { "schema": {
            "type": "object",
            "required": ["data", "meta"],
            "properties": { "data": data, "meta": { "$ref": format!("#/components/schemas/{meta}") } },
        } } });
        if let Some(answer) = ANSWERS.get(route.description.id) {
            success["content"]["application/json"]["example"] = answer.clone();
        }
    }
    if matches!(answer, Shape::File(..)) {
        for (name, disposition) in [
            ("Content-Disposition", "`attachment`, with a name for the file."),
            ("X-Content-Type-Options", "`nosniff`."),
        ] {
            success["headers"][name] = json!({ "description": disposition, "schema": { "type": "string" } });
        }
        let file = json!({ "schema": { "type": "string", "format": "binary" } });
        success["content"] =
            [Format::Csv, Format::Xlsx].map(|format| (format.media_type(), file.clone())).into_iter().collect();
    }
    responses.insert(status.to_string(), success);
    for code in codes {
        let status = code.status();
        let of_status = codes.iter().filter(|code| code.status() == status).map(|code| code.name());
        responses.entry(status.to_string()).or_insert_with(|| {
            json!({
                "description": meaning(status),
                "headers": headers(route, status),
                "x-codes": of_status.collect::<Vec<_>>(),
                "content": { "application/json": {
                    "schema": { "$ref": "#/components/schemas/ErrorResponse" },
                    "example": envelope(route, *code),
                } },
            })
        });
    }
    responses.into()
}

/// An error's envelope as it would be answered.
fn envelope(route: &Route, code: Code) -> Value {
    let detail = detail(route, code);
    let mut meta = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "api_version": "v1",
        "request_id": "c4d5e6f7a8b9",
        "datetime": { "timezone": "UTC", "format": "ISO 8601" },
    });
    if code == Code::RateLimitExceeded {
        meta["retry_after"] = 45.into();
    }
    json!({ "errors": [{ "status": code.status().to_string(), "code": code.name(), "detail": detail }], "meta": meta })
}

fn headers(route: &Route, status: u16) -> Value {
    let text = |about: &str| json!({ "description": about, "schema": { "type": "string" } });
    let integer = |about: &str| json!({ "description": about, "schema": { "type": "integer" } });
    let mut headers = json!({ "X-Request-Id": text("Names this request, like `meta.request_id`.") });
    if route.method == Method::POST && status < 500 && ![401, 403, 429].contains(&status) {
        let about = "`true` when this is the stored reply to an earlier call with the same `Idempotency-Key`.";
        headers["Idempotent-Replayed"] = text(about);
    }
    match status {
        401 => headers["WWW-Authenticate"] = text("`Bearer`."),
        409 if route.method == Method::POST => {
            headers["Retry-After"] =
                integer("With `idempotency_key_in_progress`: seconds to wait before the next try, 1 to 5.");
        }
        429 => {
            headers["Retry-After"] = integer("Seconds to wait before the next try.");
            headers["X-RateLimit-Limit"] = integer("Calls that the bucket allows in one window (only on 429).");
            headers["X-RateLimit-Remaining"] = integer("Calls left in the current window: always 0 (only on 429).");
            headers["X-RateLimit-Reset"] = integer("Unix time in seconds when the window resets (only on 429).");
        }
        503 => headers["Retry-After"] = integer("Seconds to wait before the next try."),
        _ => {}
    }
    headers
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request cannot be read, or the receiver's host cannot be used.",
        401 => "Authentication is required or the provided credentials are invalid.",
        403 => "The key lacks the permission, or is of the wrong kind.",
        404 => "It does not exist, or does not belong to the account.",
        409 => "It conflicts with something that exists or is under way.",
        413 => "The body is too large.",
        415 => "The body's media type is not supported.",
        422 => "A field is missing or not valid.",
        429 => "Rate limit exceeded.",
        503 => "The service cannot answer right now.",
        _ => "Something went wrong inside. It was logged with the request's id.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_a_name_of_its_own_and_relations_that_exist() {
        let routes = crate::api::routes();
        let document = document(&routes);
        let known: Vec<&str> = routes.iter().map(|route| route.description.id).collect();
        for (index, route) in routes.iter().enumerate() {
            assert!(!known[..index].contains(&route.description.id), "{} twice", route.description.id);
            for related in route.description.related {
                assert!(known.contains(related), "{}: {related}", route.description.id);
            }
            let operation = &document["paths"][route.path][route.method.as_str().to_ascii_lowercase()];
            let body = &operation["requestBody"]["content"]["application/json"];
            if let Some(name) = body["schema"]["$ref"].as_str().and_then(|name| name.rsplit('/').next()) {
                assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
                let example = body.get("example").unwrap_or(&body["examples"]["with"]["value"]);
                assert!(example.is_object(), "{}: the example is JSON", route.description.id);
            }
        }
    }
}
