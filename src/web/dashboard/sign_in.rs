//! The pages of those who are not signed in yet: signing in, and taking an invitation.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Response;
use maud::{Markup, html};

use super::Dashboard;
use super::arrival::{Arrival, next_of};
use super::entrance::home_of;
use super::parts::{self, Input, Kind};
use crate::api::{Invited, Offer, Opened, SignInRefused, SignedIn, Typed};

/// `GET /sign-in`
pub(super) async fn ask(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let arrival = match Arrival::read(&dashboard, request).await {
        Ok(arrival) => arrival,
        Err(refused) => return *refused,
    };
    if let Some(visitor) = &arrival.visitor {
        return arrival.redirect(&home_of(visitor));
    }
    arrival.alone(200, &form(&dashboard, &arrival, "", None))
}

/// `GET /sign-in/{token}`: the link that `aldaba dev` prints.
pub(super) async fn by_link(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let arrival = match Arrival::read(&dashboard, request).await {
        Ok(arrival) => arrival,
        Err(refused) => return *refused,
    };
    match dashboard.api.welcome(&arrival.door, arrival.param("token").unwrap_or("")).await {
        Ok(Some(token)) => arrival.welcome(&dashboard, &token, "/"),
        Ok(None) => {
            let say = |text: &str| arrival.tongue.say(text);
            let content = html! {
                h1 { (say("This sign-in link cannot be used")) }
                p { (say("A sign-in link holds until the server that printed it stops. Open its newest one.")) }
                p { a href="/sign-in" { (say("Sign in")) } }
            };
            arrival.alone(404, &content)
        }
        Err(error) => arrival.refusal(&error),
    }
}

/// `POST /sign-in`
pub(super) async fn sign_in(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let mut arrival = match Arrival::read(&dashboard, request).await {
        Ok(arrival) => arrival,
        Err(refused) => return *refused,
    };
    if let Err(refused) = arrival.read_form().await {
        return *refused;
    }
    let email = arrival.field("email").to_owned();
    let (password, code) = (arrival.field("password"), arrival.field("code"));
    let typed = Typed { email: &email, password, code, device: &arrival.device };
    match dashboard.api.sign_in(&arrival.door, typed).await {
        Ok(SignedIn::Opened(opened)) => enter(&dashboard, &arrival, &opened).await,
        Ok(SignedIn::Choice(offers)) => arrival.alone(200, &choice(&arrival, &offers)),
        Err(SignInRefused::Refused(error)) if !arrival.is_browser() => arrival.refusal(&error),
        Err(SignInRefused::Refused(error)) => {
            let told = error.detail(arrival.tongue.0);
            let mut response = arrival.alone(error.status(), &form(&dashboard, &arrival, &email, Some(&told)));
            error.add_headers(response.headers_mut());
            response
        }
        Err(SignInRefused::Wrong | SignInRefused::Password(..)) => {
            let told = arrival.tongue.say("The e-mail address, the password or the code is wrong.");
            arrival.alone(401, &form(&dashboard, &arrival, &email, Some(&told)))
        }
    }
}

/// Goes on with the session that was opened.
async fn enter(dashboard: &Dashboard, arrival: &Arrival, opened: &Opened) -> Response<Body> {
    // Who signs in anew has done with the session before.
    if let Some(before) = &arrival.visitor
        && let Err(error) = dashboard.api.sign_out(before).await
    {
        return arrival.refusal(&error);
    }
    let next = next_of(arrival.field("next")).unwrap_or("/");
    arrival.welcome_with_device(dashboard, opened, first_page(opened, next))
}

/// Which of several accounts somebody opens whose password opens them all.
fn choice(arrival: &Arrival, offers: &[Offer]) -> Markup {
    let say = |text: &str| arrival.tongue.say(text);
    let next = next_of(arrival.field("next")).unwrap_or("");
    html! {
        h1 { (say("Choose an account")) }
        p { (say("Your address and password open each of these. Choose within five minutes; to use another one later, sign in again.")) }
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
    let mut arrival = match Arrival::read(&dashboard, request).await {
        Ok(arrival) => arrival,
        Err(refused) => return *refused,
    };
    if let Err(refused) = arrival.read_form().await {
        return *refused;
    }
    let offers: Vec<&str> =
        arrival.form.iter().filter(|(name, _)| name == "offer").map(|(_, token)| token.as_str()).collect();
    match dashboard.api.choose(&arrival.door, arrival.field("token"), &offers, &arrival.device).await {
        Ok(opened) => {
            let home = match dashboard.api.visitor(&opened.token, false).await {
                Ok(visitor) => visitor.as_ref().map(home_of).unwrap_or_default(),
                Err(error) => return arrival.refusal(&error),
            };
            // Where they wanted to go may be in another of their accounts.
            arrival.form.retain(|(name, next)| name != "next" || is_within(next, &home));
            enter(&dashboard, &arrival, &opened).await
        }
        Err(SignInRefused::Refused(error)) => arrival.refusal(&error),
        Err(SignInRefused::Wrong | SignInRefused::Password(..)) => {
            let told = arrival.tongue.say("The five minutes for the choice are over. Sign in again.");
            arrival.alone(401, &form(&dashboard, &arrival, "", Some(&told)))
        }
    }
}

/// Whether a page is one of an account's, or of nobody's in particular.
fn is_within(page: &str, home: &str) -> bool {
    !["/accounts/", "/operator"].iter().any(|start| page.starts_with(start)) || page.starts_with(home)
}

/// Where somebody goes who has signed in: what they have to be told comes first.
fn first_page<'a>(opened: &Opened, next: &'a str) -> &'a str {
    if opened.has_news { "/me" } else { next }
}

