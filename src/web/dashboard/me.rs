//! The user's own sign-in: password, second factor, sessions.

use maud::{Markup, PreEscaped, html};
use qrcode::QrCode;
use qrcode::render::svg;

use super::page_context::{Failure, Page, PageContext};
use super::parts::{self, Input, Kind};
use crate::api::{Confirmation, Session, SignInRefused};

/// `GET /me`
pub(super) async fn show(cx: PageContext) -> Result<Page, Failure> {
    let done = match cx.asked("done") {
        "password" => Some(cx.say("Your password is changed. Everywhere else you are signed out.")),
        "two-factor" => {
            Some(cx.say("Signing in takes a code of your app from now on. Everywhere else you are signed out."))
        }
        "two-factor-off" => Some(cx.say("Signing in takes your password alone. Everywhere else you are signed out.")),
        _ => None,
    };
    let content = page(&cx, None, done.as_deref())?;
    Ok(Page::new(cx.say("Your account"), "me", content))
}

fn session(cx: &PageContext) -> Result<Session, Failure> {
    cx.session().cloned().ok_or_else(|| Failure { status: 404, ..Failure::default() })
}

fn page(cx: &PageContext, told: Option<&str>, done: Option<&str>) -> Result<Markup, Failure> {
    let session = session(cx)?;
    Ok(html! {
        (parts::head(&cx.say("Your account"), Some(session.email()), html! {}))
        @if let Some(told) = told { (parts::notice(Kind::Bad, html! { (told) })) }
        @if let Some(done) = done { (parts::notice(Kind::Good, html! { (done) })) }
        (news(cx, &session))
        section.panel aria-labelledby="password" {
            h2 #password { (cx.say("Password")) }
            form method="post" action="/me/password" data-submit-once {
                (cx.form_start())
                input type="hidden" name="email" value=(session.email()) autocomplete="username";
                (current(cx, "current"))
                @if session.two_factor() { (code(cx, "current-code")) }
                (parts::input(&Input {
                    name: "password",
                    label: &cx.say("New password"),
                    kind: "password",
                    required: true,
                    hint: &cx.say("At least 10 characters. Every other session ends."),
                    autocomplete: "new-password",
                    ..Input::default()
                }))
                (parts::submit(&cx.say("Change the password"), ""))
            }
        }
        section.panel aria-labelledby="two-factor" {
            h2 #two-factor { (cx.say("Second factor")) }
            @if session.two_factor() {
                p { (cx.say("Signing in takes a code of your authenticator app besides the password.")) }
                form method="post" action="/me/two-factor/off" data-submit-once {
                    (cx.form_start())
                    (current(cx, "factor-current"))
                    (code(cx, "factor-code"))
                    (parts::submit(&cx.say("Turn it off"), "danger"))
                }
            } @else {
                p { (cx.say(
                    "With a second factor a stolen password alone lets nobody in: signing in also takes a code that \
                     an app on your phone shows.",
                )) }
                p { (parts::button("/me/two-factor", &cx.say("Set up a second factor"), "")) }
            }
        }
        section.panel aria-labelledby="sessions" {
            h2 #sessions { (cx.say("Sessions")) }
            p { (cx.say("Signs you out on every device and in every browser, this one too.")) }
            (parts::post(cx, "/me/sessions", &cx.say("Sign out everywhere"), ""))
        }
    })
}

/// What others did to how the user signs in.
fn news(cx: &PageContext, session: &Session) -> Markup {
    html! {
        @if let Some(at) = session.factor_reset_at() {
            (parts::notice(Kind::Warn, html! {
                p { (cx.say("Somebody else turned off your second factor:")) " " (parts::time(cx, &at)) }
                p { (cx.say(
                    "If you did not ask for it, change your password and set up a second factor now. The audit log of \
                     your account says who it was.",
                )) }
                (parts::post(cx, "/me/told", &cx.say("I have read this"), ""))
            }))
        }
        @if let Some((_, at)) = session.invited_until().filter(|(until, _)| *until > cx.now) {
            (parts::notice(Kind::Warn, html! {
                p { (cx.say("A link that sets a new password for you was made. It ends:")) " " (parts::until(cx, &at)) }
                p { (cx.say("If you did not ask for it, sign out everywhere: the link is dead then.")) }
            }))
        }
    }
}

/// The code of the user's second factor, which they give again.
pub(super) fn code(cx: &PageContext, name: &str) -> Markup {
    parts::input(&Input {
        name,
        label: &cx.say("Code of your authenticator app"),
        hint: &cx.say("Each code serves once: wait for the next one if you have just used it."),
        autocomplete: "one-time-code",
        ..Input::default()
    })
}

/// The user's password, which they give again.
pub(super) fn current(cx: &PageContext, name: &str) -> Markup {
    parts::input(&Input {
        name,
        label: &cx.say("Current password"),
        kind: "password",
        autocomplete: "current-password",
        ..Input::default()
    })
}

/// `POST /me/password`
pub(super) async fn change_password(cx: PageContext) -> Result<Page, Failure> {
    let given = Confirmation { password: cx.field("current"), code: cx.field("current-code") };
    let changed =
        cx.dashboard.api.change_password(&cx.request_context, &session(&cx)?, given, cx.field("password")).await;
    finish(&cx, changed, "password")
}

