//! What Svix's API has, as bodies of ours: event types, applications (accounts here) and endpoints with their secrets.
//! An endpoint moves whole or not at all, because a receiver would notice what is missing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::maker::{Body, Maker, Owner};
use super::report::{Fault, Item, Outcome, Place, Report};
use super::svix_source::{Listing, Source, id_of};
use crate::domain::external_id::ExternalId;

const EVENT_TYPES: &str = "/api/v1/event-type/";
const APPLICATIONS: &str = "/api/v1/app/";

/// What an asymmetric key begins with. Svix tells its public half only.
const PUBLIC_KEY: &str = "whpk_";

/// A thing as a body, what else its owner should know, and what is wrong with it.
#[derive(Default)]
struct Mapped {
    body: Body,
    notes: Vec<String>,
    faults: Vec<Fault>,
}

impl Mapped {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.body.insert(name.to_owned(), value.into());
    }

    /// Takes a value over, unless it is nothing: the API reads it, and refuses what it cannot be.
    fn take(&mut self, name: &str, value: &Value) {
        let is_empty = match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        if !is_empty {
            self.set(name, value.clone());
        }
    }
}

/// Makes all that the source has.
pub(super) async fn import(maker: &mut Maker, report: &mut Report, source: &mut Source) -> anyhow::Result<()> {
    let archived = move_event_types(maker, report, source).await?;
    let mut list = Listing::new(APPLICATIONS.to_owned(), "");
    while let Some(page) = source.next(&mut list).await? {
        for row in &page {
            move_application(maker, report, source, row, &archived).await?;
        }
    }
    Ok(())
}

/// Makes the event types. Returns the archived ones, which no message can have.
async fn move_event_types(
    maker: &mut Maker,
    report: &mut Report,
    source: &mut Source,
) -> anyhow::Result<BTreeSet<String>> {
    let mut archived = BTreeSet::new();
    let mut list = Listing::new(EVENT_TYPES.to_owned(), "&with_content=true&include_archived=true");
    while let Some(page) = source.next(&mut list).await? {
        for row in &page {
            let name = text(row, "name");
            let place = Place::Path(format!("{EVENT_TYPES}{name}"));
            let item = Item { place, kind: "event type", name: name.clone() };
            if row["archived"] == true {
                report.tell(&item, &Outcome::Left("it is archived"), &[])?;
                archived.insert(name);
                continue;
            }
            let Mapped { body, notes, .. } = event_type(row);
            let outcome = maker.event_type(body).await?;
            report.tell(&item, &outcome, &notes)?;
        }
    }
    Ok(archived)
}

/// Makes an account and its endpoints.
async fn move_application(
    maker: &Maker,
    report: &mut Report,
    source: &mut Source,
    row: &Value,
    archived: &BTreeSet<String>,
) -> anyhow::Result<()> {
    let Some(id) = id_of(row) else {
        let item = Item { place: Place::Path(APPLICATIONS.to_owned()), kind: "account", name: text(row, "name") };
        return report.tell(&item, &without_id(), &[]);
    };
    let path = format!("{APPLICATIONS}{id}");
    let item = Item { place: Place::Path(path.clone()), kind: "account", name: text(row, "name") };
    let Mapped { body, mut notes, .. } = account(row, id);
    let (outcome, owner) = maker.account(&names(row, id), &body).await?;
    if owner.is_none() {
        notes.push("its endpoints cannot be moved either".to_owned());
    }
    report.tell(&item, &outcome, &notes)?;
    let Some(mut owner) = owner else { return Ok(()) };
    let mut list = Listing::new(format!("{path}/endpoint/"), "");
    while let Some(page) = source.next(&mut list).await? {
        for endpoint in &page {
            let rows = Rows { application: row, endpoint, archived };
            move_endpoint(maker, report, source, &mut owner, &path, &rows).await?;
        }
    }
    Ok(())
}

/// What an endpoint is made of, without its secret and its headers.
struct Rows<'a> {
    application: &'a Value,
    endpoint: &'a Value,
    archived: &'a BTreeSet<String>,
}

