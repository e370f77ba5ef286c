//! One delivery: what became of it and what comes next, what was sent, every attempt; and sending it again.

use maud::{Markup, html};
use serde_json::Value;

use super::super::asking::{mendable, segment, status_of};
use super::super::parts::{
    Kind, code, copyable, crumbs, facts, head, http_status, millis, none, notice, number, post, status, time, until,
};
use super::super::visit::{Doc, Failure, Item, Page, Visit};
use super::super::written::laid_out;
use super::curl::curl;

/// `GET /deliveries/{id}`
pub async fn show(v: Visit) -> Result<Page, Failure> {
    page(&v, None).await
}

/// `POST /deliveries/{id}/retry`
pub async fn retry(v: Visit) -> Result<Page, Failure> {
    let path = format!("/v1/webhooks/deliveries/{}/retry", segment(v.param("id")));
    match v.send("POST", &path, Value::Null).await {
        Ok(delivery) => Ok(Page::Redirect(v.link(&format!("/deliveries/{}", delivery.item().id())))),
        Err(failure) => {
            let refused = mendable(failure, &[])?;
            Ok(page(&v, Some(&refused)).await?.with_status(status_of(&refused)))
        }
    }
}

async fn page(v: &Visit, refused: Option<&Failure>) -> Result<Page, Failure> {
    let found = v.get(&format!("/v1/webhooks/deliveries/{}", segment(v.param("id"))), &[]).await?;
    // It may have been deleted in this moment; then the page does without.
    let endpoint = v.get(&format!("/v1/webhooks/{}", segment(found.item().text("endpoint_id"))), &[]).await.ok();
    let (delivery, endpoint) = (found.item(), endpoint.as_ref().map(Doc::item));
    let title = v.fill("Delivery {id}", &[("id", &delivery.id())]);
    // The page that tells of a refusal is no page that can be fetched again.
    let live = refused.is_none() && matches!(delivery.text("status"), "pending" | "retrying");
    let content = html! {
        (crumbs(v, &[(&v.say("Deliveries"), &v.link("/deliveries"))]))
        (head(&title, None, html! {}))
        @if let Some(refused) = refused { (not_sent(v, delivery, refused)) }
        section #delivery.stack data-live=[live.then_some("3")] {
            (outcome(v, delivery, endpoint))
            (about(v, delivery, endpoint))
            (attempts(v, delivery))
        }
        (sent(v, delivery))
        (headers(v, delivery))
        (command(v, delivery, endpoint))
    };
    Ok(Page::new(title, "deliveries", content))
}

fn not_sent(v: &Visit, delivery: Item<'_>, refused: &Failure) -> Markup {
    notice(
        Kind::Bad,
        html! {
            strong { (v.say("It was not sent again.")) }
            @for fault in &refused.faults { p { (fault.detail) } }
            p { a href=(v.link(&format!("/deliveries/{}", delivery.id()))) { (v.say("See how it stands now")) } }
        },
    )
}

/// What became of it, why, what comes next, and what to do.
fn outcome(v: &Visit, delivery: Item<'_>, endpoint: Option<Item<'_>>) -> Markup {
    let (kind, what) = match delivery.text("status") {
        "success" => (Kind::Good, v.say("It was delivered.")),
        "retrying" => (Kind::Warn, v.say("The latest attempt failed. It is tried again by itself.")),
        "failed" => (Kind::Bad, v.say("It failed, and is not tried again by itself.")),
        _ => (Kind::Info, v.say("It waits for its next attempt.")),
    };
    let failed = matches!(delivery.text("status"), "retrying" | "failed");
    let due = delivery.text("next_retry_at");
    html! {
        (notice(kind, html! {
            strong { (what) }
            @if failed {
                @if !delivery.text("error_message").is_empty() { p lang="en" { (delivery.text("error_message")) } }
                p { (advice(v, delivery.number("response_status"))) }
            }
            @if !due.is_empty() { p { (v.say("Next attempt:")) " " (until(v, due)) } }
            (again(v, delivery))
        }))
        @if let Some(endpoint) = endpoint { (waits(v, delivery, endpoint)) }
    }
}

