//! Deliveries: the list with its filters, and the table of them that other pages show too. What is known of one is in
//! `one`.

mod curl;
mod one;

use maud::{Markup, html};

use super::filters::Filters;
use super::listing::{entries, listed};
use super::page_context::{Failure, Page, PageContext};
use super::parts::{Kind, button, empty, filled, head, http_status, millis, notice, status, submit, time, type_name};
use crate::api::{Code, DeliveryResource, EndpointResource, EventTypeResource, Listing, Operational, TEST_TYPE};

pub use one::{retry, show};

/// What the list can be narrowed by.
const FILTERS: [&str; 10] = [
    "q",
    "status",
    "endpoint_id",
    "event_type",
    "response_status",
    "from",
    "to",
    "min_attempt",
    "min_response_time_ms",
    "validation_id",
];

/// Filters behind "More filters".
const MORE: [&str; 5] = ["from", "to", "min_attempt", "min_response_time_ms", "validation_id"];

/// `GET /deliveries`
pub async fn list(cx: PageContext) -> Result<Page, Failure> {
    let filters = Filters::read(&cx, &FILTERS);
    let choices = Choices::read(&cx).await;
    let query = filters.query(cx.asked("page"));
    let (found, refused) = match cx.get::<Listing<DeliveryResource>>("/v1/webhooks/deliveries", &query).await {
        Ok(found) => (Some(found), None),
        Err(failure) if failure.is(Code::InvalidFilter) => (None, Some(failure)),
        Err(failure) => return Err(failure),
    };
    let about = cx.say("Every event on its way to every endpoint, newest first.");
    let content = html! {
        (head(&cx.say("Deliveries"), Some(&about), exports(&cx, &filters)))
        (form(&cx, &filters, &choices, refused.as_ref()))
        @match &found {
            Some(found) => (results(&cx, &filters, found)),
            None => (notice(Kind::Bad, html! {
                p { (cx.say("A filter cannot be read, so nothing is shown. What it takes stands beside it.")) }
            })),
        }
    };
    let page = Page::new(cx.say("Deliveries"), "deliveries", content);
    Ok(if refused.is_some() { page.with_status(422) } else { page })
}

fn exports(cx: &PageContext, filters: &Filters) -> Markup {
    let to = |format| filters.address(&cx.link("/deliveries/export"), &[("format", format)]);
    html! {
        (button(&to("csv"), &cx.say("Export as CSV"), ""))
        (button(&to("xlsx"), &cx.say("Export as XLSX"), ""))
    }
}

/// What can be chosen: values and what they are called.
struct Choices {
    endpoints: Vec<(String, String)>,
    event_types: Vec<(String, String)>,
}

impl Choices {
    /// Where one of them cannot be read there is less to choose from: that is better than no list.
    async fn read(cx: &PageContext) -> Self {
        let endpoints: Vec<EndpointResource> = cx.get("/v1/webhooks", &[]).await.unwrap_or_default();
        let endpoints = endpoints.iter().map(|endpoint| (endpoint.id.clone(), called(endpoint))).collect();
        let catalog: Vec<EventTypeResource> = entries(cx, "/v1/event-types").await.unwrap_or_default();
        // Tests and operational events are delivered, and no catalog has their types.
        let others = std::iter::once(TEST_TYPE).chain(Operational::ALL.iter().map(|kind| kind.name()));
        let names = catalog.into_iter().map(|entry| entry.id).chain(others.map(str::to_owned));
        Self { endpoints, event_types: names.map(|name| (name.clone(), name)).collect() }
    }
}

fn called(endpoint: &EndpointResource) -> String {
    match filled(endpoint.description.as_deref()) {
        None => endpoint.url.clone(),
        Some(description) => format!("{description} · {}", endpoint.url),
    }
}