/// Makes an endpoint. Its secret is asked for only where the endpoint is not there already.
async fn move_endpoint(
    maker: &Maker,
    report: &mut Report,
    source: &mut Source,
    owner: &mut Owner,
    application: &str,
    rows: &Rows<'_>,
) -> anyhow::Result<()> {
    let item = |place| Item { place: Place::Path(place), kind: "endpoint", name: text(rows.endpoint, "url") };
    let Some(id) = id_of(rows.endpoint) else {
        return report.tell(&item(format!("{application}/endpoint/")), &without_id(), &[]);
    };
    let path = format!("{application}/endpoint/{id}");
    let names = names(rows.endpoint, id);
    if let Some(exists) = owner.endpoint(&names) {
        return report.tell(&item(path), &exists, &[]);
    }
    let secret = source.resource(&format!("{path}/secret/")).await?;
    let headers = source.resource(&format!("{path}/headers/")).await?;
    let transformation = source.resource(&format!("{path}/transformation/")).await?;
    let mut mapped = endpoint(rows, id, secret.as_ref(), headers.as_ref());
    refuse_transformation(&mut mapped, transformation.as_ref());
    let Mapped { body, notes, faults } = mapped;
    let outcome =
        if faults.is_empty() { maker.endpoint(owner, &names, &body).await? } else { Outcome::Refused(faults) };
    report.tell(&item(path), &outcome, &notes)
}

fn without_id() -> Outcome {
    Outcome::Refused(vec![Fault { field: None, detail: "it has no id".to_owned() }])
}

fn text(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}

/// The external ids that a row can have here, the best first: its `uid` as it is; where that cannot be one, such as a
/// UUID, behind `svix:`; and its `id`. Between two imports a row may have got a `uid`.
fn names(row: &Value, id: &str) -> Vec<String> {
    let uid = row["uid"].as_str().unwrap_or_default();
    let names = [uid.to_owned(), format!("svix:{uid}"), id.to_owned()];
    let names = names.into_iter().filter(|name| name != "svix:" && ExternalId::parse(name).is_some());
    names.collect()
}

/// Gives a body its external id.
fn name(mapped: &mut Mapped, row: &Value, id: &str) {
    let uid = row["uid"].as_str().unwrap_or_default();
    let name = names(row, id).into_iter().next().unwrap_or_default();
    if !uid.is_empty() && name != uid {
        mapped.notes.push(format!("its uid cannot be an external_id: its external_id is {name}"));
    }
    mapped.set("external_id", name);
}

fn event_type(row: &Value) -> Mapped {
    let mut mapped = Mapped::default();
    mapped.set("name", row["name"].clone());
    mapped.take("description", &row["description"]);
    match &row["schemas"] {
        Value::Object(versions) => {
            let newest = versions.iter().max_by_key(|(version, _)| version.parse::<u64>().unwrap_or(0));
            if let Some((version, schema)) = newest {
                mapped.take("schema", schema);
                if versions.len() > 1 {
                    mapped.notes.push(format!("of its {} schemas, version {version} is taken", versions.len()));
                }
            }
        }
        other => mapped.take("schema", other),
    }
    if row["deprecated"] == true {
        mapped.notes.push("it is deprecated".to_owned());
    }
    if !row["featureFlag"].is_null() || row["featureFlags"].as_array().is_some_and(|flags| !flags.is_empty()) {
        mapped.notes.push("it has a feature flag, which is not taken: everybody sees it here".to_owned());
    }
    mapped
}

fn account(row: &Value, id: &str) -> Mapped {
    let mut mapped = Mapped::default();
    mapped.set("name", row["name"].clone());
    mapped.take("metadata", &row["metadata"]);
    name(&mut mapped, row, id);
    mapped
}

fn endpoint(rows: &Rows<'_>, id: &str, secret: Option<&Value>, headers: Option<&Value>) -> Mapped {
    let row = rows.endpoint;
    let mut mapped = Mapped::default();
    mapped.set("url", row["url"].clone());
    set_events(&mut mapped, &row["filterTypes"], rows.archived);
    mapped.take("description", &row["description"]);
    match &row["disabled"] {
        Value::Null | Value::Bool(false) => {}
        Value::Bool(true) => mapped.set("status", "disabled"),
        _ => mapped.faults.push(Fault::of("status", "`disabled` must be true or false")),
    }
    mapped.take("channels", &row["channels"]);
    mapped.take("metadata", &row["metadata"]);
    name(&mut mapped, row, id);
    set_secret(&mut mapped, secret);
    set_headers(&mut mapped, headers);
    set_rate_limit(&mut mapped, rows);
    mapped
}

/// Without filter an endpoint gets every type. Of an archived type there are no messages.
fn set_events(mapped: &mut Mapped, filter: &Value, archived: &BTreeSet<String>) {
    if filter.is_null() || filter.as_array().is_some_and(Vec::is_empty) {
        return mapped.set("events", vec!["*"]);
    }
    let Some(types) = filter.as_array() else { return mapped.set("events", filter.clone()) };
    let is_archived = |event: &&Value| event.as_str().is_some_and(|event| archived.contains(event));
    let (gone, events): (Vec<&Value>, Vec<&Value>) = types.iter().partition(is_archived);
    let gone: Vec<&str> = gone.into_iter().filter_map(Value::as_str).collect();
    if events.is_empty() {
        mapped.faults.push(Fault::of("events", "every event type that it filters is archived"));
    } else if !gone.is_empty() {
        mapped.notes.push(format!("without the archived event types {}", gone.join(", ")));
    }
    mapped.set("events", events.into_iter().cloned().collect::<Value>());
}

