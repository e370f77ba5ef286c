//! The catalog of event types, which the operator keeps.

use std::future::{Ready, ready};

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::super::asking::{find, listed, local, mendable, segment, status_of};
use super::super::event_types::catalog;
use super::super::parts::{Confirm, Input, area, button, confirm, crumbs, empty, faults, head, input, submit};
use super::super::visit::{Failure, Item, Page, Visit};
use super::super::written;
use crate::api::{CreateEventType, RequestBody as _, UpdateEventType};

const SECTION: &str = "event-types";

const LIST: &str = "/v1/event-types";

/// The fields of a type beside its name.
const FIELDS: [&str; 3] = ["description", "schema", "example"];

/// The type of the path, in the API.
fn one(v: &Visit) -> String {
    format!("{LIST}/{}", segment(v.param("name")))
}

fn page_of(v: &Visit, name: &str) -> String {
    v.link(&format!("/event-types/{}", segment(name)))
}

/// `GET /operator/event-types`
pub async fn types(v: Visit) -> Result<Page, Failure> {
    let found = v.get(LIST, &[("page", v.asked("page"))]).await?;
    let path = v.link("/event-types");
    let (to_add, add) = (v.link("/event-types/new"), v.say("Add an event type"));
    let content = html! {
        (head(
            &v.say("Event types"),
            Some(&v.say("The catalog: what can be published, and what endpoints of every account can subscribe to.")),
            button(&to_add, &add, "primary"),
        ))
        (listed(
            &v,
            &found,
            &path,
            empty(
                &v.say("The catalog is empty"),
                &v.say("Only events of a type that is in it can be published."),
                Some((&to_add, &add)),
            ),
            |shown| catalog(&v, shown),
        ))
    };
    Ok(Page::new(v.say("Event types"), SECTION, content))
}

/// `GET /operator/event-types/new`
pub fn type_new(v: Visit) -> Ready<Result<Page, Failure>> {
    ready(Ok(new_page(&v, None)))
}

/// `POST /operator/event-types/new`
pub async fn type_create(v: Visit) -> Result<Page, Failure> {
    let refused = match written_type(&v) {
        Ok(mut body) => {
            body.insert("name".to_owned(), Value::from(v.field("name").trim()));
            match v.send("POST", LIST, Value::Object(body)).await {
                Ok(made) => return Ok(Page::Redirect(page_of(&v, made.item().id()))),
                Err(failure) => mendable(failure, CreateEventType::NAMES)?,
            }
        }
        Err(refused) => refused,
    };
    Ok(new_page(&v, Some(&refused)).with_status(status_of(&refused)))
}

/// Sends what was changed and leaves the rest: what is shown of JSON is not what was written to the last digit.
async fn send_changes(v: &Visit, body: &mut Map<String, Value>) -> Result<(), Failure> {
    let found = find(v, LIST, v.param("name")).await?;
    let entry = found.item();
    let shown = |field: &str| match field {
        "description" => entry.text(field).to_owned(),
        _ => written::pretty(entry.value(field)),
    };
    body.retain(|field, _| v.field(field).replace("\r\n", "\n").trim() != shown(field).trim());
    if !body.is_empty() {
        v.send("PUT", &one(v), Value::Object(std::mem::take(body))).await?;
    }
    Ok(())
}

/// The fields of the form as the API takes them: what is empty is null.
fn written_type(v: &Visit) -> Result<Map<String, Value>, Failure> {
    let mut body = Map::new();
    let mut faults = Vec::new();
    let description = v.field("description").trim();
    body.insert("description".to_owned(), if description.is_empty() { Value::Null } else { Value::from(description) });
    for field in ["schema", "example"] {
        match written::read_optional(v, field, v.field(field)) {
            Ok(value) => drop(body.insert(field.to_owned(), value)),
            Err(refused) => faults.extend(refused.faults),
        }
    }
    if faults.is_empty() { Ok(body) } else { Err(local(faults)) }
}

fn new_page(v: &Visit, refused: Option<&Failure>) -> Page {
    let content = html! {
        (crumbs(v, &[(&v.say("Event types"), &v.link("/event-types"))]))
        (head(&v.say("Add an event type"), None, html! {}))
        (faults(v, refused))
        form.form method="post" action=(v.link("/event-types/new")) data-submit-once {
            (v.form_start())
            (input(&Input {
                name: "name",
                label: &v.say("Name"),
                hint: &v.say("Lowercase letters, digits and underscores in parts separated by dots, such as order.shipped. It cannot be changed later."),
                value: v.field("name"),
                error: refused.and_then(|failure| failure.of("name")),
                required: true,
                max: CreateEventType::max_chars("name"),
                ..Input::default()
            }))
            (fields(v, FIELDS.map(|field| v.field(field)), refused))
            div.buttons {
                (submit(&v.say("Add the event type"), "primary"))
                (button(&v.link("/event-types"), &v.say("Cancel"), ""))
            }
        }
    };
    Page::new(v.say("Add an event type"), SECTION, content)
}

