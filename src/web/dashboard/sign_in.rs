//! The pages before the sign-in: signing in, and accepting an invitation.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use maud::{Markup, html};

use super::page_request::{PageRequest, next_of};
use super::parts::{self, Input, Kind};
use super::serve::home_of;
use super::state::Dashboard;
use crate::api::{Invited, Offer, Opened, SignInForm, SignInRefused, SignedIn};

/// `GET /sign-in`
pub(super) async fn ask(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let page_request = match PageRequest::read(&dashboard, request).await {
        Ok(page_request) => page_request,
        Err(refused) => return *refused,
    };
    if let Some(session) = &page_request.session {
        return page_request.redirect(&home_of(session));
    }
    page_request.signed_out_page(200, &form(&dashboard, &page_request, "", None))
}

/// `GET /sign-in/{token}`: the link that `aldaba dev` prints.
pub(super) async fn by_link(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let page_request = match PageRequest::read(&dashboard, request).await {
        Ok(page_request) => page_request,
        Err(refused) => return *refused,
    };
    match dashboard.api.sign_in_by_link(&page_request.request_context, page_request.param("token").unwrap_or("")).await
    {
        Ok(Some(token)) => page_request.start_session(&dashboard, &token, "/"),
        Ok(None) => {
            let say = |text: &str| page_request.locale.say(text);
            let content = html! {
                h1 { (say("This sign-in link cannot be used")) }
                p { (say("A sign-in link holds until the server that printed it stops. Open its newest one.")) }
                p { a href="/sign-in" { (say("Sign in")) } }
            };
            page_request.signed_out_page(404, &content)
        }
        Err(error) => page_request.refusal(&error),
    }
}

/// `POST /sign-in`
pub(super) async fn sign_in(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let mut page_request = match PageRequest::read(&dashboard, request).await {
        Ok(page_request) => page_request,
        Err(refused) => return *refused,
    };
    if let Err(refused) = page_request.read_form().await {
        return *refused;
    }
    let email = page_request.field("email").to_owned();
    let (password, code) = (page_request.field("password"), page_request.field("code"));
    let typed = SignInForm { email: &email, password, code, device: &page_request.device };
    match dashboard.api.sign_in(&page_request.request_context, typed).await {
        Ok(SignedIn::Opened(opened)) => enter(&dashboard, &page_request, &opened).await,
        Ok(SignedIn::Choice(offers)) => page_request.signed_out_page(200, &choice(&page_request, &offers)),
        Err(SignInRefused::Refused(error)) if !page_request.is_browser() => page_request.refusal(&error),
        Err(SignInRefused::Refused(error)) => {
            let told = error.detail(page_request.locale.0);
            let mut response =
                page_request.signed_out_page(error.status(), &form(&dashboard, &page_request, &email, Some(&told)));
            error.add_headers(response.headers_mut());
            response
        }
        Err(SignInRefused::Wrong | SignInRefused::Password(..)) => {
            let told = page_request.locale.say("The e-mail address, the password or the code is wrong.");
            page_request.signed_out_page(401, &form(&dashboard, &page_request, &email, Some(&told)))
        }
    }
}

/// Goes on with the session that was opened.
async fn enter(dashboard: &Dashboard, page_request: &PageRequest, opened: &Opened) -> Response<Body> {
    // Who signs in anew has done with the session before.
    if let Some(before) = &page_request.session
        && let Err(error) = dashboard.api.sign_out(before).await
    {
        return page_request.refusal(&error);
    }
    let next = next_of(page_request.field("next")).unwrap_or("/");
    page_request.start_session_on_device(dashboard, opened, first_page(opened, next))
}

