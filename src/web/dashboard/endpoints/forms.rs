//! The forms in which an endpoint is written: a new one, and one that is there.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::{address, resource, secret, trail};
use crate::api::{CreateWebhook, RequestBody as _, UpdateWebhook};
use crate::web::dashboard::asking::{mendable, pages, status_of};
use crate::web::dashboard::parts::{Input, area, button, crumbs, faults, head, input, select, submit};
use crate::web::dashboard::visit::{Doc, Failure, Fault, Item, Page, Visit};
use crate::web::dashboard::written;

/// Types that the platform itself publishes. No catalog has them.
const OPERATIONAL: [&str; 5] =
    ["endpoint.auto_disabled", "endpoint.disabled", "endpoint.enabled", "delivery.failed", "secret.rotated"];

/// An endpoint as it stands in the form.
#[derive(Default)]
struct Typed {
    url: String,
    events: Vec<String>,
    description: String,
    ordering: String,
    metadata: String,
    external_id: String,
}

impl Typed {
    /// As it was sent.
    fn sent(v: &Visit) -> Self {
        // Where the catalog cannot be read, types are written and not chosen.
        let written = v.field("written").split([',', ' ', '\n']).map(str::trim).filter(|name| !name.is_empty());
        Self {
            url: v.field("url").trim().to_owned(),
            events: v.fields("events").into_iter().chain(written).map(str::to_owned).collect(),
            description: v.field("description").trim().to_owned(),
            ordering: v.field("ordering").to_owned(),
            metadata: v.field("metadata").to_owned(),
            external_id: v.field("external_id").trim().to_owned(),
        }
    }

    /// As the API has it.
    fn of(endpoint: Item<'_>) -> Self {
        Self {
            url: endpoint.text("url").to_owned(),
            events: endpoint.texts("events").into_iter().map(str::to_owned).collect(),
            description: endpoint.text("description").to_owned(),
            ordering: endpoint.text("ordering").to_owned(),
            metadata: written::pretty(endpoint.value("metadata")),
            external_id: endpoint.text("external_id").to_owned(),
        }
    }

    /// As the API takes it.
    fn body(&self, v: &Visit) -> Result<Value, Failure> {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let ordering: &str = if self.ordering.is_empty() { "none" } else { &self.ordering };
        let metadata = written::read_optional(v, "metadata", &self.metadata)?;
        Ok(json!({
            "url": self.url,
            "events": self.events,
            "description": given(&self.description),
            "ordering": ordering,
            "metadata": metadata,
            "external_id": given(&self.external_id),
        }))
    }

    async fn send(&self, v: &Visit, method: &str, path: &str) -> Result<Doc, Failure> {
        v.send(method, path, self.body(v)?).await
    }
}

/// An event type that can be chosen.
struct Choice {
    name: String,
    about: String,
}

/// What can be chosen from. `None` where the visitor may not see the catalog.
async fn catalog(v: &Visit) -> Result<Option<Vec<Choice>>, Failure> {
    if !v.may("event_types:read") {
        return Ok(None);
    }
    let docs = pages(v, "/v1/event-types").await?;
    let entries = docs.iter().flat_map(Doc::items);
    let choice = |entry: Item<'_>| Choice { name: entry.id().to_owned(), about: entry.text("description").to_owned() };
    Ok(Some(entries.map(choice).collect()))
}

/// `/endpoints/new`
pub async fn new(v: Visit) -> Result<Page, Failure> {
    let events = v.asked("events").split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let typed = Typed { events, ..Typed::default() };
    let catalog = catalog(&v).await?;
    Ok(new_page(&v, &typed, catalog, None))
}

