//! Recent traffic: attempts over time, latencies, and the newest deliveries. The overview shows that of an account, the
//! page of an endpoint that of the endpoint.

use maud::{Markup, html};

use super::chart;
use super::deliveries::answer;
use super::page_context::{Failure, PageContext};
use super::parts::{millis, status, time, until};
use crate::api::{DeliveryResource, Listing, StatisticsResource};

/// How far back the charts can reach.
const PERIODS: [&str; 3] = ["1h", "24h", "7d"];

/// The period that is asked for.
pub fn period(cx: &PageContext) -> &'static str {
    PERIODS.into_iter().find(|known| *known == cx.asked("period")).unwrap_or("24h")
}

/// The attempts of that period: of an endpoint, or of all.
pub async fn statistics(cx: &PageContext, endpoint: Option<&str>) -> Result<StatisticsResource, Failure> {
    let mut query = vec![("period", period(cx))];
    query.extend(endpoint.map(|id| ("endpoint_id", id)));
    cx.get("/v1/webhooks/statistics", &query).await
}

/// The ways to the other periods. `path` is the page's own address.
pub fn switch(cx: &PageContext, path: &str) -> Markup {
    let asked = period(cx);
    html! { nav.segments aria-label=(cx.say("Period")) {
        @for name in PERIODS {
            a href={ (path) "?period=" (name) } aria-current=[(name == asked).then_some("true")] {
                @match name {
                    "1h" => (cx.say("1 hour")),
                    "24h" => (cx.say("24 hours")),
                    _ => (cx.say("7 days")),
                }
            }
        }
    } }
}

/// The period's charts, each in a panel.
pub fn charts(cx: &PageContext, statistics: &StatisticsResource) -> Markup {
    html! {
        section.panel aria-labelledby="attempts" {
            h2 #attempts { (cx.say("Attempts")) }
            (chart::outcomes(cx, statistics))
        }
        section.panel aria-labelledby="response-times" {
            h2 #response-times { (cx.say("Response times")) }
            (chart::latency(cx, statistics))
        }
    }
}

/// An endpoint's newest deliveries, with what went wrong and when it is tried again.
pub fn latest(cx: &PageContext, deliveries: &[DeliveryResource], is_active: bool) -> Markup {
    let columns = [cx.say("Event type"), cx.say("Status"), cx.say("HTTP status"), cx.say("Took"), cx.say("Created")];
    html! { div.scroll { table.list {
        thead { tr { @for (at, name) in columns.iter().enumerate() { th.num[at == 3] scope="col" { (name) } } } }
        tbody { @for delivery in deliveries { tr {
            td.main data-label=(columns[0]) {
                a href=(cx.link(&format!("/deliveries/{}", delivery.id))) { (delivery.event_type) }
                @if let Some(error) = &delivery.error_message { small { (error) } }
            }
            td data-label=(columns[1]) { span {
                (status(cx, &delivery.status))
                @if !is_active && matches!(&*delivery.status, "pending" | "retrying") {
                    " " small.muted { (cx.say("waits until the endpoint is active")) }
                } @else if let Some(due) = &delivery.next_retry_at {
                    " " small.muted { (cx.say("next attempt")) " " (until(cx, due)) }
                }
            } }
            td data-label=(columns[2]) { (answer(cx, delivery)) }
            td.num data-label=(columns[3]) { (millis(cx, delivery.response_time_ms.map(u64::from))) }
            td.nowrap data-label=(columns[4]) { (time(cx, &delivery.created_at)) }
        } } }
    } } }
}

/// The last failure of an endpoint.
#[derive(Default)]
pub struct LastFailure {
    /// What went wrong; nothing where that is not known.
    pub error: String,
    /// Whether the receiver wants no more.
    pub gone: bool,
}

/// What went wrong last at an endpoint. A page can do without it.
pub async fn last_failure(cx: &PageContext, endpoint: &str) -> LastFailure {
    let query = [("endpoint_id", endpoint), ("status", "failed,retrying"), ("per_page", "1")];
    let found: Result<Listing<DeliveryResource>, _> = cx.get("/v1/webhooks/deliveries", &query).await;
    let newest = found.ok().and_then(|found| found.items.into_iter().next()).map(|delivery| LastFailure {
        gone: delivery.response_status == Some(410),
        error: delivery.attributes.error_message.unwrap_or_default(),
    });
    newest.unwrap_or_default()
}
