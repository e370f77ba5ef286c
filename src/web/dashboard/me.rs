//! The visitor's own account: password, second factor, sessions.

use maud::{Markup, PreEscaped, html};
use qrcode::QrCode;
use qrcode::render::svg;

use super::parts::{self, Input, Kind};
use super::visit::{Failure, Page, Visit};
use crate::api::{Confirmation, SignInRefused, Visitor};

/// `GET /me`
pub(super) async fn show(v: Visit) -> Result<Page, Failure> {
    let done = match v.asked("done") {
        "password" => Some(v.say("Your password is changed. Everywhere else you are signed out.")),
        "two-factor" => {
            Some(v.say("Signing in takes a code of your app from now on. Everywhere else you are signed out."))
        }
        "two-factor-off" => Some(v.say("Signing in takes your password alone. Everywhere else you are signed out.")),
        _ => None,
    };
    let content = page(&v, None, done.as_deref())?;
    Ok(Page::new(v.say("Your account"), "me", content))
}

fn visitor(v: &Visit) -> Result<Visitor, Failure> {
    v.visitor().cloned().ok_or_else(|| Failure { status: 404, ..Failure::default() })
}

fn page(v: &Visit, told: Option<&str>, done: Option<&str>) -> Result<Markup, Failure> {
    let visitor = visitor(v)?;
    Ok(html! {
        (parts::head(&v.say("Your account"), Some(visitor.email()), html! {}))
        @if let Some(told) = told { (parts::notice(Kind::Bad, html! { (told) })) }
        @if let Some(done) = done { (parts::notice(Kind::Good, html! { (done) })) }
        (news(v, &visitor))
        section.panel aria-labelledby="password" {
            h2 #password { (v.say("Password")) }
            form method="post" action="/me/password" data-submit-once {
                (v.form_start())
                input type="hidden" name="email" value=(visitor.email()) autocomplete="username";
                (current(v, "current"))
                @if visitor.two_factor() { (code(v, "current-code")) }
                (parts::input(&Input { name: "password", label: &v.say("New password"), kind: "password", required: true,
                    hint: &v.say("At least 10 characters. Every other session ends."), autocomplete: "new-password",
                    ..Input::default() }))
                (parts::submit(&v.say("Change the password"), ""))
            }
        }
        section.panel aria-labelledby="two-factor" {
            h2 #two-factor { (v.say("Second factor")) }
            @if visitor.two_factor() {
                p { (v.say("Signing in takes a code of your authenticator app besides the password.")) }
                form method="post" action="/me/two-factor/off" data-submit-once {
                    (v.form_start())
                    (current(v, "factor-current"))
                    (code(v, "factor-code"))
                    (parts::submit(&v.say("Turn it off"), "danger"))
                }
            } @else {
                p { (v.say("With a second factor a stolen password alone lets nobody in: signing in also takes a code that an app on your phone shows.")) }
                p { (parts::button("/me/two-factor", &v.say("Set up a second factor"), "")) }
            }
        }
        section.panel aria-labelledby="sessions" {
            h2 #sessions { (v.say("Sessions")) }
            p { (v.say("Signs you out on every device and in every browser, this one too.")) }
            (parts::post(v, "/me/sessions", &v.say("Sign out everywhere"), ""))
        }
    })
}

/// What others did to how the visitor signs in.
fn news(v: &Visit, visitor: &Visitor) -> Markup {
    html! {
        @if let Some(at) = visitor.factor_reset_at() {
            (parts::notice(Kind::Warn, html! {
                p { (v.say("Somebody else turned off your second factor:")) " " (parts::time(v, &at)) }
                p { (v.say("If you did not ask for it, change your password and set up a second factor now. The audit log of your account says who it was.")) }
                (parts::post(v, "/me/told", &v.say("I have read this"), ""))
            }))
        }
        @if let Some((_, at)) = visitor.invited_until().filter(|(until, _)| *until > v.now) {
            (parts::notice(Kind::Warn, html! {
                p { (v.say("A link that sets a new password for you was made. It ends:")) " " (parts::until(v, &at)) }
                p { (v.say("If you did not ask for it, sign out everywhere: the link is dead then.")) }
            }))
        }
    }
}

/// The code of the visitor's second factor, which they give again.
pub(super) fn code(v: &Visit, name: &str) -> Markup {
    parts::input(&Input {
        name,
        label: &v.say("Code of your authenticator app"),
        hint: &v.say("Each code serves once: wait for the next one if you have just used it."),
        autocomplete: "one-time-code",
        ..Input::default()
    })
}

/// The visitor's password, which they give again.
pub(super) fn current(v: &Visit, name: &str) -> Markup {
    parts::input(&Input {
        name,
        label: &v.say("Current password"),
        kind: "password",
        autocomplete: "current-password",
        ..Input::default()
    })
}