/// The choice among several accounts that the password is right for.
fn choice(page_request: &PageRequest, offers: &[Offer]) -> Markup {
    let say = |text: &str| page_request.locale.say(text);
    let next = next_of(page_request.field("next")).unwrap_or("");
    html! {
        h1 { (say("Choose an account")) }
        p { (say(
            "Your address and password open each of these. Choose within five minutes; to use another one later, sign \
             in again.",
        )) }
        form method="post" action="/sign-in/choose" data-submit-once {
            input type="hidden" name="next" value=(next);
            @for offer in offers { input type="hidden" name="offer" value=(offer.token); }
            ul.choices { @for offer in offers { li {
                button.button type="submit" name="token" value=(offer.token) {
                    @match &offer.account {
                        Some((name, _)) => (name),
                        None => (say("All accounts")),
                    }
                }
                " " small { (role_name(&say, offer.role)) }
                @if let Some((_, id)) = &offer.account { " " small.mono { (id) } }
            } } }
        }
        p { a href="/sign-in" { (say("Sign in with another password")) } }
    }
}

fn role_name(say: &impl Fn(&str) -> String, role: &str) -> String {
    match role {
        "owner" => say("Owner"),
        "developer" => say("Developer"),
        "viewer" => say("Viewer"),
        _ => say("Operator"),
    }
}

/// `POST /sign-in/choose`
pub(super) async fn choose(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let mut page_request = match PageRequest::read(&dashboard, request).await {
        Ok(page_request) => page_request,
        Err(refused) => return *refused,
    };
    if let Err(refused) = page_request.read_form().await {
        return *refused;
    }
    let offers: Vec<&str> =
        page_request.form.iter().filter(|(name, _)| name == "offer").map(|(_, token)| token.as_str()).collect();
    match dashboard
        .api
        .choose(&page_request.request_context, page_request.field("token"), &offers, &page_request.device)
        .await
    {
        Ok(opened) => {
            let home = match dashboard.api.session(&page_request.request_context, &opened.token, false).await {
                Ok(session) => session.as_ref().map(home_of).unwrap_or_default(),
                Err(error) => return page_request.refusal(&error),
            };
            // Where they wanted to go may be in another of their accounts.
            page_request.form.retain(|(name, next)| name != "next" || is_within(next, &home));
            enter(&dashboard, &page_request, &opened).await
        }
        Err(SignInRefused::Refused(error)) => page_request.refusal(&error),
        Err(SignInRefused::Wrong | SignInRefused::Password(..)) => {
            let told = page_request.locale.say("The five minutes for the choice are over. Sign in again.");
            page_request.signed_out_page(401, &form(&dashboard, &page_request, "", Some(&told)))
        }
    }
}

/// Whether a page belongs to this account, or to none.
fn is_within(page: &str, home: &str) -> bool {
    !["/accounts/", "/operator"].iter().any(|start| page.starts_with(start)) || page.starts_with(home)
}

/// The page after a sign-in: a notice that the user must read comes first.
fn first_page<'a>(opened: &Opened, next: &'a str) -> &'a str {
    if opened.has_news { "/me" } else { next }
}

fn form(dashboard: &Dashboard, page_request: &PageRequest, email: &str, told: Option<&str>) -> Markup {
    let say = |text: &str| page_request.locale.say(text);
    let asked = page_request.query.iter().rev().find(|(name, _)| name == "next").map_or("", |(_, next)| next);
    let next = next_of(if asked.is_empty() { page_request.field("next") } else { asked }).unwrap_or("");
    html! {
        h1 { (say("Sign in")) }
        @if let Some(told) = told { (parts::notice(Kind::Bad, html! { (told) })) }
        form method="post" action="/sign-in" data-submit-once {
            input type="hidden" name="next" value=(next);
            (parts::input(&Input { name: "email", label: &say("E-mail address"), value: email, kind: "email",
                required: true, autocomplete: "username", ..Input::default() }))
            (parts::input(&Input { name: "password", label: &say("Password"), kind: "password", required: true,
                autocomplete: "current-password", ..Input::default() }))
            (parts::input(&Input { name: "code", label: &say("Code of your authenticator app"),
                hint: &say("Only if you have set one up."), autocomplete: "one-time-code", ..Input::default() }))
            (parts::submit(&say("Sign in"), "primary"))
        }
        p.quiet { (say("Forgotten your password? An owner of your account can make you a new invitation link.")) }
        @if dashboard.api.has_sign_in_link() {
            p { (say("This server runs for trying it: the sign-in link that it has printed needs no password.")) }
        }
    }
}

