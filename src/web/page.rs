//! The pages as HTML: the frame around all of them, the index, a call, a guide.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::examples::{Example, LANGUAGES, pretty};
use super::guides::{self, GUIDES, Guide};
use super::reading::{self, Call, Field, slug};
use super::text::Tongue;
use super::{STAMP, highlight, prose};
use crate::api::Code;

/// A page within its frame.
struct Frame<'a> {
    tongue: Tongue,
    /// Its address without the ending.
    path: &'a str,
    title: &'a str,
    about: &'a str,
    /// Whether it has a second column on wide windows.
    wide: bool,
}

/// `/docs`
pub fn index(tongue: Tongue) -> Markup {
    let say = |text: &str| tongue.say(text);
    let title = say("API reference");
    let about = say("Webhooks that arrive: register endpoints, publish events, see every delivery.");
    let frame = Frame { tongue, path: "/docs", title: &title, about: &about, wide: false };
    let content = html! {
        h1 { (title) }
        p.lead { (about) }
        p { (sentence(tongue, "Every call takes `Authorization: Bearer <key>` and answers with `data` and `meta`, or with `errors` and `meta`. Times are ISO 8601 in UTC. Details of errors are in English or Spanish by `Accept-Language`; their codes never change.")) }
        (guide_cards(tongue, false))
        @for group in reading::groups() {
            h2 id=(slug(group.name)) { a.anchor href={ "#" (slug(group.name)) } { (say(group.name)) } }
            p { (say(group.about)) }
            ul.calls { @for call in group.calls { li { a href=(call.page()) {
                (method(&call.method)) " " span.title { (say(call.title)) } " " code { (call.path) }
            } } } }
        }
        (guide_cards(tongue, true))
        h2 id="machines" { a.anchor href="#machines" { (say("For programs")) } }
        p {
            a href="/openapi.json" { "openapi.json" } " (OpenAPI 3.1), "
            a href="/llms.txt" { "llms.txt" } ". "
            (sentence(tongue, "Every page is there as Markdown too: its address with `.md`."))
        }
    };
    framed(&frame, &content)
}

fn guide_cards(tongue: Tongue, concepts: bool) -> Markup {
    let (name, id) = if concepts { ("Concepts", "concepts") } else { ("Guides", "guides") };
    html! {
        h2 id=(id) { a.anchor href={ "#" (id) } { (tongue.say(name)) } }
        ul.cards { @for guide in GUIDES.iter().filter(|guide| guide.concept == concepts) { li { a href=(guide.page()) {
            strong { (guide.title(tongue)) } span { (prose::sentence(&guide.summary(tongue))) }
        } } } }
    }
}

/// `/docs/guides/…`
pub fn guide(guide: &Guide, tongue: Tongue) -> Markup {
    let (title, about, path) = (guide.title(tongue), guide.summary(tongue), guide.page());
    let frame = Frame { tongue, path: &path, title: &title, about: &about, wide: false };
    let PreEscaped(text) = prose::render(&guide.text(tongue), &guides::link);
    let PreEscaped(errors) = error_table(tongue);
    framed(&frame, &PreEscaped(text.replace("<p>{{errors}}</p>", &errors)))
}

fn error_table(tongue: Tongue) -> Markup {
    html! { div.scroll { table {
        thead { tr { th { (tongue.say("Status")) } th { (tongue.say("Code")) } th { (tongue.say("Detail")) } } }
        tbody { @for code in Code::ALL { tr id=(code.name()) {
            td { (code.status()) } td { code { (code.name()) } } td { (code.example(tongue.0)) }
        } } }
    } } }
}

/// `/docs/webhooks/…` and the like.
pub fn call(call: &Call, tongue: Tongue) -> Markup {
    let (title, path) = (tongue.say(call.title), call.page());
    let about = tongue.say(call.about);
    let first = about.split("\n\n").next().unwrap_or("");
    let frame = Frame { tongue, path: &path, title: &title, about: first, wide: true };
    let content = html! {
        div.told {
            p.address { (method(&call.method)) " " code { span.base { (super::examples::BASE) } (call.path) } }
            h1 { (title) }
            (facts(call, tongue))
            (prose::render(&about, &str::to_owned))
            (parameters(call, tongue))
            (request_body(call, tongue))
        }
        (shown(call, tongue))
        div.told {
            (answer(call, tongue))
            (statuses(call, tongue))
            (errors(call, tongue))
            (headers(call, tongue))
            (related(call, tongue))
        }
    };
    framed(&frame, &content)
}

fn facts(call: &Call, tongue: Tongue) -> Markup {
    html! { dl.facts {
        div { dt { (tongue.say("Audience")) } dd { code { (call.audience) } } }
        div { dt { (tongue.say("Permission")) } dd { code { (call.permission) } } }
        div { dt { (tongue.say("Rate limit bucket")) } dd { a href="/docs/guides/rate-limits" { code { (call.bucket) } } } }
        @if let Some(guide) = call.guide.and_then(guides::guide) {
            div { dt { (tongue.say("How-to guide")) } dd { a href=(guide.page()) { (guide.title(tongue)) " →" } } }
        }
    } }
}

