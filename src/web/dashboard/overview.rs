//! The first page of an account: its state, what needs attention, and recent traffic.

use maud::{Markup, html};

use super::deliveries::table;
use super::endpoints::{state, why_disabled, why_failing};
use super::page_context::{Failure, Page, PageContext, PageOwner};
use super::parts::{button, head, none, number, status};
use super::traffic::{self, LastFailure, last_failure};
use crate::api::{DeliveryResource, EndpointResource, Listing, MissedResource, StatisticsResource};

/// Endpoints of a kind about which further calls are made.
const LOOKED_INTO: usize = 5;

/// `/`
pub async fn show(cx: PageContext) -> Result<Page, Failure> {
    let title = cx.say("Overview");
    let endpoints: Vec<EndpointResource> = cx.get("/v1/webhooks", &[]).await?;
    if endpoints.is_empty() {
        return Ok(Page::new(title, "overview", first_run(&cx)));
    }
    let statistics = traffic::statistics(&cx, None).await?;
    let deliveries: Listing<DeliveryResource> = cx.get("/v1/webhooks/deliveries", &[("per_page", "10")]).await?;
    let problems = problems(&cx, &endpoints).await;
    let new =
        html! { @if cx.may("webhooks:create") { (button(&cx.link("/endpoints/new"), &cx.say("New endpoint"), "")) } };
    let content = html! {
        (head(&title, None, new))
        section #attention data-live="5" aria-labelledby="attention-title" {
            h2 #attention-title { (cx.say("Needs attention")) }
            (attention(&cx, &endpoints, &problems))
        }
        section #traffic data-live="5" aria-labelledby="traffic-title" {
            div.panel-head {
                h2 #traffic-title { (cx.say("Traffic")) }
                (traffic::switch(&cx, &cx.link("")))
            }
            (tiles(&cx, &statistics, &endpoints))
            div.pair { (traffic::charts(&cx, &statistics)) }
        }
        (newest(&cx, &deliveries.items))
    };
    Ok(Page::new(title, "overview", content))
}

fn newest(cx: &PageContext, deliveries: &[DeliveryResource]) -> Markup {
    html! { section.panel #deliveries data-live="5" aria-labelledby="deliveries-title" {
        div.panel-head {
            h2 #deliveries-title { (cx.say("Latest deliveries")) }
            a href=(cx.link("/deliveries")) { (cx.say("All deliveries")) }
        }
        @if deliveries.is_empty() {
            p.muted { (cx.say("None yet. The first event that an endpoint subscribes to makes one.")) }
        } @else {
            (table(cx, deliveries))
        }
    } }
}

/// An endpoint that needs attention.
struct Problem<'a> {
    endpoint: &'a EndpointResource,
    cause: Cause,
}

enum Cause {
    /// It fails, or did until it was disabled.
    Failing(LastFailure),
    /// It is paused, and so many events passed it by.
    Missed(u64),
}

async fn problems<'a>(cx: &PageContext, endpoints: &'a [EndpointResource]) -> Vec<Problem<'a>> {
    let mut sick = in_state(endpoints, "auto_disabled");
    sick.extend(in_state(endpoints, "failing"));
    let mut found = Vec::new();
    for (at, endpoint) in sick.into_iter().enumerate() {
        let last = if at < LOOKED_INTO { last_failure(cx, &endpoint.id).await } else { LastFailure::default() };
        found.push(Problem { endpoint, cause: Cause::Failing(last) });
    }
    for endpoint in in_state(endpoints, "disabled").into_iter().take(LOOKED_INTO) {
        let path = format!("/v1/webhooks/{}/missed", endpoint.id);
        let missed = cx.get(&path, &[]).await.map_or(0, |missed: MissedResource| missed.count);
        if missed > 0 {
            found.push(Problem { endpoint, cause: Cause::Missed(missed) });
        }
    }
    found
}

fn in_state<'a>(endpoints: &'a [EndpointResource], wanted: &str) -> Vec<&'a EndpointResource> {
    endpoints.iter().filter(|endpoint| state(endpoint) == wanted).collect()
}

