//! Endpoints: the list, the page of one, pausing and resuming. Forms, previews of filters, secret, tests and deletion
//! have files of their own.

mod certificate;
mod credentials;
mod delete;
mod filter_preview;
mod forms;
mod paths;
mod secret;
mod testing;

use maud::{Markup, html};
use serde_json::json;

use super::json_fields;
use super::page_context::{Failure, Page, PageContext};
use super::parts::{
    Kind, button, code, codes, copyable, crumbs, empty, facts, filled, head, none, notice, number, post, status, time,
    time_or_none,
};
use super::traffic::{self, LastFailure, last_failure};
use crate::api::{DeliveryResource, EndpointResource, Listing, MissedResource};

pub use delete::{delete, delete_ask};
pub use forms::{create, edit, new, update};
pub use paths::{address, id, resource, trail};
pub use secret::{rotate, rotate_ask};
pub use testing::test;

/// Its status, and whether it is failing while it is active.
pub fn state(endpoint: &EndpointResource) -> &str {
    match &*endpoint.status {
        "active" if endpoint.consecutive_failures > 0 => "failing",
        name => name,
    }
}

/// Why an endpoint was disabled, in a sentence.
pub fn why_disabled(cx: &PageContext, failures: u32, last: &LastFailure) -> String {
    if last.gone {
        cx.say("Disabled, because the receiver answered 410: it wants no more deliveries.")
    } else if failures == 1 {
        cx.say("Disabled after a failed attempt. Nothing is sent to it any more.")
    } else {
        let n = number(cx, failures.into());
        cx.fill("Disabled after {n} failed attempts in a row. Nothing is sent to it any more.", &[("n", &n)])
    }
}

/// That it fails while it is active.
pub fn why_failing(cx: &PageContext, failures: u32) -> String {
    if failures == 1 {
        return cx.say("The last attempt failed. Failed deliveries are retried on schedule.");
    }
    let n = number(cx, failures.into());
    cx.fill("The last {n} attempts failed. Failed deliveries are retried on schedule.", &[("n", &n)])
}

/// The host in a URL: short enough for a title.
fn host(url: &str) -> &str {
    url.split('/').nth(2).filter(|host| !host.is_empty()).unwrap_or(url)
}

/// `/endpoints`
pub async fn list(cx: PageContext) -> Result<Page, Failure> {
    let endpoints: Vec<EndpointResource> = cx.get("/v1/webhooks", &[]).await?;
    let (title, new) = (cx.say("Endpoints"), cx.link("/endpoints/new"));
    let about = cx.say("Where events are sent.");
    let may_create = cx.may("webhooks:create");
    let text = if may_create {
        cx.say("An endpoint is the URL of a receiver, with the event types that it wants.")
    } else {
        cx.say(
            "An endpoint is the URL of a receiver, with the event types that it wants. You do not have the permission \
             to create one; ask somebody who has.",
        )
    };
    let label = cx.say("New endpoint");
    let actions = html! { @if may_create && !endpoints.is_empty() { (button(&new, &label, "primary")) } };
    let content = html! {
        (head(&title, Some(&about), actions))
        (done(&cx))
        @if endpoints.is_empty() {
            (empty(&cx.say("No endpoints yet"), &text, may_create.then_some((new.as_str(), label.as_str()))))
        } @else {
            (table(&cx, &endpoints))
        }
    };
    Ok(Page::new(title, "endpoints", content))
}

fn table(cx: &PageContext, endpoints: &[EndpointResource]) -> Markup {
    let [endpoint_word, status_word] = [cx.say("Endpoint"), cx.say("Status")];
    let [events_word, last_word] = [cx.say("Event types"), cx.say("Last delivery")];
    html! { div.scroll { table.list {
        thead { tr {
            th scope="col" { (endpoint_word) }
            th scope="col" { (status_word) }
            th scope="col" { (events_word) }
            th scope="col" { (last_word) }
            th scope="col" { span.sr { (cx.say("Actions")) } }
        } }
        tbody { @for endpoint in endpoints { tr {
            td.main data-label=(endpoint_word) {
                a href=(cx.link(&format!("/endpoints/{}", endpoint.id))) { (endpoint.url) }
                @if let Some(description) = filled(endpoint.description.as_deref()) { small { (description) } }
            }
            td data-label=(status_word) { span {
                (status(cx, state(endpoint)))
                @if state(endpoint) == "failing" {
                    @let failures = number(cx, endpoint.consecutive_failures.into());
                    " " small.muted { (cx.fill("{n} in a row", &[("n", &failures)])) }
                }
            } }
            td data-label=(events_word) { (events(cx, &endpoint.events)) }
            td data-label=(last_word) { (time_or_none(cx, endpoint.last_delivery_at.as_deref())) }
            td.actions {
                a.button href=(cx.link(&format!("/deliveries?endpoint_id={}", endpoint.id))) {
                    (cx.say("Deliveries")) span.sr { ": " (endpoint.url) }
                }
            }
        } } }
    } } }
}

