//! Endpoints: the list, the page of one, pausing and resuming. Forms, secret, tests and deletion have files of their
//! own.

mod delete;
mod forms;
mod paths;
mod secret;
mod testing;

use maud::{Markup, html};
use serde_json::json;

use super::page_context::{Doc, Failure, Item, Page, PageContext};
use super::parts::{
    Kind, button, code, copyable, crumbs, empty, facts, head, none, notice, number, post, status, time,
};
use super::traffic::{self, LastFailure, count, last_failure};

pub use delete::{delete, delete_ask};
pub use forms::{create, edit, new, update};
pub use paths::{address, id, resource, trail};
pub use secret::{rotate, rotate_ask};
pub use testing::test;

/// Its status, and whether it is failing while it is active.
pub fn state(endpoint: Item<'_>) -> &str {
    match endpoint.text("status") {
        "active" if count(endpoint, "consecutive_failures") > 0 => "failing",
        name => name,
    }
}

/// Why an endpoint was disabled, in a sentence.
pub fn why_disabled(cx: &PageContext, failures: u64, last: &LastFailure) -> String {
    if last.gone {
        cx.say("Disabled, because the receiver answered 410: it wants no more deliveries.")
    } else if failures == 1 {
        cx.say("Disabled after a failed attempt. Nothing is sent to it any more.")
    } else {
        let n = number(cx, failures);
        cx.fill("Disabled after {n} failed attempts in a row. Nothing is sent to it any more.", &[("n", &n)])
    }
}

/// That it fails while it is active.
pub fn why_failing(cx: &PageContext, failures: u64) -> String {
    if failures == 1 {
        return cx.say("The last attempt failed. Failed deliveries are retried on schedule.");
    }
    let n = number(cx, failures);
    cx.fill("The last {n} attempts failed. Failed deliveries are retried on schedule.", &[("n", &n)])
}

/// The host in a URL: short enough for a title.
fn host(url: &str) -> &str {
    url.split('/').nth(2).filter(|host| !host.is_empty()).unwrap_or(url)
}

/// `/endpoints`
pub async fn list(cx: PageContext) -> Result<Page, Failure> {
    let doc = cx.get_json("/v1/webhooks", &[]).await?;
    let endpoints = doc.items();
    let (title, new) = (cx.say("Endpoints"), cx.link("/endpoints/new"));
    let about = cx.say("Where events are sent.");
    let may_create = cx.may("webhooks:create");
    let text = if may_create {
        cx.say("An endpoint is the URL of a receiver, with the event types that it wants.")
    } else {
        cx.say("An endpoint is the URL of a receiver, with the event types that it wants. You do not have the permission to create one; ask somebody who has.")
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

fn table(cx: &PageContext, endpoints: &[Item<'_>]) -> Markup {
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
                a href=(cx.link(&format!("/endpoints/{}", endpoint.id()))) { (endpoint.text("url")) }
                @if !endpoint.text("description").is_empty() { small { (endpoint.text("description")) } }
            }
            td data-label=(status_word) { span {
                (status(cx, state(*endpoint)))
                @if state(*endpoint) == "failing" {
                    " " small.muted { (cx.fill("{n} in a row", &[("n", &number(cx, count(*endpoint, "consecutive_failures")))])) }
                }
            } }
            td data-label=(events_word) { (events(cx, &endpoint.texts("events"))) }
            td data-label=(last_word) { (time(cx, endpoint.text("last_delivery_at"))) }
            td.actions {
                a.button href=(cx.link(&format!("/deliveries?endpoint_id={}", endpoint.id()))) {
                    (cx.say("Deliveries")) span.sr { ": " (endpoint.text("url")) }
                }
            }
        } } }
    } } }
}

/// What it subscribes to: how many, and which when one asks.
fn events(cx: &PageContext, names: &[&str]) -> Markup {
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

/// What the visitor has just done, as the address says.
fn done(cx: &PageContext) -> Markup {
    let words = match cx.asked("done") {
        "saved" => cx.say("Saved. It applies from the next attempt on."),
        "resumed" => cx.say("Resumed. Deliveries that were held go out now, and new events are sent again."),
        "deleted" => cx.say("The endpoint is deleted. Nothing is sent to it any more."),
        _ => return html! {},
    };
    notice(Kind::Good, html! { p { (words) } })
}

/// `/endpoints/{id}`
pub async fn show(cx: PageContext) -> Result<Page, Failure> {
    let doc = cx.get_json(&resource(&cx, ""), &[]).await?;
    let endpoint = doc.item();
    let missed = cx.get_json(&resource(&cx, "/missed"), &[]).await?;
    let statistics = traffic::statistics(&cx, Some(endpoint.id())).await?;
    let deliveries = cx.get_json(&resource(&cx, "/deliveries"), &[("per_page", "20")]).await?;
    let last = match state(endpoint) {
        "auto_disabled" | "failing" => last_failure(&cx, endpoint.id()).await,
        _ => LastFailure::default(),
    };
    let description = Some(endpoint.text("description")).filter(|text| !text.is_empty());
    let content = html! {
        (crumbs(&cx, &[(&cx.say("Endpoints"), &cx.link("/endpoints"))]))
        (head(endpoint.text("url"), description, actions(&cx, endpoint)))
        (done(&cx))
        (told(&cx, endpoint, &last))
        (passed_by(&cx, endpoint, missed.item()))
        div.split {
            div.stack {
                section #traffic data-live="5" aria-labelledby="traffic-title" {
                    div.panel-head {
                        h2 #traffic-title { (cx.say("Traffic")) }
                        (traffic::switch(&cx, &address(&cx, "")))
                    }
                    (traffic::charts(&cx, statistics.item()))
                }
                (newest(&cx, endpoint, &deliveries))
            }
            section.panel #facts data-live="5" aria-labelledby="facts-title" {
                h2 #facts-title { (cx.say("Endpoint")) }
                (known(&cx, endpoint, missed.item()))
            }
        }
        (danger(&cx))
    };
    Ok(Page::new(host(endpoint.text("url")), "endpoints", content))
}

