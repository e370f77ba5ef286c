//! Replays: starting one, and its progress.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::endpoints::{address, id, resource, trail};
use super::form_errors::{mendable, status_of};
use super::page_context::{Failure, Page, PageContext};
use super::parts::{
    Input, Kind, button, crumbs, facts, faults, head, input, milliseconds, notice, number, post, select, status,
    submit, time, time_or_none,
};
use crate::api::{EndpointResource, MissedResource, ReplayEvents, ReplayResource, RequestBody as _};

/// Which events a replay can take.
const SELECTIONS: [&str; 3] = ["failed", "missed", "all"];

const DAY_MS: i64 = 86_400_000;

/// The form as it is filled in. Times are as a `datetime-local` has them.
struct ReplayForm {
    from: String,
    to: String,
    status: String,
}

/// `/endpoints/{id}/replay`
pub async fn new(cx: PageContext) -> Result<Page, Failure> {
    let endpoint: EndpointResource = cx.get(&resource(&cx, ""), &[]).await?;
    let missed: MissedResource = cx.get(&resource(&cx, "/missed"), &[]).await?;
    let status = match cx.asked("status") {
        asked if SELECTIONS.contains(&asked) => asked,
        _ if missed.count > 0 => "missed",
        _ => "failed",
    };
    let oldest = missed.oldest_at.as_deref().filter(|_| status == "missed").and_then(milliseconds);
    let from = asked_time(cx.asked("from")).unwrap_or_else(|| local(oldest.unwrap_or(cx.now - DAY_MS)));
    let to = asked_time(cx.asked("to")).unwrap_or_default();
    let typed = ReplayForm { from, to, status: status.to_owned() };
    Ok(new_page(&cx, &endpoint, &missed, &typed, None))
}

/// The same, when it was sent.
pub async fn create(cx: PageContext) -> Result<Page, Failure> {
    let [from, to, status] = ["from", "to", "status"].map(|name| cx.field(name).trim().to_owned());
    let typed = ReplayForm { from, to, status };
    let mut body = Map::from_iter([("status".to_owned(), Value::from(typed.status.as_str()))]);
    for (name, value) in [("from", &typed.from), ("to", &typed.to)] {
        if !value.is_empty() {
            body.insert(name.to_owned(), Value::from(instant(value)));
        }
    }
    match cx.send::<ReplayResource>("POST", &resource(&cx, "/replay"), Value::Object(body)).await {
        Ok(made) => Ok(Page::Redirect(cx.link(&format!("/replays/{}", made.id)))),
        Err(failure) => {
            let failure = mendable(failure, ReplayEvents::NAMES)?;
            let endpoint: EndpointResource = cx.get(&resource(&cx, ""), &[]).await?;
            let missed: MissedResource = cx.get(&resource(&cx, "/missed"), &[]).await?;
            let page = new_page(&cx, &endpoint, &missed, &typed, Some(&failure));
            Ok(page.with_status(status_of(&failure)))
        }
    }
}

fn new_page(
    cx: &PageContext,
    endpoint: &EndpointResource,
    missed: &MissedResource,
    typed: &ReplayForm,
    failure: Option<&Failure>,
) -> Page {
    let title = cx.say("Replay events");
    let about = cx.say(
        "Sends events of the past to this endpoint again, each as a new delivery with an id of its own. What is new \
         goes first.",
    );
    let error = |name: &str| failure.and_then(|failure| failure.of(name));
    let n = number(cx, missed.count);
    let content = html! {
        (trail(cx, endpoint))
        (head(&title, Some(&about), html! {}))
        (faults(cx, failure))
        (unfinished(cx, failure))
        @if endpoint.status != "active" { (notice(Kind::Info, html! {
            p { (cx.say("The endpoint is not active. A replay waits until it is resumed.")) }
        })) }
        form.form method="post" action=(address(cx, "/replay")) data-submit-once {
            (cx.form_start())
            (select(
                &Input {
                    name: "status",
                    label: &cx.say("Which events"),
                    hint: &cx.fill("Missed while the endpoint was not active: {n}.", &[("n", &n)]),
                    value: &typed.status,
                    error: error("status"),
                    ..Input::default()
                },
                &[
                    ("failed", &cx.say("Failed: all attempts failed, and no more will be made")),
                    ("missed", &cx.say("Missed: the endpoint has no delivery of them")),
                    ("all", &cx.say("All: failed, missed and delivered")),
                ],
            ))
            (input(&Input {
                name: "from",
                label: &cx.say("From (UTC)"),
                hint: &cx.say("When an event was accepted. What is older than the retention is gone and is left out."),
                value: &typed.from,
                error: error("from"),
                kind: "datetime-local",
                required: true,
                ..Input::default()
            }))
            (input(&Input {
                name: "to",
                label: &cx.say("To (UTC)"),
                hint: &cx.say("Leave it empty for everything until now."),
                value: &typed.to,
                error: error("to"),
                kind: "datetime-local",
                ..Input::default()
            }))
            p { a href="/docs/guides/replay-after-an-outage" { (cx.say("Replay after an outage")) } }
            div.buttons {
                (submit(&cx.say("Start the replay"), "primary"))
                (button(&address(cx, ""), &cx.say("Cancel"), ""))
            }
        }
    };
    Page::new(title, "endpoints", content)
}

