//! Event types as an account sees them, publishing an event by hand, and the events that were published.

use maud::{Markup, html};
use serde_json::json;

use super::asking::{find, listed, mendable, segment, status_of};
use super::deliveries;
use super::filters::Filters;
use super::parts::{
    Input, Kind, area, button, code, copyable, crumbs, empty, facts, faults, head, none, notice, number, submit, time,
};
use super::visit::{Doc, Failure, Item, Page, Visit};
use super::written;

const SECTION: &str = "event-types";

const EVENTS: &str = "events";

/// `GET /event-types`
pub async fn list(v: Visit) -> Result<Page, Failure> {
    let found = v.get("/v1/event-types", &[("page", v.asked("page"))]).await?;
    let path = v.link("/event-types");
    let content = html! {
        (head(&v.say("Event types"), Some(&v.say("What endpoints can subscribe to, and what each of them means.")), html! {}))
        (listed(
            &v,
            &found,
            &path,
            empty(
                &v.say("There are no event types"),
                &v.say("The catalog is kept by the operator of this server. Once a type is in it, endpoints can subscribe to it."),
                None,
            ),
            |shown| catalog(&v, shown),
        ))
    };
    Ok(Page::new(v.say("Event types"), SECTION, content))
}

/// Types in rows, each with the way to its page.
pub fn catalog(v: &Visit, types: &[Item<'_>]) -> Markup {
    let columns = [v.say("Event type"), v.say("Description"), v.say("Schema")];
    html! { div.scroll { table.list {
        thead { tr { @for name in &columns { th scope="col" { (name) } } } }
        tbody { @for entry in types { tr {
            td.main data-label=(columns[0]) { a href=(v.link(&page_of(entry.id()))) { (name(entry.id())) } }
            td data-label=(columns[1]) { @match entry.text("description") { "" => (none(v)), text => (text) } }
            td data-label=(columns[2]) { @if entry.value("schema").is_null() { (none(v)) } @else { (v.say("yes")) } }
        } } }
    } } }
}

/// A type's name, which is broken between its words where there is no room for it.
pub fn name(name: &str) -> Markup {
    html! { @for part in name.split_inclusive(['.', '_']) { (part) wbr; } }
}

fn page_of(name: &str) -> String {
    format!("/event-types/{}", segment(name))
}

/// `GET /event-types/{name}`
pub async fn show(v: Visit) -> Result<Page, Failure> {
    page(&v, None).await
}

/// `POST /event-types/{name}`
pub async fn publish(v: Visit) -> Result<Page, Failure> {
    if let Err(refused) = written::read(&v, "data", v.field("data")) {
        return Ok(page(&v, Some(&refused)).await?.with_status(status_of(&refused)));
    }
    // Receivers get what was written, to the byte: nothing is read into a value and written anew.
    let body = format!("{{\"event\":{},\"data\":{}}}", json!(v.param("name")), v.field("data").trim());
    match v.send_text("POST", "/v1/events", Some(body)).await {
        Ok(event) if v.may("events:read") => Ok(Page::Redirect(v.link(&format!("/events/{}", event.item().id())))),
        Ok(event) => Ok(accepted(&v, &event)),
        Err(failure) => {
            let refused = mendable(failure, &["data"])?;
            Ok(page(&v, Some(&refused)).await?.with_status(status_of(&refused)))
        }
    }
}

/// For those who may publish and not look.
fn accepted(v: &Visit, event: &Doc) -> Page {
    let content = html! {
        (crumbs(v, &[(&v.say("Event types"), &v.link("/event-types")), (v.param("name"), &v.link(&page_of(v.param("name"))))]))
        (head(&v.say("The event is published"), None, html! {}))
        (notice(Kind::Good, html! {
            p { (v.fill("Deliveries made of it: {n}.", &[("n", &event.item().number("deliveries").unwrap_or(0))])) }
            (copyable(v, event.item().id()))
        }))
    };
    Page::new(v.say("The event is published"), SECTION, content)
}

async fn page(v: &Visit, refused: Option<&Failure>) -> Result<Page, Failure> {
    let found = find(v, "/v1/event-types", v.param("name")).await?;
    let entry = found.item();
    let (schema, example) = (written::pretty(entry.value("schema")), written::pretty(entry.value("example")));
    let sent = Filters::default().address(&v.link("/deliveries"), &[("event_type", entry.id())]);
    let actions = html! { @if v.may("webhooks:read") { (button(&sent, &v.say("Its deliveries"), "")) } };
    let content = html! {
        (crumbs(v, &[(&v.say("Event types"), &v.link("/event-types"))]))
        (head(entry.id(), Some(entry.text("description")).filter(|text| !text.is_empty()), actions))
        @if v.may("events:create") { (form(v, entry, &example, refused)) }
        section.panel {
            h2 { (v.say("Schema of the data")) }
            @if schema.is_empty() {
                p.muted { (v.say("It has none: any JSON object can be published.")) }
            } @else {
                p.muted { (v.say("An event whose data does not match this JSON Schema is refused when it is published.")) }
                (copyable(v, &schema))
            }
        }
        section.panel {
            h2 { (v.say("Example of the data")) }
            @if example.is_empty() { p.muted { (v.say("There is no example.")) } } @else { (copyable(v, &example)) }
        }
    };
    Ok(Page::new(entry.id(), SECTION, content))
}

fn form(v: &Visit, entry: Item<'_>, example: &str, refused: Option<&Failure>) -> Markup {
    let written = match (refused, example) {
        (Some(_), _) => v.field("data"),
        (None, "") => "{}",
        (None, example) => example,
    };
    let rows = u32::try_from(written.lines().count()).unwrap_or(u32::MAX).clamp(6, 24);
    html! { section.panel {
        h2 { (v.say("Publish an event")) }
        p.muted { (v.say("It is real: it goes to every active endpoint that subscribes to this type.")) }
        (faults(v, refused))
        form method="post" action=(v.link(&page_of(entry.id()))) data-submit-once {
            (v.form_start())
            (area(&Input {
                name: "data",
                label: &v.say("Data"),
                hint: &v.say("A JSON object. Receivers get it as data, within the event."),
                value: written,
                error: refused.and_then(|failure| failure.of("data")),
                required: true,
                ..Input::default()
            }, rows))
            div.buttons { (submit(&v.say("Publish"), "primary")) }
        }
    } }
}

/// `GET /events`
pub async fn events(v: Visit) -> Result<Page, Failure> {
    let found = v.get("/v1/events", &[("page", v.asked("page"))]).await?;
    let path = v.link("/events");
    let content = html! {
        (head(&v.say("Events"), Some(&v.say("What was published in this account, newest first.")), html! {}))
        section #events.stack aria-label=(v.say("Events")) data-live=[(found.page() <= 1).then_some("5")] {
            (listed(
                &v,
                &found,
                &path,
                empty(
                    &v.say("No events yet"),
                    &v.say("Your program publishes events with an API key. To try it, publish one by hand from the page of its type."),
                    Some((&v.link("/event-types"), &v.say("See the event types"))),
                ),
                |shown| published(&v, shown),
            ))
        }
    };
    Ok(Page::new(v.say("Events"), EVENTS, content))
}

