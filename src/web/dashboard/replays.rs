//! Replays: asking for one, and how far it is.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::asking::{mendable, status_of};
use super::endpoints::{address, id, resource, trail};
use super::parts::{
    Input, Kind, button, crumbs, facts, faults, head, input, milliseconds, none, notice, number, post, select, status,
    submit, time,
};
use super::traffic::count;
use super::visit::{Failure, Item, Page, Visit};
use crate::api::{ReplayEvents, RequestBody as _};

/// Which events a replay can take.
const SELECTIONS: [&str; 3] = ["failed", "missed", "all"];

const DAY_MS: i64 = 86_400_000;

/// The form as it is filled in. Times are as a `datetime-local` has them.
struct Typed {
    from: String,
    to: String,
    status: String,
}

/// `/endpoints/{id}/replay`
pub async fn new(v: Visit) -> Result<Page, Failure> {
    let doc = v.get(&resource(&v, ""), &[]).await?;
    let missed = v.get(&resource(&v, "/missed"), &[]).await?;
    let missed = missed.item();
    let status = match v.asked("status") {
        asked if SELECTIONS.contains(&asked) => asked,
        _ if count(missed, "count") > 0 => "missed",
        _ => "failed",
    };
    let oldest = if status == "missed" { milliseconds(missed.text("oldest_at")) } else { None };
    let from = asked_time(v.asked("from")).unwrap_or_else(|| local(oldest.unwrap_or(v.now - DAY_MS)));
    let to = asked_time(v.asked("to")).unwrap_or_default();
    let typed = Typed { from, to, status: status.to_owned() };
    Ok(new_page(&v, doc.item(), missed, &typed, None))
}

/// The same, when it was sent.
pub async fn create(v: Visit) -> Result<Page, Failure> {
    let [from, to, status] = ["from", "to", "status"].map(|name| v.field(name).trim().to_owned());
    let typed = Typed { from, to, status };
    let mut body = json!({ "status": typed.status });
    for (name, value) in [("from", &typed.from), ("to", &typed.to)] {
        if !value.is_empty() {
            body[name] = Value::from(instant(value));
        }
    }
    match v.send("POST", &resource(&v, "/replay"), body).await {
        Ok(made) => Ok(Page::Redirect(v.link(&format!("/replays/{}", made.item().id())))),
        Err(failure) => {
            let failure = mendable(failure, ReplayEvents::NAMES)?;
            let doc = v.get(&resource(&v, ""), &[]).await?;
            let missed = v.get(&resource(&v, "/missed"), &[]).await?;
            let page = new_page(&v, doc.item(), missed.item(), &typed, Some(&failure));
            Ok(page.with_status(status_of(&failure)))
        }
    }
}

fn new_page(v: &Visit, endpoint: Item<'_>, missed: Item<'_>, typed: &Typed, failure: Option<&Failure>) -> Page {
    let title = v.say("Replay events");
    let about = v.say("Sends events of the past to this endpoint again, each as a new delivery with an id of its own. What is new goes first.");
    let error = |name: &str| failure.and_then(|failure| failure.of(name));
    let n = number(v, count(missed, "count"));
    let content = html! {
        (trail(v, endpoint))
        (head(&title, Some(&about), html! {}))
        (faults(v, failure))
        (unfinished(v, failure))
        @if endpoint.text("status") != "active" { (notice(Kind::Info, html! {
            p { (v.say("The endpoint is not active. A replay waits until it is resumed.")) }
        })) }
        form.form method="post" action=(address(v, "/replay")) data-submit-once {
            (v.form_start())
            (select(
                &Input {
                    name: "status",
                    label: &v.say("Which events"),
                    hint: &v.fill("Missed while the endpoint was not active: {n}.", &[("n", &n)]),
                    value: &typed.status,
                    error: error("status"),
                    ..Input::default()
                },
                &[
                    ("failed", &v.say("Failed: all attempts failed, and no more will be made")),
                    ("missed", &v.say("Missed: the endpoint has no delivery of them")),
                    ("all", &v.say("All: failed, missed and delivered")),
                ],
            ))
            (input(&Input {
                name: "from",
                label: &v.say("From (UTC)"),
                hint: &v.say("When an event was accepted. What is older than the retention is gone and is left out."),
                value: &typed.from,
                error: error("from"),
                kind: "datetime-local",
                required: true,
                ..Input::default()
            }))
            (input(&Input {
                name: "to",
                label: &v.say("To (UTC)"),
                hint: &v.say("Leave it empty for everything until now."),
                value: &typed.to,
                error: error("to"),
                kind: "datetime-local",
                ..Input::default()
            }))
            p { a href="/docs/guides/replay-after-an-outage" { (v.say("Replay after an outage")) } }
            div.buttons { (submit(&v.say("Start the replay"), "primary")) (button(&address(v, ""), &v.say("Cancel"), "")) }
        }
    };
    Page::new(title, "endpoints", content)
}

/// The replays that are in the way of another one.
fn unfinished(v: &Visit, failure: Option<&Failure>) -> Markup {
    let faults = failure.map(|failure| failure.faults.as_slice()).unwrap_or_default();
    let ids = faults.iter().filter_map(|fault| fault.meta["replays"].as_array()).flatten().filter_map(Value::as_str);
    let ids: Vec<&str> = ids.collect();
    html! { @if !ids.is_empty() { section.panel aria-labelledby="unfinished" {
        h2 #unfinished { (v.say("Replays that are not finished")) }
        p { (v.say("Wait for one to finish, or cancel one.")) }
        ul { @for id in ids { li { a href=(v.link(&format!("/replays/{id}"))) { (id) } } } }
    } } }
}

