//! A test of an endpoint: what was sent, what the receiver answered, and what that means.

use maud::{Markup, html};
use serde_json::Value;

use super::paths::{address, ending, resource, trail};
use crate::api::{DeliveryDetailResource, EndpointResource, Entries, TestResultResource};
use crate::web::dashboard::form_errors::{mendable, status_of};
use crate::web::dashboard::json_fields::laid_out;
use crate::web::dashboard::page_context::{Failure, Page, PageContext};
use crate::web::dashboard::parts::{
    Kind, button, code, copyable, facts, faults, head, http_status, millis, none, notice, post, time_or_none,
};

/// `/endpoints/{id}/test`
pub async fn test(cx: PageContext) -> Result<Page, Failure> {
    let endpoint: EndpointResource = cx.get(&resource(&cx, ""), &[]).await?;
    let result = match cx.send::<TestResultResource>("POST", &resource(&cx, "/test"), Value::Null).await {
        Ok(result) => result,
        Err(failure) => return Ok(not_sent(&cx, &endpoint, &mendable(failure, &[])?)),
    };
    // The page can do without it: the outcome is known.
    let path = format!("/v1/webhooks/deliveries/{}", result.id);
    let delivery: Option<DeliveryDetailResource> = cx.get(&path, &[]).await.ok();
    let title = cx.say("Test");
    let content = html! {
        (trail(&cx, &endpoint))
        (head(&title, Some(&endpoint.url), actions(&cx, &endpoint)))
        (outcome(&cx, &endpoint, &result))
        @match &delivery {
            Some(delivery) => { (exchange(&cx, &endpoint, delivery)) }
            None => { p.muted { (cx.say("The request and the answer cannot be shown at the moment.")) } }
        }
    };
    Ok(Page::new(title, "endpoints", content))
}

/// Nothing went out: too many tests at once, or too many calls.
fn not_sent(cx: &PageContext, endpoint: &EndpointResource, failure: &Failure) -> Page {
    let title = cx.say("The test was not sent");
    let content = html! {
        (trail(cx, endpoint))
        (head(&title, Some(&endpoint.url), actions(cx, endpoint)))
        (faults(cx, Some(failure)))
    };
    Page::new(title, "endpoints", content).with_status(status_of(failure))
}

fn actions(cx: &PageContext, endpoint: &EndpointResource) -> Markup {
    html! {
        (post(cx, &address(cx, "/test"), &cx.say("Send another test"), ""))
        @if endpoint.status != "active" {
            (post(cx, &address(cx, "/resume"), &cx.say("Resume endpoint"), "primary"))
        }
        (button(&address(cx, ""), &cx.say("To the endpoint"), ""))
    }
}

fn outcome(cx: &PageContext, endpoint: &EndpointResource, result: &TestResultResource) -> Markup {
    let status = Some(result.http_status).filter(|status| *status > 0);
    let taken = millis(cx, Some(result.response_time_ms.into()));
    if result.delivered {
        let paused = endpoint.status != "active";
        return notice(
            Kind::Good,
            html! {
                p { strong { (cx.say("Delivered.")) } " "
                    (cx.fill(
                        "The receiver answered {status} in {time}.",
                        &[("status", &result.http_status), ("time", &taken)],
                    )) }
                @if paused {
                    p { (cx.say(
                        "The endpoint is not active, so only tests go out. Resume it to send deliveries again.",
                    )) }
                } @else {
                    p { (cx.say(
                        "Make sure that your receiver verifies the signature; otherwise anyone can send it requests.",
                    )) " " a href="/docs/guides/receive-and-verify" { (cx.say("Receive and verify")) } }
                }
            },
        );
    }
    let error = result.error.as_deref().unwrap_or_default();
    notice(
        Kind::Bad,
        html! {
            p { strong { (cx.say("Not delivered.")) } " " (cx.fill("The error: {error}.", &[("error", &error)])) }
            (advice(cx, endpoint, status))
            p.muted { (cx.say("A test is tried once and never counts as a failure of the endpoint.")) }
        },
    )
}