fn form(cx: &PageContext, filters: &Filters, choices: &Choices, refused: Option<&Failure>) -> Markup {
    let all = |label: String, options: &[(String, String)]| [&[(String::new(), label)], options].concat();
    let pair = |value: &str, label: String| (value.to_owned(), label);
    let statuses = [
        pair("pending", cx.say("Pending")),
        pair("retrying", cx.say("Retrying")),
        pair("success", cx.say("Success")),
        pair("failed", cx.say("Failed")),
    ];
    let answers = [
        pair("2xx", cx.say("2xx, success")),
        pair("3xx", cx.say("3xx, redirect")),
        pair("4xx", cx.say("4xx, refused")),
        pair("5xx", cx.say("5xx, receiver failed")),
        pair("none", cx.say("No answer")),
    ];
    let chosen = |name, label: String, any: String, options: &[(String, String)]| {
        filters.chosen(name, &label, &all(any, options), refused)
    };
    let typed = |name, label: String, kind| filters.typed(name, &label, kind, refused);
    let open = filters.any(&MORE) || refused.is_some_and(|failure| MORE.iter().any(|name| failure.of(name).is_some()));
    html! { form.filters method="get" action=(cx.link("/deliveries")) aria-label=(cx.say("Filters")) {
        (typed("q", cx.say("Search"), "search"))
        (chosen("status", cx.say("Status"), cx.say("Any status"), &statuses))
        (chosen("endpoint_id", cx.say("Endpoint"), cx.say("Any endpoint"), &choices.endpoints))
        (chosen("event_type", cx.say("Event type"), cx.say("Any type"), &choices.event_types))
        (chosen("response_status", cx.say("HTTP status"), cx.say("Any answer"), &answers))
        details open[open] {
            summary { (cx.say("More filters")) }
            div.row {
                (typed("from", cx.say("From (UTC)"), "date"))
                (typed("to", cx.say("To (UTC)"), "date"))
                (typed("min_attempt", cx.say("At least this many attempts"), "number"))
                (typed("min_response_time_ms", cx.say("Took at least (ms)"), "number"))
                (typed("validation_id", cx.say("Validation id"), "text"))
            }
        }
        div.buttons {
            (submit(&cx.say("Filter"), ""))
            @if !filters.is_empty() { (button(&cx.link("/deliveries"), &cx.say("Clear filters"), "")) }
        }
    } }
}

/// How often the list looks again: where a search reads the whole history, not at all.
fn live(cx: &PageContext, page: u64) -> Option<&'static str> {
    let reads_all = ["q", "validation_id"].into_iter().any(|name| !cx.asked(name).is_empty());
    (page <= 1 && !reads_all).then_some("5")
}

fn results(cx: &PageContext, filters: &Filters, found: &Listing<DeliveryResource>) -> Markup {
    let path = cx.link("/deliveries");
    let at_all = empty(
        &cx.say("No deliveries yet"),
        &cx.say(
            "When an event is published, each active endpoint that subscribes to its type gets a delivery, and it \
             stands here.",
        ),
        Some((&cx.link("/endpoints"), &cx.say("See the endpoints"))),
    );
    let nothing = filters.nothing(cx, &path, &cx.say("No delivery matches"), at_all);
    let live = live(cx, found.pagination().page);
    html! { section #deliveries.stack aria-label=(cx.say("Deliveries")) data-live=[live] {
        (listed(cx, found, &path, nothing, |shown| table(cx, shown)))
    } }
}

/// Deliveries in rows, each with the way to its page.
pub fn table(cx: &PageContext, deliveries: &[DeliveryResource]) -> Markup {
    let columns = [
        cx.say("Event type"),
        cx.say("Status"),
        cx.say("Endpoint"),
        cx.say("HTTP status"),
        cx.say("Took"),
        cx.say("Attempt"),
        cx.say("Created"),
    ];
    html! { div.scroll { table.list {
        thead { tr {
            @for (at, name) in columns.iter().enumerate() { th.num[at == 4 || at == 5] scope="col" { (name) } }
        } }
        tbody { @for delivery in deliveries { tr {
            td.main data-label=(columns[0]) {
                a href=(cx.link(&format!("/deliveries/{}", delivery.id))) {
                    (type_name(&delivery.event_type)) small { (delivery.id) }
                }
            }
            td data-label=(columns[1]) { (status(cx, &delivery.status)) }
            td.url data-label=(columns[2]) {
                a href=(cx.link(&format!("/endpoints/{}", delivery.endpoint_id))) {
                    (delivery.endpoint_url.as_deref().unwrap_or_default())
                }
            }
            td data-label=(columns[3]) { (answer(cx, delivery)) }
            td.num data-label=(columns[4]) { (millis(cx, delivery.response_time_ms.map(u64::from))) }
            td.num data-label=(columns[5]) { (delivery.attempt) }
            td.nowrap data-label=(columns[6]) { (time(cx, &delivery.created_at)) }
        } } }
    } } }
}

/// What the receiver answered: nothing yet while there was no attempt.
pub fn answer(cx: &PageContext, delivery: &DeliveryResource) -> Markup {
    if delivery.response_status.is_none() && delivery.response_time_ms.is_none() {
        return super::parts::none(cx);
    }
    http_status(cx, delivery.response_status)
}