/// The replays that are in the way of another one.
fn unfinished(cx: &PageContext, failure: Option<&Failure>) -> Markup {
    let faults = failure.map(|failure| failure.faults.as_slice()).unwrap_or_default();
    let ids: Vec<&String> = faults.iter().flat_map(|fault| &fault.replays).collect();
    html! { @if !ids.is_empty() { section.panel aria-labelledby="unfinished" {
        h2 #unfinished { (cx.say("Replays that are not finished")) }
        p { (cx.say("Wait for one to finish, or cancel one.")) }
        ul { @for id in ids { li { a href=(cx.link(&format!("/replays/{id}"))) { (id) } } } }
    } } }
}

/// `/replays/{id}`
pub async fn show(cx: PageContext) -> Result<Page, Failure> {
    let replay: ReplayResource = cx.get(&format!("/v1/webhooks/replays/{}", id(&cx)), &[]).await?;
    // Gone together, in general; a page that is fetched in between does without it.
    let path = format!("/v1/webhooks/{}", replay.endpoint_id);
    let endpoint: Option<EndpointResource> = cx.get(&path, &[]).await.ok();
    let title = cx.say("Replay");
    let name = endpoint.as_ref().map_or(&replay.endpoint_id, |endpoint| &endpoint.url);
    let active = endpoint.as_ref().is_none_or(|endpoint| endpoint.status == "active");
    let page = cx.link(&format!("/endpoints/{}", replay.endpoint_id));
    let going = matches!(&*replay.status, "pending" | "running");
    let finished = if going { None } else { replay.finished_at.as_deref() };
    let content = html! {
        (crumbs(&cx, &[(&cx.say("Endpoints"), &cx.link("/endpoints")), (name, &page)]))
        (head(&title, Some(&selection(&cx, &replay.selection)), html! {}))
        section.panel #replay data-live=[going.then_some("2")] aria-label=(cx.say("Progress")) {
            (progress(&cx, &replay, active))
            (facts(&[
                (&cx.say("Endpoint"), html! { a href=(page) { (name) } }),
                (&cx.say("Events accepted from"), time(&cx, &replay.from)),
                (&cx.say("Until"), time(&cx, &replay.to)),
                (&cx.say("Events in all"), html! { (number(&cx, replay.total)) }),
                (&cx.say("Sent so far"), html! { (number(&cx, replay.sent)) }),
                (&cx.say("Requested"), time(&cx, &replay.created_at)),
                (&cx.say("Finished"), time_or_none(&cx, finished)),
            ]))
            (ways(&cx, &replay, going))
        }
    };
    Ok(Page::new(title, "endpoints", content))
}

fn selection(cx: &PageContext, name: &str) -> String {
    match name {
        "missed" => cx.say("Events of which the endpoint had no delivery."),
        "all" => cx.say("All events that the endpoint subscribes to, whatever became of them."),
        _ => cx.say("Events of which every delivery to the endpoint had failed."),
    }
}

