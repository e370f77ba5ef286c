//! Event types as an account sees them, publishing an event by hand, and the events that were published.

use maud::{Markup, html};
use serde_json::json;

use super::deliveries;
use super::filters::Filters;
use super::form_errors::{mendable, status_of};
use super::json_fields;
use super::listing::{find, listed, segment};
use super::page_context::{Failure, Page, PageContext};
use super::parts::{
    Input, Kind, area, button, code, codes, copyable, crumbs, empty, facts, faults, filled, head, input, none, notice,
    number, submit, time, type_name,
};
use crate::api::{EventResource, EventTypeResource, EventWithDeliveries, Listing};

const SECTION: &str = "event-types";

const EVENTS: &str = "events";

/// `GET /event-types`
pub async fn list(cx: PageContext) -> Result<Page, Failure> {
    let found: Listing<EventTypeResource> = cx.get("/v1/event-types", &[("page", cx.asked("page"))]).await?;
    let path = cx.link("/event-types");
    let about = cx.say("What endpoints can subscribe to, and what each of them means.");
    let content = html! {
        (head(&cx.say("Event types"), Some(&about), html! {}))
        (listed(
            &cx,
            &found,
            &path,
            empty(
                &cx.say("There are no event types"),
                &cx.say(
                    "The catalog is kept by the operator of this server. Once a type is in it, endpoints can subscribe \
                     to it.",
                ),
                None,
            ),
            |shown| catalog(&cx, shown),
        ))
    };
    Ok(Page::new(cx.say("Event types"), SECTION, content))
}

/// Types in rows, each with the way to its page.
pub fn catalog(cx: &PageContext, types: &[EventTypeResource]) -> Markup {
    let columns = [cx.say("Event type"), cx.say("Description"), cx.say("Schema")];
    html! { div.scroll { table.list {
        thead { tr { @for name in &columns { th scope="col" { (name) } } } }
        tbody { @for entry in types { tr {
            td.main data-label=(columns[0]) { a href=(cx.link(&page_of(&entry.id))) { (type_name(&entry.id)) } }
            td data-label=(columns[1]) { @match filled(entry.description.as_deref()) {
                Some(text) => (text),
                None => (none(cx)),
            } }
            td data-label=(columns[2]) { @if entry.schema.is_none() { (none(cx)) } @else { (cx.say("yes")) } }
        } } }
    } } }
}

fn page_of(name: &str) -> String {
    format!("/event-types/{}", segment(name))
}

/// `GET /event-types/{name}`
pub async fn show(cx: PageContext) -> Result<Page, Failure> {
    page(&cx, None).await
}

/// `POST /event-types/{name}`
pub async fn publish(cx: PageContext) -> Result<Page, Failure> {
    if let Err(refused) = json_fields::read(&cx, "data", cx.field("data")) {
        return Ok(page(&cx, Some(&refused)).await?.with_status(status_of(&refused)));
    }
    // Receivers get what was written, to the byte: nothing is read into a value and written anew.
    let channels = json_fields::listed(cx.field("channels"));
    let channels = if channels.is_empty() { String::new() } else { format!(",\"channels\":{}", json!(channels)) };
    let (name, data) = (json!(cx.param("name")), cx.field("data").trim());
    let body = format!("{{\"event\":{name},\"data\":{data}{channels}}}");
    match cx.send_text::<EventResource>("POST", "/v1/events", Some(body)).await {
        Ok(event) if cx.may("events:read") => Ok(Page::Redirect(cx.link(&format!("/events/{}", event.id)))),
        Ok(event) => Ok(accepted(&cx, &event)),
        Err(failure) => {
            let refused = mendable(failure, &["data", "channels"])?;
            Ok(page(&cx, Some(&refused)).await?.with_status(status_of(&refused)))
        }
    }
}

/// The page for users who may publish but not read events.
fn accepted(cx: &PageContext, event: &EventResource) -> Page {
    let (name, page) = (cx.param("name"), cx.link(&page_of(cx.param("name"))));
    let content = html! {
        (crumbs(cx, &[(&cx.say("Event types"), &cx.link("/event-types")), (name, &page)]))
        (head(&cx.say("The event is published"), None, html! {}))
        (notice(Kind::Good, html! {
            p { (cx.fill("Deliveries made of it: {n}.", &[("n", &event.deliveries)])) }
            (copyable(cx, &event.id))
        }))
    };
    Page::new(cx.say("The event is published"), SECTION, content)
}

async fn page(cx: &PageContext, refused: Option<&Failure>) -> Result<Page, Failure> {
    let entry: EventTypeResource = find(cx, "/v1/event-types", cx.param("name")).await?;
    let [schema, example] = [&entry.schema, &entry.example].map(|value| json_fields::pretty(value.as_ref()));
    let sent = Filters::default().address(&cx.link("/deliveries"), &[("event_type", &entry.id)]);
    let actions = html! { @if cx.may("webhooks:read") { (button(&sent, &cx.say("Its deliveries"), "")) } };
    let content = html! {
        (crumbs(cx, &[(&cx.say("Event types"), &cx.link("/event-types"))]))
        (head(&entry.id, filled(entry.description.as_deref()), actions))
        @if cx.may("events:create") { (form(cx, &entry, &example, refused)) }
        section.panel {
            h2 { (cx.say("Schema of the data")) }
            @if schema.is_empty() {
                p.muted { (cx.say("It has none: any JSON object can be published.")) }
            } @else {
                p.muted {
                    (cx.say("An event whose data does not match this JSON Schema is refused when it is published."))
                }
                (copyable(cx, &schema))
            }
        }
        section.panel {
            h2 { (cx.say("Example of the data")) }
            @if example.is_empty() { p.muted { (cx.say("There is no example.")) } } @else { (copyable(cx, &example)) }
        }
    };
    Ok(Page::new(&entry.id, SECTION, content))
}

