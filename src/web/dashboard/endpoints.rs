//! Endpoints: the list, the page of one, pausing and resuming. Its forms, its secret, its tests and its end have rooms of
//! their own.

mod delete;
mod forms;
mod secret;
mod testing;

use maud::{Markup, html};
use serde_json::json;

use super::parts::{
    Kind, button, code, copyable, crumbs, empty, facts, head, none, notice, number, post, status, time,
};
use super::traffic::{self, LastFailure, count, last_failure};
use super::visit::{Doc, Failure, Item, Page, Visit};

pub use delete::{delete, delete_ask};
pub use forms::{create, edit, new, update};
pub use secret::{rotate, rotate_ask};
pub use testing::test;

/// The id in the path. What can be none names no endpoint, and no other call of the API either.
pub fn id(v: &Visit) -> &str {
    let id = v.param("id");
    if id.len() == 36 && uuid::Uuid::try_parse(id).is_ok() { id } else { "-" }
}

/// Where the API has the endpoint of this page, or something of it.
pub fn resource(v: &Visit, rest: &str) -> String {
    format!("/v1/webhooks/{}{rest}", id(v))
}

/// The address of the endpoint's page, or of one below it.
pub fn address(v: &Visit, rest: &str) -> String {
    v.link(&format!("/endpoints/{}{rest}", id(v)))
}

/// Where a page below an endpoint's is.
pub fn trail(v: &Visit, endpoint: Item<'_>) -> Markup {
    crumbs(v, &[(&v.say("Endpoints"), &v.link("/endpoints")), (endpoint.text("url"), &address(v, ""))])
}

/// Its status, and whether it is failing while it is active.
pub fn state(endpoint: Item<'_>) -> &str {
    match endpoint.text("status") {
        "active" if count(endpoint, "consecutive_failures") > 0 => "failing",
        name => name,
    }
}

/// Why an endpoint was disabled, in a sentence.
pub fn why_disabled(v: &Visit, failures: u64, last: &LastFailure) -> String {
    if last.gone {
        v.say("Disabled, because the receiver answered 410: it wants no more deliveries.")
    } else if failures == 1 {
        v.say("Disabled after a failed attempt. Nothing is sent to it any more.")
    } else {
        let n = number(v, failures);
        v.fill("Disabled after {n} failed attempts in a row. Nothing is sent to it any more.", &[("n", &n)])
    }
}

/// That it fails while it is active.
pub fn why_failing(v: &Visit, failures: u64) -> String {
    if failures == 1 {
        return v.say("The last attempt failed. Failed deliveries are retried on schedule.");
    }
    let n = number(v, failures);
    v.fill("The last {n} attempts failed. Failed deliveries are retried on schedule.", &[("n", &n)])
}

/// The host in a URL: short enough for a title.
fn host(url: &str) -> &str {
    url.split('/').nth(2).filter(|host| !host.is_empty()).unwrap_or(url)
}

/// `/endpoints`
pub async fn list(v: Visit) -> Result<Page, Failure> {
    let doc = v.get("/v1/webhooks", &[]).await?;
    let endpoints = doc.items();
    let (title, new) = (v.say("Endpoints"), v.link("/endpoints/new"));
    let about = v.say("Where events are sent.");
    let may_create = v.may("webhooks:create");
    let text = if may_create {
        v.say("An endpoint is the URL of a receiver, with the event types that it wants.")
    } else {
        v.say("An endpoint is the URL of a receiver, with the event types that it wants. You do not have the permission to create one; ask somebody who has.")
    };
    let label = v.say("New endpoint");
    let actions = html! { @if may_create && !endpoints.is_empty() { (button(&new, &label, "primary")) } };
    let content = html! {
        (head(&title, Some(&about), actions))
        (done(&v))
        @if endpoints.is_empty() {
            (empty(&v.say("No endpoints yet"), &text, may_create.then_some((new.as_str(), label.as_str()))))
        } @else {
            (table(&v, &endpoints))
        }
    };
    Ok(Page::new(title, "endpoints", content))
}

