//! Users: who may sign in to the account, and as what.

use std::future::{Ready, ready};

use maud::{Markup, html};
use serde_json::{Value, json};

use super::confirmation::{self, confirmed, given, not_proved};
use super::form_errors::{mendable, status_of};
use super::listing::{listed, segment};
use super::page_context::{Failure, Page, PageContext};
use super::parts::{
    Confirm, Input, Kind, button, confirm, copyable, crumbs, empty, facts, faults, head, input, milliseconds, notice,
    secret, select, status, submit, time, until_or_none,
};
use crate::api::{InviteUser, Listing, RequestBody as _, SignInRefused, UpdateUser, UserResource};

const SECTION: &str = "users";

const ROLES: [&str; 3] = ["owner", "developer", "viewer"];

/// The API's list of users.
fn users(cx: &PageContext) -> String {
    format!("/v1/accounts/{}/users", cx.account())
}

/// The user of the path, in the API.
fn user(cx: &PageContext) -> String {
    format!("{}/{}", users(cx), segment(cx.param("id")))
}

fn role_name(cx: &PageContext, role: &str) -> String {
    match role {
        "owner" => cx.say("Owner"),
        "developer" => cx.say("Developer"),
        "viewer" => cx.say("Viewer"),
        other => other.to_owned(),
    }
}

/// What a role may do, in a line.
fn role_about(cx: &PageContext, role: &str) -> String {
    match role {
        "owner" => cx.say("everything in the account, its users and API keys too"),
        "developer" => cx.say("works with endpoints, deliveries and events; sees API keys and the audit log"),
        _ => cx.say("sees endpoints, deliveries and events, and changes nothing"),
    }
}

fn role_field(cx: &PageContext, value: &str, refused: Option<&Failure>) -> Markup {
    let labels = ROLES.map(|role| (role, format!("{}: {}", role_name(cx, role), role_about(cx, role))));
    let options = labels.each_ref().map(|(role, label)| (*role, label.as_str()));
    let error = refused.and_then(|failure| failure.of("role"));
    select(&Input { name: "role", label: &cx.say("Role"), value, error, required: true, ..Input::default() }, &options)
}

/// `GET /users`
pub async fn list(cx: PageContext) -> Result<Page, Failure> {
    let found: Listing<UserResource> = cx.get(&users(&cx), &[("page", cx.asked("page"))]).await?;
    let path = cx.link("/users");
    let (to_invite, invite) = (cx.link("/users/invite"), cx.say("Invite a user"));
    let may = cx.may("users:write");
    let content = html! {
        (head(
            &cx.say("Users"),
            Some(&cx.say("Who may sign in to this account, and what they may do.")),
            html! { @if may { (button(&to_invite, &invite, "primary")) } },
        ))
        (listed(
            &cx,
            &found,
            &path,
            empty(
                &cx.say("Nobody can sign in to this account yet"),
                &cx.say("Whoever you invite chooses a password and signs in with their e-mail address."),
                may.then_some((to_invite.as_str(), invite.as_str())),
            ),
            |shown| table(&cx, shown),
        ))
    };
    Ok(Page::new(cx.say("Users"), SECTION, content))
}

fn table(cx: &PageContext, users: &[UserResource]) -> Markup {
    let columns = [cx.say("E-mail"), cx.say("Role"), cx.say("Status"), cx.say("Two-factor"), cx.say("Last sign-in")];
    html! { div.scroll { table.list {
        thead { tr { @for name in &columns { th scope="col" { (name) } } } }
        tbody { @for user in users { tr {
            td.main data-label=(columns[0]) { a href=(cx.link(&format!("/users/{}", user.id))) { (user.email) } }
            td data-label=(columns[1]) { (role_name(cx, &user.role)) }
            td data-label=(columns[2]) { (status(cx, &user.status)) }
            td data-label=(columns[3]) { (two_factor(cx, user)) }
            td.nowrap data-label=(columns[4]) { (last_sign_in(cx, user)) }
        } } }
    } } }
}

fn two_factor(cx: &PageContext, user: &UserResource) -> String {
    if user.two_factor { cx.say("On") } else { cx.say("Off") }
}

fn last_sign_in(cx: &PageContext, user: &UserResource) -> Markup {
    match &user.last_sign_in_at {
        None => html! { (cx.say("Never")) },
        Some(at) => time(cx, at),
    }
}