/// `GET /join/{invitation}`
pub(super) async fn invited(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let page_request = match PageRequest::read(&dashboard, request).await {
        Ok(page_request) => page_request,
        Err(refused) => return *refused,
    };
    joining(&dashboard, &page_request, None).await
}

/// `POST /join/{invitation}`
pub(super) async fn join(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let mut page_request = match PageRequest::read(&dashboard, request).await {
        Ok(page_request) => page_request,
        Err(refused) => return *refused,
    };
    if let Err(refused) = page_request.read_form().await {
        return *refused;
    }
    let say = |text: &str| page_request.locale.say(text);
    if page_request.field("password") != page_request.field("again") {
        let told = say("The two passwords differ.");
        return joining(&dashboard, &page_request, Some(&told)).await;
    }
    let (password, code) = (page_request.field("password"), page_request.field("code"));
    match dashboard
        .api
        .join(&page_request.request_context, invitation(&page_request), password, (code, &page_request.device))
        .await
    {
        Ok(opened) => page_request.start_session_on_device(&dashboard, &opened, first_page(&opened, "/")),
        Err(SignInRefused::Password(least, most)) => {
            let told = password_rule(&page_request, least, most);
            joining(&dashboard, &page_request, Some(&told)).await
        }
        Err(SignInRefused::Wrong) => {
            let told = say("The code of your authenticator app is wrong. Nothing was changed.");
            joining(&dashboard, &page_request, Some(&told)).await
        }
        Err(SignInRefused::Refused(error)) => page_request.refusal(&error),
    }
}

fn password_rule(page_request: &PageRequest, least: usize, most: usize) -> String {
    let text = page_request.locale.say("A password has {least} to {most} characters.");
    text.replace("{least}", &least.to_string()).replace("{most}", &most.to_string())
}

fn invitation(page_request: &PageRequest) -> &str {
    page_request.params.iter().find(|(name, _)| name == "invitation").map_or("", |(_, value)| value)
}

async fn joining(dashboard: &Dashboard, page_request: &PageRequest, told: Option<&str>) -> Response<Body> {
    let say = |text: &str| page_request.locale.say(text);
    let invited = dashboard.api.invited(&page_request.request_context, invitation(page_request)).await;
    let Invited { email, two_factor } = match invited {
        Ok(Some(invited)) => invited,
        Ok(None) => {
            let content = html! {
                h1 { (say("This invitation cannot be used")) }
                p { (say("It was used already, a newer one was made, or its seven days are over. Ask for a new one.")) }
                p { a href="/sign-in" { (say("Sign in")) } }
            };
            return page_request.signed_out_page(404, &content);
        }
        Err(error) => return page_request.refusal(&error),
    };
    let content = html! {
        h1 { (say("Choose your password")) }
        @if let Some(told) = told { (parts::notice(Kind::Bad, html! { (told) })) }
        form method="post" action=(page_request.address) data-submit-once {
            p { strong { (email) } }
            input type="hidden" name="email" value=(email) autocomplete="username";
            (parts::input(&Input { name: "password", label: &say("New password"), kind: "password", required: true,
                hint: &say("At least 10 characters. A few words in a row are easy to remember and hard to guess."),
                autocomplete: "new-password", ..Input::default() }))
            (parts::input(&Input { name: "again", label: &say("The same again"), kind: "password", required: true,
                autocomplete: "new-password", ..Input::default() }))
            @if two_factor {
                (parts::input(&Input { name: "code", label: &say("Code of your authenticator app"), required: true,
                    hint: &say(
                        "The link replaces your password alone. If the app is lost, an owner of your account can turn \
                         it off.",
                    ),
                    autocomplete: "one-time-code", ..Input::default() }))
            }
            (parts::submit(&say("Set the password and sign in"), "primary"))
        }
    };
    page_request.signed_out_page(if told.is_some() { 422 } else { 200 }, &content)
}
