//! The operator's own pages: the accounts of the server. Its catalog of event types is in `catalog`.

mod catalog;

use std::future::{Ready, ready};

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::form_errors::{mendable, status_of};
use super::json_fields;
use super::listing::{listed, segment};
use super::page_context::{Failure, Page, PageContext};
use super::parts::{
    Confirm, Input, area, button, code, confirm, copyable, crumbs, empty, facts, faults, head, input, submit, time,
};
use crate::api::{AccountResource, CreateAccount, Listing, RequestBody as _, UpdateAccount};

pub use catalog::{type_create, type_delete, type_delete_ask, type_edit, type_new, type_update, types};

const SECTION: &str = "accounts";

/// The fields of the form that say how long something is kept.
const RETENTIONS: [&str; 2] = ["deliveries_retention_days", "payloads_retention_days"];

/// The fields of the form that list networks.
const NETWORKS: [&str; 2] = ["egress_allow_networks", "egress_deny_networks"];

/// The account of the path, in the API.
fn account(cx: &PageContext) -> String {
    format!("/v1/accounts/{}", segment(cx.param("id")))
}

/// `GET /operator`
pub async fn accounts(cx: PageContext) -> Result<Page, Failure> {
    let opened = cx.asked("open").trim();
    let unknown = match opened {
        "" => false,
        id => match cx.get::<AccountResource>(&format!("/v1/accounts/{}", segment(id)), &[]).await {
            Ok(found) => return Ok(Page::Redirect(format!("/accounts/{}", found.id))),
            Err(failure) if failure.status == 404 => true,
            Err(failure) => return Err(failure),
        },
    };
    let found: Listing<AccountResource> = cx.get("/v1/accounts", &[("page", cx.asked("page"))]).await?;
    let path = cx.link("");
    let (to_create, create) = (cx.link("/accounts/new"), cx.say("Create an account"));
    let content = html! {
        (head(
            &cx.say("Accounts"),
            Some(&cx.say("Each has its own endpoints, events, API keys and users.")),
            button(&to_create, &create, "primary"),
        ))
        (listed(
            &cx,
            &found,
            &path,
            empty(
                &cx.say("No accounts yet"),
                &cx.say(
                    "An account stands for one of your customers, or for your own product. Events are published in it.",
                ),
                Some((&to_create, &create)),
            ),
            |shown| html! { (open_by_id(&cx, opened, unknown)) (table(&cx, shown)) },
        ))
    };
    let page = Page::new(cx.say("Accounts"), SECTION, content);
    Ok(if unknown { page.with_status(422) } else { page })
}

fn open_by_id(cx: &PageContext, opened: &str, unknown: bool) -> Markup {
    let fault = super::form_errors::fault(cx.say("There is no account with this id."), Some("open"));
    html! { form.filters method="get" action=(cx.link("")) aria-label=(cx.say("Open an account by its id")) {
        (input(&Input {
            name: "open",
            label: &cx.say("Account id"),
            value: opened,
            error: unknown.then_some(&fault),
            required: true,
            ..Input::default()
        }))
        div.buttons { (submit(&cx.say("Open"), "")) }
    } }
}

fn table(cx: &PageContext, accounts: &[AccountResource]) -> Markup {
    let columns = [cx.say("Account"), cx.say("Account id"), cx.say("History kept"), cx.say("Created")];
    html! { div.scroll { table.list {
        thead { tr {
            @for name in &columns { th scope="col" { (name) } }
            th scope="col" { span.sr { (cx.say("Actions")) } }
        } }
        tbody { @for account in accounts { tr {
            td.main data-label=(columns[0]) { a href=(format!("/accounts/{}", account.id)) { (account.name) } }
            td data-label=(columns[1]) { (code(&account.id)) }
            td data-label=(columns[2]) { (kept(cx, account.deliveries_retention_days)) }
            td.nowrap data-label=(columns[3]) { (time(cx, &account.created_at)) }
            td.actions {
                a.button href=(cx.link(&format!("/accounts/{}", account.id))) {
                    (cx.say("Settings")) span.sr { " " (account.name) }
                }
            }
        } } }
    } } }
}

fn kept(cx: &PageContext, days: Option<u64>) -> String {
    days.map_or_else(|| cx.say("As the server's settings say"), |days| cx.fill("{n} d", &[("n", &days)]))
}

/// `GET /operator/accounts/new`
pub fn account_new(cx: PageContext) -> Ready<Result<Page, Failure>> {
    ready(Ok(new_form(&cx, None)))
}

/// `POST /operator/accounts/new`
pub async fn account_create(cx: PageContext) -> Result<Page, Failure> {
    let sent = match own_fields(&cx) {
        Ok(own) => {
            let mut body = Map::from_iter([("name".to_owned(), Value::from(cx.field("name")))]);
            body.extend(own);
            cx.send::<AccountResource>("POST", "/v1/accounts", Value::Object(body)).await
        }
        Err(failure) => Err(failure),
    };
    match sent {
        Ok(made) => Ok(Page::Redirect(format!("/accounts/{}", made.id))),
        Err(failure) => {
            let refused = mendable(failure, CreateAccount::NAMES)?;
            Ok(new_form(&cx, Some(&refused)).with_status(status_of(&refused)))
        }
    }
}

