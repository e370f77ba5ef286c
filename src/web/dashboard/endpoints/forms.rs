//! The forms of an endpoint: creating and changing it.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::credentials::{CredentialsForm, MEMBERS};
use super::paths::{address, resource, trail};
use super::{certificate, filter_preview, secret};
use crate::api::{
    CreateWebhook, EndpointResource, EventTypeResource, FilterPreviewResource, FromAnswer, Operational, PreviewFilter,
    RequestBody as _, UpdateWebhook,
};
use crate::web::dashboard::form_errors::{mendable, status_of};
use crate::web::dashboard::json_fields;
use crate::web::dashboard::listing::entries;
use crate::web::dashboard::page_context::{Failure, Fault, Page, PageContext};
use crate::web::dashboard::parts::{Input, area, button, crumbs, faults, head, input, select, submit};

/// An endpoint as it stands in the form.
#[derive(Default)]
struct EndpointForm {
    url: String,
    events: Vec<String>,
    description: String,
    ordering: String,
    metadata: String,
    external_id: String,
    channels: String,
    timeout_seconds: String,
    max_in_flight: String,
    /// `0` means no retry, which nothing says in a list of numbers.
    retry_schedule: String,
    filter: String,
    /// What the filter would have done, where that was asked.
    preview: Option<FilterPreviewResource>,
    rate_limit: String,
    /// Only the form of a new endpoint has these.
    status: String,
    secret: String,
    credentials: CredentialsForm,
}

impl EndpointForm {
    /// As it was sent.
    fn sent(cx: &PageContext) -> Self {
        // Where the catalog cannot be read, types are written and not chosen.
        let written = json_fields::listed(cx.field("written"));
        Self {
            url: cx.field("url").trim().to_owned(),
            events: cx.fields("events").into_iter().chain(written).map(str::to_owned).collect(),
            description: cx.field("description").trim().to_owned(),
            ordering: cx.field("ordering").to_owned(),
            metadata: cx.field("metadata").to_owned(),
            external_id: cx.field("external_id").trim().to_owned(),
            channels: cx.field("channels").trim().to_owned(),
            timeout_seconds: cx.field("timeout_seconds").trim().to_owned(),
            max_in_flight: cx.field("max_in_flight").trim().to_owned(),
            retry_schedule: cx.field("retry_schedule").trim().to_owned(),
            filter: cx.field("filter").trim().to_owned(),
            preview: None,
            rate_limit: cx.field("rate_limit").trim().to_owned(),
            status: cx.field("status").to_owned(),
            secret: cx.field("secret").trim().to_owned(),
            credentials: CredentialsForm::sent(cx),
        }
    }

    /// As the API has it.
    fn of(endpoint: &EndpointResource) -> Self {
        Self {
            url: endpoint.url.clone(),
            events: endpoint.events.clone(),
            description: endpoint.description.clone().unwrap_or_default(),
            ordering: endpoint.ordering.as_deref().unwrap_or_default().to_owned(),
            metadata: json_fields::notes(endpoint.metadata.as_ref()),
            external_id: endpoint.external_id.clone().unwrap_or_default(),
            channels: endpoint.channels.as_deref().unwrap_or_default().join(", "),
            timeout_seconds: endpoint.timeout_seconds.map(|seconds| seconds.to_string()).unwrap_or_default(),
            max_in_flight: endpoint.max_in_flight.map(|most| most.to_string()).unwrap_or_default(),
            retry_schedule: match endpoint.retry_schedule.as_deref() {
                None => String::new(),
                Some([]) => "0".to_owned(),
                Some(delays) => delays.iter().map(u64::to_string).collect::<Vec<_>>().join(", "),
            },
            filter: json_fields::laid_out_or_nothing(endpoint.filter.as_deref()),
            preview: None,
            rate_limit: endpoint.rate_limit.clone().unwrap_or_default(),
            status: String::new(),
            secret: String::new(),
            credentials: CredentialsForm::of(endpoint),
        }
    }