/// `POST /me/two-factor/off`
pub(super) async fn disable(cx: PageContext) -> Result<Page, Failure> {
    let given = Confirmation { password: cx.field("factor-current"), code: cx.field("factor-code") };
    let changed = cx.dashboard.api.disable_two_factor(&cx.request_context, &session(&cx)?, given).await;
    finish(&cx, changed, "two-factor-off")
}

/// `POST /me/told`
pub(super) async fn note_told(cx: PageContext) -> Result<Page, Failure> {
    let noted = cx.dashboard.api.note_told(&cx.request_context, &session(&cx)?).await;
    finish(&cx, noted, "")
}

fn finish(cx: &PageContext, changed: Result<(), SignInRefused>, done: &str) -> Result<Page, Failure> {
    match changed {
        Ok(()) => Ok(Page::Redirect(format!("/me?done={done}"))),
        Err(refused) => {
            let (status, told) = told(cx, refused);
            Ok(Page::new(cx.say("Your account"), "me", page(cx, Some(&told), None)?).with_status(status))
        }
    }
}

/// Why it was refused, with the status of the page that says so.
pub(super) fn told(cx: &PageContext, refused: SignInRefused) -> (u16, String) {
    match refused {
        SignInRefused::Wrong => (422, cx.say("The password or the code is wrong. Nothing was changed.")),
        SignInRefused::Password(least, most) => {
            (422, cx.fill("A password has {least} to {most} characters.", &[("least", &least), ("most", &most)]))
        }
        SignInRefused::Refused(error) => (error.status(), error.detail(cx.locale.0)),
    }
}

/// `GET /me/two-factor`
pub(super) async fn enrol(cx: PageContext) -> Result<Page, Failure> {
    let content = enrolment(&cx, None, None)?;
    Ok(Page::new(cx.say("Set up a second factor"), "me", content))
}

/// `POST /me/two-factor`
pub(super) async fn enable(cx: PageContext) -> Result<Page, Failure> {
    let secret = cx.field("secret").to_owned();
    let api = &cx.dashboard.api;
    let enabled = api
        .enable_two_factor(&cx.request_context, &session(&cx)?, cx.field("current"), &secret, cx.field("code"))
        .await;
    match enabled {
        Ok(()) => Ok(Page::Redirect("/me?done=two-factor".to_owned())),
        Err(refused) => {
            let (status, told) = told(&cx, refused);
            let content = enrolment(&cx, Some(&secret), Some(&told))?;
            Ok(Page::new(cx.say("Set up a second factor"), "me", content).with_status(status))
        }
    }
}

fn enrolment(cx: &PageContext, secret: Option<&str>, told: Option<&str>) -> Result<Markup, Failure> {
    let api = &cx.dashboard.api;
    let enrolment = api.enrol(&session(cx)?, secret).ok_or(Failure { status: 404, ..Failure::default() })?;
    Ok(html! {
        (parts::crumbs(cx, &[(&cx.say("Your account"), "/me")]))
        (parts::head(&cx.say("Set up a second factor"), None, html! {}))
        @if let Some(told) = told { (parts::notice(Kind::Bad, html! { (told) })) }
        ol.steps {
            li {
                p { (cx.say("Scan this with an authenticator app, or type the key into it.")) }
                @if let Some(drawing) = drawing(&enrolment.uri) {
                    div.qr role="img" aria-label=(cx.say("The key as a QR code; the same key stands below as text.")) {
                        (drawing)
                    }
                }
                (parts::copyable(cx, &enrolment.typed))
            }
            li {
                p { (cx.say("Type the code that the app shows now, and your password.")) }
                form.form method="post" action="/me/two-factor" data-submit-once {
                    (cx.form_start())
                    input type="hidden" name="secret" value=(enrolment.secret);
                    (parts::input(&Input { name: "code", label: &cx.say("Code"), required: true,
                        autocomplete: "one-time-code", ..Input::default() }))
                    (current(cx, "current"))
                    (parts::submit(&cx.say("Turn it on"), "primary"))
                }
            }
        }
        p.quiet { (cx.say(
            "If you lose the app, another owner of your account can turn the second factor off, and so can whoever \
             runs this server.",
        )) }
    })
}

/// The key's address as a drawing: of squares only, without a style.
fn drawing(uri: &str) -> Option<Markup> {
    let code = QrCode::new(uri.as_bytes()).ok()?;
    let drawn = code.render::<svg::Color<'_>>().min_dimensions(200, 200).dark_color(svg::Color("#000")).build();
    // What stands before the element itself belongs to a file.
    let start = drawn.find("<svg")?;
    Some(PreEscaped(drawn[start..].to_owned()))
}

/// `POST /me/sessions`
pub(super) async fn sign_out_everywhere(cx: PageContext) -> Result<Page, Failure> {
    let ended = cx.dashboard.api.sign_out_everywhere(&cx.request_context, &session(&cx)?).await;
    ended.map_err(|error| Failure { status: error.status(), ..Failure::default() })?;
    Ok(Page::SignedOut)
}

/// `POST /sign-out`
pub(super) async fn sign_out(cx: PageContext) -> Result<Page, Failure> {
    let ended = cx.dashboard.api.sign_out(&session(&cx)?).await;
    ended.map_err(|error| Failure { status: error.status(), ..Failure::default() })?;
    Ok(Page::SignedOut)
}