/// What it subscribes to: how many, and which when one asks.
fn events(cx: &PageContext, names: &[String]) -> Markup {
    html! {
        @if let [name] = names {
            (code(name))
        } @else {
            details {
                summary { (cx.fill("{n} event types", &[("n", &names.len())])) }
                @for name in names { (code(name)) br; }
            }
        }
    }
}

/// What the user has just done, as the address says.
fn done(cx: &PageContext) -> Markup {
    let words = match cx.asked("done") {
        "saved" => cx.say("Saved. It applies from the next attempt on."),
        "resumed" => cx.say("Resumed. Waiting deliveries go out now, and new events are sent again."),
        "deleted" => cx.say("The endpoint is deleted. Nothing is sent to it any more."),
        _ => return html! {},
    };
    notice(Kind::Good, html! { p { (words) } })
}

/// `/endpoints/{id}`
pub async fn show(cx: PageContext) -> Result<Page, Failure> {
    let endpoint: EndpointResource = cx.get(&resource(&cx, ""), &[]).await?;
    let missed: MissedResource = cx.get(&resource(&cx, "/missed"), &[]).await?;
    let statistics = traffic::statistics(&cx, Some(&endpoint.id)).await?;
    let deliveries: Listing<DeliveryResource> = cx.get(&resource(&cx, "/deliveries"), &[("per_page", "20")]).await?;
    let last = match state(&endpoint) {
        "auto_disabled" | "failing" => last_failure(&cx, &endpoint.id).await,
        _ => LastFailure::default(),
    };
    let description = filled(endpoint.description.as_deref());
    let content = html! {
        (crumbs(&cx, &[(&cx.say("Endpoints"), &cx.link("/endpoints"))]))
        (head(&endpoint.url, description, actions(&cx, &endpoint)))
        (done(&cx))
        (told(&cx, &endpoint, &last))
        (passed_by(&cx, &endpoint, &missed))
        div.split {
            div.stack {
                section #traffic data-live="5" aria-labelledby="traffic-title" {
                    div.panel-head {
                        h2 #traffic-title { (cx.say("Traffic")) }
                        (traffic::switch(&cx, &address(&cx, "")))
                    }
                    (traffic::charts(&cx, &statistics))
                }
                (newest(&cx, &endpoint, &deliveries.items))
            }
            section.panel #facts data-live="5" aria-labelledby="facts-title" {
                h2 #facts-title { (cx.say("Endpoint")) }
                (known(&cx, &endpoint, &missed))
            }
        }
        (danger(&cx))
    };
    Ok(Page::new(host(&endpoint.url), "endpoints", content))
}

fn actions(cx: &PageContext, endpoint: &EndpointResource) -> Markup {
    html! { @if cx.may("webhooks:update") {
        @if endpoint.status == "active" {
            (post(cx, &address(cx, "/pause"), &cx.say("Pause endpoint"), ""))
        } @else {
            (post(cx, &address(cx, "/resume"), &cx.say("Resume endpoint"), "primary"))
        }
        (button(&address(cx, "/replay"), &cx.say("Replay"), ""))
        (post(cx, &address(cx, "/test"), &cx.say("Send a test"), ""))
        (button(&address(cx, "/edit"), &cx.say("Edit"), ""))
    } }
}

