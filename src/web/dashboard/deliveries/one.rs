//! One delivery: what became of it and what comes next, what was sent, every attempt; and sending it again.

use maud::{Markup, html};
use serde_json::Value;

use super::super::form_errors::{mendable, status_of};
use super::super::json_fields::laid_out;
use super::super::listing::segment;
use super::super::page_context::{Failure, Page, PageContext};
use super::super::parts::{
    Kind, code, copyable, crumbs, facts, filled, head, http_status, millis, none, notice, number, post, status, time,
    until,
};
use super::curl::curl;
use crate::api::{DeliveryDetailResource, DeliveryResource, EndpointResource};

/// `GET /deliveries/{id}`
pub async fn show(cx: PageContext) -> Result<Page, Failure> {
    page(&cx, None).await
}

/// `POST /deliveries/{id}/retry`
pub async fn retry(cx: PageContext) -> Result<Page, Failure> {
    let path = format!("/v1/webhooks/deliveries/{}/retry", segment(cx.param("id")));
    match cx.send::<DeliveryResource>("POST", &path, Value::Null).await {
        Ok(delivery) => Ok(Page::Redirect(cx.link(&format!("/deliveries/{}", delivery.id)))),
        Err(failure) => {
            let refused = mendable(failure, &[])?;
            Ok(page(&cx, Some(&refused)).await?.with_status(status_of(&refused)))
        }
    }
}

async fn page(cx: &PageContext, refused: Option<&Failure>) -> Result<Page, Failure> {
    let path = format!("/v1/webhooks/deliveries/{}", segment(cx.param("id")));
    let delivery: DeliveryDetailResource = cx.get(&path, &[]).await?;
    // It may have been deleted in this moment; then the page does without.
    let path = format!("/v1/webhooks/{}", segment(&delivery.summary.endpoint_id));
    let endpoint: Option<EndpointResource> = cx.get(&path, &[]).await.ok();
    let (delivery, endpoint) = (&delivery, endpoint.as_ref());
    let title = cx.fill("Delivery {id}", &[("id", &delivery.id)]);
    // The page that tells of a refusal is no page that can be fetched again.
    let live = refused.is_none() && matches!(&*delivery.summary.status, "pending" | "retrying");
    let content = html! {
        (crumbs(cx, &[(&cx.say("Deliveries"), &cx.link("/deliveries"))]))
        (head(&title, None, html! {}))
        @if let Some(refused) = refused { (not_sent(cx, delivery, refused)) }
        section #delivery.stack data-live=[live.then_some("3")] {
            (outcome(cx, delivery, endpoint))
            (about(cx, delivery, endpoint))
            (attempts(cx, delivery))
        }
        (sent(cx, delivery))
        (headers(cx, delivery))
        (command(cx, delivery, endpoint))
    };
    Ok(Page::new(title, "deliveries", content))
}

fn not_sent(cx: &PageContext, delivery: &DeliveryDetailResource, refused: &Failure) -> Markup {
    notice(
        Kind::Bad,
        html! {
            strong { (cx.say("It was not sent again.")) }
            @for fault in &refused.faults { p { (fault.detail) } }
            p { a href=(cx.link(&format!("/deliveries/{}", delivery.id))) { (cx.say("See how it stands now")) } }
        },
    )
}

/// What became of it, why, what comes next, and what to do.
fn outcome(cx: &PageContext, delivery: &DeliveryDetailResource, endpoint: Option<&EndpointResource>) -> Markup {
    let summary = &delivery.summary;
    let (kind, what) = match &*summary.status {
        "success" => (Kind::Good, cx.say("It was delivered.")),
        "retrying" => (Kind::Warn, cx.say("The latest attempt failed. It is tried again by itself.")),
        "failed" => (Kind::Bad, cx.say("It failed, and is not tried again by itself.")),
        _ => (Kind::Info, cx.say("It waits for its next attempt.")),
    };
    let failed = matches!(&*summary.status, "retrying" | "failed");
    html! {
        (notice(kind, html! {
            strong { (what) }
            @if failed {
                @if let Some(error) = &summary.error_message { p lang="en" { (error) } }
                p { (advice(cx, summary.response_status)) }
            }
            @if let Some(due) = &summary.next_retry_at { p { (cx.say("Next attempt:")) " " (until(cx, due)) } }
            (again(cx, delivery))
        }))
        @if let Some(endpoint) = endpoint { (waits(cx, delivery, endpoint)) }
    }
}

