//! Deliveries: the list with its filters, and the table of them that other pages show too. What is known of one is in
//! `one`.

mod curl;
mod one;

use maud::{Markup, html};

use super::asking::{listed, pages};
use super::event_types::name;
use super::filters::Filters;
use super::parts::{Kind, button, empty, head, http_status, millis, notice, status, submit, time};
use super::visit::{Doc, Failure, Item, Page, Visit};

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

/// Those that are out of sight until somebody wants them.
const MORE: [&str; 5] = ["from", "to", "min_attempt", "min_response_time_ms", "validation_id"];

/// Types that are delivered and stand in no catalog: of a test, and of what the server tells of endpoints.
const OUTSIDE_THE_CATALOG: [&str; 6] =
    ["test", "endpoint.auto_disabled", "endpoint.disabled", "endpoint.enabled", "delivery.failed", "secret.rotated"];

/// `GET /deliveries`
pub async fn list(v: Visit) -> Result<Page, Failure> {
    let filters = Filters::read(&v, &FILTERS);
    let choices = Choices::read(&v).await;
    let (found, refused) = match v.get("/v1/webhooks/deliveries", &filters.query(v.asked("page"))).await {
        Ok(found) => (Some(found), None),
        Err(failure) if failure.is("invalid_filter") => (None, Some(failure)),
        Err(failure) => return Err(failure),
    };
    let content = html! {
        (head(&v.say("Deliveries"), Some(&v.say("Every event on its way to every endpoint, newest first.")), exports(&v, &filters)))
        (form(&v, &filters, &choices, refused.as_ref()))
        @match &found {
            Some(found) => (results(&v, &filters, found)),
            None => (notice(Kind::Bad, html! {
                p { (v.say("A filter cannot be read, so nothing is shown. What it takes stands beside it.")) }
            })),
        }
    };
    let page = Page::new(v.say("Deliveries"), "deliveries", content);
    Ok(if refused.is_some() { page.with_status(422) } else { page })
}

fn exports(v: &Visit, filters: &Filters) -> Markup {
    let to = |format| filters.address(&v.link("/deliveries/export"), &[("format", format)]);
    html! {
        (button(&to("csv"), &v.say("Export as CSV"), ""))
        (button(&to("xlsx"), &v.say("Export as XLSX"), ""))
    }
}

/// What can be chosen: values and what they are called.
struct Choices {
    endpoints: Vec<(String, String)>,
    event_types: Vec<(String, String)>,
}

impl Choices {
    /// Where one of them cannot be read there is less to choose from: that is better than no list.
    async fn read(v: &Visit) -> Self {
        let endpoints = v.get("/v1/webhooks", &[]).await.ok();
        let endpoints =
            endpoints.iter().flat_map(Doc::items).map(|item| (item.id().to_owned(), called(item))).collect();
        let catalog = pages(v, "/v1/event-types").await.unwrap_or_default();
        let names = catalog.iter().flat_map(Doc::items).map(Item::id).chain(OUTSIDE_THE_CATALOG);
        Self { endpoints, event_types: names.map(|name| (name.to_owned(), name.to_owned())).collect() }
    }
}

fn called(endpoint: Item<'_>) -> String {
    match endpoint.text("description") {
        "" => endpoint.text("url").to_owned(),
        description => format!("{description} · {}", endpoint.text("url")),
    }
}

