//! The operator's own pages: the accounts of the server. Its catalog of event types is in `catalog`.

mod catalog;

use std::future::{Ready, ready};

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::asking::{listed, mendable, segment, status_of};
use super::parts::{
    Confirm, Input, area, button, code, confirm, copyable, crumbs, empty, facts, faults, head, input, submit, time,
};
use super::visit::{Doc, Failure, Item, Page, Visit};
use super::written;
use crate::api::{CreateAccount, RequestBody as _, UpdateAccount};

pub use catalog::{type_create, type_delete, type_delete_ask, type_edit, type_new, type_update, types};

const SECTION: &str = "accounts";

/// The fields of the form that say how long something is kept.
const RETENTIONS: [&str; 2] = ["deliveries_retention_days", "payloads_retention_days"];

/// The account of the path, in the API.
fn account(v: &Visit) -> String {
    format!("/v1/accounts/{}", segment(v.param("id")))
}

/// `GET /operator`
pub async fn accounts(v: Visit) -> Result<Page, Failure> {
    let opened = v.asked("open").trim();
    let unknown = match opened {
        "" => false,
        id => match v.get(&format!("/v1/accounts/{}", segment(id)), &[]).await {
            Ok(found) => return Ok(Page::Redirect(format!("/accounts/{}", found.item().id()))),
            Err(failure) if failure.status == 404 => true,
            Err(failure) => return Err(failure),
        },
    };
    let found = v.get("/v1/accounts", &[("page", v.asked("page"))]).await?;
    let path = v.link("");
    let (to_create, create) = (v.link("/accounts/new"), v.say("Create an account"));
    let content = html! {
        (head(
            &v.say("Accounts"),
            Some(&v.say("Each has its own endpoints, events, API keys and users.")),
            button(&to_create, &create, "primary"),
        ))
        (listed(
            &v,
            &found,
            &path,
            empty(
                &v.say("No accounts yet"),
                &v.say("An account stands for one of your customers, or for your own product. Events are published in it."),
                Some((&to_create, &create)),
            ),
            |shown| html! { (open_by_id(&v, opened, unknown)) (table(&v, shown)) },
        ))
    };
    let page = Page::new(v.say("Accounts"), SECTION, content);
    Ok(if unknown { page.with_status(422) } else { page })
}

fn open_by_id(v: &Visit, opened: &str, unknown: bool) -> Markup {
    let fault = super::asking::fault("not_found", v.say("There is no account with this id."), Some("open"));
    html! { form.filters method="get" action=(v.link("")) aria-label=(v.say("Open an account by its id")) {
        (input(&Input {
            name: "open",
            label: &v.say("Account id"),
            value: opened,
            error: unknown.then_some(&fault),
            required: true,
            ..Input::default()
        }))
        div.buttons { (submit(&v.say("Open"), "")) }
    } }
}

