//! A request for a page: its session, its form and the check that the form is ours; and the answers, with the headers
//! that restrict what a browser may do with them.

use axum::RequestPartsExt as _;
use axum::body::Body;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{OriginalUri, RawPathParams, Request};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, LOCATION, REFERRER_POLICY, SET_COOKIE, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, Method, Response, StatusCode, request};
use maud::{Markup, html};

use super::layout::{self, Layout};
use super::page_context::short_hash;
use super::parts::{self, Kind};
use super::state::Dashboard;
use crate::api::{
    Api, ApiError, Form, KNOWN_DEVICE_SECONDS, Opened, Peer, Portal, RequestContext, RequestInfo, Session,
};
use crate::lock::Mutex;
use crate::web::language::{language_asked, language_cookie, language_of};
use crate::web::static_files::STAMP;
use crate::web::text::Locale;

/// Largest form, in bytes.
const MAX_FORM: usize = 64 << 10;

/// Largest form that holds JSON: an event's body, with every character escaped.
const MAX_JSON_FORM: usize = 2 << 20;

/// Fields that a form may have.
const MAX_FIELDS: usize = 500;

/// The header of requests that the script makes by itself.
const BY_ITSELF: &str = "x-live";

/// Nothing but our own files, and no script or style in the page itself.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'self'";

/// Which sites may show a page in a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FramedBy {
    /// None.
    Nobody,
    /// These, and our own.
    Sites(Vec<String>),
    /// Every site: only for the page of an expired portal link, which shows no data.
    Anybody,
}

impl FramedBy {
    /// The sites that may show a portal's pages.
    pub fn of(portal: &Portal) -> Self {
        let sites = portal.frame_origins();
        if sites.is_empty() { Self::Nobody } else { Self::Sites(sites.to_vec()) }
    }

    fn sources(&self) -> String {
        match self {
            Self::Nobody => "'none'".to_owned(),
            Self::Sites(sites) => format!("'self' {}", sites.join(" ")),
            Self::Anybody => "*".to_owned(),
        }
    }
}

/// A request for a page.
pub(super) struct PageRequest {
    pub locale: Locale,
    /// The language that the address asks for, which a cookie will remember.
    asked: Option<Locale>,
    pub request_context: RequestContext,
    pub headers: HeaderMap,
    pub method: Method,
    /// The path and query.
    pub address: String,
    pub params: Vec<(String, String)>,
    pub query: Vec<(String, String)>,
    pub form: Vec<(String, String)>,
    /// The body with the form, until it is read. A body is not `Sync`; the lock makes it so.
    body: Option<Mutex<Body>>,
    /// The memory that the form takes.
    memory: Option<Form>,
    /// The token of the session.
    pub token: String,
    /// The cookie of the device, or nothing.
    pub device: String,
    pub session: Option<Session>,
    /// Which sites may show the answer in a frame.
    pub framed_by: FramedBy,
    api: Api,
}

impl PageRequest {
    /// Reads a request without its form. The form is read after the session is known, because its memory is shared by
    /// account.
    pub async fn read(dashboard: &Dashboard, request: Request) -> Result<Self, Box<Response<Body>>> {
        let (mut parts, body) = request.into_parts();
        let info = parts.extensions.get::<RequestInfo>().expect("every request has an id");
        // Within a nested router the URI has only the rest of the path.
        let whole = parts.extensions.get::<OriginalUri>().map(|OriginalUri(whole)| whole.clone());
        let address = whole.unwrap_or_else(|| parts.uri.clone());
        let query = parts.uri.query().unwrap_or("").to_owned();
        let asked = language_asked(&query);
        let locale = asked.unwrap_or_else(|| language_of(&parts.headers));
        let info = RequestInfo { language: locale.0, id: info.id.clone() };
        let request_context =
            dashboard.api.request_context(&info, &parts.headers, parts.extensions.get::<Peer>().copied());
        let params = path_params(&mut parts).await;
        let token = cookie(&parts.headers, cookie_name(dashboard)).unwrap_or("").to_owned();
        let device = cookie(&parts.headers, device_cookie(dashboard)).unwrap_or("").to_owned();
        let mut page_request = Self {
            locale,
            asked,
            request_context,
            address: address.path_and_query().map_or_else(String::new, |address| address.as_str().to_owned()),
            headers: parts.headers,
            method: parts.method,
            params: Vec::new(),
            query: pairs(query.as_bytes()),
            form: Vec::new(),
            body: Some(Mutex::new(body)),
            memory: None,
            token,
            device,
            session: None,
            framed_by: FramedBy::Nobody,
            api: dashboard.api.clone(),
        };
        let Some(params) = params else { return Err(Box::new(page_request.not_found())) };
        page_request.params = params;
        if !page_request.token.is_empty() {
            let touch = !page_request.headers.contains_key(BY_ITSELF);
            let session = dashboard.api.session(&page_request.request_context, &page_request.token, touch).await;
            page_request.session = session.map_err(|error| Box::new(page_request.refusal(&error)))?;
        }
        if page_request.method == Method::POST && !is_ours(&page_request.headers) {
            return Err(Box::new(page_request.signed_out_page(403, &page_request.out_of_date())));
        }
        Ok(page_request)
    }