fn parameters(call: &Call, tongue: Tongue) -> Markup {
    if call.parameters.is_empty() {
        return html! {};
    }
    html! {
        (heading("parameters", &tongue.say("Parameters")))
        div.scroll { table {
            thead { tr {
                th { (tongue.say("Parameter")) } th { (tongue.say("In")) } th { (tongue.say("Type")) }
                th { (tongue.say("Required")) } th { (tongue.say("Description")) }
            } }
            tbody { @for parameter in &call.parameters { tr {
                td { code { (parameter.name) } @if parameter.required { span.star title=(tongue.say("required")) { "*" } } }
                td { (parameter.place) } td.nowrap { (parameter.kind) }
                td { (tongue.say(if parameter.required { "yes" } else { "no" })) }
                td { (sentence(tongue, parameter.about)) }
            } } }
        } }
    }
}

fn request_body(call: &Call, tongue: Tongue) -> Markup {
    let Some(body) = &call.body else { return html! {} };
    html! {
        (heading("body", &tongue.say("Request body")))
        p { (sentence(tongue, body.about)) @if !body.required { " " (tongue.say("The call needs no body.")) } }
        (fields(&body.fields, tongue, &tongue.say("required")))
    }
}

fn answer(call: &Call, tongue: Tongue) -> Markup {
    let (status, about) = call.success;
    html! {
        (heading("response", &format!("{} {status}", tongue.say("Response"))))
        p { (sentence(tongue, about)) }
        @match &call.answer {
            Some((name, is_list, below)) => {
                p { @if *is_list { (tongue.say("A list of")) " " } code { (name) } ":" }
                (fields(below, tongue, &tongue.say("always")))
            }
            None if call.is_file => {}
            None => p { (tongue.say("The answer has no body.")) },
        }
    }
}

fn fields(fields: &[Field], tongue: Tongue, required: &str) -> Markup {
    html! { ul.fields { @for field in fields { li {
        p.field {
            code.name { (field.name) } " " span.kind { (field.kind) }
            @if field.required { " " span.required { (required) } }
        }
        @if !field.about.is_empty() { p { (sentence(tongue, field.about)) } }
        @if !field.bounds.is_empty() { p.bounds { @for bound in &field.bounds { code { (bound) } " " } } }
        @if !field.fields.is_empty() { (self::fields(&field.fields, tongue, required)) }
    } } } }
}

fn statuses(call: &Call, tongue: Tongue) -> Markup {
    html! {
        (heading("status-codes", &tongue.say("Response status codes")))
        div.scroll { table {
            thead { tr {
                th { (tongue.say("Status")) } th { (tongue.say("Class")) } th { (tongue.say("Description")) } th { (tongue.say("Body")) }
            } }
            tbody { @for status in &call.statuses { tr {
                td { (status.number) } td { (status.number / 100) "xx" } td { (sentence(tongue, status.about)) }
                td { @match status.body { Some(name) => code { (name) }, None => (tongue.say("No body")) } }
            } } }
        } }
    }
}

fn errors(call: &Call, tongue: Tongue) -> Markup {
    html! {
        (heading("errors", &tongue.say("Errors")))
        div.scroll { table {
            thead { tr { th { (tongue.say("Status")) } th { (tongue.say("Code")) } th { (tongue.say("Detail")) } } }
            tbody { @for (status, code) in &call.errors { tr {
                td { (status) }
                td { a href={ "/docs/guides/errors#" (code) } { code { (code) } } }
                td { (tongue.detail(code, &call.body_fields())) }
            } } }
        } }
        @if let Some(example) = call.statuses.iter().find(|status| status.number == 429).and_then(|s| s.example) {
            details { summary { (tongue.say("Envelope")) } (highlight::code(&pretty(example), "json")) }
        }
    }
}

fn headers(call: &Call, tongue: Tongue) -> Markup {
    let mut known: Vec<(&str, &str, &str, Vec<u16>)> = Vec::new();
    for status in &call.statuses {
        for (name, kind, about) in &status.headers {
            match known.iter_mut().find(|(other, _, words, _)| other == name && words == about) {
                Some((_, _, _, on)) => on.push(status.number),
                None => known.push((name, kind, about, vec![status.number])),
            }
        }
    }
    let everywhere = call.statuses.len();
    html! {
        (heading("headers", &tongue.say("Response headers")))
        ul.fields { @for (name, kind, about, on) in &known { li {
            p.field {
                code.name { (name) } " " span.kind { (kind) } " "
                @if on.len() < everywhere { @for status in on { span.required { (status) } " " } }
            }
            p { (sentence(tongue, about)) }
        } } }
    }
}