fn attention(cx: &PageContext, endpoints: &[EndpointResource], problems: &[Problem<'_>]) -> Markup {
    let beyond = in_state(endpoints, "disabled").len().saturating_sub(LOOKED_INTO);
    html! {
        @if problems.is_empty() {
            p.row {
                @if endpoints.iter().any(|endpoint| state(endpoint) == "active") {
                    (status(cx, "healthy")) span { (cx.say("Nothing. Every active endpoint accepts its deliveries.")) }
                } @else {
                    (status(cx, "disabled")) span { (cx.say("No endpoint is active, so nothing is sent.")) }
                    a href=(cx.link("/endpoints")) { (cx.say("See the endpoints")) }
                }
            }
        } @else {
            ul.attention { @for problem in problems { (problem_row(cx, problem)) } }
        }
        @if beyond > 0 { p.muted {
            (cx.fill("More paused endpoints: {n}.", &[("n", &beyond)]))
            " " a href=(cx.link("/endpoints")) { (cx.say("See the endpoints")) }
        } }
    }
}

/// What is wrong with an endpoint, and the way on.
fn problem_row(cx: &PageContext, problem: &Problem<'_>) -> Markup {
    let endpoint = problem.endpoint;
    let name = state(endpoint);
    let page = cx.link(&format!("/endpoints/{}", endpoint.id));
    let failures = endpoint.consecutive_failures;
    let (words, href, label) = match &problem.cause {
        Cause::Failing(last) if name == "auto_disabled" => {
            (why_disabled(cx, failures, last), page.clone(), cx.say("See what to do"))
        }
        Cause::Failing(_) => (why_failing(cx, failures), failures_of(cx, endpoint), cx.say("See the failures")),
        Cause::Missed(n) => (passed_by(cx, *n), page.clone(), cx.say("Resume or replay")),
    };
    let error = match &problem.cause {
        Cause::Failing(last) => last.error.as_str(),
        Cause::Missed(_) => "",
    };
    html! { li {
        (status(cx, name))
        p {
            a href=(page) { (endpoint.url) }
            br;
            (words)
            @if !error.is_empty() { " " (cx.fill("The last error: {error}.", &[("error", &error)])) }
        }
        (button(&href, &label, ""))
    } }
}

fn passed_by(cx: &PageContext, n: u64) -> String {
    if n == 1 {
        return cx.say("One event was published while it was paused, and was not sent to it.");
    }
    let n = number(cx, n);
    cx.fill("{n} events were published while it was paused, and were not sent to it.", &[("n", &n)])
}

fn failures_of(cx: &PageContext, endpoint: &EndpointResource) -> String {
    cx.link(&format!("/deliveries?endpoint_id={}&status=failed,retrying", endpoint.id))
}

fn tiles(cx: &PageContext, statistics: &StatisticsResource, endpoints: &[EndpointResource]) -> Markup {
    let active = endpoints.iter().filter(|endpoint| endpoint.status == "active").count();
    let rate = per_mille(statistics.success, statistics.attempts);
    let within = match traffic::period(cx) {
        "1h" => cx.say("in the last hour"),
        "7d" => cx.say("in the last 7 days"),
        _ => cx.say("in the last 24 hours"),
    };
    html! { div.tiles {
        div.tile {
            span.label { (cx.say("Attempts")) }
            strong.value { (number(cx, statistics.attempts)) }
            span.note { (within) }
        }
        div.tile.warn[rate.is_some_and(|rate| (900..990).contains(&rate))].bad[rate.is_some_and(|rate| rate < 900)] {
            span.label { (cx.say("Success rate")) }
            strong.value { @match rate { Some(rate) => (percent(cx, rate)), None => (none(cx)) } }
            span.note { (cx.say("of the attempts")) }
        }
        a.tile href=(cx.link("/deliveries?status=failed")) {
            span.label { (cx.say("Failed for good")) }
            strong.value { (number(cx, statistics.failed)) }
            span.note { (cx.say("no more retries")) }
        }
        a.tile href=(cx.link("/endpoints")) {
            span.label { (cx.say("Active endpoints")) }
            strong.value { (active) }
            span.note { (cx.fill("of {n}", &[("n", &endpoints.len())])) }
        }
    } }
}

/// The share of a part, rounded down: only the whole is a thousand.
fn per_mille(part: u64, whole: u64) -> Option<u64> {
    (part * 1_000).checked_div(whole)
}

fn percent(cx: &PageContext, per_mille: u64) -> String {
    let mark = if cx.locale.code() == "es" { ',' } else { '.' };
    match per_mille {
        1_000 => "100 %".to_owned(),
        _ => format!("{}{mark}{} %", per_mille / 10, per_mille % 10),
    }
}

/// What stands here before there is an endpoint.
fn first_run(cx: &PageContext) -> Markup {
    let about = cx.say("Nothing is set up yet. Three steps to your first webhook.");
    let may_publish = cx.may("events:create") && cx.may("event_types:read") && cx.owner != PageOwner::Portal;
    html! {
        (head(&cx.say("Overview"), Some(&about), html! {}))
        section.panel { ol.timeline {
            li.info {
                h2 { (cx.say("1. Create an endpoint")) }
                p { (cx.say(
                    "Enter the URL of your receiver and choose its events. You get the secret that signs every \
                     delivery.",
                )) }
                @if cx.may("webhooks:create") {
                    p { (button(&cx.link("/endpoints/new"), &cx.say("New endpoint"), "primary")) }
                } @else {
                    p.muted { (cx.say("You do not have the permission to create endpoints. Ask somebody who has.")) }
                }
            }
            li {
                h2 { (cx.say("2. Publish an event")) }
                @if may_publish {
                    p { (cx.say(
                        "From your program by the API, or by hand from the page of an event type, to try it out.",
                    )) }
                    p.row {
                        a href=(cx.link("/event-types")) { (cx.say("Event types")) }
                        a href="/docs/guides/quick-start" { (cx.say("Quick start")) }
                    }
                } @else {
                    p { (cx.say(
                        "You need not do anything: as soon as an event happens that your endpoint subscribes to, it \
                         is sent there. You can send a test at any time.",
                    )) }
                }
            }
            li {
                h2 { (cx.say("3. Verify the signature")) }
                p { (cx.say(
                    "It tells your receiver that a request is genuine. A few lines of code do it, ready to copy in \
                     several languages.",
                )) }
                p { a href="/docs/guides/receive-and-verify" { (cx.say("Receive and verify")) } }
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