fn table(v: &Visit, endpoints: &[Item<'_>]) -> Markup {
    let [endpoint_word, status_word] = [v.say("Endpoint"), v.say("Status")];
    let [events_word, last_word] = [v.say("Event types"), v.say("Last delivery")];
    html! { div.scroll { table.list {
        thead { tr {
            th scope="col" { (endpoint_word) }
            th scope="col" { (status_word) }
            th scope="col" { (events_word) }
            th scope="col" { (last_word) }
            th scope="col" { span.sr { (v.say("Actions")) } }
        } }
        tbody { @for endpoint in endpoints { tr {
            td.main data-label=(endpoint_word) {
                a href=(v.link(&format!("/endpoints/{}", endpoint.id()))) { (endpoint.text("url")) }
                @if !endpoint.text("description").is_empty() { small { (endpoint.text("description")) } }
            }
            td data-label=(status_word) { span {
                (status(v, state(*endpoint)))
                @if state(*endpoint) == "failing" {
                    " " small.muted { (v.fill("{n} in a row", &[("n", &number(v, count(*endpoint, "consecutive_failures")))])) }
                }
            } }
            td data-label=(events_word) { (events(v, &endpoint.texts("events"))) }
            td data-label=(last_word) { (time(v, endpoint.text("last_delivery_at"))) }
            td.actions {
                a.button href=(v.link(&format!("/deliveries?endpoint_id={}", endpoint.id()))) {
                    (v.say("Deliveries")) span.sr { ": " (endpoint.text("url")) }
                }
            }
        } } }
    } } }
}

/// What it subscribes to: how many, and which when one asks.
fn events(v: &Visit, names: &[&str]) -> Markup {
    html! {
        @if let [name] = names {
            (code(name))
        } @else {
            details {
                summary { (v.fill("{n} event types", &[("n", &names.len())])) }
                @for name in names { (code(name)) br; }
            }
        }
    }
}

/// What the visitor has just done, as the address says.
fn done(v: &Visit) -> Markup {
    let words = match v.asked("done") {
        "saved" => v.say("Saved. It applies from the next attempt on."),
        "resumed" => v.say("Resumed. Deliveries that were held go out now, and new events are sent again."),
        "deleted" => v.say("The endpoint is deleted. Nothing is sent to it any more."),
        _ => return html! {},
    };
    notice(Kind::Good, html! { p { (words) } })
}

/// `/endpoints/{id}`
pub async fn show(v: Visit) -> Result<Page, Failure> {
    let doc = v.get(&resource(&v, ""), &[]).await?;
    let endpoint = doc.item();
    let missed = v.get(&resource(&v, "/missed"), &[]).await?;
    let statistics = traffic::statistics(&v, Some(endpoint.id())).await?;
    let deliveries = v.get(&resource(&v, "/deliveries"), &[("per_page", "20")]).await?;
    let last = match state(endpoint) {
        "auto_disabled" | "failing" => last_failure(&v, endpoint.id()).await,
        _ => LastFailure::default(),
    };
    let description = Some(endpoint.text("description")).filter(|text| !text.is_empty());
    let content = html! {
        (crumbs(&v, &[(&v.say("Endpoints"), &v.link("/endpoints"))]))
        (head(endpoint.text("url"), description, actions(&v, endpoint)))
        (done(&v))
        (told(&v, endpoint, &last))
        (passed_by(&v, endpoint, missed.item()))
        div.split {
            div.stack {
                section #traffic data-live="5" aria-labelledby="traffic-title" {
                    div.panel-head {
                        h2 #traffic-title { (v.say("Traffic")) }
                        (traffic::switch(&v, &address(&v, "")))
                    }
                    (traffic::charts(&v, statistics.item()))
                }
                (newest(&v, endpoint, &deliveries))
            }
            section.panel #facts data-live="5" aria-labelledby="facts-title" {
                h2 #facts-title { (v.say("Endpoint")) }
                (known(&v, endpoint, missed.item()))
            }
        }
        (danger(&v))
    };
    Ok(Page::new(host(endpoint.text("url")), "endpoints", content))
}