fn new_form(cx: &PageContext, refused: Option<&Failure>) -> Page {
    let content = html! {
        (crumbs(cx, &[(&cx.say("Accounts"), &cx.link(""))]))
        (head(&cx.say("Create an account"), None, html! {}))
        (faults(cx, refused))
        form.form method="post" action=(cx.link("/accounts/new")) data-submit-once {
            (cx.form_start())
            (name_field(cx, cx.field("name"), refused))
            (own_inputs(cx, [cx.field("external_id"), cx.field("metadata")], refused))
            (network_inputs(cx, NETWORKS.map(|name| cx.field(name)), refused))
            div.buttons {
                (submit(&cx.say("Create the account"), "primary"))
                (button(&cx.link(""), &cx.say("Cancel"), ""))
            }
        }
    };
    Page::new(cx.say("Create an account"), SECTION, content)
}

fn name_field(cx: &PageContext, value: &str, refused: Option<&Failure>) -> Markup {
    input(&Input {
        name: "name",
        label: &cx.say("Name"),
        hint: &cx.say("For people. Programs use its id."),
        value,
        error: refused.and_then(|failure| failure.of("name")),
        required: true,
        max: CreateAccount::max_chars("name"),
        ..Input::default()
    })
}

/// `GET /operator/accounts/{id}`
pub async fn account_edit(cx: PageContext) -> Result<Page, Failure> {
    let found: AccountResource = cx.get(&account(&cx), &[]).await?;
    Ok(settings(&cx, &found, None))
}

/// `POST /operator/accounts/{id}`
pub async fn account_update(cx: PageContext) -> Result<Page, Failure> {
    let mut body = Map::from_iter([("name".to_owned(), Value::from(cx.field("name")))]);
    body.extend(RETENTIONS.map(|field| (field.to_owned(), days(cx.field(field)))));
    let sent = match own_fields(&cx) {
        Ok(own) => {
            body.extend(own);
            cx.send::<()>("PUT", &account(&cx), Value::Object(body)).await
        }
        Err(failure) => Err(failure),
    };
    match sent {
        Ok(()) => Ok(Page::Redirect(cx.link(""))),
        Err(failure) => {
            let refused = mendable(failure, UpdateAccount::NAMES)?;
            let found: AccountResource = cx.get(&account(&cx), &[]).await?;
            Ok(settings(&cx, &found, Some(&refused)).with_status(status_of(&refused)))
        }
    }
}

/// The operator's own fields of an account, as the API takes them.
fn own_fields(cx: &PageContext) -> Result<[(String, Value); 4], Failure> {
    let external_id = match cx.field("external_id").trim() {
        "" => Value::Null,
        text => Value::from(text),
    };
    let metadata = json_fields::read_optional(cx, "metadata", cx.field("metadata"))?;
    let [allowed, denied] = NETWORKS.map(|name| match json_fields::listed(cx.field(name)) {
        none if none.is_empty() => (name.to_owned(), Value::Null),
        networks => (name.to_owned(), networks.into()),
    });
    Ok([("external_id".to_owned(), external_id), ("metadata".to_owned(), metadata), allowed, denied])
}

fn own_inputs(cx: &PageContext, [external_id, metadata]: [&str; 2], refused: Option<&Failure>) -> Markup {
    let error = |name| refused.and_then(|failure| failure.of(name));
    html! {
        (input(&Input {
            name: "external_id",
            label: &cx.say("External ID"),
            value: external_id,
            hint: &cx.say("Your own name for the account. The API takes it in place of the ID."),
            error: error("external_id"),
            max: UpdateAccount::max_chars("external_id"),
            ..Input::default()
        }))
        (area(
            &Input {
                name: "metadata",
                label: &cx.say("Metadata"),
                value: metadata,
                hint: &cx.say("Your own notes as a JSON object, such as {\"team\": \"billing\"}. They are not sent."),
                error: error("metadata"),
                ..Input::default()
            },
            4,
        ))
    }
}

/// Where requests of the account may go beside what the server's settings say.
fn network_inputs(cx: &PageContext, [allowed, denied]: [&str; 2], refused: Option<&Failure>) -> Markup {
    let network = |name, label: String, value, hint: String| {
        let error = refused.and_then(|failure| failure.of(name));
        area(&Input { name, label: &label, value, hint: &hint, error, ..Input::default() }, 2)
    };
    let (may_live, nothing_sent) = (cx.say("Receivers may live in private networks"), cx.say("Nothing is sent to"));
    let hint = cx.say("Networks such as 10.20.0.0/16, separated by spaces. They need HTTPS in production.");
    let denial =
        cx.say("Networks such as 198.51.100.0/24, separated by spaces. A denied network wins over all others.");
    html! {
        (network(NETWORKS[0], may_live, allowed, hint))
        (network(NETWORKS[1], nothing_sent, denied, denial))
    }
}