/// The button that sends it again, where that is possible.
fn again(v: &Visit, delivery: Item<'_>) -> Markup {
    if !matches!(delivery.text("status"), "success" | "failed") || !v.may("webhooks:update") {
        return html! {};
    }
    if delivery.value("request_body").is_null() {
        return html! { p { (v.say("Its body is no longer kept, so it cannot be sent again.")) } };
    }
    post(v, &v.link(&format!("/deliveries/{}/retry", delivery.id())), &v.say("Send again"), "")
}

/// Why an attempt that is due may not come.
fn waits(v: &Visit, delivery: Item<'_>, endpoint: Item<'_>) -> Markup {
    if !matches!(delivery.text("status"), "pending" | "retrying") {
        return html! {};
    }
    let to_endpoint =
        html! { a href=(v.link(&format!("/endpoints/{}", endpoint.id()))) { (v.say("See the endpoint")) } };
    if endpoint.text("status") != "active" {
        return notice(
            Kind::Warn,
            html! {
                strong { (v.say("The endpoint is paused.")) }
                p { (v.say("Nothing is sent to it until it is active again. This delivery then goes on.")) " " (to_endpoint) }
            },
        );
    }
    html! { @if endpoint.text("ordering") == "fifo" { (notice(Kind::Info, html! {
        p { (v.say("The endpoint takes its deliveries in order, so this one may wait for an earlier one.")) " " (to_endpoint) }
    })) } }
}

/// What can be done about an answer that is no success.
fn advice(v: &Visit, answer: Option<i64>) -> String {
    match answer {
        None => v.say("There was no answer. Check the endpoint's URL, that its server runs and can be reached from the internet, and that it answers in time."),
        Some(300..=399) => v.say("Redirects are not followed. Give the endpoint the URL that it redirects to."),
        Some(401 | 403) => v.say("The receiver turned it away. Check that it verifies signatures with the endpoint's current secret and asks for no other credentials."),
        Some(404 | 405) => v.say("The receiver takes no POST requests at this URL. Check the endpoint's URL."),
        Some(410) => v.say("With 410 a receiver says that it is gone for good, which pauses its endpoint. If it is not gone, correct what it answers and make the endpoint active again."),
        Some(429) => v.say("The receiver has too many requests right now."),
        Some(500..=599) => v.say("The receiver failed while it handled the request. Its own log at the time of the attempt should say why."),
        Some(_) => v.say("The receiver did not accept the request. What it answered may say why."),
    }
}

fn about(v: &Visit, delivery: Item<'_>, endpoint: Option<Item<'_>>) -> Markup {
    let (event, event_type) = (delivery.text("event_id"), delivery.text("event_type"));
    let validation = delivery.text("validation_id");
    let to_endpoint = v.link(&format!("/endpoints/{}", delivery.text("endpoint_id")));
    let url = endpoint.map_or(delivery.text("endpoint_url"), |endpoint| endpoint.text("url"));
    let to_event = html! {
        @if event.is_empty() { (none(v)) }
        // What a test sends is in no list of events.
        @else if event_type != "test" && v.may("events:read") { a href=(v.link(&format!("/events/{event}"))) { (code(event)) } }
        @else { (code(event)) }
    };
    let names = [
        v.say("Status"),
        v.say("Endpoint"),
        v.say("Event type"),
        v.say("Event"),
        v.say("Attempts"),
        v.say("Created"),
        v.say("Delivery id"),
        v.say("Validation id"),
    ];
    let mut rows = vec![
        (names[0].as_str(), status(v, delivery.text("status"))),
        (&names[1], html! { a href=(to_endpoint) { (url) } }),
        (&names[2], code(event_type)),
        (&names[3], to_event),
        (&names[4], html! { (number(v, delivery.list("attempts").len() as u64)) }),
        (&names[5], time(v, delivery.text("created_at"))),
        (&names[6], copyable(v, delivery.id())),
    ];
    if !validation.is_empty() {
        rows.push((&names[7], copyable(v, validation)));
    }
    html! { section.panel aria-label=(v.say("About this delivery")) { (facts(&rows)) } }
}