/// `/replays/{id}`
pub async fn show(v: Visit) -> Result<Page, Failure> {
    let doc = v.get(&format!("/v1/webhooks/replays/{}", id(&v)), &[]).await?;
    let replay = doc.item();
    // Gone together, in general; a page that is fetched in between does without it.
    let endpoint = v.get(&format!("/v1/webhooks/{}", replay.text("endpoint_id")), &[]).await.ok();
    let title = v.say("Replay");
    let url = endpoint.as_ref().map_or("", |doc| doc.item().text("url"));
    let active = endpoint.as_ref().is_none_or(|doc| doc.item().text("status") == "active");
    let page = v.link(&format!("/endpoints/{}", replay.text("endpoint_id")));
    let going = matches!(replay.text("status"), "pending" | "running");
    let name = if url.is_empty() { replay.text("endpoint_id") } else { url };
    let content = html! {
        (crumbs(&v, &[(&v.say("Endpoints"), &v.link("/endpoints")), (name, &page)]))
        (head(&title, Some(&selection(&v, replay.text("selection"))), html! {}))
        section.panel #replay data-live=[going.then_some("2")] aria-label=(v.say("Progress")) {
            (progress(&v, replay, active))
            (facts(&[
                (&v.say("Endpoint"), html! { a href=(page) { (name) } }),
                (&v.say("Events accepted from"), time(&v, replay.text("from"))),
                (&v.say("Until"), time(&v, replay.text("to"))),
                (&v.say("Events in all"), html! { (number(&v, count(replay, "total"))) }),
                (&v.say("Sent so far"), html! { (number(&v, count(replay, "sent"))) }),
                (&v.say("Requested"), time(&v, replay.text("created_at"))),
                (&v.say("Finished"), if going { none(&v) } else { time(&v, replay.text("finished_at")) }),
            ]))
            (ways(&v, replay, going))
        }
    };
    Ok(Page::new(title, "endpoints", content))
}

fn selection(v: &Visit, name: &str) -> String {
    match name {
        "missed" => v.say("Events of which the endpoint had no delivery."),
        "all" => v.say("All events that the endpoint subscribes to, whatever became of them."),
        _ => v.say("Events of which every delivery to the endpoint had failed."),
    }
}

/// How far it is, and what that means.
fn progress(v: &Visit, replay: Item<'_>, active: bool) -> Markup {
    let (sent, total) = (count(replay, "sent"), count(replay, "total"));
    let [sent_text, total_text] = [sent, total].map(|n| number(v, n));
    let state = replay.text("status");
    // Nothing to send is all sent.
    let (done, most) = if total == 0 && state == "completed" { (1, 1) } else { (sent, total.max(1)) };
    let share = v.fill("{sent} of {total} sent", &[("sent", &sent_text), ("total", &total_text)]);
    let words = match state {
        "pending" => v.say("Its events are being counted."),
        "running" if !active => {
            v.say("The endpoint is not active. The replay waits, and continues when the endpoint is resumed.")
        }
        "running" => v.say("It continues in the background. You can leave this page."),
        "cancelled" => v.say("It was stopped. What was sent stays sent; the rest was not."),
        _ if total == 0 => v.say("There was nothing to send: no event in that time matches."),
        _ => v.say("Every event was sent once. Deliveries that failed are retried on schedule, like any others."),
    };
    html! {
        p.row { (status(v, state)) strong { (share) } }
        @if state == "pending" && total == 0 {
            progress aria-label=(v.say("Progress")) {}
        } @else {
            progress aria-label=(v.say("Progress")) max=(most) value=(done) { (share) }
        }
        p { (words) }
    }
}

/// What can be done now.
fn ways(v: &Visit, replay: Item<'_>, going: bool) -> Markup {
    let endpoint = replay.text("endpoint_id");
    let deliveries = format!("/deliveries?endpoint_id={endpoint}&from={}", replay.text("created_at"));
    let again = format!("/endpoints/{endpoint}/replay");
    html! { div.buttons {
        (button(&v.link(&deliveries), &v.say("Deliveries since then"), ""))
        @if v.may("webhooks:update") {
            @if going {
                (post(v, &v.link(&format!("/replays/{}/cancel", replay.id())), &v.say("Cancel the replay"), "danger"))
            } @else {
                (button(&v.link(&again), &v.say("Another replay"), ""))
            }
        }
    } }
}

/// `/replays/{id}/cancel`
pub async fn cancel(v: Visit) -> Result<Page, Failure> {
    v.send("DELETE", &format!("/v1/webhooks/replays/{}", id(&v)), Value::Null).await?;
    Ok(Page::Redirect(v.link(&format!("/replays/{}", id(&v)))))
}

/// A time of an address as a `datetime-local` has it: to the minute, in UTC.
fn asked_time(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    milliseconds(text).or_else(|| milliseconds(&instant(text))).map(local)
}

fn local(milliseconds: i64) -> String {
    let text = jiff::Timestamp::from_millisecond(milliseconds).map(|at| at.to_string()).unwrap_or_default();
    text.get(..16).unwrap_or("").to_owned()
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