    /// As the API takes it, with the digits of the filter.
    fn body(&self, cx: &PageContext) -> Result<String, Failure> {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        let ordering: &str = if self.ordering.is_empty() { "none" } else { &self.ordering };
        let metadata = json_fields::read_optional(cx, "metadata", &self.metadata)?;
        let channels = json_fields::listed(&self.channels);
        let mut body = json!({
            "url": self.url,
            "events": self.events,
            "description": given(&self.description),
            "ordering": ordering,
            "metadata": metadata,
            "external_id": given(&self.external_id),
            "channels": (!channels.is_empty()).then_some(channels),
            "timeout_seconds": json_fields::number(&self.timeout_seconds),
            "max_in_flight": json_fields::number(&self.max_in_flight),
            "retry_schedule": self.schedule(),
            "rate_limit": given(&self.rate_limit),
        });
        if let Some(status) = given(&self.status) {
            body["status"] = status.into();
        }
        if let Some(secret) = given(&self.secret) {
            body["secret"] = secret.into();
        }
        self.credentials.add_to(cx, &mut body)?;
        if let Some(certificate) = certificate::sent(cx) {
            body["client_certificate"] = certificate;
        }
        let filter = if self.filter.is_empty() { "null" } else { json_fields::read_text(cx, "filter", &self.filter)? };
        Ok(json_fields::with_text(&body, "filter", filter))
    }

    /// Asks what the filter would have done. What is returned is a refusal that the sender of the form can mend.
    async fn look(&mut self, cx: &PageContext) -> Result<Option<Failure>, Failure> {
        let channels = json_fields::listed(&self.channels);
        let looked = filter_preview::ask(cx, &self.filter, &self.events, &channels).await;
        match looked {
            Ok(preview) => self.preview = Some(preview),
            Err(failure) => return mendable(failure, PreviewFilter::NAMES).map(Some),
        }
        Ok(None)
    }

    fn schedule(&self) -> Value {
        match json_fields::listed(&self.retry_schedule).as_slice() {
            [] => Value::Null,
            ["0"] => json!([]),
            delays => delays.iter().map(|delay| json_fields::number(delay)).collect(),
        }
    }

    async fn send<T: FromAnswer>(&self, cx: &PageContext, method: &str, path: &str) -> Result<T, Failure> {
        cx.send_text(method, path, Some(self.body(cx)?)).await
    }
}

/// An event type that can be chosen.
struct Choice {
    name: String,
    about: String,
}

/// What can be chosen from. `None` where whoever is signed in may not see the catalog.
async fn catalog(cx: &PageContext) -> Result<Option<Vec<Choice>>, Failure> {
    if !cx.may("event_types:read") {
        return Ok(None);
    }
    let entries: Vec<EventTypeResource> = entries(cx, "/v1/event-types").await?;
    let choice =
        |entry: EventTypeResource| Choice { name: entry.id, about: entry.attributes.description.unwrap_or_default() };
    Ok(Some(entries.into_iter().map(choice).collect()))
}

/// `/endpoints/new`
pub async fn new(cx: PageContext) -> Result<Page, Failure> {
    let events = cx.asked("events").split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let typed = EndpointForm { events, ..EndpointForm::default() };
    let catalog = catalog(&cx).await?;
    Ok(new_page(&cx, &typed, catalog, None))
}

fn new_page(cx: &PageContext, typed: &EndpointForm, catalog: Option<Vec<Choice>>, failure: Option<&Failure>) -> Page {
    let title = cx.say("New endpoint");
    let about =
        cx.say("Events of the types that you choose are sent to this URL, signed, until it answers with a success.");
    let (list, action) = (cx.link("/endpoints"), cx.link("/endpoints/new"));
    let content = html! {
        (crumbs(cx, &[(&cx.say("Endpoints"), &list)]))
        (head(&title, Some(&about), html! {}))
        (faults(cx, failure))
        form.form method="post" action=(action) data-submit-once {
            (cx.form_start())
            (fields(cx, typed, catalog, failure))
            (typed.credentials.fields(cx, None, failure))
            (first_status(cx, typed, failure))
            (secret::own(cx, failure))
            (certificate::fields(cx, None, failure))
            div.buttons {
                (submit(&cx.say("Create endpoint"), "primary"))
                (button(&list, &cx.say("Cancel"), ""))
                (filter_preview::button(cx, &action))
            }
        }
    };
    Page::new(title, "endpoints", content)
}

