//! The first page of an account: whether all is well, what needs attention, what went out lately.

use maud::{Markup, html};

use super::deliveries::table;
use super::endpoints::{state, why_disabled, why_failing};
use super::parts::{button, head, none, number, status};
use super::traffic::{self, LastFailure, count, last_failure};
use super::visit::{Doc, Failure, Item, Page, Place, Visit};

/// Endpoints of a kind about which further calls are made.
const LOOKED_INTO: usize = 5;

/// `/`
pub async fn show(v: Visit) -> Result<Page, Failure> {
    let title = v.say("Overview");
    let doc = v.get("/v1/webhooks", &[]).await?;
    let endpoints = doc.items();
    if endpoints.is_empty() {
        return Ok(Page::new(title, "overview", first_run(&v)));
    }
    let statistics = traffic::statistics(&v, None).await?;
    let deliveries = v.get("/v1/webhooks/deliveries", &[("per_page", "10")]).await?;
    let troubles = troubles(&v, &endpoints).await;
    let new =
        html! { @if v.may("webhooks:create") { (button(&v.link("/endpoints/new"), &v.say("New endpoint"), "")) } };
    let content = html! {
        (head(&title, None, new))
        section #attention data-live="5" aria-labelledby="attention-title" {
            h2 #attention-title { (v.say("Needs attention")) }
            (attention(&v, &endpoints, &troubles))
        }
        section #traffic data-live="5" aria-labelledby="traffic-title" {
            div.panel-head {
                h2 #traffic-title { (v.say("Traffic")) }
                (traffic::switch(&v, &v.link("")))
            }
            (tiles(&v, statistics.item(), &endpoints))
            div.pair { (traffic::charts(&v, statistics.item())) }
        }
        (newest(&v, &deliveries))
    };
    Ok(Page::new(title, "overview", content))
}

fn newest(v: &Visit, deliveries: &Doc) -> Markup {
    html! { section.panel #deliveries data-live="5" aria-labelledby="deliveries-title" {
        div.panel-head {
            h2 #deliveries-title { (v.say("Latest deliveries")) }
            a href=(v.link("/deliveries")) { (v.say("All deliveries")) }
        }
        @if deliveries.items().is_empty() {
            p.muted { (v.say("None yet. The first event that an endpoint subscribes to makes one.")) }
        } @else {
            (table(v, &deliveries.items()))
        }
    } }
}

/// An endpoint that somebody should look at.
struct Trouble<'a> {
    endpoint: Item<'a>,
    why: Why,
}

enum Why {
    /// It fails, or did until it was disabled.
    Failing(LastFailure),
    /// It is paused, and so many events passed it by.
    Missed(u64),
}

async fn troubles<'a>(v: &Visit, endpoints: &[Item<'a>]) -> Vec<Trouble<'a>> {
    let mut sick = in_state(endpoints, "auto_disabled");
    sick.extend(in_state(endpoints, "failing"));
    let mut found = Vec::new();
    for (at, endpoint) in sick.into_iter().enumerate() {
        let last = if at < LOOKED_INTO { last_failure(v, endpoint.id()).await } else { LastFailure::default() };
        found.push(Trouble { endpoint, why: Why::Failing(last) });
    }
    for endpoint in in_state(endpoints, "disabled").into_iter().take(LOOKED_INTO) {
        let path = format!("/v1/webhooks/{}/missed", endpoint.id());
        let missed = v.get(&path, &[]).await.map_or(0, |missed| count(missed.item(), "count"));
        if missed > 0 {
            found.push(Trouble { endpoint, why: Why::Missed(missed) });
        }
    }
    found
}

fn in_state<'a>(endpoints: &[Item<'a>], wanted: &str) -> Vec<Item<'a>> {
    endpoints.iter().copied().filter(|endpoint| state(*endpoint) == wanted).collect()
}

fn attention(v: &Visit, endpoints: &[Item<'_>], troubles: &[Trouble<'_>]) -> Markup {
    let beyond = in_state(endpoints, "disabled").len().saturating_sub(LOOKED_INTO);
    html! {
        @if troubles.is_empty() {
            p.row {
                @if endpoints.iter().any(|endpoint| state(*endpoint) == "active") {
                    (status(v, "healthy")) span { (v.say("Nothing. Every active endpoint accepts its deliveries.")) }
                } @else {
                    (status(v, "disabled")) span { (v.say("No endpoint is active, so nothing is sent.")) }
                    a href=(v.link("/endpoints")) { (v.say("See the endpoints")) }
                }
            }
        } @else {
            ul.attention { @for trouble in troubles { (told(v, trouble)) } }
        }
        @if beyond > 0 { p.muted {
            (v.fill("More paused endpoints: {n}.", &[("n", &beyond)]))
            " " a href=(v.link("/endpoints")) { (v.say("See the endpoints")) }
        } }
    }
}