/// The button that sends it again, where that is possible.
fn again(cx: &PageContext, delivery: &DeliveryDetailResource) -> Markup {
    if !matches!(&*delivery.summary.status, "success" | "failed") || !cx.may("webhooks:update") {
        return html! {};
    }
    if delivery.detail.request_body.is_none() {
        return html! { p { (cx.say("Its body is no longer kept, so it cannot be sent again.")) } };
    }
    post(cx, &cx.link(&format!("/deliveries/{}/retry", delivery.id)), &cx.say("Send again"), "")
}

/// Why an attempt that is due may not come.
fn waits(cx: &PageContext, delivery: &DeliveryDetailResource, endpoint: &EndpointResource) -> Markup {
    if !matches!(&*delivery.summary.status, "pending" | "retrying") {
        return html! {};
    }
    let to_endpoint =
        html! { a href=(cx.link(&format!("/endpoints/{}", endpoint.id))) { (cx.say("See the endpoint")) } };
    if endpoint.status != "active" {
        return notice(
            Kind::Warn,
            html! {
                strong { (cx.say("The endpoint is paused.")) }
                p {
                    (cx.say("Nothing is sent to it until it is active again. This delivery then goes on."))
                    " " (to_endpoint)
                }
            },
        );
    }
    html! { @if endpoint.ordering.as_deref() == Some("fifo") { (notice(Kind::Info, html! {
        p {
            (cx.say("The endpoint takes its deliveries in order, so this one may wait for an earlier one."))
            " " (to_endpoint)
        }
    })) } }
}

/// What can be done about an answer that is no success.
fn advice(cx: &PageContext, answer: Option<u16>) -> String {
    match answer {
        None => cx.say(
            "There was no answer. Check the endpoint's URL, that its server runs and can be reached from the internet, \
             and that it answers in time.",
        ),
        Some(300..=399) => cx.say("Redirects are not followed. Give the endpoint the URL that it redirects to."),
        Some(401 | 403) => cx.say(
            "The receiver turned it away. Check that it verifies signatures with the endpoint's current secret and \
             asks for no other credentials.",
        ),
        Some(404 | 405) => cx.say("The receiver takes no POST requests at this URL. Check the endpoint's URL."),
        Some(410) => cx.say(
            "With 410 a receiver says that it is gone for good, which pauses its endpoint. If it is not gone, correct \
             what it answers and make the endpoint active again.",
        ),
        Some(429) => cx.say("The receiver has too many requests right now."),
        Some(500..=599) => cx.say(
            "The receiver failed while it handled the request. Its own log at the time of the attempt should say why.",
        ),
        Some(_) => cx.say("The receiver did not accept the request. What it answered may say why."),
    }
}

fn about(cx: &PageContext, delivery: &DeliveryDetailResource, endpoint: Option<&EndpointResource>) -> Markup {
    let (event, summary) = (&delivery.detail.event_id, &delivery.summary);
    let to_endpoint = cx.link(&format!("/endpoints/{}", summary.endpoint_id));
    let url = endpoint.map(|endpoint| endpoint.url.as_str()).or(summary.endpoint_url.as_deref()).unwrap_or_default();
    let to_event = html! {
        // What a test sends is in no list of events.
        @if summary.event_type != "test" && cx.may("events:read") {
            a href=(cx.link(&format!("/events/{event}"))) { (code(event)) }
        } @else {
            (code(event))
        }
    };
    let names = [
        cx.say("Status"),
        cx.say("Endpoint"),
        cx.say("Event type"),
        cx.say("Event"),
        cx.say("Attempts"),
        cx.say("Created"),
        cx.say("Delivery id"),
        cx.say("Validation id"),
    ];
    let mut rows = vec![
        (names[0].as_str(), status(cx, &summary.status)),
        (&names[1], html! { a href=(to_endpoint) { (url) } }),
        (&names[2], code(&summary.event_type)),
        (&names[3], to_event),
        (&names[4], html! { (number(cx, delivery.detail.attempts.len() as u64)) }),
        (&names[5], time(cx, &summary.created_at)),
        (&names[6], copyable(cx, &delivery.id)),
    ];
    if let Some(validation) = &summary.validation_id {
        rows.push((&names[7], copyable(cx, validation)));
    }
    html! { section.panel aria-label=(cx.say("About this delivery")) { (facts(&rows)) } }
}

