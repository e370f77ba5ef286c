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

use std::collections::BTreeMap;
use std::sync::{LazyLock, OnceLock};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, SET_COOKIE, VARY};
use axum::http::{HeaderValue, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde_json::{Value, json};

use crate::api::{self, Api, Language, PublicAddresses, RequestInfo};
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
    let egress = Router::new().route("/egress", get(egress)).with_state(api.clone());
    reference.merge(files).merge(egress).merge(dashboard::router(api))
}

const HTML: &str = "text/html; charset=utf-8";
const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// A page in one language, which is the same as long as the process runs.
struct Content {
    kind: &'static str,
    policy: &'static str,
    cache: &'static str,
    /// The text between the places of the server's own address, which is what the request calls it.
    parts: Vec<Bytes>,
}

impl Content {
    fn page(kind: &'static str, text: &str) -> Self {
        let parts = text.split(BASE).map(|part| Bytes::copy_from_slice(part.as_bytes())).collect();
        Self { kind, policy: POLICY, cache: "no-cache", parts }
    }

    fn kept(kind: &'static str, policy: &'static str, text: &'static str) -> Self {
        let parts = vec![Bytes::from_static(text.as_bytes())];
        Self { kind, policy, cache: "public, max-age=31536000, immutable", parts }
    }

    /// The whole page on a server with this address. What does not name it is not copied.
    fn on(&self, base: &str) -> Bytes {
        match &self.parts[..] {
            [whole] => whole.clone(),
            parts => parts.join(base.as_bytes()).into(),
        }
    }
}

async fn serve(info: Extension<RequestInfo>, request: Request) -> Response<Body> {
    let asked = language_asked(request.uri().query().unwrap_or(""));
    let locale = asked.unwrap_or_else(|| language_of(request.headers()));
    let Some(content) = content(request.uri().path(), locale) else { return api::not_found(info).await };
    let base = api::base(request.headers());
    let mut response = Response::new(Body::from(content.on(base.as_deref().unwrap_or(BASE))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content.kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(content.cache));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(content.policy));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("referrer-policy", HeaderValue::from_static("same-origin"));
    headers.insert(VARY, HeaderValue::from_static("accept-language, cookie, host"));
    if let Some(cookie) = asked.map(language_cookie) {
        headers.insert(SET_COOKIE, cookie);
    }
    response
}