fn related(call: &Call, tongue: Tongue) -> Markup {
    html! {
        (heading("related", &tongue.say("Related calls")))
        ul.calls { @for other in call.related.iter().filter_map(|id| reading::call(id)) { li { a href=(other.page()) {
            (method(&other.method)) " " span.title { (tongue.say(other.title)) } " " code { (other.path) }
        } } } }
    }
}

/// The second column: the request in every language, and the answer.
fn shown(call: &Call, tongue: Tongue) -> Markup {
    let (example, second) = (Example::of(call), Example::with_options(call));
    html! { div.shown {
        section.tabs aria-label=(tongue.say("Request")) {
            h2 id="request" { (tongue.say("Request")) }
            @for (index, (name, _)) in LANGUAGES.iter().enumerate() {
                input type="radio" name="language" id={ "in-" (slug(name)) } value=(slug(name)) checked[index == 0];
                label for={ "in-" (slug(name)) } { (name) }
            }
            @for (name, language) in LANGUAGES {
                div class={ "panel for-" (slug(name)) } {
                    (highlight::code(&example.in_language(name), language))
                    @if let Some((about, second)) = &second {
                        p { (sentence(tongue, about)) }
                        (highlight::code(&second.in_language(name), language))
                    }
                }
            }
        }
        @if let Some(example) = call.example {
            section aria-label=(tongue.say("Response")) {
                h2 id="answer" { (tongue.say("Response")) " " (call.success.0) }
                (highlight::code(&pretty(example), "json"))
            }
        }
    } }
}

fn heading(id: &str, text: &str) -> Markup {
    html! { h2 id=(id) { a.anchor href={ "#" (id) } { (text) } } }
}

fn method(name: &str) -> Markup {
    html! { span class={ "method " (name.to_ascii_lowercase()) } { (name) } }
}

fn sentence(tongue: Tongue, english: &str) -> Markup {
    prose::sentence(&tongue.say(english))
}

fn framed(frame: &Frame<'_>, content: &Markup) -> Markup {
    let Frame { tongue, path, title, about, wide } = *frame;
    let say = |text: &str| tongue.say(text);
    let other = tongue.other();
    html! {
        (DOCTYPE)
        html lang=(tongue.code()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="description" content=(about);
                title { (title) " · Aldaba" }
                link rel="stylesheet" href={ "/docs/assets/style.css?" (*STAMP) };
                link rel="icon" href={ "/docs/assets/icon.svg?" (*STAMP) } type="image/svg+xml";
                link rel="alternate" type="text/markdown" href=(super::markdown_address(path));
                link rel="alternate" hreflang=(other.code()) href={ (path) "?lang=" (other.code()) };
                script src={ "/docs/assets/docs.js?" (*STAMP) } defer {}
            }
            body data-copy=(say("Copy")) data-copied=(say("Copied")) data-nothing=(say("Nothing found")) {
                a.skip href="#content" { (say("Skip to the content")) }
                header {
                    a.brand href="/docs" { "Aldaba" }
                    form.search role="search" hidden data-index={ "/docs/search.json?lang=" (tongue.code()) "&" (*STAMP) } {
                        input type="search" placeholder=(say("Search")) aria-label=(say("Search")) autocomplete="off"
                            role="combobox" aria-expanded="false" aria-controls="found";
                        kbd { "/" }
                        ul #found role="listbox" hidden {}
                    }
                    a.language href={ (path) "?lang=" (other.code()) } hreflang=(other.code()) lang=(other.code()) { (other.own_name()) }
                }
                div.page {
                    nav aria-label=(say("Reference")) {
                        input #menu type="checkbox" aria-label=(say("Menu"));
                        label.menu for="menu" { (say("Menu")) }
                        div.entries { (entries(tongue, path)) }
                    }
                    main #content .wide[wide] { (content) }
                }
                footer {
                    a href=(super::markdown_address(path)) { (say("This page as Markdown")) } " · "
                    a href="/openapi.json" { "OpenAPI" } " · Aldaba " (env!("CARGO_PKG_VERSION"))
                }
            }
        }
    }
}

fn entries(tongue: Tongue, here: &str) -> Markup {
    let guides = |concepts: bool| {
        html! { ul { @for guide in GUIDES.iter().filter(|guide| guide.concept == concepts) { li {
            a href=(guide.page()) aria-current=[(guide.page() == here).then_some("page")] { (guide.title(tongue)) }
        } } } }
    };
    html! {
        h2 { (tongue.say("Guides")) }
        (guides(false))
        @for group in reading::groups() {
            h2 { (tongue.say(group.name)) }
            ul { @for call in group.calls { li {
                a href=(call.page()) aria-current=[(call.page() == here).then_some("page")] {
                    span.title { (tongue.say(call.title)) } " " (method(&call.method))
                }
            } } }
        }
        h2 { (tongue.say("Concepts")) }
        (guides(true))
    }
}
