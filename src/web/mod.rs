//! What people see, in English and Spanish: the dashboard, which calls the API for them, and the reference and the guides, made
//! from the OpenAPI document and from `docs/guides`. No rule of the API is written here again.

mod dashboard;
mod examples;
mod guides;
mod highlight;
mod markdown;
mod page;
mod prose;
mod reading;
mod text;

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, SET_COOKIE, VARY};
use axum::http::{HeaderValue, Response};
use axum::routing::get;
use axum::{Extension, Router};
use ring::digest;
use serde_json::{Value, json};

use crate::api::{self, Api, Language};
use text::Tongue;

pub use examples::{
    ACCOUNT_ID, BASE, DELIVERY_ID, ENDPOINT_ID, EVENT_ID, EVENT_TYPE, Example, KEY_ID, LANGUAGES, LINK_ID, REPLAY_ID,
    USER_ID,
};
pub use guides::GUIDES;
pub use reading::{Call, call, groups};

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/docs.js");
const ICON: &str = include_str!("assets/icon.svg");

/// Changes with what the browser may keep, so that it can be kept for ever.
static STAMP: LazyLock<String> = LazyLock::new(|| {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [STYLE, SCRIPT, ICON, dashboard::STYLE, dashboard::SCRIPT, env!("CARGO_PKG_VERSION")] {
        context.update(part.as_bytes());
    }
    hex::encode(&context.finish().as_ref()[..6])
});

/// Nothing but our own files; no script or style in the page itself, and in nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What a drawing may do: show its own style.
const DRAWING_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// The cookie that remembers the switch of the language.
const COOKIE: &str = "aldaba_lang";

/// The pages, to stand beside the API: the dashboard, which calls it, and the reference.
pub fn router<S: Clone + Send + Sync + 'static>(api: Api) -> Router<S> {
    let reference = Router::new().route("/docs", get(serve)).route("/docs/{*page}", get(serve));
    let beside = Router::new().route("/llms.txt", get(serve)).route("/assets/{*file}", get(serve));
    reference.merge(beside).merge(dashboard::router(api))
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
    let tongue = asked.unwrap_or_else(|| language_of(request.headers()));
    let Some(content) = content(request.uri().path(), tongue) else { return api::not_found(info).await };
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

/// Remembers a language that was asked for.
fn language_cookie(tongue: Tongue) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("{COOKIE}={}; Path=/; Max-Age=31536000; SameSite=Lax", tongue.code())).ok()
}

/// The page at this address.
fn content(path: &str, tongue: Tongue) -> Option<Content> {
    Some(match path.trim_end_matches('/') {
        "/docs" => Content::page(HTML, page::index(tongue).into_string()),
        "/llms.txt" | "/docs/index.md" => Content::page("text/plain; charset=utf-8", markdown::contents(tongue)),
        "/docs/search.json" => Content::page("application/json", search_index(tongue).to_string()),
        "/docs/assets/style.css" => Content::kept("text/css; charset=utf-8", POLICY, STYLE),
        "/docs/assets/docs.js" => Content::kept("text/javascript; charset=utf-8", POLICY, SCRIPT),
        "/docs/assets/icon.svg" => Content::kept("image/svg+xml", DRAWING_POLICY, ICON),
        "/assets/dashboard.css" => Content::kept("text/css; charset=utf-8", POLICY, dashboard::STYLE),
        "/assets/dashboard.js" => Content::kept("text/javascript; charset=utf-8", POLICY, dashboard::SCRIPT),
        "/docs/guides/life-of-a-delivery.svg" => Content::kept("image/svg+xml", DRAWING_POLICY, guides::DRAWING),
        path => return text_page(path, tongue),
    })
}

/// A guide or a call, as HTML or as Markdown.
fn text_page(path: &str, tongue: Tongue) -> Option<Content> {
    let (group, name) = path.strip_prefix("/docs/")?.split_once('/')?;
    let (name, as_markdown) = name.strip_suffix(".md").map_or((name, false), |name| (name, true));
    if group == "guides" {
        let guide = guides::guide(name)?;
        return Some(if as_markdown {
            Content::page(MARKDOWN, markdown::guide(guide, tongue))
        } else {
            Content::page(HTML, page::guide(guide, tongue).into_string())
        });
    }
    let call = reading::call(&name.replace('-', "_")).filter(|call| reading::slug(call.group) == group)?;
    Some(if as_markdown {
        Content::page(MARKDOWN, markdown::call(call, tongue))
    } else {
        Content::page(HTML, page::call(call, tongue).into_string())
    })
}

/// Where a page is as Markdown.
fn markdown_address(page: &str) -> String {
    if page == "/docs" { "/docs/index.md".to_owned() } else { format!("{page}.md") }
}

/// What the search looks through: title, address, where it belongs, and words that are not in the title.
fn search_index(tongue: Tongue) -> Value {
    let mut found: Vec<Value> = Vec::new();
    for group in groups() {
        for call in group.calls {
            let codes = call.errors.iter().map(|(_, code)| *code);
            let names = call.answer.iter().flat_map(|(name, _, below)| {
                std::iter::once(*name).chain(below.iter().flat_map(|f| f.fields.iter().map(|f| f.name)))
            });
            let about = tongue.say(call.about);
            let words = [about.as_str(), call.path, call.permission, call.id].into_iter().chain(names).chain(codes);
            found.push(json!({
                "title": tongue.say(call.title), "page": call.page(), "group": tongue.say(group.name),
                "method": call.method, "words": words.collect::<Vec<_>>().join(" "),
            }));
        }
    }
    for guide in GUIDES {
        let text = guide.text(tongue);
        let heads = text.lines().filter_map(|line| line.strip_prefix("## ")).collect::<Vec<_>>();
        let group = tongue.say(if guide.concept { "Concepts" } else { "Guides" });
        let words = format!("{} {}", heads.join(" "), guide.summary(tongue));
        found.push(json!({ "title": guide.title(tongue), "page": guide.page(), "group": group, "words": words }));
    }
    for code in api::Code::ALL {
        let page = format!("/docs/guides/errors#{}", code.name());
        let words = code.example(tongue.0);
        found.push(json!({ "title": code.name(), "page": page, "group": tongue.say("Errors"), "words": words }));
    }
    found.into()
}

/// The language that the address asks for, by the switch on every page.
fn language_asked(query: &str) -> Option<Tongue> {
    query.split('&').find_map(|pair| Tongue::from_code(pair.strip_prefix("lang=")?))
}

/// The language that was switched to before, or the browser's.
fn language_of(headers: &HeaderMap) -> Tongue {
    let cookies = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let kept = pairs.find_map(|(name, value)| if name == COOKIE { Tongue::from_code(value) } else { None });
    kept.unwrap_or_else(|| {
        let header = headers.get("accept-language").and_then(|value| value.to_str().ok()).unwrap_or("");
        Tongue(Language::from_header(header))
    })
}

/// Every page in one language, for tests that look at all of them.
#[cfg(test)]
fn every_page(tongue: Tongue) -> Vec<String> {
    let mut paths = vec!["/docs".to_owned(), "/llms.txt".to_owned(), "/docs/search.json".to_owned()];
    paths.extend(groups().iter().flat_map(|group| group.calls.iter().map(|call| call.page())));
    paths.extend(GUIDES.iter().map(guides::Guide::page));
    let beside: Vec<_> = paths[3..].iter().map(|path| format!("{path}.md")).collect();
    paths.extend(beside);
    paths.iter().map(|path| content(path, tongue).unwrap_or_else(|| panic!("no page {path}")).text).collect()
}