/// How far it is, and what that means.
fn progress(cx: &PageContext, replay: &ReplayResource, active: bool) -> Markup {
    let (sent, total) = (replay.sent, replay.total);
    let [sent_text, total_text] = [sent, total].map(|n| number(cx, n));
    let state = &*replay.status;
    // Nothing to send is all sent.
    let (done, most) = if total == 0 && state == "completed" { (1, 1) } else { (sent, total.max(1)) };
    let share = cx.fill("{sent} of {total} sent", &[("sent", &sent_text), ("total", &total_text)]);
    let words = match state {
        "pending" => cx.say("Its events are being counted."),
        "running" if !active => {
            cx.say("The endpoint is not active. The replay waits, and continues when the endpoint is resumed.")
        }
        "running" => cx.say("It continues in the background. You can leave this page."),
        "cancelled" => cx.say("It was stopped. What was sent stays sent; the rest was not."),
        _ if total == 0 => cx.say("There was nothing to send: no event in that time matches."),
        _ => cx.say("Every event was sent once. Deliveries that failed are retried on schedule, like any others."),
    };
    html! {
        p.row { (status(cx, state)) strong { (share) } }
        @if state == "pending" && total == 0 {
            progress aria-label=(cx.say("Progress")) {}
        } @else {
            progress aria-label=(cx.say("Progress")) max=(most) value=(done) { (share) }
        }
        p { (words) }
    }
}

/// What can be done now.
fn ways(cx: &PageContext, replay: &ReplayResource, going: bool) -> Markup {
    let endpoint = &replay.endpoint_id;
    let deliveries = format!("/deliveries?endpoint_id={endpoint}&from={}", replay.created_at);
    let again = format!("/endpoints/{endpoint}/replay");
    html! { div.buttons {
        (button(&cx.link(&deliveries), &cx.say("Deliveries since then"), ""))
        @if cx.may("webhooks:update") {
            @if going {
                (post(cx, &cx.link(&format!("/replays/{}/cancel", replay.id)), &cx.say("Cancel the replay"), "danger"))
            } @else {
                (button(&cx.link(&again), &cx.say("Another replay"), ""))
            }
        }
    } }
}

/// `/replays/{id}/cancel`
pub async fn cancel(cx: PageContext) -> Result<Page, Failure> {
    cx.send::<()>("DELETE", &format!("/v1/webhooks/replays/{}", id(&cx)), Value::Null).await?;
    Ok(Page::Redirect(cx.link(&format!("/replays/{}", id(&cx)))))
}

/// A time of an address as a `datetime-local` has it: to the minute, in UTC.
fn asked_time(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    milliseconds(text).or_else(|| milliseconds(&instant(text))).map(local)
}

fn local(milliseconds: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(milliseconds).expect("it is a time that was read, or yesterday");
    at.to_string().get(..16).unwrap_or("").to_owned()
}

/// A `datetime-local` as the API reads times. What is none is left for the API to refuse.
fn instant(local: &str) -> String {
    if !local.contains('T') || local.ends_with('Z') || local.contains('+') {
        local.to_owned()
    } else if local.len() == "2026-05-01T05:14".len() {
        format!("{local}:00Z")
    } else {
        format!("{local}Z")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_time_is_one_in_utc() {
        for (local, expected) in [
            ("2026-05-01T05:14", "2026-05-01T05:14:00Z"),
            ("2026-05-01T05:14:38", "2026-05-01T05:14:38Z"),
            ("2026-05-01T05:14:38.250", "2026-05-01T05:14:38.250Z"),
            ("2026-05-01T05:14:38Z", "2026-05-01T05:14:38Z"),
            ("2026-05-01T05:14:38+02:00", "2026-05-01T05:14:38+02:00"),
            ("2026-05-01", "2026-05-01"),
            ("yesterday", "yesterday"),
        ] {
            assert_eq!(instant(local), expected);
        }
    }

    #[test]
    fn a_time_of_an_address_is_shown_to_the_minute() {
        assert_eq!(asked_time("2026-05-01T05:14:38Z").as_deref(), Some("2026-05-01T05:14"));
        assert_eq!(asked_time("2026-05-01T05:14").as_deref(), Some("2026-05-01T05:14"));
        assert_eq!(asked_time(""), None);
        assert_eq!(asked_time("yesterday"), None);
        assert_eq!(local(0), "1970-01-01T00:00");
    }
}
