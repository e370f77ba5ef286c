//! API keys: what an account's programs sign in with.

use std::future::{Ready, ready};

use maud::{Markup, html};
use serde_json::{Value, json};

use super::confirmation::{self, confirmed};
use super::form_errors::{mendable, status_of};
use super::listing::{find, listed, segment};
use super::page_context::{Failure, Page, PageContext};
use super::parts::{
    Confirm, Input, Kind, badge, button, checks, code, confirm, crumbs, day, empty, faults, head, input, milliseconds,
    notice, secret, select, submit, time,
};
use crate::api::{ApiKeyResource, CreateApiKey, Listing, RequestBody as _, takes_proof};

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
fn keys(cx: &PageContext) -> String {
    format!("/v1/accounts/{}/api-keys", cx.account())
}

/// `GET /api-keys`
pub async fn list(cx: PageContext) -> Result<Page, Failure> {
    let found: Listing<ApiKeyResource> = cx.get(&keys(&cx), &[("page", cx.asked("page"))]).await?;
    let (path, create) = (cx.link("/api-keys"), cx.say("Create an API key"));
    let to_create = cx.link("/api-keys/new");
    let may = cx.may("api_keys:write");
    let content = html! {
        (head(
            &cx.say("API keys"),
            Some(&cx.say(
                "With a key your program publishes events and manages endpoints. A key is shown once, when it is \
                 created.",
            )),
            html! { @if may { (button(&to_create, &create, "primary")) } },
        ))
        (listed(
            &cx,
            &found,
            &path,
            empty(
                &cx.say("No API keys yet"),
                &cx.say("Create one for each program, with the permissions that it needs and no more."),
                may.then_some((to_create.as_str(), create.as_str())),
            ),
            |shown| table(&cx, shown, may),
        ))
    };
    Ok(Page::new(cx.say("API keys"), SECTION, content))
}

fn table(cx: &PageContext, keys: &[ApiKeyResource], may: bool) -> Markup {
    let columns = [cx.say("Name"), cx.say("Permissions"), cx.say("Expires"), cx.say("Last used"), cx.say("Created")];
    html! { div.scroll { table.list {
        thead { tr {
            @for name in &columns { th scope="col" { (name) } }
            @if may { th scope="col" { span.sr { (cx.say("Actions")) } } }
        } }
        tbody { @for key in keys { tr {
            td.main data-label=(columns[0]) {
                strong { @match &key.name { Some(name) => (name), None => (cx.say("No name")) } }
                small.mono { (hint(key)) }
            }
            td data-label=(columns[1]) { @for permission in &key.permissions { (code(permission)) " " } }
            td.nowrap data-label=(columns[2]) { (expiry(cx, key.expires_at.as_deref())) }
            td.nowrap data-label=(columns[3]) { @match &key.last_used_at {
                Some(at) => (time(cx, at)),
                None => (cx.say("Never")),
            } }
            td.nowrap data-label=(columns[4]) { (time(cx, &key.created_at)) }
            @if may { td.actions {
                a.button.danger href=(cx.link(&format!("/api-keys/{}/revoke", key.id))) {
                    (cx.say("Revoke")) span.sr { " " (called(key)) }
                }
            } }
        } } }
    } } }
}

fn expiry(cx: &PageContext, at: Option<&str>) -> Markup {
    match at {
        None => html! { (cx.say("Never")) },
        Some(at) if milliseconds(at).is_some_and(|instant| instant <= cx.now) => badge("idle", &cx.say("Expired")),
        Some(at) => html! { time datetime=(at) { (day(at)) } },
    }
}

/// What is shown of the key itself, wherever the key is not.
fn hint(key: &ApiKeyResource) -> &str {
    key.key_hint.as_deref().unwrap_or_default()
}

/// The key's name, or its hint.
fn called(key: &ApiKeyResource) -> &str {
    key.name.as_deref().unwrap_or_else(|| hint(key))
}

/// `GET /api-keys/new`
pub fn new(cx: PageContext) -> Ready<Result<Page, Failure>> {
    ready(Ok(form(&cx, None)))
}

/// `POST /api-keys/new`
pub async fn create(cx: PageContext) -> Result<Page, Failure> {
    let name = match cx.field("name").trim() {
        "" => Value::Null,
        name => Value::from(name),
    };
    let permissions: Vec<&str> = groups().flat_map(|(group, _)| cx.fields(group)).collect();
    let body =
        json!({ "name": name, "permissions": permissions, "expires_at": expires_at(cx.now, cx.field("expires_at")) });
    let cx = if takes_proof(&permissions) {
        match confirmed(cx.clone(), "key-").await? {
            Ok(cx) => cx,
            Err(refused) => return Ok(form(&cx, Some(&refused)).with_status(status_of(&refused))),
        }
    } else {
        cx
    };
    match cx.send::<ApiKeyResource>("POST", &keys(&cx), body).await {
        Ok(made) => Ok(shown_once(&cx, &made)),
        Err(failure) => {
            let refused = mendable(failure, CreateApiKey::NAMES)?;
            Ok(form(&cx, Some(&refused)).with_status(status_of(&refused)))
        }
    }
}