/// What is to be known of its state, and what to do.
fn told(cx: &PageContext, endpoint: &EndpointResource, last: &LastFailure) -> Markup {
    let failures = endpoint.consecutive_failures;
    let error = html! { @if !last.error.is_empty() {
        p { (cx.fill("The last error: {error}.", &[("error", &last.error)])) }
    } };
    let guide = html! { p { a href="/docs/guides/when-a-receiver-is-down" { (cx.say("When a receiver is down")) } } };
    match state(endpoint) {
        "auto_disabled" => notice(
            Kind::Bad,
            html! {
                p { strong { (why_disabled(cx, failures, last)) } }
                (error)
                p { (cx.say(
                    "Fix the receiver and send a test. Once it is delivered, resume the endpoint: that clears the \
                     failure counter, and waiting deliveries go out. Events published in the meantime can be replayed.",
                )) }
                (guide)
            },
        ),
        "failing" => notice(
            Kind::Warn,
            html! {
                p { strong { (why_failing(cx, failures)) } }
                (error)
                p { (cx.say(
                    "Nothing is lost yet. Check the receiver: after too many failures in a row the endpoint is \
                     disabled automatically.",
                )) }
                (guide)
            },
        ),
        "disabled" => notice(
            Kind::Info,
            html! {
                p { strong { (cx.say("Paused. Nothing is sent.")) } }
                p { (cx.say(
                    "Its deliveries wait until you resume it. Events published in the meantime make no delivery; they \
                     count as missed and can be replayed.",
                )) }
            },
        ),
        _ => html! {},
    }
}

/// What was published while it was not active.
fn passed_by(cx: &PageContext, endpoint: &EndpointResource, missed: &MissedResource) -> Markup {
    let (n, oldest) = (missed.count, missed.oldest_at.as_deref());
    if n == 0 {
        return html! {};
    }
    let words = if n == 1 {
        cx.say("One event was published while this endpoint was not active, and was not sent to it.")
    } else {
        let n = number(cx, n);
        cx.fill("{n} events were published while this endpoint was not active, and were not sent to it.", &[("n", &n)])
    };
    let content = html! {
        p { (words) " " (cx.say("The oldest:")) " " (time_or_none(cx, oldest)) }
        @if cx.may("webhooks:update") {
            @if endpoint.status != "active" {
                p { (cx.say("A replay waits until the endpoint is active again.")) }
            }
            p { (button(&replay_missed(cx, oldest), &cx.say("Replay what was missed"), "")) }
        }
    };
    notice(Kind::Info, content)
}

fn replay_missed(cx: &PageContext, oldest: Option<&str>) -> String {
    address(cx, &format!("/replay?status=missed&from={}", oldest.unwrap_or_default()))
}

fn newest(cx: &PageContext, endpoint: &EndpointResource, deliveries: &[DeliveryResource]) -> Markup {
    html! { section.panel #deliveries data-live="5" aria-labelledby="deliveries-title" {
        div.panel-head {
            h2 #deliveries-title { (cx.say("Latest deliveries")) }
            a href=(cx.link(&format!("/deliveries?endpoint_id={}", endpoint.id))) { (cx.say("All its deliveries")) }
        }
        @if deliveries.is_empty() {
            p.muted { (cx.say("None yet. A test shows whether the receiver is reached.")) }
        } @else {
            (traffic::latest(cx, deliveries, endpoint.status == "active"))
        }
    } }
}

fn known(cx: &PageContext, endpoint: &EndpointResource, missed: &MissedResource) -> Markup {
    let failures = number(cx, endpoint.consecutive_failures.into());
    let missed = number(cx, missed.count);
    let last = endpoint.last_delivery_at.as_deref();
    let hint = endpoint.secret_hint.as_deref().unwrap_or_default();
    let ordering = if endpoint.ordering.as_deref() == Some("fifo") {
        cx.say("In order, one at a time (fifo)")
    } else {
        cx.say("In any order, as fast as possible (none)")
    };
    facts(&[
        (&cx.say("Status"), status(cx, state(endpoint))),
        (&cx.say("Failed attempts in a row"), html! { (failures) }),
        (&cx.say("Missed events"), html! { (missed) }),
        (&cx.say("Last delivery"), time_or_none(cx, last)),
        (&cx.say("Event types"), html! { @for name in &endpoint.events { (code(name)) br; } }),
        (&cx.say("Ordering"), html! { (ordering) }),
        (&cx.say("Description"), described(cx, endpoint)),
        (&cx.say("Metadata"), metadata(cx, endpoint)),
        (&cx.say("External ID"), text_or_none(cx, endpoint.external_id.as_deref())),
        (&cx.say("Channels"), codes(cx, endpoint.channels.as_deref())),
        (&cx.say("Timeout in seconds"), number_or_none(cx, endpoint.timeout_seconds)),
        (&cx.say("Attempts at once"), number_or_none(cx, endpoint.max_in_flight)),
        (&cx.say("Retry schedule in seconds"), schedule(cx, endpoint.retry_schedule.as_deref())),
        (&cx.say("Content filter"), filter(cx, endpoint)),
        (&cx.say("Headers"), credentials::headers(cx, endpoint)),
        (&cx.say("Authentication"), credentials::authentication(cx, endpoint)),
        (&cx.say("Client certificate"), certificate::shown(cx, endpoint)),
        (&cx.say("Rate limit"), text_or_none(cx, endpoint.rate_limit.as_deref())),
        (&cx.say("Signing secret"), code(hint)),
        (&cx.say("Created"), time(cx, &endpoint.created_at)),
        (&cx.say("Changed"), time(cx, &endpoint.updated_at)),
        (&cx.say("ID"), copyable(cx, &endpoint.id)),
    ])
}

