//! API keys: what an account's programs sign in with.

use std::future::{Ready, ready};

use maud::{Markup, html};
use serde_json::{Value, json};

use super::asking::{find, listed, mendable, segment, status_of};
use super::parts::{
    Confirm, Input, Kind, badge, button, checks, code, confirm, crumbs, day, empty, faults, head, input, milliseconds,
    notice, secret, select, submit, time,
};
use super::visit::{Failure, Item, Page, Visit};
use crate::api::{CreateApiKey, RequestBody as _};

const SECTION: &str = "api-keys";

const DAY_SECONDS: i64 = 86_400;

/// What a key of an account can be allowed, by what it is about. The other permissions are for an operator's keys.
const GROUPS: [(&str, &[&str]); 7] = [
    ("webhooks", &["webhooks:read", "webhooks:create", "webhooks:update", "webhooks:delete"]),
    ("events", &["events:create", "events:read"]),
    ("event_types", &["event_types:read"]),
    ("accounts", &["accounts:read", "accounts:write"]),
    ("api_keys", &["api_keys:read", "api_keys:write"]),
    ("users", &["users:read", "users:write"]),
    ("audit", &["audit:read"]),
];

/// The API's list of keys.
fn keys(v: &Visit) -> String {
    format!("/v1/accounts/{}/api-keys", v.account())
}

/// `GET /api-keys`
pub async fn list(v: Visit) -> Result<Page, Failure> {
    let found = v.get(&keys(&v), &[("page", v.asked("page"))]).await?;
    let (path, create) = (v.link("/api-keys"), v.say("Create an API key"));
    let to_create = v.link("/api-keys/new");
    let may = v.may("api_keys:write");
    let content = html! {
        (head(
            &v.say("API keys"),
            Some(&v.say("With a key your program publishes events and manages endpoints. A key is shown once, when it is created.")),
            html! { @if may { (button(&to_create, &create, "primary")) } },
        ))
        (listed(
            &v,
            &found,
            &path,
            empty(
                &v.say("No API keys yet"),
                &v.say("Create one for each program, with the permissions that it needs and no more."),
                may.then_some((to_create.as_str(), create.as_str())),
            ),
            |shown| table(&v, shown, may),
        ))
    };
    Ok(Page::new(v.say("API keys"), SECTION, content))
}

fn table(v: &Visit, keys: &[Item<'_>], may: bool) -> Markup {
    let columns = [v.say("Name"), v.say("Permissions"), v.say("Expires"), v.say("Last used"), v.say("Created")];
    html! { div.scroll { table.list {
        thead { tr {
            @for name in &columns { th scope="col" { (name) } }
            @if may { th scope="col" { span.sr { (v.say("Actions")) } } }
        } }
        tbody { @for key in keys { tr {
            td.main data-label=(columns[0]) {
                strong { @match key.text("name") { "" => (v.say("No name")), name => (name) } }
                small.mono { (key.text("key_hint")) }
            }
            td data-label=(columns[1]) { @for permission in key.texts("permissions") { (code(permission)) " " } }
            td.nowrap data-label=(columns[2]) { (expiry(v, key.text("expires_at"))) }
            td.nowrap data-label=(columns[3]) { @match key.text("last_used_at") { "" => (v.say("Never")), at => (time(v, at)) } }
            td.nowrap data-label=(columns[4]) { (time(v, key.text("created_at"))) }
            @if may { td.actions {
                a.button.danger href=(v.link(&format!("/api-keys/{}/revoke", key.id()))) {
                    (v.say("Revoke")) span.sr { " " (called(*key)) }
                }
            } }
        } } }
    } } }
}

fn expiry(v: &Visit, at: &str) -> Markup {
    match milliseconds(at) {
        None => html! { (v.say("Never")) },
        Some(instant) if instant <= v.now => badge("idle", &v.say("Expired")),
        Some(_) => html! { time datetime=(at) { (day(at)) } },
    }
}

/// The key's name, or its hint.
fn called(key: Item<'_>) -> &str {
    if key.text("name").is_empty() { key.text("key_hint") } else { key.text("name") }
}

/// `GET /api-keys/new`
pub fn new(v: Visit) -> Ready<Result<Page, Failure>> {
    ready(Ok(form(&v, None)))
}

/// `POST /api-keys/new`
pub async fn create(v: Visit) -> Result<Page, Failure> {
    let name = match v.field("name").trim() {
        "" => Value::Null,
        name => Value::from(name),
    };
    let permissions: Vec<&str> = groups().flat_map(|(group, _)| v.fields(group)).collect();
    let body =
        json!({ "name": name, "permissions": permissions, "expires_at": expires_at(v.now, v.field("expires_at")) });
    match v.send("POST", &keys(&v), body).await {
        Ok(made) => Ok(shown_once(&v, made.item())),
        Err(failure) => {
            let refused = mendable(failure, CreateApiKey::NAMES)?;
            Ok(form(&v, Some(&refused)).with_status(status_of(&refused)))
        }
    }
}

fn groups() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    [("everything", ["*"].as_slice())].into_iter().chain(GROUPS)
}

