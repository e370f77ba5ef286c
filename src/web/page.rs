//! The pages of the reference as HTML: the layout, the index, an operation, a guide.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::examples::{Example, LANGUAGES, pretty};
use super::guides::{self, GUIDES, Guide};
use super::operations::{self, Field, Operation, slug};
use super::static_files::STAMP;
use super::text::Locale;
use super::{highlight, prose};
use crate::api::Code;

/// A page within its frame.
struct Layout<'a> {
    locale: Locale,
    /// Its address without the ending.
    path: &'a str,
    title: &'a str,
    about: &'a str,
    /// Whether it has a second column on wide windows.
    wide: bool,
    /// Whether it is there as Markdown too.
    has_markdown: bool,
}

/// `/docs`
pub fn index(locale: Locale) -> Markup {
    let say = |text: &str| locale.say(text);
    let title = say("API reference");
    let about = say("Webhooks that arrive: register endpoints, publish events, see every delivery.");
    let layout = Layout { locale, path: "/docs", title: &title, about: &about, wide: false, has_markdown: true };
    let content = html! {
        h1 { (title) }
        p.lead { (about) }
        p { (sentence(
            locale,
            "Every call takes `Authorization: Bearer <key>` and answers with `data` and `meta`, or with `errors` and \
             `meta`. Times are ISO 8601 in UTC. Details of errors are in English or Spanish by `Accept-Language`; \
             their codes never change.",
        )) }
        (guide_cards(locale, false))
        @for group in operations::groups() {
            h2 id=(slug(group.name)) { a.anchor href={ "#" (slug(group.name)) } { (say(group.name)) } }
            p { (say(group.about)) }
            ul.calls { @for operation in group.operations { li { a href=(operation.page()) {
                (method(&operation.method)) " " span.title { (say(operation.title)) } " " code { (operation.path) }
            } } } }
        }
        (guide_cards(locale, true))
        h2 id="machines" { a.anchor href="#machines" { (say("For programs")) } }
        p {
            a href="/openapi.json" { "openapi.json" } " (OpenAPI 3.1), "
            a href="/llms.txt" { "llms.txt" } ". "
            (sentence(locale, "Every page is there as Markdown too: its address with `.md`."))
        }
        p { a href="/egress" { "/egress" } ": " (say("the addresses that requests to receivers come from.")) }
    };
    framed(&layout, &content)
}

/// `/egress`: these addresses, and what to do with them.
pub fn egress(addresses: &[String], detail: &str, locale: Locale) -> Markup {
    let title = locale.say("Where requests come from");
    let layout = Layout { locale, path: "/egress", title: &title, about: detail, wide: false, has_markdown: false };
    let content = html! {
        h1 { (title) }
        p.lead { (detail) }
        @if !addresses.is_empty() { ul { @for address in addresses { li { code { (address) } } } } }
        p { (sentence(locale, "Programs get the same as JSON, where `Accept` does not name `text/html`.")) }
    };
    framed(&layout, &content)
}

fn guide_cards(locale: Locale, concepts: bool) -> Markup {
    let (name, id) = if concepts { ("Concepts", "concepts") } else { ("Guides", "guides") };
    html! {
        h2 id=(id) { a.anchor href={ "#" (id) } { (locale.say(name)) } }
        ul.cards { @for guide in GUIDES.iter().filter(|guide| guide.concept == concepts) { li { a href=(guide.page()) {
            strong { (guide.title(locale)) } span { (prose::sentence(&guide.summary(locale))) }
        } } } }
    }
}

/// `/docs/guides/…`
pub fn guide(guide: &Guide, locale: Locale) -> Markup {
    let (title, about, path) = (guide.title(locale), guide.summary(locale), guide.page());
    let layout = Layout { locale, path: &path, title: &title, about: &about, wide: false, has_markdown: true };
    let PreEscaped(text) = prose::render(&guide.text(locale), &guides::link);
    let PreEscaped(errors) = error_table(locale);
    framed(&layout, &PreEscaped(text.replace("<p>{{errors}}</p>", &errors)))
}

fn error_table(locale: Locale) -> Markup {
    html! { div.scroll { table {
        thead { tr { th { (locale.say("Status")) } th { (locale.say("Code")) } th { (locale.say("Detail")) } } }
        tbody { @for code in Code::ALL { tr id=(code.name()) {
            td { (code.status()) } td { code { (code.name()) } } td { (code.example(locale.0)) }
        } } }
    } } }
}

/// `/docs/webhooks/…` and the like.
pub fn operation(operation: &Operation, locale: Locale) -> Markup {
    let (title, path) = (locale.say(operation.title), operation.page());
    let about = locale.say(operation.about);
    let first = about.split("\n\n").next().unwrap_or("");
    let layout = Layout { locale, path: &path, title: &title, about: first, wide: true, has_markdown: true };
    let content = html! {
        div.told {
            p.address {
                (method(&operation.method)) " " code { span.base { (super::examples::BASE) } (operation.path) }
            }
            h1 { (title) }
            (facts(operation, locale))
            (prose::render(&about, &str::to_owned))
            (parameters(operation, locale))
            (request_body(operation, locale))
        }
        (shown(operation, locale))
        div.told {
            (answer(operation, locale))
            (statuses(operation, locale))
            (errors(operation, locale))
            (headers(operation, locale))
            (related(operation, locale))
        }
    };
    framed(&layout, &content)
}