/// `GET /users/invite`
pub fn invite_ask(cx: PageContext) -> Ready<Result<Page, Failure>> {
    ready(Ok(invitation_form(&cx, None)))
}

/// `POST /users/invite`
pub async fn invite(cx: PageContext) -> Result<Page, Failure> {
    let body = json!({ "email": cx.field("email").trim(), "role": cx.field("role") });
    let cx = match confirmed(cx.clone(), "invite-").await? {
        Ok(cx) => cx,
        Err(refused) => return Ok(invitation_form(&cx, Some(&refused)).with_status(status_of(&refused))),
    };
    match cx.send::<UserResource>("POST", &users(&cx), body).await {
        Ok(made) => Ok(shown_once(&cx, &made)),
        Err(failure) => {
            let refused = mendable(failure, InviteUser::NAMES)?;
            Ok(invitation_form(&cx, Some(&refused)).with_status(status_of(&refused)))
        }
    }
}

fn invitation_form(cx: &PageContext, refused: Option<&Failure>) -> Page {
    let role = if cx.field("role").is_empty() { "developer" } else { cx.field("role") };
    let content = html! {
        (crumbs(cx, &[(&cx.say("Users"), &cx.link("/users"))]))
        (head(
            &cx.say("Invite a user"),
            Some(&cx.say(
                "You get a link for them. With it they choose a password. No mail is sent: pass the link on yourself.",
            )),
            html! {},
        ))
        (faults(cx, refused))
        form.form method="post" action=(cx.link("/users/invite")) data-submit-once {
            (cx.form_start())
            (input(&Input {
                name: "email",
                label: &cx.say("E-mail"),
                hint: &cx.say("They sign in with it."),
                value: cx.field("email"),
                error: refused.and_then(|failure| failure.of("email")),
                kind: "email",
                required: true,
                max: InviteUser::max_chars("email"),
                ..Input::default()
            }))
            (role_field(cx, role, refused))
            (confirmation::fields(cx, "invite-"))
            div.buttons {
                (submit(&cx.say("Create the invitation"), "primary"))
                (button(&cx.link("/users"), &cx.say("Cancel"), ""))
            }
        }
    };
    Page::new(cx.say("Invite a user"), SECTION, content)
}

/// The answer that has the invitation's address; where the form was sent twice it has none.
fn shown_once(cx: &PageContext, user: &UserResource) -> Page {
    let title = cx.fill("Invitation for {email}", &[("email", &user.email)]);
    let to_user = cx.link(&format!("/users/{}", user.id));
    let content = html! {
        (crumbs(cx, &[(&cx.say("Users"), &cx.link("/users")), (&user.email, &to_user)]))
        (head(&title, None, html! {}))
        @match &user.invitation_url {
            None => (notice(Kind::Warn, html! {
                p { (cx.say(
                    "The form was sent twice. There is one invitation, and its link was shown the first time.",
                )) }
                p { (cx.say("If you have not copied it, make a new link on the user's page.")) }
                a href=(to_user) { (cx.say("To the user's page")) }
            })),
            Some(url) => {
                (secret(cx, &cx.say("Invitation link"), url))
                p { (cx.say(
                    "No mail is sent: pass the link on yourself. It works once, for 7 days, for whoever has it.",
                )) }
                p.muted { (cx.say("It ends:")) " " (until_or_none(cx, user.invitation_expires_at.as_deref())) }
            },
        }
        div.buttons { (button(&cx.link("/users"), &cx.say("Done"), "primary")) }
    };
    Page::new(title, SECTION, content)
}

/// `GET /users/{id}`
pub async fn show(cx: PageContext) -> Result<Page, Failure> {
    page(&cx, None).await
}

/// `POST /users/{id}`
pub async fn set_role(cx: PageContext) -> Result<Page, Failure> {
    let cx = match confirmed(cx.clone(), "role-").await? {
        Ok(cx) => cx,
        Err(refused) => return refused_page(&cx, &refused).await,
    };
    match cx.send::<UserResource>("PUT", &user(&cx), json!({ "role": cx.field("role") })).await {
        Ok(changed) => Ok(Page::Redirect(cx.link(&format!("/users/{}", changed.id)))),
        Err(failure) => {
            let refused = mendable(failure, UpdateUser::NAMES)?;
            Ok(page(&cx, Some(&refused)).await?.with_status(status_of(&refused)))
        }
    }
}