/// The midnight with which the last of so many days ends: a form that is sent twice asks for the same, and is one key.
fn expires_at(now: i64, days: &str) -> Value {
    let today = now.div_euclid(DAY_SECONDS * 1_000);
    let end =
        days.parse::<i64>().ok().map(|days| today.saturating_add(days).saturating_add(1).saturating_mul(DAY_SECONDS));
    let instant = end.and_then(|second| jiff::Timestamp::from_second(second).ok());
    instant.map_or(Value::Null, |instant| Value::from(instant.to_string()))
}

fn form(v: &Visit, refused: Option<&Failure>) -> Page {
    let error = |name| refused.and_then(|failure| failure.of(name));
    let lives =
        [("", v.say("Never")), ("30", v.say("In 30 days")), ("90", v.say("In 90 days")), ("365", v.say("In a year"))];
    let lives: Vec<(&str, &str)> = lives.iter().map(|(days, label)| (*days, label.as_str())).collect();
    let content = html! {
        (crumbs(v, &[(&v.say("API keys"), &v.link("/api-keys"))]))
        (head(&v.say("Create an API key"), Some(&v.say("It can do no more than you can.")), html! {}))
        (faults(v, refused))
        form.form method="post" action=(v.link("/api-keys/new")) data-submit-once {
            (v.form_start())
            (input(&Input {
                name: "name",
                label: &v.say("Name"),
                hint: &v.say("What uses it, such as “billing service, production”. The audit log shows this name."),
                value: v.field("name"),
                error: error("name"),
                max: CreateApiKey::max_chars("name"),
                ..Input::default()
            }))
            (permissions(v, refused))
            (select(&Input {
                name: "expires_at",
                label: &v.say("Expires"),
                hint: &v.say("At midnight UTC. From then on it is refused."),
                value: v.field("expires_at"),
                error: error("expires_at"),
                ..Input::default()
            }, &lives))
            div.buttons {
                (submit(&v.say("Create the key"), "primary"))
                (button(&v.link("/api-keys"), &v.say("Cancel"), ""))
            }
        }
    };
    Page::new(v.say("Create an API key"), SECTION, content)
}

fn permissions(v: &Visit, refused: Option<&Failure>) -> Markup {
    let error = refused.and_then(|failure| failure.of("permissions"));
    html! { div #f-permissions.stack tabindex="-1" {
        h2 { (v.say("Permissions")) }
        p.hint { (v.say("Give it what it needs and no more.")) }
        @if let Some(error) = error { p.error { (error.detail) } }
        @for (group, names) in groups() {
            @let checked = v.fields(group);
            @let labels: Vec<(&str, String)> = names.iter().filter(|name| v.may(name)).map(|name| (*name, labelled(v, name))).collect();
            @let options: Vec<(&str, &str, bool)> =
                labels.iter().map(|(name, label)| (*name, label.as_str(), checked.contains(name))).collect();
            @if !options.is_empty() { (checks(&about(v, group), group, &options, "", None)) }
        }
    } }
}

fn labelled(v: &Visit, permission: &str) -> String {
    if permission == "*" { told(v, permission) } else { format!("{} ({permission})", told(v, permission)) }
}

/// What a group of permissions is about.
fn about(v: &Visit, group: &str) -> String {
    match group {
        "webhooks" => v.say("Endpoints and deliveries"),
        "events" => v.say("Events"),
        "event_types" => v.say("Event types"),
        "accounts" => v.say("The account"),
        "api_keys" => v.say("API keys"),
        "users" => v.say("Users"),
        "audit" => v.say("Audit log"),
        _ => v.say("All"),
    }
}