    /// Reads the form.
    pub async fn read_form(&mut self) -> Result<(), Box<Response<Body>>> {
        let Some(body) = self.body.take().filter(|_| self.method == Method::POST) else { return Ok(()) };
        let most = if self.address.contains("/event-types/") { MAX_JSON_FORM } else { MAX_FORM };
        let body = body.into_inner();
        let read = self.api.read_form((&self.request_context, self.session.as_ref()), &self.headers, body, most).await;
        let form = read.map_err(|error| Box::new(self.refusal(&error)))?;
        let Some(form) = form else {
            let text = self.locale.say("What you sent is too large, or did not arrive.");
            return Err(Box::new(self.signed_out_page(413, &html! { h1 { (text) } })));
        };
        self.form = url::form_urlencoded::parse(&form.bytes).into_owned().take(MAX_FIELDS).collect();
        self.memory = Some(form);
        Ok(())
    }

    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The last value of a field of the form, or nothing.
    pub fn field(&self, name: &str) -> &str {
        self.form.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    /// Takes the hidden fields out of the form: whether it was on a page for this token, and the name of the form.
    pub fn take_form_tokens(&mut self, token: &str) -> (bool, String) {
        let is_right = parts_equal(self.field("csrf"), &csrf(token));
        let sent = self.field("once").chars().take(64).collect();
        self.form.retain(|(name, _)| name != "csrf" && name != "once");
        (is_right, sent)
    }

    /// The answer where there is no such page.
    pub fn not_found(&self) -> Response<Body> {
        let say = |text: &str| self.locale.say(text);
        let content = html! {
            h1 { (say("There is no such page")) }
            p { (say("It may have been deleted, or the address is not right.")) }
        };
        self.signed_out_page(404, &content)
    }

    pub fn out_of_date(&self) -> Markup {
        let say = |text: &str| self.locale.say(text);
        html! {
            h1 { (say("This page is out of date")) }
            p { (say("Nothing was changed. Go back, reload the page and try again.")) }
        }
    }

    /// A page before the sign-in. It shows no data.
    pub fn signed_out_page(&self, status: u16, content: &Markup) -> Response<Body> {
        let title = if status < 400 { self.locale.say("Sign in") } else { self.locale.say("Not possible") };
        let layout = Layout {
            cx: None,
            locale: self.locale,
            title: &title,
            section: "",
            nav: &[],
            account_name: "",
            who: "",
            brand: "Aldaba",
            theme: None,
            path: &self.address,
            embedded: self.is_framed(),
            operator: false,
            csrf: html! {},
            stamp: &STAMP,
        };
        self.answer(status, layout::narrow(&layout, content))
    }

    /// A refusal of the API, before the sign-in.
    pub fn refusal(&self, error: &ApiError) -> Response<Body> {
        if !self.is_browser() {
            return self.request_context.refuse(error);
        }
        let say = |text: &str| self.locale.say(text);
        let content = html! {
            h1 { (say("Try again in a moment")) }
            (parts::notice(Kind::Bad, html! { (error.detail(self.locale.0)) }))
            p { a href=(self.address) { (say("Try again")) } }
        };
        let mut response = self.signed_out_page(error.status(), &content);
        error.add_headers(response.headers_mut());
        response
    }

    /// Whether the client accepts HTML. Other clients are answered in the API's envelope.
    pub fn is_browser(&self) -> bool {
        self.headers
            .get("accept")
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.contains("text/html"))
    }

    /// Whether the page is shown in a frame.
    pub fn is_framed(&self) -> bool {
        self.headers.get("sec-fetch-dest").is_some_and(|value| value == "iframe" || value == "frame")
    }

    /// A page, with what a browser may do with it.
    pub fn answer(&self, status: u16, page: Markup) -> Response<Body> {
        assert!(
            self.framed_by != FramedBy::Anybody || self.session.is_none(),
            "a page of a session stands in no frame"
        );
        let mut response = Response::new(Body::from(page.into_string()));
        *response.status_mut() = StatusCode::from_u16(status).expect("a page has a status of HTTP");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        let policy = format!("{POLICY}; frame-ancestors {}", self.framed_by.sources());
        // No page without its policy.
        let policy = HeaderValue::try_from(policy).expect("origins were checked when their link was made");
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        self.add_common_headers(headers);
        response
    }

