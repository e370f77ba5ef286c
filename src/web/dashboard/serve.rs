//! Serves pages: finds the session or portal link of a request, makes the page context and the navigation, runs the
//! page and adds the layout. Also the few pages that need no session.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, Response, Uri};
use axum::response::Redirect;
use maud::{Markup, html};

use super::layout::{self, Layout};
use super::page_context::{Failure, Page, PageContext, PageOwner};
use super::page_request::{FramedBy, PageRequest, csrf, path_params};
use super::parts::{self, Kind};
use super::state::Dashboard;
use crate::api::{self, AccountResource, Portal, RequestInfo, Session};
use crate::web::static_files::STAMP;
use crate::web::text::Locale;

/// Answers a request with its page.
pub(super) async fn serve<F, R>(dashboard: Dashboard, request: Request, page: F) -> Response<Body>
where
    F: Fn(PageContext) -> R,
    R: Future<Output = Result<Page, Failure>>,
{
    let mut page_request = match PageRequest::read(&dashboard, request).await {
        Ok(page_request) => page_request,
        Err(refused) => return *refused,
    };
    let (page_context, portal) = match page_context(&dashboard, &mut page_request).await {
        Ok(page_context) => page_context,
        Err(refused) => return *refused,
    };
    let navigation = match Navigation::of(&page_context, portal.as_ref()).await {
        Ok(navigation) => navigation,
        Err(failure) => {
            let (_, content) = failure_page(page_context.locale, &failure, false, "/");
            return page_request.signed_out_page(failure.status, &content);
        }
    };
    let cx = page_context.clone();
    match page(page_context).await {
        Ok(Page::Redirect(to)) => page_request.redirect(&to),
        Ok(Page::SignedOut) => page_request.end_session(&dashboard),
        Ok(Page::Html { status, title, section, content }) => {
            let page = navigation.framed(&page_request, &cx, &title, section, &content);
            page_request.answer(status, page)
        }
        Err(failure) => {
            let (title, content) = failure_page(cx.locale, &failure, navigation.operator, &cx.link(""));
            let page = navigation.framed(&page_request, &cx, &title, "", &content);
            let mut response = page_request.answer(failure.status, page);
            if let Some(seconds) = failure.retry_after {
                response.headers_mut().insert(RETRY_AFTER, seconds.into());
            }
            response
        }
    }
}

/// The context of a request, or the page to go to first.
async fn page_context(
    dashboard: &Dashboard,
    page_request: &mut PageRequest,
) -> Result<(PageContext, Option<Portal>), Box<Response<Body>>> {
    let mut portal = None;
    let (owner, caller, account, prefix, token);
    if let Some(link) = page_request.param("token").map(str::to_owned) {
        // A portal's pages are for the holder of the link. A session of the same browser is ignored.
        page_request.session = None;
        let found = dashboard
            .api
            .open_portal(&page_request.request_context, &link)
            .await
            .map_err(|error| Box::new(page_request.refusal(&error)))?;
        let Some(found) = found else {
            page_request.framed_by = FramedBy::Anybody;
            let say = |text: &str| page_request.locale.say(text);
            let content = html! {
                h1 { (say("This link has expired")) }
                p { (say("Go back to where you found it and open it again: links live for a short time.")) }
            };
            return Err(Box::new(page_request.signed_out_page(404, &content)));
        };
        (owner, caller, account) = (PageOwner::Portal, Some(found.caller()), found.account());
        (prefix, token) = (format!("/portal/{link}"), link);
        page_request.framed_by = FramedBy::of(&found);
        portal = Some(found);
    } else {
        let Some(session) = page_request.session.clone() else { return Err(Box::new(to_sign_in(page_request))) };
        let named = page_request.param("account").map(str::to_owned);
        let operators = page_request.address.starts_with("/operator");
        let own = if operators { None } else { named.clone().or_else(|| session.account()) };
        caller = session.caller(own.as_deref());
        owner = if own.is_some() { PageOwner::Account } else { PageOwner::Operator };
        prefix = own.as_ref().map_or_else(|| "/operator".to_owned(), |own| format!("/accounts/{own}"));
        account = own.unwrap_or_default();
        token = page_request.token.clone();
    }
    // The account of another user is answered like one that does not exist.
    let Some(caller) = caller else { return Err(Box::new(page_request.not_found())) };
    let mut sent = String::new();
    if page_request.method == Method::POST {
        page_request.read_form().await?;
        let (is_ours, name) = page_request.take_form_tokens(&token);
        if !is_ours {
            return Err(Box::new(page_request.signed_out_page(403, &page_request.out_of_date())));
        }
        sent = name;
    }
    let page_context = PageContext {
        locale: page_request.locale,
        now: dashboard.api.now_millis(),
        owner,
        params: page_request.params.clone(),
        query: page_request.query.iter().filter(|(name, _)| name != "lang").cloned().collect(),
        form: std::mem::take(&mut page_request.form),
        dashboard: dashboard.clone(),
        caller,
        request_context: page_request.request_context.clone(),
        session: page_request.session.clone(),
        prefix,
        account,
        csrf: csrf(&token),
        once: dashboard.api.draw(),
        sent,
    };
    Ok((page_context, portal))
}