fn actions(v: &Visit, endpoint: Item<'_>) -> Markup {
    html! { @if v.may("webhooks:update") {
        @if endpoint.text("status") == "active" {
            (post(v, &address(v, "/pause"), &v.say("Pause endpoint"), ""))
        } @else {
            (post(v, &address(v, "/resume"), &v.say("Resume endpoint"), "primary"))
        }
        (button(&address(v, "/replay"), &v.say("Replay"), ""))
        (post(v, &address(v, "/test"), &v.say("Send a test"), ""))
        (button(&address(v, "/edit"), &v.say("Edit"), ""))
    } }
}

/// What is to be known of its state, and what to do.
fn told(v: &Visit, endpoint: Item<'_>, last: &LastFailure) -> Markup {
    let failures = count(endpoint, "consecutive_failures");
    let error = html! { @if !last.error.is_empty() {
        p { (v.fill("The last error: {error}.", &[("error", &last.error)])) }
    } };
    let guide = html! { p { a href="/docs/guides/when-a-receiver-is-down" { (v.say("When a receiver is down")) } } };
    match state(endpoint) {
        "auto_disabled" => notice(
            Kind::Bad,
            html! {
                p { strong { (why_disabled(v, failures, last)) } }
                (error)
                p { (v.say("Fix the receiver and send a test. Once it is delivered, resume the endpoint: that clears the failure counter, and held deliveries go out. Events published in the meantime can be replayed.")) }
                (guide)
            },
        ),
        "failing" => notice(
            Kind::Warn,
            html! {
                p { strong { (why_failing(v, failures)) } }
                (error)
                p { (v.say("Nothing is lost yet. Check the receiver: after too many failures in a row the endpoint is disabled automatically.")) }
                (guide)
            },
        ),
        "disabled" => notice(
            Kind::Info,
            html! {
                p { strong { (v.say("Paused. Nothing is sent.")) } }
                p { (v.say("Waiting deliveries are held until you resume it. Events published in the meantime make no delivery; they count as missed and can be replayed.")) }
            },
        ),
        _ => html! {},
    }
}

/// What was published while it was not active.
fn passed_by(v: &Visit, endpoint: Item<'_>, missed: Item<'_>) -> Markup {
    let n = count(missed, "count");
    if n == 0 {
        return html! {};
    }
    let words = if n == 1 {
        v.say("One event was published while this endpoint was not active, and was not sent to it.")
    } else {
        let n = number(v, n);
        v.fill("{n} events were published while this endpoint was not active, and were not sent to it.", &[("n", &n)])
    };
    let content = html! {
        p { (words) " " (v.say("The oldest:")) " " (time(v, missed.text("oldest_at"))) }
        @if v.may("webhooks:update") {
            @if endpoint.text("status") != "active" {
                p { (v.say("A replay waits until the endpoint is active again.")) }
            }
            p { (button(&replay_missed(v, missed), &v.say("Replay what was missed"), "")) }
        }
    };
    notice(Kind::Info, content)
}

fn replay_missed(v: &Visit, missed: Item<'_>) -> String {
    address(v, &format!("/replay?status=missed&from={}", missed.text("oldest_at")))
}

fn newest(v: &Visit, endpoint: Item<'_>, deliveries: &Doc) -> Markup {
    html! { section.panel #deliveries data-live="5" aria-labelledby="deliveries-title" {
        div.panel-head {
            h2 #deliveries-title { (v.say("Latest deliveries")) }
            a href=(v.link(&format!("/deliveries?endpoint_id={}", endpoint.id()))) { (v.say("All its deliveries")) }
        }
        @if deliveries.items().is_empty() {
            p.muted { (v.say("None yet. A test shows whether the receiver is reached.")) }
        } @else {
            (traffic::latest(v, &deliveries.items(), endpoint.text("status") == "active"))
        }
    } }
}