fn published(v: &Visit, events: &[Item<'_>]) -> Markup {
    let columns = [v.say("Event type"), v.say("Deliveries"), v.say("Happened"), v.say("Accepted")];
    html! { div.scroll { table.list {
        thead { tr { @for (at, name) in columns.iter().enumerate() { th.num[at == 1] scope="col" { (name) } } } }
        tbody { @for event in events { tr {
            td.main data-label=(columns[0]) {
                a href=(v.link(&format!("/events/{}", event.id()))) { (name(event.text("event"))) small { (event.id()) } }
            }
            td.num data-label=(columns[1]) { (count(v, *event)) }
            td.nowrap data-label=(columns[2]) { (time(v, event.text("timestamp"))) }
            td.nowrap data-label=(columns[3]) { (time(v, event.text("created_at"))) }
        } } }
    } } }
}

/// To how many endpoints it went when it was accepted.
fn count(v: &Visit, event: Item<'_>) -> String {
    number(v, event.number("deliveries").and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

/// `GET /events/{id}`
pub async fn event(v: Visit) -> Result<Page, Failure> {
    let found = v.get(&format!("/v1/events/{}", segment(v.param("id"))), &[]).await?;
    let event = found.item();
    let sent = event.related("deliveries");
    let open = sent.iter().any(|delivery| matches!(delivery.text("status"), "pending" | "retrying"));
    let names =
        [v.say("Event type"), v.say("Happened"), v.say("Accepted"), v.say("Deliveries at first"), v.say("Event id")];
    let rows = [
        (names[0].as_str(), code(event.text("event"))),
        (&names[1], time(&v, event.text("timestamp"))),
        (&names[2], time(&v, event.text("created_at"))),
        (&names[3], html! { (count(&v, event)) }),
        (&names[4], copyable(&v, event.id())),
    ];
    let content = html! {
        (crumbs(&v, &[(&v.say("Events"), &v.link("/events"))]))
        (head(&v.fill("Event {type}", &[("type", &event.text("event"))]), None, html! {}))
        section.panel aria-label=(v.say("About this event")) { (facts(&rows)) }
        section #sent.stack data-live=[open.then_some("3")] {
            h2 { (v.say("Deliveries")) }
            @if sent.is_empty() {
                (empty(
                    &v.say("It went to no endpoint"),
                    &v.say("No active endpoint subscribed to its type when it was published. Subscribe one, and replay what it missed."),
                    Some((&v.link("/endpoints"), &v.say("See the endpoints"))),
                ))
            } @else {
                (deliveries::table(&v, &sent))
            }
        }
    };
    Ok(Page::new(v.fill("Event {type}", &[("type", &event.text("event"))]), EVENTS, content))
}