fn form(cx: &PageContext, entry: &EventTypeResource, example: &str, refused: Option<&Failure>) -> Markup {
    let written = match (refused, example) {
        (Some(_), _) => cx.field("data"),
        (None, "") => "{}",
        (None, example) => example,
    };
    let rows = u32::try_from(written.lines().count().clamp(6, 24)).expect("it is 24 at most");
    html! { section.panel {
        h2 { (cx.say("Publish an event")) }
        p.muted { (cx.say("It is real: it goes to every active endpoint that subscribes to this type.")) }
        (faults(cx, refused))
        form method="post" action=(cx.link(&page_of(&entry.id))) data-submit-once {
            (cx.form_start())
            (area(&Input {
                name: "data",
                label: &cx.say("Data"),
                hint: &cx.say("A JSON object. Receivers get it as data, within the event."),
                value: written,
                error: refused.and_then(|failure| failure.of("data")),
                required: true,
                ..Input::default()
            }, rows))
            (input(&Input {
                name: "channels",
                label: &cx.say("Channels"),
                hint: &cx.say(
                    "Up to 5 names, separated by commas. Endpoints that have channels get the event only if it carries \
                     one of theirs.",
                ),
                value: cx.field("channels"),
                error: refused.and_then(|failure| failure.of("channels")),
                ..Input::default()
            }))
            div.buttons { (submit(&cx.say("Publish"), "primary")) }
        }
    } }
}

/// `GET /events`
pub async fn events(cx: PageContext) -> Result<Page, Failure> {
    let found: Listing<EventResource> = cx.get("/v1/events", &[("page", cx.asked("page"))]).await?;
    let path = cx.link("/events");
    let content = html! {
        (head(&cx.say("Events"), Some(&cx.say("What was published in this account, newest first.")), html! {}))
        section #events.stack aria-label=(cx.say("Events")) data-live=[(found.pagination().page <= 1).then_some("5")] {
            (listed(
                &cx,
                &found,
                &path,
                empty(
                    &cx.say("No events yet"),
                    &cx.say(
                        "Your program publishes events with an API key. To try it, publish one by hand from the page \
                         of its type.",
                    ),
                    Some((&cx.link("/event-types"), &cx.say("See the event types"))),
                ),
                |shown| published(&cx, shown),
            ))
        }
    };
    Ok(Page::new(cx.say("Events"), EVENTS, content))
}

fn published(cx: &PageContext, events: &[EventResource]) -> Markup {
    let columns = [cx.say("Event type"), cx.say("Deliveries"), cx.say("Happened"), cx.say("Accepted")];
    html! { div.scroll { table.list {
        thead { tr { @for (at, name) in columns.iter().enumerate() { th.num[at == 1] scope="col" { (name) } } } }
        tbody { @for event in events { tr {
            td.main data-label=(columns[0]) {
                a href=(cx.link(&format!("/events/{}", event.id))) { (type_name(&event.event)) small { (event.id) } }
            }
            td.num data-label=(columns[1]) { (number(cx, event.deliveries.into())) }
            td.nowrap data-label=(columns[2]) { (time(cx, &event.timestamp)) }
            td.nowrap data-label=(columns[3]) { (time(cx, &event.created_at)) }
        } } }
    } } }
}

/// `GET /events/{id}`
pub async fn event(cx: PageContext) -> Result<Page, Failure> {
    let found: EventWithDeliveries = cx.get(&format!("/v1/events/{}", segment(cx.param("id"))), &[]).await?;
    let (event, sent) = (&found.event, &found.relationships.deliveries.data);
    let open = sent.iter().any(|delivery| matches!(&*delivery.status, "pending" | "retrying"));
    let title = cx.fill("Event {type}", &[("type", &event.event)]);
    let names = [
        cx.say("Event type"),
        cx.say("Happened"),
        cx.say("Accepted"),
        cx.say("Channels"),
        cx.say("Deliveries at first"),
        cx.say("Event id"),
    ];
    let rows = [
        (names[0].as_str(), code(&event.event)),
        (&names[1], time(&cx, &event.timestamp)),
        (&names[2], time(&cx, &event.created_at)),
        (&names[3], codes(&cx, event.channels.as_deref())),
        (&names[4], html! { (number(&cx, event.deliveries.into())) }),
        (&names[5], copyable(&cx, &event.id)),
    ];
    let content = html! {
        (crumbs(&cx, &[(&cx.say("Events"), &cx.link("/events"))]))
        (head(&title, None, html! {}))
        section.panel aria-label=(cx.say("About this event")) { (facts(&rows)) }
        section #sent.stack data-live=[open.then_some("3")] {
            h2 { (cx.say("Deliveries")) }
            @if sent.is_empty() {
                (empty(
                    &cx.say("It went to no endpoint"),
                    &cx.say(
                        "No active endpoint wanted it when it was published: none subscribed to its type, or their \
                         channels or filters left it out. Subscribe one, and replay what it missed.",
                    ),
                    Some((&cx.link("/endpoints"), &cx.say("See the endpoints"))),
                ))
            } @else {
                (deliveries::table(&cx, sent))
            }
        }
    };
    Ok(Page::new(title, EVENTS, content))
}