/// `POST /me/password`
pub(super) async fn change_password(v: Visit) -> Result<Page, Failure> {
    let given = Confirmation { password: v.field("current"), code: v.field("current-code") };
    let changed = v.dashboard.api.change_password(&v.door, &visitor(&v)?, given, v.field("password")).await;
    finish(&v, changed, "password")
}

/// `POST /me/two-factor/off`
pub(super) async fn disable(v: Visit) -> Result<Page, Failure> {
    let given = Confirmation { password: v.field("factor-current"), code: v.field("factor-code") };
    let changed = v.dashboard.api.disable_two_factor(&v.door, &visitor(&v)?, given).await;
    finish(&v, changed, "two-factor-off")
}

/// `POST /me/told`
pub(super) async fn note_told(v: Visit) -> Result<Page, Failure> {
    let noted = v.dashboard.api.note_told(&v.door, &visitor(&v)?).await;
    finish(&v, noted, "")
}

fn finish(v: &Visit, changed: Result<(), SignInRefused>, done: &str) -> Result<Page, Failure> {
    match changed {
        Ok(()) => Ok(Page::Redirect(format!("/me?done={done}"))),
        Err(refused) => {
            let (status, told) = told(v, refused);
            Ok(Page::new(v.say("Your account"), "me", page(v, Some(&told), None)?).with_status(status))
        }
    }
}

/// Why it was refused, with the status of the page that says so.
pub(super) fn told(v: &Visit, refused: SignInRefused) -> (u16, String) {
    match refused {
        SignInRefused::Wrong => (422, v.say("The password or the code is wrong. Nothing was changed.")),
        SignInRefused::Password(least, most) => {
            (422, v.fill("A password has {least} to {most} characters.", &[("least", &least), ("most", &most)]))
        }
        SignInRefused::Refused(error) => (error.status(), error.detail(v.tongue.0)),
    }
}

/// `GET /me/two-factor`
pub(super) async fn enrol(v: Visit) -> Result<Page, Failure> {
    let content = enrolment(&v, None, None)?;
    Ok(Page::new(v.say("Set up a second factor"), "me", content))
}

/// `POST /me/two-factor`
pub(super) async fn enable(v: Visit) -> Result<Page, Failure> {
    let secret = v.field("secret").to_owned();
    let api = &v.dashboard.api;
    let enabled = api.enable_two_factor(&v.door, &visitor(&v)?, v.field("current"), &secret, v.field("code")).await;
    match enabled {
        Ok(()) => Ok(Page::Redirect("/me?done=two-factor".to_owned())),
        Err(refused) => {
            let (status, told) = told(&v, refused);
            let content = enrolment(&v, Some(&secret), Some(&told))?;
            Ok(Page::new(v.say("Set up a second factor"), "me", content).with_status(status))
        }
    }
}

fn enrolment(v: &Visit, secret: Option<&str>, told: Option<&str>) -> Result<Markup, Failure> {
    let api = &v.dashboard.api;
    let enrolment = api.enrol(&visitor(v)?, secret).ok_or(Failure { status: 404, ..Failure::default() })?;
    Ok(html! {
        (parts::crumbs(v, &[(&v.say("Your account"), "/me")]))
        (parts::head(&v.say("Set up a second factor"), None, html! {}))
        @if let Some(told) = told { (parts::notice(Kind::Bad, html! { (told) })) }
        ol.steps {
            li {
                p { (v.say("Scan this with an authenticator app, or type the key into it.")) }
                @if let Some(drawing) = drawing(&enrolment.uri) {
                    div.qr role="img" aria-label=(v.say("The key as a QR code; the same key stands below as text.")) { (drawing) }
                }
                (parts::copyable(v, &enrolment.typed))
            }
            li {
                p { (v.say("Type the code that the app shows now, and your password.")) }
                form.form method="post" action="/me/two-factor" data-submit-once {
                    (v.form_start())
                    input type="hidden" name="secret" value=(enrolment.secret);
                    (parts::input(&Input { name: "code", label: &v.say("Code"), required: true,
                        autocomplete: "one-time-code", ..Input::default() }))
                    (current(v, "current"))
                    (parts::submit(&v.say("Turn it on"), "primary"))
                }
            }
        }
        p.quiet { (v.say("If you lose the app, another owner of your account can turn the second factor off, and so can whoever runs this server.")) }
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
pub(super) async fn sign_out_everywhere(v: Visit) -> Result<Page, Failure> {
    let ended = v.dashboard.api.sign_out_everywhere(&v.door, &visitor(&v)?).await;
    ended.map_err(|error| Failure { status: error.status(), ..Failure::default() })?;
    Ok(Page::Leave)
}

/// `POST /sign-out`
pub(super) async fn sign_out(v: Visit) -> Result<Page, Failure> {
    let ended = v.dashboard.api.sign_out(&visitor(&v)?).await;
    ended.map_err(|error| Failure { status: error.status(), ..Failure::default() })?;
    Ok(Page::Leave)
}