fn described(cx: &PageContext, endpoint: &EndpointResource) -> Markup {
    match filled(endpoint.description.as_deref()) {
        None => none(cx),
        Some(text) => html! { (text) },
    }
}

/// The client's own notes, key by key.
fn metadata(cx: &PageContext, endpoint: &EndpointResource) -> Markup {
    match &endpoint.metadata {
        Some(strings) if !strings.is_empty() => html! {
            @for (key, value) in strings { (code(key)) ": " (value) br; }
        },
        _ => none(cx),
    }
}

fn text_or_none(cx: &PageContext, text: Option<&str>) -> Markup {
    text.map_or_else(|| none(cx), code)
}

fn number_or_none(cx: &PageContext, value: Option<u32>) -> Markup {
    value.map_or_else(|| none(cx), |value| html! { (number(cx, value.into())) })
}

fn schedule(cx: &PageContext, delays: Option<&[u64]>) -> Markup {
    match delays {
        None => none(cx),
        Some([]) => html! { (cx.say("No retry")) },
        Some(delays) => html! { (delays.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")) },
    }
}

fn filter(cx: &PageContext, endpoint: &EndpointResource) -> Markup {
    match endpoint.filter.as_deref() {
        None => none(cx),
        filter => copyable(cx, &json_fields::laid_out_or_nothing(filter)),
    }
}

/// Steps that cannot be taken back.
fn danger(cx: &PageContext) -> Markup {
    let (may_update, may_delete) = (cx.may("webhooks:update"), cx.may("webhooks:delete"));
    html! { @if may_update || may_delete {
        section.panel.danger-zone aria-label=(cx.say("Steps that cannot be undone")) {
            @if may_update { div {
                div {
                    h2 { (cx.say("Rotate the signing secret")) }
                    p.muted { (cx.say("On a schedule, when somebody leaves the team, or at once if it has leaked.")) }
                }
                (button(&address(cx, "/rotate"), &cx.say("Rotate secret"), "danger"))
            } }
            @if may_delete { div {
                div {
                    h2 { (cx.say("Delete the endpoint")) }
                    p.muted { (cx.say("Its deliveries go with it. To stop for a while, pause it instead.")) }
                }
                (button(&address(cx, "/delete"), &cx.say("Delete"), "danger"))
            } }
        }
    } }
}

/// `/endpoints/{id}/pause`
pub async fn pause(cx: PageContext) -> Result<Page, Failure> {
    cx.send::<()>("PUT", &resource(&cx, ""), json!({ "status": "disabled" })).await?;
    Ok(Page::Redirect(address(&cx, "")))
}

/// `/endpoints/{id}/resume`
pub async fn resume(cx: PageContext) -> Result<Page, Failure> {
    cx.send::<()>("PUT", &resource(&cx, ""), json!({ "status": "active" })).await?;
    Ok(Page::Redirect(address(&cx, "?done=resumed")))
}

#[cfg(test)]
mod tests {
    use super::host;

    #[test]
    fn a_url_is_titled_by_its_host() {
        assert_eq!(host("https://hooks.example.com:8443/a/b"), "hooks.example.com:8443");
        assert_eq!(host("https://hooks.example.com"), "hooks.example.com");
        assert_eq!(host(""), "");
    }
}