/// The same, when it was sent.
pub async fn create(cx: PageContext) -> Result<Page, Failure> {
    let mut typed = EndpointForm::sent(&cx);
    if filter_preview::is_asked(&cx) {
        let refused = typed.look(&cx).await?;
        let page = new_page(&cx, &typed, catalog(&cx).await?, refused.as_ref());
        return Ok(page.with_status(refused.as_ref().map_or(200, status_of)));
    }
    match typed.send::<EndpointResource>(&cx, "POST", "/v1/webhooks").await {
        Ok(made) => Ok(secret::created(&cx, &made)),
        Err(failure) => {
            let failure = mendable(failure, &[CreateWebhook::NAMES, MEMBERS].concat())?;
            let catalog = catalog(&cx).await?;
            Ok(new_page(&cx, &typed, catalog, Some(&failure)).with_status(status_of(&failure)))
        }
    }
}

/// `/endpoints/{id}/edit`
pub async fn edit(cx: PageContext) -> Result<Page, Failure> {
    let endpoint: EndpointResource = cx.get(&resource(&cx, ""), &[]).await?;
    let catalog = catalog(&cx).await?;
    Ok(edit_page(&cx, &endpoint, &EndpointForm::of(&endpoint), catalog, None))
}

fn edit_page(
    cx: &PageContext,
    endpoint: &EndpointResource,
    typed: &EndpointForm,
    catalog: Option<Vec<Choice>>,
    failure: Option<&Failure>,
) -> Page {
    let title = cx.say("Edit the endpoint");
    let about = cx.say(
        "A new URL applies from the next attempt on, also to deliveries that are under way. The secret stays the same.",
    );
    let current = endpoint.authentication.as_ref().map(|known| known.kind.as_str());
    let content = html! {
        (trail(cx, endpoint))
        (head(&title, Some(&about), html! {}))
        (faults(cx, failure))
        form.form method="post" action=(address(cx, "/edit")) data-submit-once {
            (cx.form_start())
            (fields(cx, typed, catalog, failure))
            (typed.credentials.fields(cx, current, failure))
            (certificate::fields(cx, Some(endpoint), failure))
            div.buttons {
                (submit(&cx.say("Save"), "primary"))
                (button(&address(cx, ""), &cx.say("Cancel"), ""))
                (filter_preview::button(cx, &address(cx, "/edit")))
            }
        }
    };
    Page::new(title, "endpoints", content)
}

/// The same, when it was sent.
pub async fn update(cx: PageContext) -> Result<Page, Failure> {
    let mut typed = EndpointForm::sent(&cx);
    let path = resource(&cx, "");
    if filter_preview::is_asked(&cx) {
        let endpoint: EndpointResource = cx.get(&path, &[]).await?;
        let refused = typed.look(&cx).await?;
        let page = edit_page(&cx, &endpoint, &typed, catalog(&cx).await?, refused.as_ref());
        return Ok(page.with_status(refused.as_ref().map_or(200, status_of)));
    }
    match typed.send::<()>(&cx, "PUT", &path).await {
        Ok(()) => Ok(Page::Redirect(address(&cx, "?done=saved"))),
        Err(failure) => {
            let failure = mendable(failure, &[UpdateWebhook::NAMES, MEMBERS].concat())?;
            let endpoint: EndpointResource = cx.get(&path, &[]).await?;
            let catalog = catalog(&cx).await?;
            Ok(edit_page(&cx, &endpoint, &typed, catalog, Some(&failure)).with_status(status_of(&failure)))
        }
    }
}

