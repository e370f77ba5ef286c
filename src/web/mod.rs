//! The pages for people, in English and Spanish: the dashboard, which calls the API for its users; the reference, made
//! from the OpenAPI document; and the guides of `docs/guides`. They repeat no rule of the API.

mod dashboard;
mod examples;
mod guides;
mod highlight;
mod language;
mod markdown;
mod operations;
mod page;
mod prose;
mod static_files;
mod text;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, SET_COOKIE, VARY};
use axum::http::{HeaderValue, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde_json::{Value, json};

use crate::api::{self, Api};
use language::{language_asked, language_cookie, language_of};
use static_files::{DASHBOARD_SCRIPT, DASHBOARD_STYLE, ICON, SCRIPT, STYLE};
use text::Locale;

pub use examples::{
    ACCOUNT_ID, BASE, DELIVERY_ID, ENDPOINT_ID, EVENT_ID, EVENT_TYPE, Example, KEY_ID, LANGUAGES, LINK_ID, REPLAY_ID,
    USER_ID,
};
pub use guides::GUIDES;
pub use operations::{Operation, groups, operation};

/// Only our own files, no inline script or style, and no framing.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a drawing may do: show its own style.
const DRAWING_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The pages, to stand beside the API: the dashboard, which calls it, and the reference.
pub fn router<S: Clone + Send + Sync + 'static>(api: Api) -> Router<S> {
    let reference = Router::new().route("/docs", get(serve)).route("/docs/{*page}", get(serve));
    let files = Router::new().route("/llms.txt", get(serve)).route("/assets/{*file}", get(serve));
    reference.merge(files).merge(dashboard::router(api))
}

const HTML: &str = "text/html; charset=utf-8";
const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// What a page is made of.
struct Content {
    kind: &'static str,
    policy: &'static str,
    cache: &'static str,
    text: String,
}

impl Content {
    fn page(kind: &'static str, text: String) -> Self {
        Self { kind, policy: POLICY, cache: "no-cache", text }
    }

    fn kept(kind: &'static str, policy: &'static str, text: &str) -> Self {
        Self { kind, policy, cache: "public, max-age=31536000, immutable", text: text.to_owned() }
    }
}

async fn serve(info: Extension<api::RequestInfo>, request: Request) -> Response<Body> {
    let asked = language_asked(request.uri().query().unwrap_or(""));
    let locale = asked.unwrap_or_else(|| language_of(request.headers()));
    let Some(content) = content(request.uri().path(), locale) else { return api::not_found(info).await };
    let text = content.text.replace(BASE, &api::base(request.headers()).unwrap_or_else(|| BASE.to_owned()));
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content.kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(content.cache));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(content.policy));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("referrer-policy", HeaderValue::from_static("same-origin"));
    headers.insert(VARY, HeaderValue::from_static("accept-language, cookie, host"));
    if let Some(cookie) = asked.and_then(language_cookie) {
        headers.insert(SET_COOKIE, cookie);
    }
    response
}

/// The page at this address.
fn content(path: &str, locale: Locale) -> Option<Content> {
    Some(match path.trim_end_matches('/') {
        "/docs" => Content::page(HTML, page::index(locale).into_string()),
        "/llms.txt" | "/docs/index.md" => Content::page("text/plain; charset=utf-8", markdown::contents(locale)),
        "/docs/search.json" => Content::page("application/json", search_index(locale).to_string()),
        "/docs/assets/style.css" => Content::kept("text/css; charset=utf-8", POLICY, STYLE),
        "/docs/assets/docs.js" => Content::kept("text/javascript; charset=utf-8", POLICY, SCRIPT),
        "/docs/assets/icon.svg" => Content::kept("image/svg+xml", DRAWING_POLICY, ICON),
        "/assets/dashboard.css" => Content::kept("text/css; charset=utf-8", POLICY, DASHBOARD_STYLE),
        "/assets/dashboard.js" => Content::kept("text/javascript; charset=utf-8", POLICY, DASHBOARD_SCRIPT),
        "/docs/guides/life-of-a-delivery.svg" => Content::kept("image/svg+xml", DRAWING_POLICY, guides::DRAWING),
        path => return text_page(path, locale),
    })
}

/// A guide or a call, as HTML or as Markdown.
fn text_page(path: &str, locale: Locale) -> Option<Content> {
    let (group, name) = path.strip_prefix("/docs/")?.split_once('/')?;
    let (name, as_markdown) = name.strip_suffix(".md").map_or((name, false), |name| (name, true));
    if group == "guides" {
        let guide = guides::guide(name)?;
        return Some(if as_markdown {
            Content::page(MARKDOWN, markdown::guide(guide, locale))
        } else {
            Content::page(HTML, page::guide(guide, locale).into_string())
        });
    }
    let operation = operations::operation(&name.replace('-', "_"))
        .filter(|operation| operations::slug(operation.group) == group)?;
    Some(if as_markdown {
        Content::page(MARKDOWN, markdown::operation(operation, locale))
    } else {
        Content::page(HTML, page::operation(operation, locale).into_string())
    })
}

/// What the search looks through: title, address, where it belongs, and words that are not in the title.
fn search_index(locale: Locale) -> Value {
    let mut found: Vec<Value> = Vec::new();
    for group in groups() {
        for operation in group.operations {
            let codes = operation.errors.iter().map(|(_, code)| *code);
            let names = operation.answer.iter().flat_map(|(name, _, below)| {
                std::iter::once(*name).chain(below.iter().flat_map(|f| f.fields.iter().map(|f| f.name)))
            });
            let about = locale.say(operation.about);
            let words = [about.as_str(), operation.path, operation.permission, operation.id]
                .into_iter()
                .chain(names)
                .chain(codes);
            found.push(json!({
                "title": locale.say(operation.title), "page": operation.page(), "group": locale.say(group.name),
                "method": operation.method, "words": words.collect::<Vec<_>>().join(" "),
            }));
        }
    }
    for guide in GUIDES {
        let text = guide.text(locale);
        let heads = text.lines().filter_map(|line| line.strip_prefix("## ")).collect::<Vec<_>>();
        let group = locale.say(if guide.concept { "Concepts" } else { "Guides" });
        let words = format!("{} {}", heads.join(" "), guide.summary(locale));
        found.push(json!({ "title": guide.title(locale), "page": guide.page(), "group": group, "words": words }));
    }
    for code in api::Code::ALL {
        let page = format!("/docs/guides/errors#{}", code.name());
        let words = code.example(locale.0);
        found.push(json!({ "title": code.name(), "page": page, "group": locale.say("Errors"), "words": words }));
    }
    found.into()
}

/// Every page in one language, for tests that look at all of them.
#[cfg(test)]
fn every_page(locale: Locale) -> Vec<String> {
    let mut paths = vec!["/docs".to_owned(), "/llms.txt".to_owned(), "/docs/search.json".to_owned()];
    paths.extend(groups().iter().flat_map(|group| group.operations.iter().map(|operation| operation.page())));
    paths.extend(GUIDES.iter().map(guides::Guide::page));
    let markdown: Vec<_> = paths[3..].iter().map(|path| format!("{path}.md")).collect();
    paths.extend(markdown);
    paths.iter().map(|path| content(path, locale).unwrap_or_else(|| panic!("no page {path}")).text).collect()
}