fn attempts(v: &Visit, delivery: Item<'_>) -> Markup {
    let attempts = delivery.list("attempts");
    let columns = [
        v.say("Attempt"),
        v.say("Started"),
        v.say("HTTP status"),
        v.say("Took"),
        v.say("What went wrong"),
        v.say("Answer"),
    ];
    html! { section.panel {
        h2 { (v.say("Attempts")) }
        @if attempts.is_empty() {
            p.muted { (v.say("It has not been tried yet.")) }
        } @else { div.scroll { table.list {
            thead { tr { @for (at, name) in columns.iter().enumerate() { th.num[at == 3] scope="col" { (name) } } } }
            tbody { @for attempt in attempts.iter().rev() { tr {
                td data-label=(columns[0]) { (attempt.number("attempt").unwrap_or(0)) }
                td.nowrap data-label=(columns[1]) { (time(v, attempt.text("started_at"))) }
                td data-label=(columns[2]) { (http_status(v, attempt.number("response_status"))) }
                td.num data-label=(columns[3]) { (millis(v, attempt.number("response_time_ms"))) }
                td data-label=(columns[4]) { @match attempt.text("error_message") {
                    "" => (none(v)),
                    message => span lang="en" { (message) },
                } }
                td data-label=(columns[5]) { @match attempt.text("response_body") {
                    "" => (none(v)),
                    body => details { summary.nowrap { (v.say("Show")) } (copyable(v, body)) },
                } }
            } } }
        } } }
    } }
}

/// The body, to the byte, and once more for people.
fn sent(v: &Visit, delivery: Item<'_>) -> Markup {
    let body = delivery.value("request_body").as_str();
    html! { section.panel {
        div.panel-head {
            h2 { (v.say("Request body")) }
            @if let Some(body) = body {
                span.muted { (v.fill("{n} bytes", &[("n", &number(v, body.len() as u64))])) }
            }
        }
        @match body {
            Some(body) => {
                p.muted { (v.say("Exactly what is sent and signed, the same at every attempt.")) }
                (copyable(v, body))
                @if let Some(lines) = laid_out(body).filter(|lines| lines != body) {
                    details { summary { (v.say("Laid out in lines")) } (copyable(v, &lines)) }
                }
            },
            None => p.muted { (v.say("It is older than bodies are kept, so it is gone.")) },
        }
    } }
}

fn headers(v: &Visit, delivery: Item<'_>) -> Markup {
    let headers = delivery.value("request_headers").as_object();
    let columns = [v.say("Header"), v.say("Value")];
    html! { section.panel {
        h2 { (v.say("Request headers")) }
        @match headers {
            Some(headers) => {
                p.muted { (v.say("Of the latest attempt. Signatures are masked.")) }
                div.scroll { table.list {
                    thead { tr { @for name in &columns { th scope="col" { (name) } } } }
                    tbody { @for (name, value) in headers { tr {
                        td data-label=(columns[0]) { (code(name)) }
                        td data-label=(columns[1]) { (code(value.as_str().unwrap_or(""))) }
                    } } }
                } }
            },
            None => p.muted { (v.say("There are none before the first attempt.")) },
        }
    } }
}

/// The request as a command.
fn command(v: &Visit, delivery: Item<'_>, endpoint: Option<Item<'_>>) -> Markup {
    let body = delivery.value("request_body").as_str();
    let headers = delivery.value("request_headers").as_object();
    let (Some(endpoint), Some(body), Some(headers)) = (endpoint, body, headers) else { return html! {} };
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .filter(|(name, _)| !name.to_ascii_lowercase().contains("signature"))
        .map(|(name, value)| (name.as_str(), value.as_str().unwrap_or("")))
        .collect();
    html! { section.panel {
        h2 { (v.say("Copy as curl")) }
        p.muted { (v.say("This command repeats the request to the endpoint's URL. The signature headers are masked here and left out of it, so a receiver that verifies signatures turns it away.")) }
        (copyable(v, &curl(endpoint.text("url"), &headers, body)))
    } }
}