fn fields(cx: &PageContext, typed: &EndpointForm, catalog: Option<Vec<Choice>>, failure: Option<&Failure>) -> Markup {
    let error = |name: &str| failure.and_then(|failure| failure.of(name));
    html! {
        (input(&Input {
            name: "url",
            label: &cx.say("URL"),
            value: &typed.url,
            hint: &cx.say("Where your receiver listens. In production it must be public and use HTTPS."),
            error: error("url"),
            kind: "url",
            required: true,
            max: UpdateWebhook::max_chars("url"),
            ..Input::default()
        }))
        (types(cx, typed, catalog, error("events")))
        (input(&Input {
            name: "description",
            label: &cx.say("Description"),
            value: &typed.description,
            hint: &cx.say("For you and your colleagues. It is not sent."),
            error: error("description"),
            max: UpdateWebhook::max_chars("description"),
            ..Input::default()
        }))
        (select(
            &Input {
                name: "ordering",
                label: &cx.say("Ordering"),
                value: &typed.ordering,
                hint: &cx.say("In order means one at a time: while a delivery is being retried, those behind it wait."),
                error: error("ordering"),
                ..Input::default()
            },
            &[
                ("none", &cx.say("In any order, as fast as possible (none)")),
                ("fifo", &cx.say("In order, one at a time (fifo)")),
            ],
        ))
        (area(
            &Input {
                name: "metadata",
                label: &cx.say("Metadata"),
                value: &typed.metadata,
                hint: &cx.say("Your own notes as a JSON object, such as {\"team\": \"billing\"}. They are not sent."),
                error: error("metadata"),
                ..Input::default()
            },
            4,
        ))
        (input(&Input {
            name: "external_id",
            label: &cx.say("External ID"),
            value: &typed.external_id,
            hint: &cx.say("Your own name for the endpoint. The API takes it in place of the ID."),
            error: error("external_id"),
            max: UpdateWebhook::max_chars("external_id"),
            ..Input::default()
        }))
        (input(&Input {
            name: "channels",
            label: &cx.say("Channels"),
            value: &typed.channels,
            hint: &cx.say(
                "Up to 10 names, separated by commas. The endpoint gets only events that are published with one of \
                 them. Leave it empty to get every event.",
            ),
            error: error("channels"),
            ..Input::default()
        }))
        (attempts(cx, typed, failure))
    }
}

/// How attempts are made.
fn attempts(cx: &PageContext, typed: &EndpointForm, failure: Option<&Failure>) -> Markup {
    let error = |name: &str| failure.and_then(|failure| failure.of(name));
    html! {
        (input(&Input {
            name: "timeout_seconds",
            label: &cx.say("Timeout in seconds"),
            value: &typed.timeout_seconds,
            hint: &cx.say("1 to 120: how long an attempt may take. Leave it empty for the default of this server."),
            error: error("timeout_seconds"),
            kind: "number",
            ..Input::default()
        }))
        (input(&Input {
            name: "max_in_flight",
            label: &cx.say("Attempts at once"),
            value: &typed.max_in_flight,
            hint: &cx.say(
                "How many requests the receiver takes at the same time, over all nodes. Leave it empty for the default \
                 of this server, which is also the most.",
            ),
            error: error("max_in_flight"),
            kind: "number",
            ..Input::default()
        }))
        (input(&Input {
            name: "retry_schedule",
            label: &cx.say("Retry schedule in seconds"),
            value: &typed.retry_schedule,
            hint: &cx.say(
                "Up to 20 delays between attempts, separated by commas, such as 30, 120, 600. 0 means no retry. Leave \
                 it empty for the default of this server.",
            ),
            error: error("retry_schedule"),
            ..Input::default()
        }))
        (filter_preview::field(cx, &typed.filter, error("filter"), typed.preview.as_ref()))
        (input(&Input {
            name: "rate_limit",
            label: &cx.say("Rate limit"),
            value: &typed.rate_limit,
            hint: &cx.say(
                "How many attempts may begin in any period of the given length, such as 100/1m: 1 to 10000 in 1s to \
                 1h. What is above waits. Leave it empty for no limit.",
            ),
            error: error("rate_limit"),
            max: UpdateWebhook::max_chars("rate_limit"),
            ..Input::default()
        }))
    }
}

/// Whether a new endpoint receives from the start.
fn first_status(cx: &PageContext, typed: &EndpointForm, failure: Option<&Failure>) -> Markup {
    select(
        &Input {
            name: "status",
            label: &cx.say("Status"),
            value: &typed.status,
            hint: &cx.say(
                "A paused endpoint can be tested. What is published before you resume it counts as missed, and can be \
                 replayed.",
            ),
            error: failure.and_then(|failure| failure.of("status")),
            ..Input::default()
        },
        &[
            ("active", &cx.say("Active: events are sent to it at once")),
            ("disabled", &cx.say("Paused: registered, and nothing is sent yet")),
        ],
    )
}