fn groups() -> impl Iterator<Item = (&'static str, &'static [&'static str])> {
    [("everything", ["*"].as_slice())].into_iter().chain(GROUPS)
}

/// The midnight with which the last of so many days ends: a form that is sent twice asks for the same, and is one key.
/// What is no number of days goes on as it is: the API refuses it, and no key lives for ever by mistake.
fn expires_at(now: i64, days: &str) -> Value {
    if days.is_empty() {
        return Value::Null;
    }
    let today = now.div_euclid(DAY_SECONDS * 1_000);
    let end =
        days.parse::<i64>().ok().and_then(|days| today.checked_add(days)?.checked_add(1)?.checked_mul(DAY_SECONDS));
    let instant = end.and_then(|second| jiff::Timestamp::from_second(second).ok());
    Value::from(instant.map_or_else(|| days.to_owned(), |instant| instant.to_string()))
}

fn form(cx: &PageContext, refused: Option<&Failure>) -> Page {
    let error = |name| refused.and_then(|failure| failure.of(name));
    let lives = [
        ("", cx.say("Never")),
        ("30", cx.say("In 30 days")),
        ("90", cx.say("In 90 days")),
        ("365", cx.say("In a year")),
    ];
    let lives: Vec<(&str, &str)> = lives.iter().map(|(days, label)| (*days, label.as_str())).collect();
    let content = html! {
        (crumbs(cx, &[(&cx.say("API keys"), &cx.link("/api-keys"))]))
        (head(&cx.say("Create an API key"), Some(&cx.say("It can do no more than you can.")), html! {}))
        (faults(cx, refused))
        form.form method="post" action=(cx.link("/api-keys/new")) data-submit-once {
            (cx.form_start())
            (input(&Input {
                name: "name",
                label: &cx.say("Name"),
                hint: &cx.say("What uses it, such as “billing service, production”. The audit log shows this name."),
                value: cx.field("name"),
                error: error("name"),
                max: CreateApiKey::max_chars("name"),
                ..Input::default()
            }))
            (permissions(cx, refused))
            (select(&Input {
                name: "expires_at",
                label: &cx.say("Expires"),
                hint: &cx.say("At midnight UTC. From then on it is refused."),
                value: cx.field("expires_at"),
                error: error("expires_at"),
                ..Input::default()
            }, &lives))
            p.muted { (cx.say(
                "For a key that may do everything, or create keys or users, give your password again. It lets others \
                 in.",
            )) }
            (confirmation::fields(cx, "key-"))
            div.buttons {
                (submit(&cx.say("Create the key"), "primary"))
                (button(&cx.link("/api-keys"), &cx.say("Cancel"), ""))
            }
        }
    };
    Page::new(cx.say("Create an API key"), SECTION, content)
}

fn permissions(cx: &PageContext, refused: Option<&Failure>) -> Markup {
    let error = refused.and_then(|failure| failure.of("permissions"));
    html! { div #f-permissions.stack tabindex="-1" {
        h2 { (cx.say("Permissions")) }
        p.hint { (cx.say("Give it what it needs and no more.")) }
        @if let Some(error) = error { p.error { (error.detail) } }
        @for (group, names) in groups() {
            @let checked = cx.fields(group);
            @let allowed = names.iter().filter(|name| cx.may(name));
            @let labels: Vec<(&str, String)> = allowed.map(|name| (*name, labelled(cx, name))).collect();
            @let options: Vec<(&str, &str, bool)> =
                labels.iter().map(|(name, label)| (*name, label.as_str(), checked.contains(name))).collect();
            @if !options.is_empty() { (checks(&about(cx, group), group, &options, "", None)) }
        }
    } }
}

fn labelled(cx: &PageContext, permission: &str) -> String {
    if permission == "*" { told(cx, permission) } else { format!("{} ({permission})", told(cx, permission)) }
}

/// What a group of permissions is about.
fn about(cx: &PageContext, group: &str) -> String {
    match group {
        "webhooks" => cx.say("Endpoints and deliveries"),
        "events" => cx.say("Events"),
        "event_types" => cx.say("Event types"),
        "accounts" => cx.say("The account"),
        "api_keys" => cx.say("API keys"),
        "users" => cx.say("Users"),
        "audit" => cx.say("Audit log"),
        _ => cx.say("All"),
    }
}