/// What is wrong with an endpoint, and the way on.
fn told(v: &Visit, trouble: &Trouble<'_>) -> Markup {
    let endpoint = trouble.endpoint;
    let name = state(endpoint);
    let page = v.link(&format!("/endpoints/{}", endpoint.id()));
    let failures = count(endpoint, "consecutive_failures");
    let (words, href, label) = match &trouble.why {
        Why::Failing(last) if name == "auto_disabled" => {
            (why_disabled(v, failures, last), page.clone(), v.say("See what to do"))
        }
        Why::Failing(_) => (why_failing(v, failures), failures_of(v, endpoint), v.say("See the failures")),
        Why::Missed(n) => (passed_by(v, *n), page.clone(), v.say("Resume or replay")),
    };
    let error = match &trouble.why {
        Why::Failing(last) => last.error.as_str(),
        Why::Missed(_) => "",
    };
    html! { li {
        (status(v, name))
        p {
            a href=(page) { (endpoint.text("url")) }
            br;
            (words)
            @if !error.is_empty() { " " (v.fill("The last error: {error}.", &[("error", &error)])) }
        }
        (button(&href, &label, ""))
    } }
}

fn passed_by(v: &Visit, n: u64) -> String {
    if n == 1 {
        return v.say("One event was published while it was paused, and was not sent to it.");
    }
    let n = number(v, n);
    v.fill("{n} events were published while it was paused, and were not sent to it.", &[("n", &n)])
}

fn failures_of(v: &Visit, endpoint: Item<'_>) -> String {
    v.link(&format!("/deliveries?endpoint_id={}&status=failed,retrying", endpoint.id()))
}

fn tiles(v: &Visit, statistics: Item<'_>, endpoints: &[Item<'_>]) -> Markup {
    let [attempts, success, failed] = ["attempts", "success", "failed"].map(|name| count(statistics, name));
    let active = endpoints.iter().filter(|endpoint| endpoint.text("status") == "active").count();
    let rate = per_mille(success, attempts);
    let within = match traffic::period(v) {
        "1h" => v.say("in the last hour"),
        "7d" => v.say("in the last 7 days"),
        _ => v.say("in the last 24 hours"),
    };
    html! { div.tiles {
        div.tile {
            span.label { (v.say("Attempts")) }
            strong.value { (number(v, attempts)) }
            span.note { (within) }
        }
        div.tile.warn[rate.is_some_and(|rate| (900..990).contains(&rate))].bad[rate.is_some_and(|rate| rate < 900)] {
            span.label { (v.say("Success rate")) }
            strong.value { @match rate { Some(rate) => (percent(v, rate)), None => (none(v)) } }
            span.note { (v.say("of the attempts")) }
        }
        a.tile href=(v.link("/deliveries?status=failed")) {
            span.label { (v.say("Failed for good")) }
            strong.value { (number(v, failed)) }
            span.note { (v.say("no more retries")) }
        }
        a.tile href=(v.link("/endpoints")) {
            span.label { (v.say("Active endpoints")) }
            strong.value { (active) }
            span.note { (v.fill("of {n}", &[("n", &endpoints.len())])) }
        }
    } }
}

/// The share of a part, rounded down: only the whole is a thousand.
fn per_mille(part: u64, whole: u64) -> Option<u64> {
    (part * 1_000).checked_div(whole)
}

fn percent(v: &Visit, per_mille: u64) -> String {
    let mark = if v.tongue.code() == "es" { ',' } else { '.' };
    match per_mille {
        1_000 => "100 %".to_owned(),
        _ => format!("{}{mark}{} %", per_mille / 10, per_mille % 10),
    }
}

/// What stands here before there is an endpoint.
fn first_run(v: &Visit) -> Markup {
    let about = v.say("Nothing is set up yet. Three steps to your first webhook.");
    let may_publish = v.may("events:create") && v.may("event_types:read") && v.place != Place::Portal;
    html! {
        (head(&v.say("Overview"), Some(&about), html! {}))
        section.panel { ol.timeline {
            li.info {
                h2 { (v.say("1. Create an endpoint")) }
                p { (v.say("Enter the URL of your receiver and choose its events. You get the secret that signs every delivery.")) }
                @if v.may("webhooks:create") {
                    p { (button(&v.link("/endpoints/new"), &v.say("New endpoint"), "primary")) }
                } @else {
                    p.muted { (v.say("You do not have the permission to create endpoints. Ask somebody who has.")) }
                }
            }
            li {
                h2 { (v.say("2. Publish an event")) }
                @if may_publish {
                    p { (v.say("From your program by the API, or by hand from the page of an event type, to try it out.")) }
                    p.row {
                        a href=(v.link("/event-types")) { (v.say("Event types")) }
                        a href="/docs/guides/quick-start" { (v.say("Quick start")) }
                    }
                } @else {
                    p { (v.say("You need not do anything: as soon as an event happens that your endpoint subscribes to, it is sent there. You can send a test at any time.")) }
                }
            }
            li {
                h2 { (v.say("3. Verify the signature")) }
                p { (v.say("It tells your receiver that a request is genuine. A few lines of code do it, ready to copy in several languages.")) }
                p { a href="/docs/guides/receive-and-verify" { (v.say("Receive and verify")) } }
            }
        } }
    }
}

#[cfg(test)]
mod tests {
    use super::per_mille;

    #[test]
    fn a_share_is_whole_only_where_nothing_is_missing() {
        assert_eq!(per_mille(0, 0), None);
        assert_eq!(per_mille(3, 3), Some(1_000));
        assert_eq!(per_mille(999_999, 1_000_000), Some(999));
        assert_eq!(per_mille(1, 3), Some(333));
    }
}