fn actions(cx: &PageContext, endpoint: Item<'_>) -> Markup {
    html! { @if cx.may("webhooks:update") {
        @if endpoint.text("status") == "active" {
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
fn told(cx: &PageContext, endpoint: Item<'_>, last: &LastFailure) -> Markup {
    let failures = count(endpoint, "consecutive_failures");
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
                p { (cx.say("Fix the receiver and send a test. Once it is delivered, resume the endpoint: that clears the failure counter, and held deliveries go out. Events published in the meantime can be replayed.")) }
                (guide)
            },
        ),
        "failing" => notice(
            Kind::Warn,
            html! {
                p { strong { (why_failing(cx, failures)) } }
                (error)
                p { (cx.say("Nothing is lost yet. Check the receiver: after too many failures in a row the endpoint is disabled automatically.")) }
                (guide)
            },
        ),
        "disabled" => notice(
            Kind::Info,
            html! {
                p { strong { (cx.say("Paused. Nothing is sent.")) } }
                p { (cx.say("Waiting deliveries are held until you resume it. Events published in the meantime make no delivery; they count as missed and can be replayed.")) }
            },
        ),
        _ => html! {},
    }
}

/// What was published while it was not active.
fn passed_by(cx: &PageContext, endpoint: Item<'_>, missed: Item<'_>) -> Markup {
    let n = count(missed, "count");
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
        p { (words) " " (cx.say("The oldest:")) " " (time(cx, missed.text("oldest_at"))) }
        @if cx.may("webhooks:update") {
            @if endpoint.text("status") != "active" {
                p { (cx.say("A replay waits until the endpoint is active again.")) }
            }
            p { (button(&replay_missed(cx, missed), &cx.say("Replay what was missed"), "")) }
        }
    };
    notice(Kind::Info, content)
}

fn replay_missed(cx: &PageContext, missed: Item<'_>) -> String {
    address(cx, &format!("/replay?status=missed&from={}", missed.text("oldest_at")))
}

fn newest(cx: &PageContext, endpoint: Item<'_>, deliveries: &Doc) -> Markup {
    html! { section.panel #deliveries data-live="5" aria-labelledby="deliveries-title" {
        div.panel-head {
            h2 #deliveries-title { (cx.say("Latest deliveries")) }
            a href=(cx.link(&format!("/deliveries?endpoint_id={}", endpoint.id()))) { (cx.say("All its deliveries")) }
        }
        @if deliveries.items().is_empty() {
            p.muted { (cx.say("None yet. A test shows whether the receiver is reached.")) }
        } @else {
            (traffic::latest(cx, &deliveries.items(), endpoint.text("status") == "active"))
        }
    } }
}

fn known(cx: &PageContext, endpoint: Item<'_>, missed: Item<'_>) -> Markup {
    let failures = number(cx, count(endpoint, "consecutive_failures"));
    let missed = number(cx, count(missed, "count"));
    let names = endpoint.texts("events");
    let ordering = if endpoint.text("ordering") == "fifo" {
        cx.say("In order, one at a time (fifo)")
    } else {
        cx.say("In any order, as fast as possible (none)")
    };
    facts(&[
        (&cx.say("Status"), status(cx, state(endpoint))),
        (&cx.say("Failed attempts in a row"), html! { (failures) }),
        (&cx.say("Missed events"), html! { (missed) }),
        (&cx.say("Last delivery"), time(cx, endpoint.text("last_delivery_at"))),
        (&cx.say("Event types"), html! { @for name in &names { (code(name)) br; } }),
        (&cx.say("Ordering"), html! { (ordering) }),
        (&cx.say("Description"), described(cx, endpoint)),
        (&cx.say("Metadata"), metadata(cx, endpoint)),
        (&cx.say("External ID"), external_id(cx, endpoint)),
        (&cx.say("Signing secret"), code(endpoint.text("secret_hint"))),
        (&cx.say("Created"), time(cx, endpoint.text("created_at"))),
        (&cx.say("Changed"), time(cx, endpoint.text("updated_at"))),
        (&cx.say("ID"), copyable(cx, endpoint.id())),
    ])
}

fn described(cx: &PageContext, endpoint: Item<'_>) -> Markup {
    match endpoint.text("description") {
        "" => none(cx),
        text => html! { (text) },
    }
}

/// The client's own notes, key by key.
fn metadata(cx: &PageContext, endpoint: Item<'_>) -> Markup {
    match endpoint.value("metadata").as_object() {
        Some(strings) if !strings.is_empty() => html! {
            @for (key, value) in strings { (code(key)) ": " (value.as_str().unwrap_or_default()) br; }
        },
        _ => none(cx),
    }
}

fn external_id(cx: &PageContext, endpoint: Item<'_>) -> Markup {
    match endpoint.text("external_id") {
        "" => none(cx),
        text => code(text),
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
    cx.send_json("PUT", &resource(&cx, ""), json!({ "status": "disabled" })).await?;
    Ok(Page::Redirect(address(&cx, "")))
}

/// `/endpoints/{id}/resume`
pub async fn resume(cx: PageContext) -> Result<Page, Failure> {
    cx.send_json("PUT", &resource(&cx, ""), json!({ "status": "active" })).await?;
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