/// `POST /users/{id}/invitation`
pub async fn invite_again(cx: PageContext) -> Result<Page, Failure> {
    let cx = match confirmed(cx.clone(), "link-").await? {
        Ok(cx) => cx,
        Err(refused) => return refused_page(&cx, &refused).await,
    };
    match cx.send::<UserResource>("POST", &format!("{}/invitation", user(&cx)), Value::Null).await {
        Ok(made) => Ok(shown_once(&cx, &made)),
        Err(failure) => {
            let refused = mendable(failure, &[])?;
            Ok(page(&cx, Some(&refused)).await?.with_status(status_of(&refused)))
        }
    }
}

/// `POST /users/{id}/two-factor`
pub async fn reset_second_factor(cx: PageContext) -> Result<Page, Failure> {
    let session = cx.session().cloned().ok_or_else(|| Failure { status: 404, ..Failure::default() })?;
    let (api, whose) = (&cx.dashboard.api, (cx.account(), cx.param("id")));
    match api.reset_second_factor(&cx.request_context, &session, whose, given(&cx, "factor-")).await {
        Ok(()) => Ok(Page::Redirect(cx.link(&format!("/users/{}", segment(cx.param("id")))))),
        Err(SignInRefused::Refused(error)) if matches!(error.status(), 403 | 404) => {
            Err(Failure { status: error.status(), ..Failure::default() })
        }
        Err(refused) => refused_page(&cx, &not_proved(&cx, refused)).await,
    }
}

async fn refused_page(cx: &PageContext, refused: &Failure) -> Result<Page, Failure> {
    Ok(page(cx, Some(refused)).await?.with_status(status_of(refused)))
}

async fn page(cx: &PageContext, refused: Option<&Failure>) -> Result<Page, Failure> {
    let shown: UserResource = cx.get(&user(cx), &[]).await?;
    let content = html! {
        (crumbs(cx, &[(&cx.say("Users"), &cx.link("/users"))]))
        (head(&shown.email, None, html! {}))
        (faults(cx, refused))
        (about(cx, &shown))
        @if cx.may("users:write") {
            (role_form(cx, &shown, refused))
            (invitation(cx, &shown))
            @if shown.two_factor && !is_self(cx, &shown) { (factor(cx, &shown)) }
            section.panel.danger-zone { div {
                div {
                    h2 { (cx.say("Delete this user")) }
                    p.muted { (cx.say("They are signed out at once and cannot sign in again.")) }
                }
                (button(&cx.link(&format!("/users/{}/delete", shown.id)), &cx.say("Delete the user"), "danger"))
            } }
        }
    };
    Ok(Page::new(&shown.email, SECTION, content))
}

fn about(cx: &PageContext, user: &UserResource) -> Markup {
    let until_when = match user.invitation_expires_at.as_deref() {
        Some(at) if milliseconds(at).is_some_and(|at| at <= cx.now) => html! { (cx.say("Expired")) },
        at => until_or_none(cx, at),
    };
    let names = [
        cx.say("Status"),
        cx.say("Role"),
        cx.say("Two-factor"),
        cx.say("Last sign-in"),
        cx.say("Invited"),
        cx.say("Open invitation ends"),
        cx.say("User id"),
    ];
    let rows = [
        (names[0].as_str(), status(cx, &user.status)),
        (&names[1], html! { (role_name(cx, &user.role)) }),
        (&names[2], html! { (two_factor(cx, user)) }),
        (&names[3], last_sign_in(cx, user)),
        (&names[4], time(cx, &user.created_at)),
        (&names[5], until_when),
        (&names[6], copyable(cx, &user.id)),
    ];
    html! { section.panel aria-label=(cx.say("About this user")) { (facts(&rows)) } }
}

fn role_form(cx: &PageContext, user: &UserResource, refused: Option<&Failure>) -> Markup {
    let role: &str = if cx.field("role").is_empty() { &user.role } else { cx.field("role") };
    html! { section.panel {
        h2 { (cx.say("Role")) }
        p.muted { (cx.say("A change holds from their next click on.")) }
        form method="post" action=(cx.link(&format!("/users/{}", user.id))) data-submit-once {
            (cx.form_start())
            (role_field(cx, role, refused))
            (confirmation::fields(cx, "role-"))
            div.buttons { (submit(&cx.say("Change the role"), "")) }
        }
    } }
}

/// Whether this is the user who is signed in.
fn is_self(cx: &PageContext, user: &UserResource) -> bool {
    cx.session().is_some_and(|session| session.id() == user.id)
}