    /// Another page.
    pub fn redirect(&self, to: &str) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SEE_OTHER;
        // A target that is no header value becomes `/`.
        let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
        response.headers_mut().insert(LOCATION, to);
        self.add_common_headers(response.headers_mut());
        response
    }

    /// Adds the headers of every answer. The address of a portal is secret, so other sites get no referrer. Our own
    /// pages must get one, or a browser would not say where a form comes from.
    fn add_common_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
        headers.insert(VARY, HeaderValue::from_static("accept-language, cookie"));
        if let Some(cookie) = self.asked.map(language_cookie) {
            headers.append(SET_COOKIE, cookie);
        }
    }

    /// Ends the session and redirects to the sign-in page.
    pub fn end_session(&self, dashboard: &Dashboard) -> Response<Body> {
        let mut response = self.redirect("/sign-in");
        response.headers_mut().append(SET_COOKIE, set_cookie(dashboard, cookie_name(dashboard), "", 0));
        response
    }

    /// Starts a session with this token and redirects.
    pub fn start_session(&self, dashboard: &Dashboard, token: &str, to: &str) -> Response<Body> {
        let mut response = self.redirect(to);
        let seconds = dashboard.api.sessions().lifetime.as_secs();
        response.headers_mut().append(SET_COOKIE, set_cookie(dashboard, cookie_name(dashboard), token, seconds));
        response
    }

    /// The same after a password, with the cookie by which the device is known from now on.
    pub fn start_session_on_device(&self, dashboard: &Dashboard, opened: &Opened, to: &str) -> Response<Body> {
        let mut response = self.start_session(dashboard, &opened.token, to);
        let cookie = set_cookie(dashboard, device_cookie(dashboard), &opened.device, KNOWN_DEVICE_SECONDS);
        response.headers_mut().append(SET_COOKIE, cookie);
        response
    }
}

/// Whether a form comes from our own origin, as far as the browser says. Where it does not say, the form's token
/// decides.
fn is_ours(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match (text("sec-fetch-site"), text("origin"), text("host")) {
        (Some(site), _, _) => site == "same-origin" || site == "none",
        (None, Some(origin), Some(host)) => origin.split_once("://").is_some_and(|(_, name)| name == host),
        (None, Some(_), None) => false,
        (None, None, _) => true,
    }
}

/// What proves that a form was on a page for this token.
pub(super) fn csrf(token: &str) -> String {
    short_hash(&["csrf", token])
}

/// Compares in a time that does not depend on where they differ.
fn parts_equal(left: &str, right: &str) -> bool {
    left.len() == right.len() && left.bytes().zip(right.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// A name that only this host can set, over TLS only (RFC 6265bis, section 4.1.3.2).
fn cookie_name(dashboard: &Dashboard) -> &'static str {
    if dashboard.api.is_secure() { "__Host-aldaba_session" } else { "aldaba_session" }
}

/// The same for the cookie by which a device is known.
fn device_cookie(dashboard: &Dashboard) -> &'static str {
    if dashboard.api.is_secure() { "__Host-aldaba_device" } else { "aldaba_device" }
}

fn set_cookie(dashboard: &Dashboard, name: &str, value: &str, seconds: u64) -> HeaderValue {
    let secure = if dashboard.api.is_secure() { "; Secure" } else { "" };
    let cookie = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    HeaderValue::try_from(cookie).expect("tokens and signed devices are ASCII")
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
}

/// The parts of the path; `None` where one cannot be decoded: such an address names no page.
pub(super) async fn path_params(parts: &mut request::Parts) -> Option<Vec<(String, String)>> {
    match parts.extract::<RawPathParams>().await {
        Ok(params) => Some(params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()),
        // The route has no parts.
        Err(RawPathParamsRejection::MissingPathParams(_)) => Some(Vec::new()),
        Err(_) => None,
    }
}

fn pairs(text: &[u8]) -> Vec<(String, String)> {
    url::form_urlencoded::parse(text).into_owned().collect()
}

/// Where to go after signing in: a page of ours, and nothing else.
pub(super) fn next_of(next: &str) -> Option<&str> {
    let is_path = next.starts_with('/') && !next.starts_with("//") && !next.contains(['\\', '\r', '\n', '\t']);
    (is_path && !next.starts_with("/sign-in") && next.len() < 2_000).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_str(value).expect("a value")));
        pairs.collect()
    }

    #[test]
    fn a_form_of_another_site_is_none_of_ours() {
        assert!(is_ours(&headers(&[("sec-fetch-site", "same-origin")])));
        assert!(is_ours(&headers(&[("origin", "https://a.example"), ("host", "a.example")])));
        assert!(is_ours(&headers(&[("host", "a.example")])), "an old browser: the form's mark decides");
        for wrong in [
            vec![("sec-fetch-site", "cross-site")],
            vec![("sec-fetch-site", "same-site"), ("origin", "https://a.example"), ("host", "a.example")],
            vec![("origin", "https://b.example"), ("host", "a.example")],
            vec![("origin", "null"), ("host", "a.example")],
        ] {
            assert!(!is_ours(&headers(&wrong)), "{wrong:?}");
        }
    }

    #[test]
    fn after_signing_in_nobody_is_led_to_another_site() {
        assert_eq!(next_of("/accounts/1/deliveries?q=a"), Some("/accounts/1/deliveries?q=a"));
        for wrong in
            ["", "https://b.example", "//b.example", "/\\b.example", "/a\nb", "/sign-in?next=/", "javascript:alert(1)"]
        {
            assert_eq!(next_of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn marks_are_compared_whole() {
        assert!(parts_equal(&csrf("a"), &csrf("a")));
        assert!(!parts_equal(&csrf("a"), &csrf("b")) && !parts_equal("", &csrf("a")));
    }
}
