//! The operator's catalog of event types.

use std::future::{Ready, ready};

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::super::event_types::catalog;
use super::super::form_errors::{local, mendable, status_of};
use super::super::json_fields;
use super::super::listing::{find, listed, segment};
use super::super::page_context::{Failure, Page, PageContext};
use super::super::parts::{Confirm, Input, area, button, confirm, crumbs, empty, faults, head, input, submit};
use crate::api::{CreateEventType, EventTypeResource, Listing, RequestBody as _, UpdateEventType};

const SECTION: &str = "event-types";

const LIST: &str = "/v1/event-types";

/// The fields of a type beside its name.
const FIELDS: [&str; 3] = ["description", "schema", "example"];

/// The type of the path, in the API.
fn one(cx: &PageContext) -> String {
    format!("{LIST}/{}", segment(cx.param("name")))
}

fn page_of(cx: &PageContext, name: &str) -> String {
    cx.link(&format!("/event-types/{}", segment(name)))
}

/// `GET /operator/event-types`
pub async fn types(cx: PageContext) -> Result<Page, Failure> {
    let found: Listing<EventTypeResource> = cx.get(LIST, &[("page", cx.asked("page"))]).await?;
    let path = cx.link("/event-types");
    let (to_add, add) = (cx.link("/event-types/new"), cx.say("Add an event type"));
    let content = html! {
        (head(
            &cx.say("Event types"),
            Some(&cx.say("The catalog: what can be published, and what endpoints of every account can subscribe to.")),
            button(&to_add, &add, "primary"),
        ))
        (listed(
            &cx,
            &found,
            &path,
            empty(
                &cx.say("The catalog is empty"),
                &cx.say("Only events of a type that is in it can be published."),
                Some((&to_add, &add)),
            ),
            |shown| catalog(&cx, shown),
        ))
    };
    Ok(Page::new(cx.say("Event types"), SECTION, content))
}

/// `GET /operator/event-types/new`
pub fn type_new(cx: PageContext) -> Ready<Result<Page, Failure>> {
    ready(Ok(new_page(&cx, None)))
}

/// `POST /operator/event-types/new`
pub async fn type_create(cx: PageContext) -> Result<Page, Failure> {
    let refused = match written_type(&cx) {
        Ok(mut body) => {
            body.insert("name".to_owned(), Value::from(cx.field("name").trim()));
            match cx.send::<EventTypeResource>("POST", LIST, Value::Object(body)).await {
                Ok(made) => return Ok(Page::Redirect(page_of(&cx, &made.id))),
                Err(failure) => mendable(failure, CreateEventType::NAMES)?,
            }
        }
        Err(refused) => refused,
    };
    Ok(new_page(&cx, Some(&refused)).with_status(status_of(&refused)))
}

/// Sends what was changed and leaves the rest: what is shown of JSON is not what was written to the last digit.
async fn send_changes(cx: &PageContext, body: &mut Map<String, Value>) -> Result<(), Failure> {
    let entry: EventTypeResource = find(cx, LIST, cx.param("name")).await?;
    let shown = shown(&entry);
    body.retain(|field, _| {
        let at = FIELDS.iter().position(|known| *known == field.as_str());
        at.is_some_and(|at| cx.field(field).replace("\r\n", "\n").trim() != shown[at].trim())
    });
    if !body.is_empty() {
        cx.send::<()>("PUT", &one(cx), Value::Object(std::mem::take(body))).await?;
    }
    Ok(())
}

/// What the form shows of a type, in the order of [`FIELDS`].
fn shown(entry: &EventTypeResource) -> [String; 3] {
    let [schema, example] = [&entry.schema, &entry.example].map(|value| json_fields::pretty(value.as_ref()));
    [entry.description.clone().unwrap_or_default(), schema, example]
}

/// The fields of the form as the API takes them: what is empty is null.
fn written_type(cx: &PageContext) -> Result<Map<String, Value>, Failure> {
    let mut body = Map::new();
    let mut faults = Vec::new();
    let description = cx.field("description").trim();
    body.insert("description".to_owned(), if description.is_empty() { Value::Null } else { Value::from(description) });
    for field in ["schema", "example"] {
        match json_fields::read_optional(cx, field, cx.field(field)) {
            Ok(value) => drop(body.insert(field.to_owned(), value)),
            Err(refused) => faults.extend(refused.faults),
        }
    }
    if faults.is_empty() { Ok(body) } else { Err(local(faults)) }
}

fn new_page(cx: &PageContext, refused: Option<&Failure>) -> Page {
    let content = html! {
        (crumbs(cx, &[(&cx.say("Event types"), &cx.link("/event-types"))]))
        (head(&cx.say("Add an event type"), None, html! {}))
        (faults(cx, refused))
        form.form method="post" action=(cx.link("/event-types/new")) data-submit-once {
            (cx.form_start())
            (input(&Input {
                name: "name",
                label: &cx.say("Name"),
                hint: &cx.say(
                    "Lowercase letters, digits and underscores in parts separated by dots, such as order.shipped. It \
                     cannot be changed later.",
                ),
                value: cx.field("name"),
                error: refused.and_then(|failure| failure.of("name")),
                required: true,
                max: CreateEventType::max_chars("name"),
                ..Input::default()
            }))
            (fields(cx, FIELDS.map(|field| cx.field(field)), refused))
            div.buttons {
                (submit(&cx.say("Add the event type"), "primary"))
                (button(&cx.link("/event-types"), &cx.say("Cancel"), ""))
            }
        }
    };
    Page::new(cx.say("Add an event type"), SECTION, content)
}