/// What a failure most likely means.
fn advice(cx: &PageContext, endpoint: &EndpointResource, status: Option<u16>) -> Markup {
    let words = match status {
        None => cx.say(
            "There was no answer. Check that the host can be reached from the internet, that its certificate is valid \
             for this name, and that the receiver answers in time: it should answer first and work afterwards.",
        ),
        Some(300..=399) => cx.say("Redirects are not followed. Edit the endpoint and give it the final URL."),
        Some(401 | 403) => {
            return html! {
                p { (cx.fill(
                    "The receiver rejected the signature, or requires a login. Check that it has this endpoint's \
                     secret, which ends in {ending}, and that it verifies the raw body, before anything parses it.",
                    &[("ending", &ending(endpoint))],
                )) }
                p { a href="/docs/guides/receive-and-verify" { (cx.say("Receive and verify")) } }
            };
        }
        Some(404 | 405) => cx.say(
            "The host answers, but does not accept POST at this path. Check that the URL is right and that the \
             receiver is deployed there.",
        ),
        Some(410) => cx.say(
            "The receiver says that it wants no more. If it answers a real delivery like this, the endpoint is \
             disabled.",
        ),
        Some(413) => cx.say(
            "The receiver, or a proxy in front of it, refuses bodies of this size. Deliveries can be up to about 256 \
             KiB.",
        ),
        Some(408 | 429) => cx.say(
            "The receiver is busy or limits requests. Deliveries are retried later; Retry-After on a 429 is honoured.",
        ),
        Some(500..=599) => cx.say(
            "The receiver failed while handling the request. Its own log should say why; look at the time of this \
             test.",
        ),
        Some(_) => cx.say("Only an answer of 2xx is a success. See what the receiver answered, below."),
    };
    html! { p { (words) } }
}

/// The request as it was sent, and the answer as it came.
fn exchange(cx: &PageContext, endpoint: &EndpointResource, delivery: &DeliveryDetailResource) -> Markup {
    let (summary, detail) = (&delivery.summary, &delivery.detail);
    let headers = detail.request_headers.iter().flat_map(Entries::pairs);
    let headers: Vec<String> = headers.map(|(name, value)| format!("{name}: {value}")).collect();
    let started = detail.attempts.last().map(|attempt| attempt.started_at.as_str());
    let answer = summary.response_body.as_deref().unwrap_or_default();
    let body = detail.request_body.as_deref().unwrap_or_default();
    html! {
        div.pair {
            section.panel aria-labelledby="request" {
                h2 #request { (cx.say("Request")) }
                p { (code("POST")) " " (endpoint.url) }
                h3 { (cx.say("Headers")) }
                @if headers.is_empty() { p { (none(cx)) } } @else { (copyable(cx, &headers.join("\n"))) }
                p.muted.small { (cx.say("Signatures are masked.")) }
                h3 { (cx.say("Body")) }
                (copyable(cx, body))
                p.muted.small { (cx.say("Byte for byte as sent. The signatures are computed over exactly this.")) }
            }
            section.panel aria-labelledby="answer" {
                h2 #answer { (cx.say("Answer")) }
                (facts(&[
                    (&cx.say("Status"), http_status(cx, summary.response_status)),
                    (&cx.say("Took"), html! { (millis(cx, summary.response_time_ms.map(u64::from))) }),
                    (&cx.say("Sent"), time_or_none(cx, started)),
                    (&cx.say("Delivery"), html! {
                        a href=(cx.link(&format!("/deliveries/{}", delivery.id))) { (code(&delivery.id)) }
                    }),
                ]))
                h3 { (cx.say("Body")) }
                @if !answer.is_empty() {
                    (copyable(cx, laid_out(answer).as_deref().unwrap_or(answer)))
                    @if answer.chars().count() >= 500 { p.muted.small { (cx.say("The first 500 characters.")) } }
                } @else if summary.response_status.is_some() {
                    p.muted { (cx.say("The answer had no body.")) }
                } @else {
                    p.muted { (cx.say("There was no answer.")) }
                }
            }
        }
    }
}