fn new_page(v: &Visit, typed: &Typed, catalog: Option<Vec<Choice>>, failure: Option<&Failure>) -> Page {
    let title = v.say("New endpoint");
    let about =
        v.say("Events of the types that you choose are sent to this URL, signed, until it answers with a success.");
    let list = v.link("/endpoints");
    let content = html! {
        (crumbs(v, &[(&v.say("Endpoints"), &list)]))
        (head(&title, Some(&about), html! {}))
        (faults(v, failure))
        form.form method="post" action=(v.link("/endpoints/new")) data-submit-once {
            (v.form_start())
            (fields(v, typed, catalog, failure))
            div.buttons { (submit(&v.say("Create endpoint"), "primary")) (button(&list, &v.say("Cancel"), "")) }
        }
    };
    Page::new(title, "endpoints", content)
}

/// The same, when it was sent.
pub async fn create(v: Visit) -> Result<Page, Failure> {
    let typed = Typed::sent(&v);
    match typed.send(&v, "POST", "/v1/webhooks").await {
        Ok(made) => Ok(secret::created(&v, made.item())),
        Err(failure) => {
            let failure = mendable(failure, CreateWebhook::NAMES)?;
            let catalog = catalog(&v).await?;
            Ok(new_page(&v, &typed, catalog, Some(&failure)).with_status(status_of(&failure)))
        }
    }
}

/// `/endpoints/{id}/edit`
pub async fn edit(v: Visit) -> Result<Page, Failure> {
    let doc = v.get(&resource(&v, ""), &[]).await?;
    let catalog = catalog(&v).await?;
    Ok(edit_page(&v, doc.item(), &Typed::of(doc.item()), catalog, None))
}

fn edit_page(
    v: &Visit,
    endpoint: Item<'_>,
    typed: &Typed,
    catalog: Option<Vec<Choice>>,
    failure: Option<&Failure>,
) -> Page {
    let title = v.say("Edit the endpoint");
    let about = v.say(
        "A new URL applies from the next attempt on, also to deliveries that are under way. The secret stays the same.",
    );
    let content = html! {
        (trail(v, endpoint))
        (head(&title, Some(&about), html! {}))
        (faults(v, failure))
        form.form method="post" action=(address(v, "/edit")) data-submit-once {
            (v.form_start())
            (fields(v, typed, catalog, failure))
            div.buttons { (submit(&v.say("Save"), "primary")) (button(&address(v, ""), &v.say("Cancel"), "")) }
        }
    };
    Page::new(title, "endpoints", content)
}

/// The same, when it was sent.
pub async fn update(v: Visit) -> Result<Page, Failure> {
    let typed = Typed::sent(&v);
    let path = resource(&v, "");
    match typed.send(&v, "PUT", &path).await {
        Ok(_) => Ok(Page::Redirect(address(&v, "?done=saved"))),
        Err(failure) => {
            let failure = mendable(failure, UpdateWebhook::NAMES)?;
            let doc = v.get(&path, &[]).await?;
            let catalog = catalog(&v).await?;
            Ok(edit_page(&v, doc.item(), &typed, catalog, Some(&failure)).with_status(status_of(&failure)))
        }
    }
}

fn fields(v: &Visit, typed: &Typed, catalog: Option<Vec<Choice>>, failure: Option<&Failure>) -> Markup {
    let error = |name: &str| failure.and_then(|failure| failure.of(name));
    html! {
        (input(&Input {
            name: "url",
            label: &v.say("URL"),
            value: &typed.url,
            hint: &v.say("Where your receiver listens. In production it must be public and use HTTPS."),
            error: error("url"),
            kind: "url",
            required: true,
            max: UpdateWebhook::max_chars("url"),
            ..Input::default()
        }))
        (types(v, typed, catalog, error("events")))
        (input(&Input {
            name: "description",
            label: &v.say("Description"),
            value: &typed.description,
            hint: &v.say("For you and your colleagues. It is not sent."),
            error: error("description"),
            max: UpdateWebhook::max_chars("description"),
            ..Input::default()
        }))
        (select(
            &Input {
                name: "ordering",
                label: &v.say("Ordering"),
                value: &typed.ordering,
                hint: &v.say("In order means one at a time: while a delivery is being retried, those behind it wait."),
                error: error("ordering"),
                ..Input::default()
            },
            &[
                ("none", &v.say("In any order, as fast as possible (none)")),
                ("fifo", &v.say("In order, one at a time (fifo)")),
            ],
        ))
        (area(
            &Input {
                name: "metadata",
                label: &v.say("Metadata"),
                value: &typed.metadata,
                hint: &v.say("Your own notes as a JSON object, such as {\"team\": \"billing\"}. They are not sent."),
                error: error("metadata"),
                ..Input::default()
            },
            4,
        ))
        (input(&Input {
            name: "external_id",
            label: &v.say("External ID"),
            value: &typed.external_id,
            hint: &v.say("Your own name for the endpoint. The API takes it in place of the ID."),
            error: error("external_id"),
            max: UpdateWebhook::max_chars("external_id"),
            ..Input::default()
        }))
    }
}