fn fields(cx: &PageContext, values: [&str; 3], refused: Option<&Failure>) -> Markup {
    let labels = [cx.say("Description"), cx.say("JSON Schema of the data"), cx.say("Example of the data")];
    let hints = [
        cx.say("What the event means, for those who subscribe to it."),
        cx.say("Empty: any JSON object can be published."),
        cx.say(
            "A JSON object that matches the schema. It is what people see, and what the form to publish begins with.",
        ),
    ];
    let field = |at: usize| Input {
        name: FIELDS[at],
        label: &labels[at],
        hint: &hints[at],
        value: values[at],
        error: refused.and_then(|failure| failure.of(FIELDS[at])),
        ..Input::default()
    };
    html! {
        (input(&Input { max: UpdateEventType::max_chars(FIELDS[0]), ..field(0) }))
        (area(&field(1), 14))
        (area(&field(2), 8))
    }
}

/// `GET /operator/event-types/{name}`
pub async fn type_edit(cx: PageContext) -> Result<Page, Failure> {
    let found: EventTypeResource = find(&cx, LIST, cx.param("name")).await?;
    Ok(edit_page(&cx, &found, None))
}

/// `POST /operator/event-types/{name}`
pub async fn type_update(cx: PageContext) -> Result<Page, Failure> {
    let refused = match written_type(&cx) {
        Ok(mut body) => match send_changes(&cx, &mut body).await {
            Ok(()) => return Ok(Page::Redirect(cx.link("/event-types"))),
            Err(failure) => mendable(failure, UpdateEventType::NAMES)?,
        },
        Err(refused) => refused,
    };
    let found: EventTypeResource = find(&cx, LIST, cx.param("name")).await?;
    Ok(edit_page(&cx, &found, Some(&refused)).with_status(status_of(&refused)))
}

fn edit_page(cx: &PageContext, entry: &EventTypeResource, refused: Option<&Failure>) -> Page {
    let shown = shown(entry);
    let values = match refused {
        Some(_) => FIELDS.map(|field| cx.field(field)),
        None => shown.each_ref().map(String::as_str),
    };
    let path = page_of(cx, &entry.id);
    let content = html! {
        (crumbs(cx, &[(&cx.say("Event types"), &cx.link("/event-types"))]))
        (head(&entry.id, None, html! {}))
        (faults(cx, refused))
        section.panel {
            p.muted { (cx.say("A change of the schema holds for what is published from now on.")) }
            form method="post" action=(path) data-submit-once {
                (cx.form_start())
                (fields(cx, values, refused))
                div.buttons {
                    (submit(&cx.say("Save"), "primary"))
                    (button(&cx.link("/event-types"), &cx.say("Cancel"), ""))
                }
            }
        }
        section.panel.danger-zone { div {
            div {
                h2 { (cx.say("Delete this event type")) }
                p.muted { (cx.say("It can then no longer be published.")) }
            }
            (button(&format!("{path}/delete"), &cx.say("Delete the event type"), "danger"))
        } }
    };
    Page::new(&entry.id, SECTION, content)
}

/// `GET /operator/event-types/{name}/delete`
pub async fn type_delete_ask(cx: PageContext) -> Result<Page, Failure> {
    let found: EventTypeResource = find(&cx, LIST, cx.param("name")).await?;
    Ok(asked(&cx, &found, false, None))
}

/// `POST /operator/event-types/{name}/delete`
pub async fn type_delete(cx: PageContext) -> Result<Page, Failure> {
    let found: EventTypeResource = match find(&cx, LIST, cx.param("name")).await {
        // What the form asks for has been done.
        Err(failure) if failure.status == 404 => return Ok(Page::Redirect(cx.link("/event-types"))),
        found => found?,
    };
    if cx.field("confirm").trim() != found.id {
        return Ok(asked(&cx, &found, true, None).with_status(422));
    }
    match cx.send::<()>("DELETE", &one(&cx), Value::Null).await {
        Err(failure) if failure.status != 404 => {
            let refused = mendable(failure, &[])?;
            Ok(asked(&cx, &found, false, Some(&refused)).with_status(status_of(&refused)))
        }
        _ => Ok(Page::Redirect(cx.link("/event-types"))),
    }
}

fn asked(cx: &PageContext, entry: &EventTypeResource, mistyped: bool, failure: Option<&Failure>) -> Page {
    let name = &entry.id;
    let question = cx.fill("Delete the event type {name}?", &[("name", &name)]);
    let happens = [
        cx.say("Events of this type are refused when they are published, in every account."),
        cx.say("Endpoints stay subscribed to it, and get its events again if it comes back."),
        cx.say("What was published before is still delivered, and stays in the history."),
    ];
    let path = page_of(cx, name);
    let content = html! {
        (crumbs(cx, &[(&cx.say("Event types"), &cx.link("/event-types")), (name, &path)]))
        (confirm(cx, &Confirm {
            question: &question,
            happens: &happens,
            type_this: Some(name),
            mistyped,
            action: &format!("{path}/delete"),
            label: &cx.say("Delete the event type"),
            cancel: &path,
            failure,
            ..Confirm::default()
        }))
    };
    Page::new(question, SECTION, content)
}