/// What a permission allows.
fn told(cx: &PageContext, permission: &str) -> String {
    match permission {
        "webhooks:read" => cx.say("See endpoints, deliveries and replays"),
        "webhooks:create" => cx.say("Add endpoints"),
        "webhooks:update" => cx.say("Change and test endpoints, rotate secrets, send again, replay"),
        "webhooks:delete" => cx.say("Delete endpoints"),
        "events:create" => cx.say("Publish events"),
        "events:read" => cx.say("See events"),
        "event_types:read" => cx.say("See the catalog"),
        "accounts:read" => cx.say("See the account"),
        "accounts:write" => cx.say("Rename the account"),
        "api_keys:read" => cx.say("See keys, by their hints"),
        "api_keys:write" => cx.say("Create and revoke keys"),
        "users:read" => cx.say("See who may sign in"),
        "users:write" => cx.say("Invite, change and delete users"),
        "audit:read" => cx.say("See who did what"),
        _ => cx.say("Everything (*), also what comes to the API later"),
    }
}

/// The answer that has the key, or only its hint where the form was sent twice.
fn shown_once(cx: &PageContext, made: &ApiKeyResource) -> Page {
    let content = html! {
        (crumbs(cx, &[(&cx.say("API keys"), &cx.link("/api-keys"))]))
        (head(&cx.say("The API key is created"), None, html! {}))
        @match &made.key {
            None => (notice(Kind::Warn, html! {
                p { (cx.fill(
                    "The form was sent twice. There is one key, {hint}, and it was shown the first time.",
                    &[("hint", &hint(made))],
                )) }
                p { (cx.say("If you have not copied it, revoke it and create another.")) }
                a href=(cx.link(&format!("/api-keys/{}/revoke", made.id))) { (cx.say("Revoke this key")) }
            })),
            Some(key) => {
                (secret(cx, &cx.say("API key"), key))
                p { (cx.say("Programs send it with every call:")) " " (code("Authorization: Bearer …")) }
            },
        }
        div.buttons {
            (button(&cx.link("/api-keys"), &cx.say("Done"), "primary"))
            a.button href="/docs" { (cx.say("API reference")) }
        }
    };
    Page::new(cx.say("The API key is created"), SECTION, content)
}

/// `GET /api-keys/{id}/revoke`
pub async fn revoke_ask(cx: PageContext) -> Result<Page, Failure> {
    let key: ApiKeyResource = find(&cx, &keys(&cx), cx.param("id")).await?;
    Ok(asked(&cx, &key, false, None))
}

/// `POST /api-keys/{id}/revoke`
pub async fn revoke(cx: PageContext) -> Result<Page, Failure> {
    let key: ApiKeyResource = match find(&cx, &keys(&cx), cx.param("id")).await {
        // What the form asks for has been done.
        Err(failure) if failure.status == 404 => return Ok(Page::Redirect(cx.link("/api-keys"))),
        found => found?,
    };
    if cx.field("confirm").trim() != called(&key).trim() {
        return Ok(asked(&cx, &key, true, None).with_status(422));
    }
    match cx.send::<()>("DELETE", &format!("{}/{}", keys(&cx), segment(&key.id)), Value::Null).await {
        Err(failure) if failure.status != 404 => {
            let refused = mendable(failure, &[])?;
            Ok(asked(&cx, &key, false, Some(&refused)).with_status(status_of(&refused)))
        }
        _ => Ok(Page::Redirect(cx.link("/api-keys"))),
    }
}

fn asked(cx: &PageContext, key: &ApiKeyResource, mistyped: bool, failure: Option<&Failure>) -> Page {
    let name = called(key);
    let question = cx.fill("Revoke the API key {name}?", &[("name", &name)]);
    let used = match &key.last_used_at {
        None => html! { (cx.say("It was never used.")) },
        Some(at) => html! { (cx.say("It was last used:")) " " (time(cx, at)) },
    };
    let happens = [
        cx.say("It is refused from the next call on, on every server."),
        cx.say("Programs that use it can no longer publish events or manage endpoints."),
        cx.say("It cannot be brought back. Deliveries of what was published with it go on."),
    ];
    let fields = html! { p.muted { (hint(key)) " · " (used) } };
    let content = html! {
        (crumbs(cx, &[(&cx.say("API keys"), &cx.link("/api-keys"))]))
        (confirm(cx, &Confirm {
            question: &question,
            happens: &happens,
            type_this: Some(name),
            mistyped,
            action: &cx.link(&format!("/api-keys/{}/revoke", key.id)),
            label: &cx.say("Revoke the key"),
            cancel: &cx.link("/api-keys"),
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
        assert_eq!(expires_at(noon, ""), Value::Null);
    }

    #[test]
    fn what_is_no_number_of_days_is_left_for_the_api_to_refuse() {
        for wrong in ["soon", " ", "9999999", "99999999999999999999", "9223372036854775807"] {
            assert_eq!(expires_at(1_777_636_800_000, wrong), wrong);
        }
    }
}