fn known(v: &Visit, endpoint: Item<'_>, missed: Item<'_>) -> Markup {
    let failures = number(v, count(endpoint, "consecutive_failures"));
    let missed = number(v, count(missed, "count"));
    let names = endpoint.texts("events");
    let ordering = if endpoint.text("ordering") == "fifo" {
        v.say("In order, one at a time (fifo)")
    } else {
        v.say("In any order, as fast as possible (none)")
    };
    facts(&[
        (&v.say("Status"), status(v, state(endpoint))),
        (&v.say("Failed attempts in a row"), html! { (failures) }),
        (&v.say("Missed events"), html! { (missed) }),
        (&v.say("Last delivery"), time(v, endpoint.text("last_delivery_at"))),
        (&v.say("Event types"), html! { @for name in &names { (code(name)) br; } }),
        (&v.say("Ordering"), html! { (ordering) }),
        (&v.say("Description"), described(v, endpoint)),
        (&v.say("Metadata"), metadata(v, endpoint)),
        (&v.say("External ID"), external_id(v, endpoint)),
        (&v.say("Signing secret"), code(endpoint.text("secret_hint"))),
        (&v.say("Created"), time(v, endpoint.text("created_at"))),
        (&v.say("Changed"), time(v, endpoint.text("updated_at"))),
        (&v.say("ID"), copyable(v, endpoint.id())),
    ])
}

fn described(v: &Visit, endpoint: Item<'_>) -> Markup {
    match endpoint.text("description") {
        "" => none(v),
        text => html! { (text) },
    }
}

/// The client's own notes, key by key.
fn metadata(v: &Visit, endpoint: Item<'_>) -> Markup {
    match endpoint.value("metadata").as_object() {
        Some(strings) if !strings.is_empty() => html! {
            @for (key, value) in strings { (code(key)) ": " (value.as_str().unwrap_or_default()) br; }
        },
        _ => none(v),
    }
}

fn external_id(v: &Visit, endpoint: Item<'_>) -> Markup {
    match endpoint.text("external_id") {
        "" => none(v),
        text => code(text),
    }
}

/// The last characters of its secret.
fn ending(endpoint: Item<'_>) -> &str {
    endpoint.text("secret_hint").trim_start_matches('.')
}

/// Steps that cannot be taken back.
fn danger(v: &Visit) -> Markup {
    let (may_update, may_delete) = (v.may("webhooks:update"), v.may("webhooks:delete"));
    html! { @if may_update || may_delete {
        section.panel.danger-zone aria-label=(v.say("Steps that cannot be undone")) {
            @if may_update { div {
                div {
                    h2 { (v.say("Rotate the signing secret")) }
                    p.muted { (v.say("On a schedule, when somebody leaves the team, or at once if it has leaked.")) }
                }
                (button(&address(v, "/rotate"), &v.say("Rotate secret"), "danger"))
            } }
            @if may_delete { div {
                div {
                    h2 { (v.say("Delete the endpoint")) }
                    p.muted { (v.say("Its deliveries go with it. To stop for a while, pause it instead.")) }
                }
                (button(&address(v, "/delete"), &v.say("Delete"), "danger"))
            } }
        }
    } }
}

/// `/endpoints/{id}/pause`
pub async fn pause(v: Visit) -> Result<Page, Failure> {
    v.send("PUT", &resource(&v, ""), json!({ "status": "disabled" })).await?;
    Ok(Page::Redirect(address(&v, "")))
}

/// `/endpoints/{id}/resume`
pub async fn resume(v: Visit) -> Result<Page, Failure> {
    v.send("PUT", &resource(&v, ""), json!({ "status": "active" })).await?;
    Ok(Page::Redirect(address(&v, "?done=resumed")))
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