fn table(v: &Visit, accounts: &[Item<'_>]) -> Markup {
    let columns = [v.say("Account"), v.say("Account id"), v.say("History kept"), v.say("Created")];
    html! { div.scroll { table.list {
        thead { tr {
            @for name in &columns { th scope="col" { (name) } }
            th scope="col" { span.sr { (v.say("Actions")) } }
        } }
        tbody { @for account in accounts { tr {
            td.main data-label=(columns[0]) { a href=(format!("/accounts/{}", account.id())) { (account.text("name")) } }
            td data-label=(columns[1]) { (code(account.id())) }
            td data-label=(columns[2]) { (kept(v, account.number(RETENTIONS[0]))) }
            td.nowrap data-label=(columns[3]) { (time(v, account.text("created_at"))) }
            td.actions {
                a.button href=(v.link(&format!("/accounts/{}", account.id()))) {
                    (v.say("Settings")) span.sr { " " (account.text("name")) }
                }
            }
        } } }
    } } }
}

fn kept(v: &Visit, days: Option<i64>) -> String {
    days.map_or_else(|| v.say("As the server's settings say"), |days| v.fill("{n} d", &[("n", &days)]))
}

/// `GET /operator/accounts/new`
pub fn account_new(v: Visit) -> Ready<Result<Page, Failure>> {
    ready(Ok(new_form(&v, None)))
}

/// `POST /operator/accounts/new`
pub async fn account_create(v: Visit) -> Result<Page, Failure> {
    let sent = match own_fields(&v) {
        Ok(own) => {
            let mut body = Map::from_iter([("name".to_owned(), Value::from(v.field("name")))]);
            body.extend(own);
            v.send("POST", "/v1/accounts", Value::Object(body)).await
        }
        Err(failure) => Err(failure),
    };
    match sent {
        Ok(made) => Ok(Page::Redirect(format!("/accounts/{}", made.item().id()))),
        Err(failure) => {
            let refused = mendable(failure, CreateAccount::NAMES)?;
            Ok(new_form(&v, Some(&refused)).with_status(status_of(&refused)))
        }
    }
}

fn new_form(v: &Visit, refused: Option<&Failure>) -> Page {
    let content = html! {
        (crumbs(v, &[(&v.say("Accounts"), &v.link(""))]))
        (head(&v.say("Create an account"), None, html! {}))
        (faults(v, refused))
        form.form method="post" action=(v.link("/accounts/new")) data-submit-once {
            (v.form_start())
            (name_field(v, v.field("name"), refused))
            (own_inputs(v, [v.field("external_id"), v.field("metadata")], refused))
            div.buttons {
                (submit(&v.say("Create the account"), "primary"))
                (button(&v.link(""), &v.say("Cancel"), ""))
            }
        }
    };
    Page::new(v.say("Create an account"), SECTION, content)
}

fn name_field(v: &Visit, value: &str, refused: Option<&Failure>) -> Markup {
    input(&Input {
        name: "name",
        label: &v.say("Name"),
        hint: &v.say("For people. Programs use its id."),
        value,
        error: refused.and_then(|failure| failure.of("name")),
        required: true,
        max: CreateAccount::max_chars("name"),
        ..Input::default()
    })
}

/// `GET /operator/accounts/{id}`
pub async fn account_edit(v: Visit) -> Result<Page, Failure> {
    let found = v.get(&account(&v), &[]).await?;
    Ok(settings(&v, &found, None))
}

/// `POST /operator/accounts/{id}`
pub async fn account_update(v: Visit) -> Result<Page, Failure> {
    let mut body = Map::from_iter([("name".to_owned(), Value::from(v.field("name")))]);
    body.extend(RETENTIONS.map(|field| (field.to_owned(), days(v.field(field)))));
    let sent = match own_fields(&v) {
        Ok(own) => {
            body.extend(own);
            v.send("PUT", &account(&v), Value::Object(body)).await
        }
        Err(failure) => Err(failure),
    };
    match sent {
        Ok(_) => Ok(Page::Redirect(v.link(""))),
        Err(failure) => {
            let refused = mendable(failure, UpdateAccount::NAMES)?;
            let found = v.get(&account(&v), &[]).await?;
            Ok(settings(&v, &found, Some(&refused)).with_status(status_of(&refused)))
        }
    }
}

/// The operator's own fields of an account, as the API takes them.
fn own_fields(v: &Visit) -> Result<[(String, Value); 2], Failure> {
    let external_id = match v.field("external_id").trim() {
        "" => Value::Null,
        text => Value::from(text),
    };
    let metadata = written::read_optional(v, "metadata", v.field("metadata"))?;
    Ok([("external_id".to_owned(), external_id), ("metadata".to_owned(), metadata)])
}

fn own_inputs(v: &Visit, [external_id, metadata]: [&str; 2], refused: Option<&Failure>) -> Markup {
    let error = |name| refused.and_then(|failure| failure.of(name));
    html! {
        (input(&Input {
            name: "external_id",
            label: &v.say("External ID"),
            value: external_id,
            hint: &v.say("Your own name for the account. The API takes it in place of the ID."),
            error: error("external_id"),
            max: UpdateAccount::max_chars("external_id"),
            ..Input::default()
        }))
        (area(
            &Input {
                name: "metadata",
                label: &v.say("Metadata"),
                value: metadata,
                hint: &v.say("Your own notes as a JSON object, such as {\"team\": \"billing\"}. They are not sent."),
                error: error("metadata"),
                ..Input::default()
            },
            4,
        ))
    }
}

/// A number of days; what is none goes to the API as it is, which says what it takes.
fn days(text: &str) -> Value {
    match text.trim() {
        "" => Value::Null,
        text => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
    }
}

fn settings(v: &Visit, found: &Doc, refused: Option<&Failure>) -> Page {
    let account = found.item();
    let kept = |field| account.number(field).map(|days| days.to_string()).unwrap_or_default();
    let stored = [
        account.text("name").to_owned(),
        kept(RETENTIONS[0]),
        kept(RETENTIONS[1]),
        account.text("external_id").to_owned(),
        written::pretty(account.value("metadata")),
    ];
    let value = |at: usize, field| if refused.is_some() { v.field(field) } else { stored[at].as_str() };
    let as_set = v.say("In days, from 1 to 3650. Empty: as long as the server's settings say.");
    let retention = |at: usize, label: String, hint: &str| {
        let name = RETENTIONS[at];
        let error = refused.and_then(|failure| failure.of(name));
        input(&Input {
            name,
            label: &label,
            hint,
            value: value(at + 1, name),
            error,
            kind: "number",
            ..Input::default()
        })
    };
    let names = [v.say("Account id"), v.say("Created")];
    let rows = [(names[0].as_str(), copyable(v, account.id())), (&names[1], time(v, account.text("created_at")))];
    let path = v.link(&format!("/accounts/{}", account.id()));
    let content = html! {
        (crumbs(v, &[(&v.say("Accounts"), &v.link(""))]))
        (head(account.text("name"), None, button(&format!("/accounts/{}", account.id()), &v.say("Open the account"), "")))
        (faults(v, refused))
        section.panel aria-label=(v.say("About this account")) { (facts(&rows)) }
        section.panel {
            h2 { (v.say("Settings")) }
            form method="post" action=(path) data-submit-once {
                (v.form_start())
                (name_field(v, value(0, "name"), refused))
                (retention(0, v.say("Deliveries and events are kept"), &as_set))
                (retention(1, v.say("Bodies are kept"), &v.say("In days, at most as long as deliveries. Without its body a delivery cannot be sent again. Empty: as long as the server's settings say.")))
                (own_inputs(v, [value(3, "external_id"), value(4, "metadata")], refused))
                p.muted { (v.say("What is older than a new limit is deleted within some minutes, for good.")) }
                div.buttons { (submit(&v.say("Save"), "primary")) (button(&v.link(""), &v.say("Cancel"), "")) }
            }
        }
        section.panel.danger-zone { div {
            div {
                h2 { (v.say("Delete this account")) }
                p.muted { (v.say("Its keys, users, endpoints and history go with it.")) }
            }
            (button(&format!("{path}/delete"), &v.say("Delete the account"), "danger"))
        } }
    };
    Page::new(account.text("name"), SECTION, content)
}

/// `GET /operator/accounts/{id}/delete`
pub async fn account_delete_ask(v: Visit) -> Result<Page, Failure> {
    let found = v.get(&account(&v), &[]).await?;
    Ok(asked(&v, found.item(), false, None))
}

/// `POST /operator/accounts/{id}/delete`
pub async fn account_delete(v: Visit) -> Result<Page, Failure> {
    let found = match v.get(&account(&v), &[]).await {
        // What the form asks for has been done.
        Err(failure) if failure.status == 404 => return Ok(Page::Redirect(v.link(""))),
        found => found?,
    };
    if v.field("confirm").trim() != found.item().text("name") {
        return Ok(asked(&v, found.item(), true, None).with_status(422));
    }
    match v.send("DELETE", &account(&v), Value::Null).await {
        Err(failure) if failure.status != 404 => {
            let refused = mendable(failure, &[])?;
            Ok(asked(&v, found.item(), false, Some(&refused)).with_status(status_of(&refused)))
        }
        _ => Ok(Page::Redirect(v.link(""))),
    }
}

fn asked(v: &Visit, account: Item<'_>, mistyped: bool, failure: Option<&Failure>) -> Page {
    let name = account.text("name");
    let question = v.fill("Delete the account {name}?", &[("name", &name)]);
    let happens = [
        v.say("Its API keys are refused from the next call on, and its users are signed out and deleted."),
        v.say("Its endpoints are deleted at once. Deliveries that wait are not sent any more."),
        v.say("Its events, deliveries and audit log are deleted in the background."),
        v.say("None of it can be brought back."),
    ];
    let path = v.link(&format!("/accounts/{}", account.id()));
    let content = html! {
        (crumbs(v, &[(&v.say("Accounts"), &v.link("")), (name, &path)]))
        (confirm(v, &Confirm {
            question: &question,
            happens: &happens,
            type_this: Some(name),
            mistyped,
            action: &format!("{path}/delete"),
            label: &v.say("Delete the account"),
            cancel: &path,
            failure,
            ..Confirm::default()
        }))
    };
    Page::new(question, SECTION, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_a_number_or_nothing() {
        assert_eq!(days(" 30 "), 30);
        assert_eq!(days(""), Value::Null);
        for other in ["-1", "1.5", "a week"] {
            assert_eq!(days(other), other);
        }
    }
}