fn set_secret(mapped: &mut Mapped, secret: Option<&Value>) {
    match secret.map(|secret| &secret["key"]) {
        Some(Value::String(key)) if key.starts_with(PUBLIC_KEY) => {
            let detail = "it signs with an asymmetric key, of which Svix tells the public half only";
            mapped.faults.push(Fault::of("secret", detail));
        }
        Some(Value::String(key)) => mapped.set("secret", key.as_str()),
        _ => mapped.faults.push(Fault::of("secret", "the answer to …/secret/ is missing or has no `key`")),
    }
}

fn set_headers(mapped: &mut Mapped, headers: Option<&Value>) {
    let Some(answer) = headers else {
        return mapped.faults.push(Fault::of("headers", "the answer to …/headers/ is missing"));
    };
    let hidden: Vec<&str> = answer["sensitive"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !hidden.is_empty() {
        let detail = format!("Svix does not tell the values of {}", hidden.join(", "));
        mapped.faults.push(Fault::of("headers", detail));
    }
    mapped.take("headers", &answer["headers"]);
}

/// Code that changes each message for the receiver. Servers that have no transformations answer 404.
fn refuse_transformation(mapped: &mut Mapped, transformation: Option<&Value>) {
    let has_code = |answer: &Value| answer["code"].as_str().is_some_and(|code| !code.is_empty());
    if transformation.is_some_and(|answer| has_code(answer) && answer["enabled"] != false) {
        let detail = "a transformation changes its messages, and there is none here";
        mapped.faults.push(Fault::of("transformation", detail));
    }
}

/// Messages in a second: the endpoint's own number, else the application's, under the new name or the old one.
fn set_rate_limit(mapped: &mut Mapped, rows: &Rows<'_>) {
    let places = [rows.endpoint, rows.application].into_iter();
    let mut rates = places.flat_map(|row| [&row["throttleRate"], &row["rateLimit"]]);
    match rates.find(|rate| !rate.is_null()).map(Value::as_u64) {
        None => {}
        Some(Some(rate)) => mapped.set("rate_limit", format!("{rate}/1s")),
        Some(None) => mapped.faults.push(Fault::of("rate_limit", "it must be a whole number of messages in a second")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_endpoint(endpoint_row: &Value, application: &Value, secret: &Value, headers: &Value) -> Mapped {
        let archived = BTreeSet::from(["old.type".to_owned()]);
        let rows = Rows { application, endpoint: endpoint_row, archived: &archived };
        endpoint(&rows, "ep_1", Some(secret), Some(headers))
    }

    fn details(mapped: &Mapped) -> Vec<String> {
        let told = |fault: &Fault| format!("{}: {}", fault.field.as_deref().unwrap_or_default(), fault.detail);
        mapped.faults.iter().map(told).collect()
    }

    #[test]
    fn an_endpoint_keeps_what_its_receiver_notices() {
        let row = json!({
            "id": "ep_1", "uid": "orders", "url": "https://a.example/", "description": "Orders", "version": 1,
            "filterTypes": ["order.paid", "old.type"], "channels": ["tenant_7"], "disabled": true, "rateLimit": null,
            "metadata": { "team": "a" }, "createdAt": "2026-05-01T05:14:38Z",
        });
        let headers = json!({ "headers": { "X-Example": "123" }, "sensitive": [] });
        let mapped = of_endpoint(&row, &json!({ "rateLimit": 20 }), &json!({ "key": "whsec_a" }), &headers);
        let expected = json!({
            "url": "https://a.example/",
            "events": ["order.paid"],
            "description": "Orders",
            "status": "disabled",
            "channels": ["tenant_7"],
            "metadata": { "team": "a" },
            "external_id": "orders",
            "secret": "whsec_a",
            "headers": { "X-Example": "123" },
            "rate_limit": "20/1s",
        });
        assert_eq!(Value::Object(mapped.body.clone()), expected);
        assert_eq!(details(&mapped), [""; 0]);
        assert_eq!(mapped.notes, ["without the archived event types old.type"]);
    }

    #[test]
    fn an_endpoint_without_filter_gets_everything_and_what_is_empty_is_absent() {
        for filter in [json!(null), json!([])] {
            let row = json!({
                "id": "ep_1", "url": "https://a.example/", "description": "", "filterTypes": filter, "channels": [],
                "disabled": false, "metadata": {}, "rateLimit": 7, "throttleRate": 5,
            });
            let secret = json!({ "key": "whsec_a" });
            let mapped = of_endpoint(&row, &json!({ "throttleRate": 20 }), &secret, &json!({ "headers": {} }));
            let expected = json!({
                "url": "https://a.example/", "events": ["*"], "external_id": "ep_1", "secret": "whsec_a",
                "rate_limit": "5/1s",
            });
            assert_eq!(Value::Object(mapped.body), expected);
            assert!(mapped.notes.is_empty() && mapped.faults.is_empty());
        }
    }

    #[test]
    fn what_svix_does_not_tell_or_nobody_can_read_is_a_fault() {
        let row = json!({ "filterTypes": ["old.type"], "disabled": "no", "rateLimit": -1 });
        let headers = json!({ "headers": { "a": "b" }, "sensitive": ["Authorization"] });
        let mapped = of_endpoint(&row, &json!({}), &json!({ "key": "whpk_hidden" }), &headers);
        let told = details(&mapped);
        for (told, expected) in told.iter().zip([
            "events: every event type that it filters is archived",
            "status: `disabled` must be true or false",
            "secret: it signs with an asymmetric key",
            "headers: Svix does not tell the values of Authorization",
            "rate_limit: it must be a whole number",
        ]) {
            assert!(told.starts_with(expected) && !told.contains("hidden"), "{told}");
        }
        assert_eq!(told.len(), 5);
        let archived = BTreeSet::new();
        let rows = Rows { application: &json!({}), endpoint: &json!({}), archived: &archived };
        let told = details(&endpoint(&rows, "ep_1", None, None));
        assert!(told[0].starts_with("secret: the answer to") && told[1].starts_with("headers: the answer to"));
    }

    #[test]
    fn an_endpoint_with_a_transformation_does_not_move() {
        let code = "function handler(webhook) { return webhook; }";
        for (answer, is_refused) in [
            (Some(json!({ "code": code, "enabled": true })), true),
            (Some(json!({ "code": code })), true),
            (Some(json!({ "code": code, "enabled": false })), false),
            (Some(json!({ "code": null, "enabled": true })), false),
            (Some(json!({})), false),
            (None, false),
        ] {
            let mut mapped = Mapped::default();
            refuse_transformation(&mut mapped, answer.as_ref());
            assert_eq!(!mapped.faults.is_empty(), is_refused, "{answer:?}");
        }
    }

    #[test]
    fn a_uid_that_cannot_be_an_external_id_stands_behind_a_prefix() {
        let uuid = "8b7967bd-c278-46ca-8bbb-33e3131a6239";
        for (uid, expected) in [
            (json!(null), vec!["app_1"]),
            (json!("acme"), vec!["acme", "svix:acme", "app_1"]),
            (json!(uuid), vec!["svix:8b7967bd-c278-46ca-8bbb-33e3131a6239", "app_1"]),
            (json!("_acme"), vec!["svix:_acme", "app_1"]),
            (json!("a".repeat(256)), vec!["app_1"]),
            (json!("a b"), vec!["app_1"]),
        ] {
            assert_eq!(names(&json!({ "uid": uid }), "app_1"), expected);
        }
        let mapped = account(&json!({ "name": "Acme", "uid": uuid, "metadata": {} }), "app_1");
        assert_eq!(Value::Object(mapped.body), json!({ "name": "Acme", "external_id": format!("svix:{uuid}") }));
        assert_eq!(mapped.notes, [format!("its uid cannot be an external_id: its external_id is svix:{uuid}")]);
    }

    #[test]
    fn an_event_type_has_the_newest_of_its_schemas() {
        let row = json!({
            "name": "order.paid", "description": "Paid", "deprecated": true, "featureFlags": ["beta"],
            "schemas": { "2": { "type": "object" }, "10": { "type": "object", "required": ["id"] } },
        });
        let mapped = event_type(&row);
        let schema = json!({ "type": "object", "required": ["id"] });
        let expected = json!({ "name": "order.paid", "description": "Paid", "schema": schema });
        assert_eq!(Value::Object(mapped.body), expected);
        assert_eq!(mapped.notes.len(), 3);
        let plain = event_type(&json!({ "name": "a", "description": "", "schemas": null }));
        assert_eq!((Value::Object(plain.body), plain.notes.len()), (json!({ "name": "a" }), 0));
    }
}