fn attempts(cx: &PageContext, delivery: &DeliveryDetailResource) -> Markup {
    let attempts = &delivery.detail.attempts;
    let columns = [
        cx.say("Attempt"),
        cx.say("Started"),
        cx.say("HTTP status"),
        cx.say("Took"),
        cx.say("What went wrong"),
        cx.say("Answer"),
    ];
    html! { section.panel {
        h2 { (cx.say("Attempts")) }
        @if attempts.is_empty() {
            p.muted { (cx.say("It has not been tried yet.")) }
        } @else { div.scroll { table.list {
            thead { tr { @for (at, name) in columns.iter().enumerate() { th.num[at == 3] scope="col" { (name) } } } }
            tbody { @for attempt in attempts.iter().rev() { tr {
                td data-label=(columns[0]) { (attempt.attempt) }
                td.nowrap data-label=(columns[1]) { (time(cx, &attempt.started_at)) }
                td data-label=(columns[2]) { (http_status(cx, attempt.response_status)) }
                td.num data-label=(columns[3]) { (millis(cx, Some(attempt.response_time_ms.into()))) }
                td data-label=(columns[4]) { @match &attempt.error_message {
                    None => (none(cx)),
                    Some(message) => span lang="en" { (message) },
                } }
                td data-label=(columns[5]) { @match filled(attempt.response_body.as_deref()) {
                    None => (none(cx)),
                    Some(body) => details { summary.nowrap { (cx.say("Show")) } (copyable(cx, body)) },
                } }
            } } }
        } } }
    } }
}

/// The body, to the byte, and once more for people.
fn sent(cx: &PageContext, delivery: &DeliveryDetailResource) -> Markup {
    let body = delivery.detail.request_body.as_deref();
    html! { section.panel {
        div.panel-head {
            h2 { (cx.say("Request body")) }
            @if let Some(body) = body {
                span.muted { (cx.fill("{n} bytes", &[("n", &number(cx, body.len() as u64))])) }
            }
        }
        @match body {
            Some(body) => {
                p.muted { (cx.say("Exactly what is sent and signed, the same at every attempt.")) }
                (copyable(cx, body))
                @if let Some(lines) = laid_out(body).filter(|lines| lines != body) {
                    details { summary { (cx.say("Laid out in lines")) } (copyable(cx, &lines)) }
                }
            },
            None => p.muted { (cx.say("It is older than bodies are kept, so it is gone.")) },
        }
    } }
}

fn headers(cx: &PageContext, delivery: &DeliveryDetailResource) -> Markup {
    let columns = [cx.say("Header"), cx.say("Value")];
    html! { section.panel {
        h2 { (cx.say("Request headers")) }
        @match &delivery.detail.request_headers {
            Some(headers) => {
                p.muted { (cx.say("Of the latest attempt. Signatures are masked.")) }
                div.scroll { table.list {
                    thead { tr { @for name in &columns { th scope="col" { (name) } } } }
                    tbody { @for (name, value) in headers.pairs() { tr {
                        td data-label=(columns[0]) { (code(name)) }
                        td data-label=(columns[1]) { (code(value)) }
                    } } }
                } }
            },
            None => p.muted { (cx.say("There are none before the first attempt.")) },
        }
    } }
}

/// The request as a command.
fn command(cx: &PageContext, delivery: &DeliveryDetailResource, endpoint: Option<&EndpointResource>) -> Markup {
    let (body, headers) = (&delivery.detail.request_body, &delivery.detail.request_headers);
    let (Some(endpoint), Some(body), Some(headers)) = (endpoint, body, headers) else { return html! {} };
    let headers: Vec<(&str, &str)> = headers
        .pairs()
        .filter(|(name, _)| !name.to_ascii_lowercase().contains("signature"))
        .map(|(name, value)| (name, value.as_str()))
        .collect();
    html! { section.panel {
        h2 { (cx.say("Copy as curl")) }
        p.muted { (cx.say(
            "This command repeats the request to the endpoint's URL. The signature headers are masked here and left \
             out of it, so a receiver that verifies signatures turns it away.",
        )) }
        (copyable(cx, &curl(&endpoint.url, &headers, body)))
    } }
}