/// The event types: those of the catalog, and those of the platform.
fn types(cx: &PageContext, typed: &EndpointForm, catalog: Option<Vec<Choice>>, error: Option<&Fault>) -> Markup {
    let may_choose = catalog.is_some();
    let mut choices = catalog.unwrap_or_default();
    let wildcards = wildcards(cx, typed, &choices);
    // A type that was removed from the catalog stays selected until the user removes it.
    let known = |name: &str| {
        Operational::parse(name).is_some() || is_wildcard(name) || choices.iter().any(|choice| choice.name == name)
    };
    let mut left: Vec<String> = typed.events.iter().filter(|name| !known(name.as_str())).cloned().collect();
    left.sort_unstable();
    left.dedup();
    let about = if may_choose { cx.say("No longer in the catalog: such events are not sent.") } else { String::new() };
    choices.extend(left.into_iter().map(|name| Choice { name, about: about.clone() }));
    let operational: Vec<Choice> = Operational::ALL
        .iter()
        .map(|kind| Choice { name: kind.name().to_owned(), about: meaning(cx, *kind) })
        .collect();
    let hint = cx.say("Choose 1 to 10 in total.");
    html! {
        fieldset #f-events .field .wrong[error.is_some()] tabindex="-1"
            aria-describedby=(if error.is_some() { "f-events-hint f-events-error" } else { "f-events-hint" }) {
            legend { (cx.say("Event types")) span.star aria-hidden="true" { "*" } }
            p.hint #f-events-hint { (hint) }
            @if !choices.is_empty() { (checks(typed, &choices)) }
            @if let Some(error) = error { p.error #f-events-error { (error.detail) } }
        }
        @if may_choose && choices.is_empty() {
            p.muted { (cx.say("The catalog is empty. The operator of this service adds event types to it.")) }
        }
        @if !may_choose {
            (input(&Input {
                name: "written",
                label: &cx.say("Other event types"),
                hint: &cx.say(
                    "Their names, or wildcards such as order.*, separated by commas. You cannot see the catalog here; \
                     the documentation of your provider lists them.",
                ),
                ..Input::default()
            }))
        }
        fieldset.field aria-describedby="f-wildcards-hint" {
            legend { (cx.say("Wildcards")) }
            p.hint #f-wildcards-hint {
                (cx.say(
                    "Each means every type that begins so, also those that come later. An event is sent once, however \
                     many of your choices mean it.",
                ))
            }
            (checks(typed, &wildcards))
        }
        fieldset.field aria-describedby="f-operational-hint" {
            legend { (cx.say("Operational event types")) }
            p.hint #f-operational-hint {
                (cx.say("They tell what happens to your other endpoints, and are sent by this service itself."))
            }
            (checks(typed, &operational))
        }
    }
}

/// Whether an entry means several types. No type has a star in its name.
fn is_wildcard(entry: &str) -> bool {
    entry.ends_with('*')
}

/// The wildcards: for everything, for what types of the catalog begin with, and those that were chosen before.
fn wildcards(cx: &PageContext, typed: &EndpointForm, catalog: &[Choice]) -> Vec<Choice> {
    let chosen = typed.events.iter().filter(|entry| is_wildcard(entry) && *entry != "*").cloned();
    let mut names: Vec<String> = catalog
        .iter()
        .flat_map(|Choice { name, .. }| name.match_indices('.').map(|(dot, _)| format!("{}.*", &name[..dot])))
        .chain(chosen)
        .collect();
    names.sort_unstable();
    names.dedup();
    let all = Choice { name: "*".to_owned(), about: cx.say("Every event type, now and later.") };
    std::iter::once(all).chain(names.into_iter().map(|name| Choice { name, about: String::new() })).collect()
}

fn checks(typed: &EndpointForm, choices: &[Choice]) -> Markup {
    html! { div.checks { @for choice in choices { label {
        input type="checkbox" name="events" value=(choice.name) checked[typed.events.contains(&choice.name)];
        span { (choice.name) @if !choice.about.is_empty() { br; span.muted.small { (choice.about) } } }
    } } } }
}

/// What an operational type tells.
fn meaning(cx: &PageContext, kind: Operational) -> String {
    match kind {
        Operational::EndpointAutoDisabled => cx.say("Another endpoint was disabled after too many failures."),
        Operational::EndpointDisabled => cx.say("Another endpoint was paused."),
        Operational::EndpointEnabled => cx.say("Another endpoint was resumed."),
        Operational::DeliveryFailed => cx.say("A delivery to another endpoint failed for good."),
        Operational::SecretRotated => cx.say("The signing secret of another endpoint was rotated."),
    }
}
