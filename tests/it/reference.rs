//! The reference against the server: every answer that any test of this suite gets is held against the OpenAPI
//! document.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::app::{Answer, App, Call};
use crate::command_line::printed;

/// The document that the server serves.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(|| aldaba::api::openapi::document(&aldaba::api::routes()));

/// Headers of any answer of any server, which the reference does not list with each call.
const USUAL_HEADERS: [&str; 9] = [
    "content-type",
    "content-length",
    "transfer-encoding",
    "cache-control",
    "date",
    "connection",
    "vary",
    "x-content-type-options",
    "strict-transport-security",
];

/// The operation that serves a path; parts that are written out win over parts that are named.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let parts: Vec<&str> = path.split(['?']).next().unwrap_or("").split('/').collect();
    let fits = |known: &str| {
        let known: Vec<&str> = known.split('/').collect();
        let same = |(known, part): (&&str, &&str)| known == part || (known.starts_with('{') && !part.is_empty());
        known.len() == parts.len() && known.iter().zip(&parts).all(same)
    };
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let best = paths.iter().filter(|(known, _)| fits(known)).min_by_key(|(known, _)| known.matches('{').count());
    best.and_then(|(_, item)| item.get(method.to_ascii_lowercase()))
}

/// Fails when the answer is not what the document says of this call.
pub fn check(method: &str, path: &str, answer: &Answer) {
    if !path.starts_with("/v1") || method == "HEAD" {
        return;
    }
    let shown = format!("{method} {path} answered {}", answer.status);
    let Some(operation) = operation(method, path) else {
        assert!([404, 405].contains(&answer.status), "{shown}, and the reference has no such call");
        return conforms(&json!({ "$ref": "#/components/schemas/ErrorResponse" }), &answer.json, &shown);
    };
    let response = &operation["responses"][answer.status.to_string()];
    assert!(response.is_object(), "{shown}, which the reference does not list: {}", answer.json);
    let contents = response["content"].as_object();
    match (contents, answer.header("content-type")) {
        (None, _) => assert!(answer.text.is_empty(), "{shown} with a body"),
        (Some(contents), "application/json") => {
            conforms(&contents["application/json"]["schema"], &answer.json, &shown);
        }
        (Some(contents), kind) => assert!(contents.contains_key(kind), "{shown} with {kind}"),
    }
    for code in answer.codes() {
        let listed = operation["x-errors"].as_array().expect("codes");
        let with_status: Vec<_> = listed.iter().filter(|known| known["code"] == code).collect();
        assert!(!with_status.is_empty(), "{shown} with {code}, which the reference does not list");
    }
    for name in answer.headers.keys().map(axum::http::HeaderName::as_str) {
        let usual = USUAL_HEADERS.contains(&name);
        let listed = response["headers"].as_object().expect("headers").keys().any(|k| k.eq_ignore_ascii_case(name));
        assert!(usual || listed, "{shown} with the header {name}, which the reference does not list");
    }
}

/// Fails when the value does not match, or has a field that the schema does not name.
fn conforms(schema: &Value, value: &Value, shown: &str) {
    static KNOWN: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);
    let validator = {
        let mut known = KNOWN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let whole = || json!({ "allOf": [schema], "components": DOCUMENT["components"] });
        known
            .entry(schema.to_string())
            .or_insert_with(|| Arc::new(jsonschema::validator_for(&whole()).expect("a schema")))
            .clone()
    };
    if let Err(error) = validator.validate(value) {
        panic!("{shown}, which does not match the reference: {error} at {}", error.instance_path());
    }
    named(schema, value, "", shown);
}

/// Every field of the value is named by the schema.
fn named(schema: &Value, value: &Value, place: &str, shown: &str) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).expect(reference),
        None => schema,
    };
    match value {
        Value::Object(fields) => {
            let Some(properties) = schema["properties"].as_object() else { return };
            for (name, value) in fields {
                let property = properties.get(name);
                let property = property.unwrap_or_else(|| panic!("{shown}: {place}/{name} is not in the reference"));
                named(property, value, &format!("{place}/{name}"), shown);
            }
        }
        Value::Array(items) => {
            for item in items {
                named(&schema["items"], item, &format!("{place}/*"), shown);
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_document_is_served_as_it_is_made() {
    let app = App::start().await;
    let served = Call::new(app.address, "GET", "/openapi.json").send().await.expect(200);
    assert_eq!(served.header("content-type"), "application/json");
    assert_eq!(served.json, *DOCUMENT);
    assert_eq!(served.json["openapi"], "3.1.0");
    let printed = printed(app.folder(), &["openapi"]);
    assert_eq!(serde_json::from_str::<Value>(&printed).expect("JSON"), *DOCUMENT);
}

#[tokio::test]
async fn a_change_of_nothing_is_told_every_field_that_can_be_changed() {
    let app = App::start().await;
    let (endpoint, _) = app.endpoint("http://127.0.0.1:9/").await;
    let new = json!({ "email": "ana@example.com", "role": "developer" });
    let user = app.post(&format!("/v1/accounts/{}/users", app.account), new).await.expect(201).id();
    let groups = aldaba::web::groups();
    let changes = groups.iter().flat_map(|group| &group.operations).filter(|call| call.method == "PUT");
    for call in changes {
        let id = if call.group == "Webhooks" { endpoint.clone() } else { app.account.to_string() };
        let path = call.path.replace("{id}", &id).replace("{user_id}", &user).replace("{name}", "validation.completed");
        let key = if call.audience == "operator" { &app.operator } else { &app.key };
        let refused = app.call("PUT", &path).bearer(key).json(&json!({})).send().await;
        let refused = refused.refused(422, "no_valid_fields", "");
        let detail = refused.json["errors"][0]["detail"].as_str().expect("a detail");
        let told = detail.trim_end_matches('.').rsplit_once(" of ").expect("a list").1.split(", ");
        let told: BTreeSet<&str> = told.collect();
        let fields = &call.body.as_ref().expect("a body").fields;
        assert_eq!(told, fields.iter().map(|field| field.name).collect(), "{}", call.id);
        let codes = DOCUMENT["paths"][call.path]["put"]["x-errors"].as_array().expect("codes");
        let shown = codes.iter().find(|code| code["code"] == "no_valid_fields").expect("the code");
        assert_eq!(shown["detail"], detail, "the reference's example");
    }
}