/// A number of days; what is none goes to the API as it is, which says what it takes.
fn days(text: &str) -> Value {
    match text.trim() {
        "" => Value::Null,
        text => text.parse::<u64>().map_or_else(|_| Value::from(text), Value::from),
    }
}

fn settings(cx: &PageContext, account: &AccountResource, refused: Option<&Failure>) -> Page {
    let kept = |days: Option<u64>| days.map(|days| days.to_string()).unwrap_or_default();
    let stored = [
        account.name.clone(),
        kept(account.deliveries_retention_days),
        kept(account.payloads_retention_days),
        account.external_id.clone().unwrap_or_default(),
        json_fields::notes(account.metadata.as_ref()),
        account.egress_allow_networks.as_ref().map(|networks| networks.join(" ")).unwrap_or_default(),
        account.egress_deny_networks.as_ref().map(|networks| networks.join(" ")).unwrap_or_default(),
    ];
    let value = |at: usize, field| if refused.is_some() { cx.field(field) } else { stored[at].as_str() };
    let as_set = cx.say("In days, from 1 to 3650. Empty: as long as the server's settings say.");
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
    let names = [cx.say("Account id"), cx.say("Created")];
    let rows = [(names[0].as_str(), copyable(cx, &account.id)), (&names[1], time(cx, &account.created_at))];
    let (path, pages) = (cx.link(&format!("/accounts/{}", account.id)), format!("/accounts/{}", account.id));
    let content = html! {
        (crumbs(cx, &[(&cx.say("Accounts"), &cx.link(""))]))
        (head(&account.name, None, button(&pages, &cx.say("Open the account"), "")))
        (faults(cx, refused))
        section.panel aria-label=(cx.say("About this account")) { (facts(&rows)) }
        section.panel {
            h2 { (cx.say("Settings")) }
            form method="post" action=(path) data-submit-once {
                (cx.form_start())
                (name_field(cx, value(0, "name"), refused))
                (retention(0, cx.say("Deliveries and events are kept"), &as_set))
                (retention(1, cx.say("Bodies are kept"), &cx.say(
                    "In days, at most as long as deliveries. Without its body a delivery cannot be sent again. Empty: \
                     as long as the server's settings say.",
                )))
                (own_inputs(cx, [value(3, "external_id"), value(4, "metadata")], refused))
                (network_inputs(cx, [value(5, NETWORKS[0]), value(6, NETWORKS[1])], refused))
                p.muted { (cx.say("What is older than a new limit is deleted within some minutes, for good.")) }
                div.buttons { (submit(&cx.say("Save"), "primary")) (button(&cx.link(""), &cx.say("Cancel"), "")) }
            }
        }
        section.panel.danger-zone { div {
            div {
                h2 { (cx.say("Delete this account")) }
                p.muted { (cx.say("Its keys, users, endpoints and history go with it.")) }
            }
            (button(&format!("{path}/delete"), &cx.say("Delete the account"), "danger"))
        } }
    };
    Page::new(&account.name, SECTION, content)
}

/// `GET /operator/accounts/{id}/delete`
pub async fn account_delete_ask(cx: PageContext) -> Result<Page, Failure> {
    let found: AccountResource = cx.get(&account(&cx), &[]).await?;
    Ok(asked(&cx, &found, false, None))
}

/// `POST /operator/accounts/{id}/delete`
pub async fn account_delete(cx: PageContext) -> Result<Page, Failure> {
    let found = match cx.get::<AccountResource>(&account(&cx), &[]).await {
        // What the form asks for has been done.
        Err(failure) if failure.status == 404 => return Ok(Page::Redirect(cx.link(""))),
        found => found?,
    };
    if cx.field("confirm").trim() != found.name {
        return Ok(asked(&cx, &found, true, None).with_status(422));
    }
    match cx.send::<()>("DELETE", &account(&cx), Value::Null).await {
        Err(failure) if failure.status != 404 => {
            let refused = mendable(failure, &[])?;
            Ok(asked(&cx, &found, false, Some(&refused)).with_status(status_of(&refused)))
        }
        _ => Ok(Page::Redirect(cx.link(""))),
    }
}

fn asked(cx: &PageContext, account: &AccountResource, mistyped: bool, failure: Option<&Failure>) -> Page {
    let name = &account.name;
    let question = cx.fill("Delete the account {name}?", &[("name", &name)]);
    let happens = [
        cx.say("Its API keys are refused from the next call on, and its users are signed out and deleted."),
        cx.say("Its endpoints are deleted at once. Deliveries that wait are not sent any more."),
        cx.say("Its events, deliveries and audit log are deleted in the background."),
        cx.say("None of it can be brought back."),
    ];
    let path = cx.link(&format!("/accounts/{}", account.id));
    let content = html! {
        (crumbs(cx, &[(&cx.say("Accounts"), &cx.link("")), (name, &path)]))
        (confirm(cx, &Confirm {
            question: &question,
            happens: &happens,
            type_this: Some(name),
            mistyped,
            action: &format!("{path}/delete"),
            label: &cx.say("Delete the account"),
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