/// The event types: those of the catalog, and those of the platform.
fn types(v: &Visit, typed: &Typed, catalog: Option<Vec<Choice>>, error: Option<&Fault>) -> Markup {
    let may_choose = catalog.is_some();
    let mut choices = catalog.unwrap_or_default();
    // What has left the catalog stays chosen until somebody takes it away.
    let known = |name: &str| OPERATIONAL.contains(&name) || choices.iter().any(|choice| choice.name == name);
    let mut left: Vec<String> = typed.events.iter().filter(|name| !known(name.as_str())).cloned().collect();
    left.sort_unstable();
    left.dedup();
    let about = if may_choose { v.say("No longer in the catalog: such events are not sent.") } else { String::new() };
    choices.extend(left.into_iter().map(|name| Choice { name, about: about.clone() }));
    let operational = OPERATIONAL.map(|name| Choice { name: name.to_owned(), about: meaning(v, name) });
    let hint = v.say("Choose 1 to 10 in total.");
    html! {
        fieldset #f-events .field .wrong[error.is_some()] tabindex="-1"
            aria-describedby=(if error.is_some() { "f-events-hint f-events-error" } else { "f-events-hint" }) {
            legend { (v.say("Event types")) span.star aria-hidden="true" { "*" } }
            p.hint #f-events-hint { (hint) }
            @if !choices.is_empty() { (checks(typed, &choices)) }
            @if let Some(error) = error { p.error #f-events-error { (error.detail) } }
        }
        @if may_choose && choices.is_empty() {
            p.muted { (v.say("The catalog is empty. The operator of this service adds event types to it.")) }
        }
        @if !may_choose {
            (input(&Input {
                name: "written",
                label: &v.say("Other event types"),
                hint: &v.say("Their names, separated by commas. You cannot see the catalog here; the documentation of your provider lists them."),
                ..Input::default()
            }))
        }
        fieldset.field aria-describedby="f-operational-hint" {
            legend { (v.say("Operational event types")) }
            p.hint #f-operational-hint { (v.say("They tell what happens to your other endpoints, and are sent by this service itself.")) }
            (checks(typed, &operational))
        }
    }
}

fn checks(typed: &Typed, choices: &[Choice]) -> Markup {
    html! { div.checks { @for choice in choices { label {
        input type="checkbox" name="events" value=(choice.name) checked[typed.events.contains(&choice.name)];
        span { (choice.name) @if !choice.about.is_empty() { br; span.muted.small { (choice.about) } } }
    } } } }
}

/// What an operational type tells.
fn meaning(v: &Visit, name: &str) -> String {
    match name {
        "endpoint.auto_disabled" => v.say("Another endpoint was disabled after too many failures."),
        "endpoint.disabled" => v.say("Another endpoint was paused."),
        "endpoint.enabled" => v.say("Another endpoint was resumed."),
        "delivery.failed" => v.say("A delivery to another endpoint failed for good."),
        _ => v.say("The signing secret of another endpoint was rotated."),
    }
}