/// `GET /egress`: a page for whoever asks for HTML and not for JSON, which everybody else gets.
async fn egress(State(api): State<Api>, Extension(info): Extension<RequestInfo>, request: Request) -> Response<Body> {
    let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    let mut response = if accept.contains("text/html") && !accept.contains("application/json") {
        let asked = language_asked(request.uri().query().unwrap_or(""));
        let locale = asked.unwrap_or_else(|| language_of(request.headers()));
        let PublicAddresses { addresses, detail } = PublicAddresses::of(&api, locale.0);
        let mut response = Response::new(Body::from(page::egress(&addresses, detail, locale).into_string()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(HTML));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert("referrer-policy", HeaderValue::from_static("same-origin"));
        response
    } else {
        PublicAddresses::answer(&api, &info)
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept, accept-language, cookie"));
    response
}

/// An address: what makes its page, and the page in each language as soon as somebody has asked for it.
struct Address {
    make: Box<dyn Fn(Locale) -> Content + Send + Sync>,
    made: [OnceLock<Content>; 2],
}

impl Address {
    fn new(make: impl Fn(Locale) -> Content + Send + Sync + 'static) -> Self {
        Self { make: Box::new(make), made: [OnceLock::new(), OnceLock::new()] }
    }

    fn content(&self, locale: Locale) -> &Content {
        let [english, spanish] = &self.made;
        let made = if locale.0 == Language::English { english } else { spanish };
        made.get_or_init(|| (self.make)(locale))
    }
}

/// Makes what is at an address.
type MakeContent = fn(Locale) -> Content;

/// Every address of the reference and of the files beside it. Nothing is kept for any other path.
static ADDRESSES: LazyLock<BTreeMap<String, Address>> = LazyLock::new(|| {
    let fixed: [(&str, MakeContent); 10] = [
        ("/docs", |locale| Content::page(HTML, &page::index(locale).into_string())),
        ("/docs/index.md", |locale| Content::page("text/plain; charset=utf-8", &markdown::contents(locale))),
        ("/llms.txt", |locale| Content::page("text/plain; charset=utf-8", &markdown::contents(locale))),
        ("/docs/search.json", |locale| Content::page("application/json", &search_index(locale).to_string())),
        ("/docs/assets/style.css", |_| Content::kept("text/css; charset=utf-8", POLICY, STYLE)),
        ("/docs/assets/docs.js", |_| Content::kept("text/javascript; charset=utf-8", POLICY, SCRIPT)),
        ("/docs/assets/icon.svg", |_| Content::kept("image/svg+xml", DRAWING_POLICY, ICON)),
        ("/docs/guides/life-of-a-delivery.svg", |_| Content::kept("image/svg+xml", DRAWING_POLICY, guides::DRAWING)),
        ("/assets/dashboard.css", |_| Content::kept("text/css; charset=utf-8", POLICY, DASHBOARD_STYLE)),
        ("/assets/dashboard.js", |_| Content::kept("text/javascript; charset=utf-8", POLICY, DASHBOARD_SCRIPT)),
    ];
    let fixed = fixed.map(|(path, make)| (path.to_owned(), Address::new(make)));
    let guides = GUIDES.iter().flat_map(|guide| {
        let html = Address::new(move |locale| Content::page(HTML, &page::guide(guide, locale).into_string()));
        let text = Address::new(move |locale| Content::page(MARKDOWN, &markdown::guide(guide, locale)));
        [(guide.page(), html), (format!("{}.md", guide.page()), text)]
    });
    let operations = groups().into_iter().flat_map(|group| group.operations).flat_map(|operation| {
        let html = Address::new(move |locale| Content::page(HTML, &page::operation(operation, locale).into_string()));
        let text = Address::new(move |locale| Content::page(MARKDOWN, &markdown::operation(operation, locale)));
        [(operation.page(), html), (format!("{}.md", operation.page()), text)]
    });
    fixed.into_iter().chain(guides).chain(operations).collect()
});

/// The page at this address, made once for each language.
fn content(path: &str, locale: Locale) -> Option<&'static Content> {
    ADDRESSES.get(path.trim_end_matches('/')).map(|address| address.content(locale))
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

/// Every page in one language, made anew, for tests that look at all of them.
#[cfg(test)]
fn every_page(locale: Locale) -> Vec<String> {
    let pages = ADDRESSES.iter().filter(|(path, _)| {
        !path.contains("/assets/") && std::path::Path::new(path).extension() != Some("svg".as_ref())
    });
    let text = |content: Content| String::from_utf8(content.on(BASE).to_vec()).expect("text");
    let egress = page::egress(&["192.0.2.7".to_owned()], "", locale).into_string();
    pages.map(|(_, address)| text((address.make)(locale))).chain([egress]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_made_once_for_each_language_and_names_the_address_of_each_request() {
        let [english, spanish] = Locale::ALL;
        for path in ["/docs", "/docs/search.json", "/llms.txt", "/docs/guides/errors"] {
            let made = |path: &str, locale| content(path, locale).expect("a page");
            assert!(std::ptr::eq(made(path, english), made(&format!("{path}/"), english)), "{path}");
            assert!(made(path, english).on(BASE) != made(path, spanish).on(BASE), "{path}");
        }
        let index = || content("/docs/search.json", english).expect("a page").on("http://localhost");
        assert_eq!(index().as_ptr(), index().as_ptr(), "its bytes are shared");
        let text = content("/llms.txt", english).expect("a page").on("http://localhost");
        let text = String::from_utf8_lossy(&text);
        assert!(text.contains("](http://localhost/docs/") && !text.contains(BASE));
        assert!(content("/docs/nothing", english).is_none());
    }
}