/// What the layout shows besides the page.
struct Navigation {
    nav: Vec<(&'static str, String, String)>,
    account_name: String,
    who: String,
    brand: String,
    theme: Option<String>,
    operator: bool,
}

impl Navigation {
    async fn of(cx: &PageContext, portal: Option<&Portal>) -> Result<Self, Failure> {
        let account_name = match cx.owner {
            PageOwner::Account => name_of_account(cx).await?,
            PageOwner::Portal => String::new(),
            PageOwner::Operator => cx.say("All accounts"),
        };
        Ok(Self {
            nav: entries(cx),
            account_name,
            who: cx.session().map(|session| session.email().to_owned()).unwrap_or_default(),
            brand: portal.and_then(Portal::brand).unwrap_or("Aldaba").to_owned(),
            theme: portal.and_then(Portal::theme).map(|_| cx.link("/theme.css")),
            operator: cx.session().is_some_and(|session| session.account().is_none()),
        })
    }

    fn framed(
        &self,
        page_request: &PageRequest,
        cx: &PageContext,
        title: &str,
        section: &'static str,
        content: &Markup,
    ) -> Markup {
        let layout = Layout {
            cx: Some(cx),
            locale: page_request.locale,
            title,
            section,
            nav: &self.nav,
            account_name: &self.account_name,
            who: &self.who,
            brand: &self.brand,
            theme: self.theme.as_deref(),
            path: &page_request.address,
            embedded: page_request.is_framed(),
            operator: self.operator,
            csrf: cx.form_start(),
            stamp: &STAMP,
        };
        layout::page(&layout, content)
    }
}

/// The account's name. It fails where an operator asks for an account that does not exist.
async fn name_of_account(cx: &PageContext) -> Result<String, Failure> {
    let account: AccountResource = cx.get(&format!("/v1/accounts/{}", cx.account()), &[]).await?;
    Ok(account.attributes.name)
}

/// The pages that whoever is signed in may open.
fn entries(cx: &PageContext) -> Vec<(&'static str, String, String)> {
    let of_account = [
        ("overview", cx.say("Overview"), "", "webhooks:read"),
        ("endpoints", cx.say("Endpoints"), "/endpoints", "webhooks:read"),
        ("deliveries", cx.say("Deliveries"), "/deliveries", "webhooks:read"),
        ("events", cx.say("Events"), "/events", "events:read"),
        ("event-types", cx.say("Event types"), "/event-types", "event_types:read"),
        ("api-keys", cx.say("API keys"), "/api-keys", "api_keys:read"),
        ("users", cx.say("Users"), "/users", "users:read"),
        ("portal-links", cx.say("Portal links"), "/portal-links", "portal_links:read"),
        ("audit-log", cx.say("Audit log"), "/audit-log", "audit:read"),
    ];
    let of_operator = [
        ("accounts", cx.say("Accounts"), "", "accounts:read"),
        ("event-types", cx.say("Event types"), "/event-types", "event_types:read"),
        ("audit-log", cx.say("Audit log"), "/audit-log", "audit:read"),
    ];
    let pages = if cx.owner == PageOwner::Operator { of_operator.to_vec() } else { of_account.to_vec() };
    let allowed = pages.into_iter().filter(|(_, _, _, permission)| cx.may(permission));
    let mut entries: Vec<_> = allowed.map(|(section, name, path, _)| (section, name, cx.link(path))).collect();
    let is_operator = cx.session().is_some_and(|session| session.account().is_none());
    if cx.owner == PageOwner::Account && is_operator {
        entries.push(("accounts", cx.say("All accounts"), "/operator".to_owned()));
    }
    entries
}

/// Why a page is not shown, and what to do.
fn failure_page(locale: Locale, failure: &Failure, operator: bool, home: &str) -> (String, Markup) {
    let say = |text: &str| locale.say(text);
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
pub(super) async fn nothing(_: PageContext) -> Result<Page, Failure> {
    Err(missing())
}

/// `/`: redirects people to their first page, and answers programs with plain text.
pub(super) async fn home(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let accepts = request.headers().get("accept").and_then(|value| value.to_str().ok()).unwrap_or("");
    if !accepts.contains("text/html") {
        return api::root().await;
    }
    let page_request = match PageRequest::read(&dashboard, request).await {
        Ok(page_request) => page_request,
        Err(refused) => return *refused,
    };
    if let Some(session) = &page_request.session {
        return page_request.redirect(&home_of(session));
    }
    page_request.redirect("/sign-in")
}

/// The same page without a slash at its end.
pub(super) async fn without_slash(uri: Uri) -> Redirect {
    Redirect::permanent(uri.path().trim_end_matches('/'))
}

/// The first page after a sign-in.
pub(super) fn home_of(session: &Session) -> String {
    session.account().map_or_else(|| "/operator".to_owned(), |account| format!("/accounts/{account}"))
}

/// The colour of a portal.
pub(super) async fn theme(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let info = request.extensions().get::<RequestInfo>().cloned().expect("every request has an id");
    let (mut parts, _) = request.into_parts();
    let params = path_params(&mut parts).await.unwrap_or_default();
    let token = params.iter().find(|(name, _)| name == "token").map_or("", |(_, value)| value);
    let request_context =
        dashboard.api.request_context(&info, &parts.headers, parts.extensions.get::<api::Peer>().copied());
    let portal = dashboard.api.portal(&request_context, token).await;
    let Some(theme) = portal.ok().flatten().as_ref().and_then(Portal::theme) else {
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
    let mut page_request = match PageRequest::read(dashboard, request).await {
        Ok(page_request) => page_request,
        Err(refused) => return *refused,
    };
    match page_context(dashboard, &mut page_request).await {
        Ok((page_context, _))
            if page_context.owner == PageOwner::Account && name_of_account(&page_context).await.is_err() =>
        {
            page_request.not_found()
        }
        Ok((page_context, _)) => page_context.file(path).await,
        Err(refused) => *refused,
    }
}

/// Redirects to the sign-in page, and from there back to this page.
fn to_sign_in(page_request: &PageRequest) -> Response<Body> {
    if page_request.method != Method::GET {
        return page_request.redirect("/sign-in");
    }
    let next = url::form_urlencoded::Serializer::new(String::new()).append_pair("next", &page_request.address).finish();
    page_request.redirect(&format!("/sign-in?{next}"))
}