fn form(dashboard: &Dashboard, arrival: &Arrival, email: &str, told: Option<&str>) -> Markup {
    let say = |text: &str| arrival.tongue.say(text);
    let asked = arrival.query.iter().rev().find(|(name, _)| name == "next").map_or("", |(_, next)| next);
    let next = next_of(if asked.is_empty() { arrival.field("next") } else { asked }).unwrap_or("");
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
        @if dashboard.api.welcomes() {
            p { (say("This server runs for trying it: the sign-in link that it has printed needs no password.")) }
        }
    }
}

/// `GET /join/{invitation}`
pub(super) async fn invited(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let arrival = match Arrival::read(&dashboard, request).await {
        Ok(arrival) => arrival,
        Err(refused) => return *refused,
    };
    joining(&dashboard, &arrival, None).await
}

/// `POST /join/{invitation}`
pub(super) async fn join(State(dashboard): State<Dashboard>, request: Request) -> Response<Body> {
    let mut arrival = match Arrival::read(&dashboard, request).await {
        Ok(arrival) => arrival,
        Err(refused) => return *refused,
    };
    if let Err(refused) = arrival.read_form().await {
        return *refused;
    }
    let say = |text: &str| arrival.tongue.say(text);
    if arrival.field("password") != arrival.field("again") {
        let told = say("The two passwords differ.");
        return joining(&dashboard, &arrival, Some(&told)).await;
    }
    let (password, code) = (arrival.field("password"), arrival.field("code"));
    match dashboard.api.join(&arrival.door, invitation(&arrival), password, (code, &arrival.device)).await {
        Ok(opened) => arrival.welcome_with_device(&dashboard, &opened, first_page(&opened, "/")),
        Err(SignInRefused::Password(least, most)) => {
            let told = password_rule(&arrival, least, most);
            joining(&dashboard, &arrival, Some(&told)).await
        }
        Err(SignInRefused::Wrong) => {
            let told = say("The code of your authenticator app is wrong. Nothing was changed.");
            joining(&dashboard, &arrival, Some(&told)).await
        }
        Err(SignInRefused::Refused(error)) => arrival.refusal(&error),
    }
}

fn password_rule(arrival: &Arrival, least: usize, most: usize) -> String {
    let text = arrival.tongue.say("A password has {least} to {most} characters.");
    text.replace("{least}", &least.to_string()).replace("{most}", &most.to_string())
}

fn invitation(arrival: &Arrival) -> &str {
    arrival.params.iter().find(|(name, _)| name == "invitation").map_or("", |(_, value)| value)
}

async fn joining(dashboard: &Dashboard, arrival: &Arrival, told: Option<&str>) -> Response<Body> {
    let say = |text: &str| arrival.tongue.say(text);
    let Invited { email, two_factor } = match dashboard.api.invited(invitation(arrival)).await {
        Ok(Some(invited)) => invited,
        Ok(None) => {
            let content = html! {
                h1 { (say("This invitation cannot be used")) }
                p { (say("It was used already, a newer one was made, or its seven days are over. Ask for a new one.")) }
                p { a href="/sign-in" { (say("Sign in")) } }
            };
            return arrival.alone(404, &content);
        }
        Err(error) => return arrival.refusal(&error),
    };
    let content = html! {
        h1 { (say("Choose your password")) }
        @if let Some(told) = told { (parts::notice(Kind::Bad, html! { (told) })) }
        form method="post" action=(arrival.address) data-submit-once {
            p { strong { (email) } }
            input type="hidden" name="email" value=(email) autocomplete="username";
            (parts::input(&Input { name: "password", label: &say("New password"), kind: "password", required: true,
                hint: &say("At least 10 characters. A few words in a row are easy to remember and hard to guess."),
                autocomplete: "new-password", ..Input::default() }))
            (parts::input(&Input { name: "again", label: &say("The same again"), kind: "password", required: true,
                autocomplete: "new-password", ..Input::default() }))
            @if two_factor {
                (parts::input(&Input { name: "code", label: &say("Code of your authenticator app"), required: true,
                    hint: &say("The link replaces your password alone. If the app is lost, an owner of your account can turn it off."),
                    autocomplete: "one-time-code", ..Input::default() }))
            }
            (parts::submit(&say("Set the password and sign in"), "primary"))
        }
    };
    arrival.alone(if told.is_some() { 422 } else { 200 }, &content)
}