fn facts(operation: &Operation, locale: Locale) -> Markup {
    html! { dl.facts {
        div { dt { (locale.say("Audience")) } dd { code { (operation.audience) } } }
        div { dt { (locale.say("Permission")) } dd { code { (operation.permission) } } }
        div {
            dt { (locale.say("Rate limit bucket")) }
            dd { a href="/docs/guides/rate-limits" { code { (operation.bucket) } } }
        }
        @if let Some(guide) = operation.guide.and_then(guides::guide) {
            div { dt { (locale.say("How-to guide")) } dd { a href=(guide.page()) { (guide.title(locale)) " →" } } }
        }
    } }
}

fn parameters(operation: &Operation, locale: Locale) -> Markup {
    if operation.parameters.is_empty() {
        return html! {};
    }
    html! {
        (heading("parameters", &locale.say("Parameters")))
        div.scroll { table {
            thead { tr {
                th { (locale.say("Parameter")) } th { (locale.say("In")) } th { (locale.say("Type")) }
                th { (locale.say("Required")) } th { (locale.say("Description")) }
            } }
            tbody { @for parameter in &operation.parameters { tr {
                td {
                    code { (parameter.name) }
                    @if parameter.required { span.star title=(locale.say("required")) { "*" } }
                }
                td { (parameter.location) } td.nowrap { (parameter.kind) }
                td { (locale.say(if parameter.required { "yes" } else { "no" })) }
                td { (sentence(locale, parameter.about)) }
            } } }
        } }
    }
}

fn request_body(operation: &Operation, locale: Locale) -> Markup {
    let Some(body) = &operation.body else { return html! {} };
    html! {
        (heading("body", &locale.say("Request body")))
        p { (sentence(locale, body.about)) @if !body.required { " " (locale.say("The call needs no body.")) } }
        (fields(&body.fields, locale, &locale.say("required")))
    }
}

fn answer(operation: &Operation, locale: Locale) -> Markup {
    let (status, about) = operation.success;
    html! {
        (heading("response", &format!("{} {status}", locale.say("Response"))))
        p { (sentence(locale, about)) }
        @match &operation.answer {
            Some((name, is_list, below)) => {
                p { @if *is_list { (locale.say("A list of")) " " } code { (name) } ":" }
                (fields(below, locale, &locale.say("always")))
            }
            None if operation.is_file => {}
            None => p { (locale.say("The answer has no body.")) },
        }
    }
}

fn fields(fields: &[Field], locale: Locale, required: &str) -> Markup {
    html! { ul.fields { @for field in fields { li {
        p.field {
            code.name { (field.name) } " " span.kind { (field.kind) }
            @if field.required { " " span.required { (required) } }
        }
        @if !field.about.is_empty() { p { (sentence(locale, field.about)) } }
        @if !field.bounds.is_empty() { p.bounds { @for bound in &field.bounds { code { (bound) } " " } } }
        @if !field.fields.is_empty() { (self::fields(&field.fields, locale, required)) }
    } } } }
}

fn statuses(operation: &Operation, locale: Locale) -> Markup {
    html! {
        (heading("status-codes", &locale.say("Response status codes")))
        div.scroll { table {
            thead { tr {
                th { (locale.say("Status")) } th { (locale.say("Class")) }
                th { (locale.say("Description")) } th { (locale.say("Body")) }
            } }
            tbody { @for status in &operation.statuses { tr {
                td { (status.number) } td { (status.number / 100) "xx" } td { (sentence(locale, status.about)) }
                td { @match status.body { Some(name) => code { (name) }, None => (locale.say("No body")) } }
            } } }
        } }
    }
}

fn errors(operation: &Operation, locale: Locale) -> Markup {
    html! {
        (heading("errors", &locale.say("Errors")))
        div.scroll { table {
            thead { tr { th { (locale.say("Status")) } th { (locale.say("Code")) } th { (locale.say("Detail")) } } }
            tbody { @for (status, code) in &operation.errors { tr {
                td { (status) }
                td { a href={ "/docs/guides/errors#" (code) } { code { (code) } } }
                td { (locale.detail(code, &operation.body_fields())) }
            } } }
        } }
        @if let Some(example) = operation.statuses.iter().find(|status| status.number == 429).and_then(|s| s.example) {
            details { summary { (locale.say("Envelope")) } (highlight::code(&pretty(example), "json")) }
        }
    }
}

fn headers(operation: &Operation, locale: Locale) -> Markup {
    let mut known: Vec<(&str, &str, &str, Vec<u16>)> = Vec::new();
    for status in &operation.statuses {
        for (name, kind, about) in &status.headers {
            match known.iter_mut().find(|(other, _, words, _)| other == name && words == about) {
                Some((_, _, _, on)) => on.push(status.number),
                None => known.push((name, kind, about, vec![status.number])),
            }
        }
    }
    let everywhere = operation.statuses.len();
    html! {
        (heading("headers", &locale.say("Response headers")))
        ul.fields { @for (name, kind, about, on) in &known { li {
            p.field {
                code.name { (name) } " " span.kind { (kind) } " "
                @if on.len() < everywhere { @for status in on { span.required { (status) } " " } }
            }
            p { (sentence(locale, about)) }
        } } }
    }
}

