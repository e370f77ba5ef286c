//! The way of a request to its page: who looks at what, the frame around the page, and the pages that need no visitor.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, Response, Uri};
use axum::response::Redirect;
use maud::{Markup, html};

use super::Dashboard;
use super::arrival::{Arrival, FramedBy, csrf, path_params};
use super::frame::{self, Frame};
use super::parts::{self, Kind};
use super::visit::{Failure, Page, Place, Visit};
use crate::api::{self, Portal, RequestInfo, Visitor};
use crate::web::STAMP;
use crate::web::text::Tongue;

/// Brings a request to its page.
pub(super) async fn serve<F, R>(dashboard: Dashboard, request: Request, page: F) -> Response<Body>
where
    F: Fn(Visit) -> R,
    R: Future<Output = Result<Page, Failure>>,
{
    let mut arrival = match Arrival::read(&dashboard, request).await {
        Ok(arrival) => arrival,
        Err(refused) => return *refused,
    };
    let (visit, portal) = match visit(&dashboard, &mut arrival).await {
        Ok(visit) => visit,
        Err(refused) => return *refused,
    };
    let surroundings = match Surroundings::of(&visit, portal.as_ref()).await {
        Ok(surroundings) => surroundings,
        Err(failure) => {
            let (_, content) = failure_page(visit.tongue, &failure, false, "/");
            return arrival.alone(failure.status, &content);
        }
    };
    let v = visit.clone();
    match page(visit).await {
        Ok(Page::Redirect(to)) => arrival.redirect(&to),
        Ok(Page::Leave) => arrival.leave(&dashboard),
        Ok(Page::Html { status, title, section, content }) => {
            let page = surroundings.framed(&arrival, &v, &title, section, &content);
            arrival.answer(status, page)
        }
        Err(failure) => {
            let (title, content) = failure_page(v.tongue, &failure, surroundings.operator, &v.link(""));
            let page = surroundings.framed(&arrival, &v, &title, "", &content);
            let mut response = arrival.answer(failure.status, page);
            if let Some(seconds) = failure.retry_after {
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            response
        }
    }
}

/// Who looks at what, or where they must go first.
async fn visit(dashboard: &Dashboard, arrival: &mut Arrival) -> Result<(Visit, Option<Portal>), Box<Response<Body>>> {
    let mut portal = None;
    let (place, caller, account, prefix, token);
    if let Some(link) = arrival.param("token").map(str::to_owned) {
        // A portal's pages are for whoever has the link: whoever has signed in besides is nobody here.
        arrival.visitor = None;
        let found =
            dashboard.api.open_portal(&arrival.door, &link).await.map_err(|error| Box::new(arrival.refusal(&error)))?;
        let Some(found) = found else {
            arrival.framed_by = FramedBy::Anybody;
            let say = |text: &str| arrival.tongue.say(text);
            let content = html! {
                h1 { (say("This link has expired")) }
                p { (say("Go back to where you found it and open it again: links live for a short time.")) }
            };
            return Err(Box::new(arrival.alone(404, &content)));
        };
        (place, caller, account) = (Place::Portal, Some(found.caller()), found.account());
        (prefix, token) = (format!("/portal/{link}"), link);
        arrival.framed_by = FramedBy::of(&found);
        portal = Some(found);
    } else {
        let Some(visitor) = arrival.visitor.clone() else { return Err(Box::new(to_sign_in(arrival))) };
        let named = arrival.param("account").map(str::to_owned);
        let operators = arrival.address.starts_with("/operator");
        let own = if operators { None } else { named.clone().or_else(|| visitor.account()) };
        caller = visitor.caller(own.as_deref());
        place = if own.is_some() { Place::Account } else { Place::Operator };
        prefix = own.as_ref().map_or_else(|| "/operator".to_owned(), |own| format!("/accounts/{own}"));
        account = own.unwrap_or_default();
        token = arrival.token.clone();
    }
    // Somebody else's account is not there.
    let Some(caller) = caller else { return Err(Box::new(arrival.missing())) };
    let mut sent = String::new();
    if arrival.method == Method::POST {
        arrival.read_form().await?;
        let (is_ours, name) = arrival.marks(&token);
        if !is_ours {
            return Err(Box::new(arrival.alone(403, &arrival.stale())));
        }
        sent = name;
    }
    let visit = Visit {
        tongue: arrival.tongue,
        now: dashboard.api.now_millis(),
        place,
        params: arrival.params.clone(),
        query: arrival.query.iter().filter(|(name, _)| name != "lang").cloned().collect(),
        form: std::mem::take(&mut arrival.form),
        dashboard: dashboard.clone(),
        caller,
        door: arrival.door.clone(),
        visitor: arrival.visitor.clone(),
        prefix,
        account,
        csrf: csrf(&token),
        once: dashboard.api.draw(),
        sent,
    };
    Ok((visit, portal))
}

/// What the frame says besides the page's own.
struct Surroundings {
    nav: Vec<(&'static str, String, String)>,
    account_name: String,
    who: String,
    brand: String,
    theme: Option<String>,
    operator: bool,
}

impl Surroundings {
    async fn of(v: &Visit, portal: Option<&Portal>) -> Result<Self, Failure> {
        let account_name = match v.place {
            Place::Account => name_of_account(v).await?,
            Place::Portal => String::new(),
            Place::Operator => v.say("All accounts"),
        };
        Ok(Self {
            nav: entries(v),
            account_name,
            who: v.visitor().map(|visitor| visitor.email().to_owned()).unwrap_or_default(),
            brand: portal.and_then(Portal::brand).unwrap_or("Aldaba").to_owned(),
            theme: portal.and_then(Portal::theme).map(|_| v.link("/theme.css")),
            operator: v.visitor().is_some_and(|visitor| visitor.account().is_none()),
        })
    }

    fn framed(&self, arrival: &Arrival, v: &Visit, title: &str, section: &'static str, content: &Markup) -> Markup {
        let frame = Frame {
            v: Some(v),
            tongue: arrival.tongue,
            title,
            section,
            nav: &self.nav,
            account_name: &self.account_name,
            who: &self.who,
            brand: &self.brand,
            theme: self.theme.as_deref(),
            path: &arrival.address,
            embedded: arrival.is_framed(),
            operator: self.operator,
            csrf: v.form_start(),
            stamp: &STAMP,
        };
        frame::page(&frame, content)
    }
}

/// The account's name: an operator may ask for one that is not there.
async fn name_of_account(v: &Visit) -> Result<String, Failure> {
    let account = v.get(&format!("/v1/accounts/{}", v.account()), &[]).await?;
    Ok(account.item().text("name").to_owned())
}

/// The pages that the visitor may open.
fn entries(v: &Visit) -> Vec<(&'static str, String, String)> {
    let of_account = [
        ("overview", v.say("Overview"), "", "webhooks:read"),
        ("endpoints", v.say("Endpoints"), "/endpoints", "webhooks:read"),
        ("deliveries", v.say("Deliveries"), "/deliveries", "webhooks:read"),
        ("events", v.say("Events"), "/events", "events:read"),
        ("event-types", v.say("Event types"), "/event-types", "event_types:read"),
        ("api-keys", v.say("API keys"), "/api-keys", "api_keys:read"),
        ("users", v.say("Users"), "/users", "users:read"),
        ("audit-log", v.say("Audit log"), "/audit-log", "audit:read"),
    ];
    let of_operator = [
        ("accounts", v.say("Accounts"), "", "accounts:read"),
        ("event-types", v.say("Event types"), "/event-types", "event_types:read"),
        ("audit-log", v.say("Audit log"), "/audit-log", "audit:read"),
    ];
    let pages = if v.place == Place::Operator { of_operator.to_vec() } else { of_account.to_vec() };
    let allowed = pages.into_iter().filter(|(_, _, _, permission)| v.may(permission));
    let mut entries: Vec<_> = allowed.map(|(section, name, path, _)| (section, name, v.link(path))).collect();
    let is_operator = v.visitor().is_some_and(|visitor| visitor.account().is_none());
    if v.place == Place::Account && is_operator {
        entries.push(("accounts", v.say("All accounts"), "/operator".to_owned()));
    }
    entries
}

/// Why a page is not shown, and what to do.
fn failure_page(tongue: Tongue, failure: &Failure, operator: bool, home: &str) -> (String, Markup) {
    let say = |text: &str| tongue.say(text);
    let (title, advice) = match failure.status {
        403 if operator => (say("You may not do this"), say("Ask somebody who runs this server.")),
        403 => (say("You may not do this"), say("Ask an owner of the account for a role that allows it.")),
        404 => (say("There is no such page"), say("It may have been deleted, or the address is not right.")),
        429 => (say("Too many requests"), say("Wait a moment and try again.")),
        503 => {
            (say("Try again in a moment"), say("The server is busy or its database does not answer. Nothing was lost."))
        }
        400..=499 => (say("Not possible"), say("Nothing was changed.")),
        _ => (say("Something went wrong"), say("It is in the server's log. Nothing was lost.")),
    };
    let content = html! {
        (parts::head(&title, None, html! {}))
        @if failure.status != 404 { @for fault in &failure.faults {
            (parts::notice(Kind::Bad, html! { (fault.detail) }))
        } }
        p { (advice) }
        p { a href=(home) { (say("Go to the overview")) } }
    };
    (title, content)
}

fn missing() -> Failure {
    Failure { status: 404, ..Failure::default() }
}

/// There is no such page.
pub(super) async fn nothing(_: Visit) -> Result<Page, Failure> {
    Err(missing())
}

/// `/`: where somebody belongs. A program is told what there is.
pub(super) async fn home(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let accepts = request.headers().get("accept").and_then(|value| value.to_str().ok()).unwrap_or("");
    if !accepts.contains("text/html") {
        return api::root().await;
    }
    let arrival = match Arrival::read(&dashboard, request).await {
        Ok(arrival) => arrival,
        Err(refused) => return *refused,
    };
    if let Some(visitor) = &arrival.visitor {
        return arrival.redirect(&home_of(visitor));
    }
    arrival.redirect("/sign-in")
}

/// The same page without a slash at its end.
pub(super) async fn without_slash(uri: Uri) -> Redirect {
    Redirect::permanent(uri.path().trim_end_matches('/'))
}

/// The first page of somebody who has signed in.
pub(super) fn home_of(visitor: &Visitor) -> String {
    visitor.account().map_or_else(|| "/operator".to_owned(), |account| format!("/accounts/{account}"))
}

/// The colour of a portal.
pub(super) async fn theme(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let info = request.extensions().get::<RequestInfo>().cloned();
    let (mut parts, _) = request.into_parts();
    let params = path_params(&mut parts).await.unwrap_or_default();
    let token = params.iter().find(|(name, _)| name == "token").map_or("", |(_, value)| value);
    let theme = match dashboard.api.portal(token).await {
        Ok(portal) => portal.as_ref().and_then(Portal::theme),
        Err(_) => None,
    };
    let (Some(theme), Some(_)) = (theme, &info) else {
        let info = info.unwrap_or(RequestInfo { id: "".into(), language: api::Language::English });
        return api::not_found(axum::Extension(info)).await;
    };
    let mut response = Response::new(Body::from(theme));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The deliveries as a file.
pub(super) async fn export_deliveries(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    export(&dashboard, request, "/v1/webhooks/deliveries/export").await
}

/// The audit log as a file.
pub(super) async fn export_audit_log(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    export(&dashboard, request, "/v1/audit-log/export").await
}

async fn export(dashboard: &Dashboard, request: Request, path: &str) -> Response<Body> {
    let mut arrival = match Arrival::read(dashboard, request).await {
        Ok(arrival) => arrival,
        Err(refused) => return *refused,
    };
    match visit(dashboard, &mut arrival).await {
        Ok((visit, _)) if visit.place == Place::Account && name_of_account(&visit).await.is_err() => arrival.missing(),
        Ok((visit, _)) => visit.file(path).await,
        Err(refused) => *refused,
    }
}

/// Where somebody must sign in first; what they wanted to see comes afterwards.
fn to_sign_in(arrival: &Arrival) -> Response<Body> {
    if arrival.method != Method::GET {
        return arrival.redirect("/sign-in");
    }
    let next = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", &arrival.address).finish();
    arrival.redirect(&format!("/sign-in?{next}"))
}