fn form(v: &Visit, filters: &Filters, choices: &Choices, refused: Option<&Failure>) -> Markup {
    let all = |label: String, options: &[(String, String)]| [&[(String::new(), label)], options].concat();
    let pair = |value: &str, label: String| (value.to_owned(), label);
    let statuses = [
        pair("pending", v.say("Pending")),
        pair("retrying", v.say("Retrying")),
        pair("success", v.say("Success")),
        pair("failed", v.say("Failed")),
    ];
    let answers = [
        pair("2xx", v.say("2xx, success")),
        pair("3xx", v.say("3xx, redirect")),
        pair("4xx", v.say("4xx, refused")),
        pair("5xx", v.say("5xx, receiver failed")),
        pair("none", v.say("No answer")),
    ];
    let chosen = |name, label: String, any: String, options: &[(String, String)]| {
        filters.chosen(name, &label, &all(any, options), refused)
    };
    let typed = |name, label: String, kind| filters.typed(name, &label, kind, refused);
    let open = filters.any(&MORE) || refused.is_some_and(|failure| MORE.iter().any(|name| failure.of(name).is_some()));
    html! { form.filters method="get" action=(v.link("/deliveries")) aria-label=(v.say("Filters")) {
        (typed("q", v.say("Search"), "search"))
        (chosen("status", v.say("Status"), v.say("Any status"), &statuses))
        (chosen("endpoint_id", v.say("Endpoint"), v.say("Any endpoint"), &choices.endpoints))
        (chosen("event_type", v.say("Event type"), v.say("Any type"), &choices.event_types))
        (chosen("response_status", v.say("HTTP status"), v.say("Any answer"), &answers))
        details open[open] {
            summary { (v.say("More filters")) }
            div.row {
                (typed("from", v.say("From (UTC)"), "date"))
                (typed("to", v.say("To (UTC)"), "date"))
                (typed("min_attempt", v.say("At least this many attempts"), "number"))
                (typed("min_response_time_ms", v.say("Took at least (ms)"), "number"))
                (typed("validation_id", v.say("Validation id"), "text"))
            }
        }
        div.buttons {
            (submit(&v.say("Filter"), ""))
            @if !filters.is_empty() { (button(&v.link("/deliveries"), &v.say("Clear filters"), "")) }
        }
    } }
}

/// How often the list looks again: where a search reads the whole history, not at all.
fn live(v: &Visit, found: &Doc) -> Option<&'static str> {
    let reads_all = ["q", "validation_id"].into_iter().any(|name| !v.asked(name).is_empty());
    (found.page() <= 1 && !reads_all).then_some("5")
}

fn results(v: &Visit, filters: &Filters, found: &Doc) -> Markup {
    let path = v.link("/deliveries");
    let at_all = empty(
        &v.say("No deliveries yet"),
        &v.say("When an event is published, each active endpoint that subscribes to its type gets a delivery, and it stands here."),
        Some((&v.link("/endpoints"), &v.say("See the endpoints"))),
    );
    let nothing = filters.nothing(v, &path, &v.say("No delivery matches"), at_all);
    html! { section #deliveries.stack aria-label=(v.say("Deliveries")) data-live=[live(v, found)] {
        (listed(v, found, &path, nothing, |shown| table(v, shown)))
    } }
}

/// Deliveries in rows, each with the way to its page.
pub fn table(v: &Visit, deliveries: &[Item<'_>]) -> Markup {
    let columns = [
        v.say("Event type"),
        v.say("Status"),
        v.say("Endpoint"),
        v.say("HTTP status"),
        v.say("Took"),
        v.say("Attempt"),
        v.say("Created"),
    ];
    html! { div.scroll { table.list {
        thead { tr { @for (at, name) in columns.iter().enumerate() { th.num[at == 4 || at == 5] scope="col" { (name) } } } }
        tbody { @for delivery in deliveries { tr {
            td.main data-label=(columns[0]) {
                a href=(v.link(&format!("/deliveries/{}", delivery.id()))) { (name(delivery.text("event_type"))) small { (delivery.id()) } }
            }
            td data-label=(columns[1]) { (status(v, delivery.text("status"))) }
            td.url data-label=(columns[2]) {
                a href=(v.link(&format!("/endpoints/{}", delivery.text("endpoint_id")))) { (delivery.text("endpoint_url")) }
            }
            td data-label=(columns[3]) { (answer(v, *delivery)) }
            td.num data-label=(columns[4]) { (millis(v, delivery.number("response_time_ms"))) }
            td.num data-label=(columns[5]) { (delivery.number("attempt").unwrap_or(1)) }
            td.nowrap data-label=(columns[6]) { (time(v, delivery.text("created_at"))) }
        } } }
    } } }
}

/// What the receiver answered: nothing yet while there was no attempt.
pub fn answer(v: &Visit, delivery: Item<'_>) -> Markup {
    let code = delivery.number("response_status");
    if code.is_none() && delivery.number("response_time_ms").is_none() {
        return super::parts::none(v);
    }
    http_status(v, code)
}