fn related(operation: &Operation, locale: Locale) -> Markup {
    html! {
        (heading("related", &locale.say("Related calls")))
        ul.calls { @for other in operation.related.iter().filter_map(|id| operations::operation(id)) { li {
            a href=(other.page()) {
                (method(&other.method)) " " span.title { (locale.say(other.title)) } " " code { (other.path) }
            }
        } } }
    }
}

/// The second column: the request in every language, and the answer.
fn shown(operation: &Operation, locale: Locale) -> Markup {
    let (example, second) = (Example::of(operation), Example::with_options(operation));
    html! { div.shown {
        section.tabs aria-label=(locale.say("Request")) {
            h2 id="request" { (locale.say("Request")) }
            @for (index, (name, _)) in LANGUAGES.iter().enumerate() {
                input type="radio" name="language" id={ "in-" (slug(name)) } value=(slug(name)) checked[index == 0];
                label for={ "in-" (slug(name)) } { (name) }
            }
            @for (name, language) in LANGUAGES {
                div class={ "panel for-" (slug(name)) } {
                    (highlight::code(&example.in_language(name), language))
                    @if let Some((about, second)) = &second {
                        p { (sentence(locale, about)) }
                        (highlight::code(&second.in_language(name), language))
                    }
                }
            }
        }
        @if let Some(example) = operation.example {
            section aria-label=(locale.say("Response")) {
                h2 id="answer" { (locale.say("Response")) " " (operation.success.0) }
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

fn sentence(locale: Locale, english: &str) -> Markup {
    prose::sentence(&locale.say(english))
}

fn framed(layout: &Layout<'_>, content: &Markup) -> Markup {
    let Layout { locale, path, title, about, wide, has_markdown } = *layout;
    let say = |text: &str| locale.say(text);
    let other = locale.other();
    html! {
        (DOCTYPE)
        html lang=(locale.code()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="description" content=(about);
                title { (title) " · Aldaba" }
                link rel="stylesheet" href={ "/docs/assets/style.css?" (*STAMP) };
                link rel="icon" href={ "/docs/assets/icon.svg?" (*STAMP) } type="image/svg+xml";
                @if has_markdown { link rel="alternate" type="text/markdown" href=(markdown_address(path)); }
                link rel="alternate" hreflang=(other.code()) href={ (path) "?lang=" (other.code()) };
                script src={ "/docs/assets/docs.js?" (*STAMP) } defer {}
            }
            body data-copy=(say("Copy")) data-copied=(say("Copied")) data-nothing=(say("Nothing found")) {
                a.skip href="#content" { (say("Skip to the content")) }
                header {
                    a.brand href="/docs" { "Aldaba" }
                    form.search role="search" hidden
                        data-index={ "/docs/search.json?lang=" (locale.code()) "&" (*STAMP) } {
                        input type="search" placeholder=(say("Search")) aria-label=(say("Search")) autocomplete="off"
                            role="combobox" aria-expanded="false" aria-controls="found";
                        kbd { "/" }
                        ul #found role="listbox" hidden {}
                    }
                    a.language href={ (path) "?lang=" (other.code()) } hreflang=(other.code()) lang=(other.code()) {
                        (other.own_name())
                    }
                }
                div.page {
                    nav aria-label=(say("Reference")) {
                        input #menu type="checkbox" aria-label=(say("Menu"));
                        label.menu for="menu" { (say("Menu")) }
                        div.entries { (entries(locale, path)) }
                    }
                    main #content .wide[wide] { (content) }
                }
                footer {
                    @if has_markdown { a href=(markdown_address(path)) { (say("This page as Markdown")) } " · " }
                    a href="/openapi.json" { "OpenAPI" } " · Aldaba " (env!("CARGO_PKG_VERSION"))
                }
            }
        }
    }
}

fn entries(locale: Locale, here: &str) -> Markup {
    let guides = |concepts: bool| {
        html! { ul { @for guide in GUIDES.iter().filter(|guide| guide.concept == concepts) { li {
            a href=(guide.page()) aria-current=[(guide.page() == here).then_some("page")] { (guide.title(locale)) }
        } } } }
    };
    html! {
        h2 { (locale.say("Guides")) }
        (guides(false))
        @for group in operations::groups() {
            h2 { (locale.say(group.name)) }
            ul { @for operation in group.operations { li {
                a href=(operation.page()) aria-current=[(operation.page() == here).then_some("page")] {
                    span.title { (locale.say(operation.title)) } " " (method(&operation.method))
                }
            } } }
        }
        h2 { (locale.say("Concepts")) }
        (guides(true))
    }
}

/// Where a page is as Markdown.
fn markdown_address(page: &str) -> String {
    if page == "/docs" { "/docs/index.md".to_owned() } else { format!("{page}.md") }
}
