//! The filter in an endpoint's form, and its preview: what it would have done with the newest events.

use maud::{Markup, html};
use serde_json::json;

use crate::api::FilterPreviewResource;
use crate::web::dashboard::json_fields;
use crate::web::dashboard::page_context::{Failure, Fault, PageContext};
use crate::web::dashboard::parts::{Input, area, badge, code, number, type_name};

/// The name of the button that asks for a preview.
const BUTTON: &str = "preview";

/// Whether a form was sent to see a preview, and to change nothing.
pub fn is_asked(cx: &PageContext) -> bool {
    !cx.field(BUTTON).is_empty()
}

/// Tries a filter on the newest events of these types and channels. One that is empty lets every event through.
pub async fn ask(
    cx: &PageContext,
    filter: &str,
    events: &[String],
    channels: &[&str],
) -> Result<FilterPreviewResource, Failure> {
    let filter = if filter.is_empty() { "{}" } else { json_fields::read_text(cx, "filter", filter)? };
    let rest = json!({
        "events": (!events.is_empty()).then_some(events),
        "channels": (!channels.is_empty()).then_some(channels),
    });
    let body = json_fields::with_text(&rest, "filter", filter);
    cx.send_text("POST", "/v1/webhooks/filters/preview", Some(body)).await
}

/// The field, and the preview where there is one.
pub fn field(cx: &PageContext, filter: &str, error: Option<&Fault>, preview: Option<&FilterPreviewResource>) -> Markup {
    let rows = u32::try_from(filter.lines().count()).unwrap_or(u32::MAX).clamp(4, 24);
    html! {
        (area(
            &Input {
                name: "filter",
                label: &cx.say("Content filter"),
                value: filter,
                hint: &cx.say(
                    "A JSON object that an event must match, such as {\"data\": {\"amount\": {\"$gte\": 100}}}. Its \
                     fields are event, data and channels. Leave it empty to get every event. Tests and operational \
                     events come in any case.",
                ),
                error,
                ..Input::default()
            },
            rows,
        ))
        p { a href="/docs/guides/fit-an-endpoint" { (cx.say("What a filter can say")) } }
        p.hint { (cx.say(
            "After a preview or an error, type values of headers, passwords, secrets and private keys once more: the \
             form does not show them again.",
        )) }
        @if let Some(preview) = preview { (shown(cx, preview)) }
    }
}

/// The button that asks for a preview, of a form that goes to `action`. It comes after the button that sends the form,
/// which the enter key presses.
pub fn button(cx: &PageContext, action: &str) -> Markup {
    html! { @if cx.may("webhooks:read") {
        button.button type="submit" name=(BUTTON) value="filter" formaction={ (action) "#preview" } formnovalidate {
            (cx.say("Preview the filter"))
        }
    } }
}

fn shown(cx: &PageContext, preview: &FilterPreviewResource) -> Markup {
    let columns = [cx.say("Event"), cx.say("Content filter")];
    html! { section.panel #preview aria-labelledby="preview-title" {
        h2 #preview-title { (cx.say("Preview of the filter")) }
        p { (summary(cx, preview)) }
        @if !preview.samples.is_empty() { div.scroll { table.list {
            thead { tr { @for name in &columns { th scope="col" { (name) } } } }
            tbody { @for sample in &preview.samples { tr {
                td.main data-label=(columns[0]) {
                    @if cx.may("events:read") {
                        a href=(cx.link(&format!("/events/{}", sample.event_id))) {
                            (type_name(&sample.event)) small { (sample.event_id) }
                        }
                    } @else {
                        (type_name(&sample.event)) small { (sample.event_id) }
                    }
                }
                td data-label=(columns[1]) { (verdict(cx, sample.failed_at.as_deref())) }
            } } }
        } } }
        p.muted { (cx.say("Nothing was changed.")) }
    } }
}

/// How many match.
fn summary(cx: &PageContext, preview: &FilterPreviewResource) -> String {
    match (preview.examined, preview.matched) {
        (0, _) => cx.say("There is no event to try it on: none of these types and channels is kept with its body."),
        (1, 0) => cx.say("Your newest event does not match."),
        (1, _) => cx.say("Your newest event matches."),
        (examined, matched) => {
            let [n, m] = [examined, matched].map(|count| number(cx, count.into()));
            cx.fill("Of your newest {n} events {m} match.", &[("n", &n), ("m", &m)])
        }
    }
}

/// Whether an event matches; if not, where in the filter it failed.
fn verdict(cx: &PageContext, failed_at: Option<&str>) -> Markup {
    match failed_at {
        None => badge("good", &cx.say("Matches")),
        Some("") => html! { (badge("idle", &cx.say("Does not match"))) " " (cx.say("It is nested too deep.")) },
        Some(place) => html! { (badge("idle", &cx.say("Does not match"))) " " (code(place)) },
    }
}