fn invitation(cx: &PageContext, user: &UserResource) -> Markup {
    let action = cx.link(&format!("/users/{}/invitation", user.id));
    let make = cx.say("Make a new link");
    let content = if user.status == "invited" {
        html! {
            p.muted { (cx.say(
                "For when the first one was lost or has expired. The link before this one stops working at once.",
            )) }
            (confirming_form(cx, &action, "link-", &make, ""))
        }
    } else if is_self(cx, user) {
        html! {
            p.muted { (cx.say("This is you. You change your own password under your account.")) }
            div.buttons { (button("/me", &cx.say("Your account"), "")) }
        }
    } else {
        html! {
            p.muted { (cx.say(
                "For when the password was lost. What they sign in with stays until they use the link; then the \
                 password is the new one, and they are signed out everywhere else. A second factor stays, and they \
                 need its code.",
            )) }
            (confirming_form(cx, &action, "link-", &make, ""))
        }
    };
    html! { section.panel {
        h2 { (cx.say("New invitation link")) }
        (content)
    } }
}

fn factor(cx: &PageContext, user: &UserResource) -> Markup {
    let action = cx.link(&format!("/users/{}/two-factor", user.id));
    html! { section.panel {
        h2 { (cx.say("Second factor")) }
        p.muted { (cx.say(
            "For when their authenticator app was lost. They are signed out everywhere, sign in with their password \
             alone, and are told that you turned it off.",
        )) }
        (confirming_form(cx, &action, "factor-", &cx.say("Turn off their second factor"), "danger"))
    } }
}

/// A form that asks the user for password and code.
fn confirming_form(cx: &PageContext, action: &str, prefix: &str, label: &str, class: &str) -> Markup {
    html! { form.form method="post" action=(action) data-submit-once {
        (cx.form_start())
        (confirmation::fields(cx, prefix))
        div.buttons { (submit(label, class)) }
    } }
}

/// `GET /users/{id}/delete`
pub async fn delete_ask(cx: PageContext) -> Result<Page, Failure> {
    let shown: UserResource = cx.get(&user(&cx), &[]).await?;
    Ok(asked(&cx, &shown, false, None))
}

/// `POST /users/{id}/delete`
pub async fn delete(cx: PageContext) -> Result<Page, Failure> {
    let shown = match cx.get::<UserResource>(&user(&cx), &[]).await {
        // What the form asks for has been done.
        Err(failure) if failure.status == 404 => return Ok(Page::Redirect(cx.link("/users"))),
        found => found?,
    };
    if !cx.field("confirm").trim().eq_ignore_ascii_case(&shown.email) {
        return Ok(asked(&cx, &shown, true, None).with_status(422));
    }
    let cx = match &*shown.status {
        "active" => match confirmed(cx.clone(), "delete-").await? {
            Ok(cx) => cx,
            Err(refused) => return Ok(asked(&cx, &shown, false, Some(&refused)).with_status(status_of(&refused))),
        },
        _ => cx,
    };
    match cx.send::<()>("DELETE", &user(&cx), Value::Null).await {
        Err(failure) if failure.status != 404 => {
            let refused = mendable(failure, &[])?;
            Ok(asked(&cx, &shown, false, Some(&refused)).with_status(status_of(&refused)))
        }
        _ => Ok(Page::Redirect(cx.link("/users"))),
    }
}

fn asked(cx: &PageContext, user: &UserResource, mistyped: bool, failure: Option<&Failure>) -> Page {
    let email = &user.email;
    let question = cx.fill("Delete the user {email}?", &[("email", &email)]);
    let happens = [
        cx.say("They are signed out everywhere at once, and cannot sign in again. An open invitation is dead."),
        cx.say("What they made stays: endpoints, API keys, and what the audit log says of them."),
        cx.say("API keys that they know still work. Revoke those that they should not use."),
    ];
    let to_user = cx.link(&format!("/users/{}", user.id));
    let fields = (user.status == "active").then(|| confirmation::fields(cx, "delete-"));
    let content = html! {
        (crumbs(cx, &[(&cx.say("Users"), &cx.link("/users")), (email, &to_user)]))
        (confirm(cx, &Confirm {
            question: &question,
            happens: &happens,
            type_this: Some(email),
            mistyped,
            action: &cx.link(&format!("/users/{}/delete", user.id)),
            label: &cx.say("Delete the user"),
            cancel: &to_user,
            failure,
            fields: fields.as_ref(),
        }))
    };
    Page::new(question, SECTION, content)
}