fn fields(v: &Visit, values: [&str; 3], refused: Option<&Failure>) -> Markup {
    let labels = [v.say("Description"), v.say("JSON Schema of the data"), v.say("Example of the data")];
    let hints = [
        v.say("What the event means, for those who subscribe to it."),
        v.say("Empty: any JSON object can be published."),
        v.say(
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
pub async fn type_edit(v: Visit) -> Result<Page, Failure> {
    let found = find(&v, LIST, v.param("name")).await?;
    Ok(edit_page(&v, found.item(), None))
}

/// `POST /operator/event-types/{name}`
pub async fn type_update(v: Visit) -> Result<Page, Failure> {
    let refused = match written_type(&v) {
        Ok(mut body) => match send_changes(&v, &mut body).await {
            Ok(()) => return Ok(Page::Redirect(v.link("/event-types"))),
            Err(failure) => mendable(failure, UpdateEventType::NAMES)?,
        },
        Err(refused) => refused,
    };
    let found = find(&v, LIST, v.param("name")).await?;
    Ok(edit_page(&v, found.item(), Some(&refused)).with_status(status_of(&refused)))
}

fn edit_page(v: &Visit, entry: Item<'_>, refused: Option<&Failure>) -> Page {
    let (schema, example) = (written::pretty(entry.value("schema")), written::pretty(entry.value("example")));
    let values = match refused {
        Some(_) => FIELDS.map(|field| v.field(field)),
        None => [entry.text("description"), &schema, &example],
    };
    let path = page_of(v, entry.id());
    let content = html! {
        (crumbs(v, &[(&v.say("Event types"), &v.link("/event-types"))]))
        (head(entry.id(), None, html! {}))
        (faults(v, refused))
        section.panel {
            p.muted { (v.say("A change of the schema holds for what is published from now on.")) }
            form method="post" action=(path) data-submit-once {
                (v.form_start())
                (fields(v, values, refused))
                div.buttons { (submit(&v.say("Save"), "primary")) (button(&v.link("/event-types"), &v.say("Cancel"), "")) }
            }
        }
        section.panel.danger-zone { div {
            div {
                h2 { (v.say("Delete this event type")) }
                p.muted { (v.say("It can then no longer be published.")) }
            }
            (button(&format!("{path}/delete"), &v.say("Delete the event type"), "danger"))
        } }
    };
    Page::new(entry.id(), SECTION, content)
}

/// `GET /operator/event-types/{name}/delete`
pub async fn type_delete_ask(v: Visit) -> Result<Page, Failure> {
    let found = find(&v, LIST, v.param("name")).await?;
    Ok(asked(&v, found.item(), false, None))
}

/// `POST /operator/event-types/{name}/delete`
pub async fn type_delete(v: Visit) -> Result<Page, Failure> {
    let found = match find(&v, LIST, v.param("name")).await {
        // What the form asks for has been done.
        Err(failure) if failure.status == 404 => return Ok(Page::Redirect(v.link("/event-types"))),
        found => found?,
    };
    if v.field("confirm").trim() != found.item().id() {
        return Ok(asked(&v, found.item(), true, None).with_status(422));
    }
    match v.send("DELETE", &one(&v), Value::Null).await {
        Err(failure) if failure.status != 404 => {
            let refused = mendable(failure, &[])?;
            Ok(asked(&v, found.item(), false, Some(&refused)).with_status(status_of(&refused)))
        }
        _ => Ok(Page::Redirect(v.link("/event-types"))),
    }
}

fn asked(v: &Visit, entry: Item<'_>, mistyped: bool, failure: Option<&Failure>) -> Page {
    let name = entry.id();
    let question = v.fill("Delete the event type {name}?", &[("name", &name)]);
    let happens = [
        v.say("Events of this type are refused when they are published, in every account."),
        v.say("Endpoints stay subscribed to it, and get its events again if it comes back."),
        v.say("What was published before is still delivered, and stays in the history."),
    ];
    let path = page_of(v, name);
    let content = html! {
        (crumbs(v, &[(&v.say("Event types"), &v.link("/event-types")), (name, &path)]))
        (confirm(v, &Confirm {
            question: &question,
            happens: &happens,
            type_this: Some(name),
            mistyped,
            action: &format!("{path}/delete"),
            label: &v.say("Delete the event type"),
            cancel: &path,
            failure,
            ..Confirm::default()
        }))
    };
    Page::new(question, SECTION, content)
}