/// What a permission allows.
fn told(v: &Visit, permission: &str) -> String {
    match permission {
        "webhooks:read" => v.say("See endpoints, deliveries and replays"),
        "webhooks:create" => v.say("Add endpoints"),
        "webhooks:update" => v.say("Change and test endpoints, rotate secrets, send again, replay"),
        "webhooks:delete" => v.say("Delete endpoints"),
        "events:create" => v.say("Publish events"),
        "events:read" => v.say("See events"),
        "event_types:read" => v.say("See the catalog"),
        "accounts:read" => v.say("See the account"),
        "accounts:write" => v.say("Rename the account"),
        "api_keys:read" => v.say("See keys, by their hints"),
        "api_keys:write" => v.say("Create and revoke keys"),
        "users:read" => v.say("See who may sign in"),
        "users:write" => v.say("Invite, change and delete users"),
        "audit:read" => v.say("See who did what"),
        _ => v.say("Everything (*), also what comes to the API later"),
    }
}

/// The answer that has the key, or only its hint where the form was sent twice.
fn shown_once(v: &Visit, made: Item<'_>) -> Page {
    let content = html! {
        (crumbs(v, &[(&v.say("API keys"), &v.link("/api-keys"))]))
        (head(&v.say("The API key is created"), None, html! {}))
        @match made.text("key") {
            "" => (notice(Kind::Warn, html! {
                p { (v.fill("The form was sent twice. There is one key, {hint}, and it was shown the first time.", &[("hint", &made.text("key_hint"))])) }
                p { (v.say("If you have not copied it, revoke it and create another.")) }
                a href=(v.link(&format!("/api-keys/{}/revoke", made.id()))) { (v.say("Revoke this key")) }
            })),
            key => {
                (secret(v, &v.say("API key"), key))
                p { (v.say("Programs send it with every call:")) " " (code("Authorization: Bearer …")) }
            },
        }
        div.buttons {
            (button(&v.link("/api-keys"), &v.say("Done"), "primary"))
            a.button href="/docs" { (v.say("API reference")) }
        }
    };
    Page::new(v.say("The API key is created"), SECTION, content)
}

/// `GET /api-keys/{id}/revoke`
pub async fn revoke_ask(v: Visit) -> Result<Page, Failure> {
    let found = find(&v, &keys(&v), v.param("id")).await?;
    Ok(asked(&v, found.item(), false, None))
}

/// `POST /api-keys/{id}/revoke`
pub async fn revoke(v: Visit) -> Result<Page, Failure> {
    let found = match find(&v, &keys(&v), v.param("id")).await {
        // What the form asks for has been done.
        Err(failure) if failure.status == 404 => return Ok(Page::Redirect(v.link("/api-keys"))),
        found => found?,
    };
    let key = found.item();
    if v.field("confirm").trim() != called(key).trim() {
        return Ok(asked(&v, key, true, None).with_status(422));
    }
    match v.send("DELETE", &format!("{}/{}", keys(&v), segment(key.id())), Value::Null).await {
        Err(failure) if failure.status != 404 => {
            let refused = mendable(failure, &[])?;
            Ok(asked(&v, key, false, Some(&refused)).with_status(status_of(&refused)))
        }
        _ => Ok(Page::Redirect(v.link("/api-keys"))),
    }
}

fn asked(v: &Visit, key: Item<'_>, mistyped: bool, failure: Option<&Failure>) -> Page {
    let name = called(key);
    let question = v.fill("Revoke the API key {name}?", &[("name", &name)]);
    let used = match key.text("last_used_at") {
        "" => html! { (v.say("It was never used.")) },
        at => html! { (v.say("It was last used:")) " " (time(v, at)) },
    };
    let happens = [
        v.say("It is refused from the next call on, on every server."),
        v.say("Programs that use it can no longer publish events or manage endpoints."),
        v.say("It cannot be brought back. Deliveries of what was published with it go on."),
    ];
    let fields = html! { p.muted { (key.text("key_hint")) " · " (used) } };
    let content = html! {
        (crumbs(v, &[(&v.say("API keys"), &v.link("/api-keys"))]))
        (confirm(v, &Confirm {
            question: &question,
            happens: &happens,
            type_this: Some(name),
            mistyped,
            action: &v.link(&format!("/api-keys/{}/revoke", key.id())),
            label: &v.say("Revoke the key"),
            cancel: &v.link("/api-keys"),
            failure,
            fields: Some(&fields),
        }))
    };
    Page::new(question, SECTION, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_lives_to_the_end_of_its_last_day() {
        let noon = 1_777_636_800_000;
        assert_eq!(expires_at(noon, "30"), "2026-06-01T00:00:00Z");
        assert_eq!(expires_at(noon + 43_199_999, "30"), "2026-06-01T00:00:00Z");
        for never in ["", "soon", "99999999999999999999", "9223372036854775807"] {
            assert_eq!(expires_at(noon, never), Value::Null, "{never}");
        }
    }
}
