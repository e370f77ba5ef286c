//! Users: who may sign in to the account, and as what.

use std::future::{Ready, ready};

use maud::{Markup, html};
use serde_json::{Value, json};

use super::asking::{fault, listed, local, mendable, segment, status_of};
use super::me;
use super::parts::{
    Confirm, Input, Kind, button, confirm, copyable, crumbs, empty, facts, faults, head, input, none, notice, post,
    secret, select, status, submit, time, until,
};
use super::visit::{Doc, Failure, Item, Page, Visit};
use crate::api::{Confirmation, InviteUser, RequestBody as _, SignInRefused, UpdateUser, Visitor};

const SECTION: &str = "users";

const ROLES: [&str; 3] = ["owner", "developer", "viewer"];

/// The API's list of users.
fn users(v: &Visit) -> String {
    format!("/v1/accounts/{}/users", v.account())
}

/// The user of the path, in the API.
fn user(v: &Visit) -> String {
    format!("{}/{}", users(v), segment(v.param("id")))
}

fn role_name(v: &Visit, role: &str) -> String {
    match role {
        "owner" => v.say("Owner"),
        "developer" => v.say("Developer"),
        "viewer" => v.say("Viewer"),
        other => other.to_owned(),
    }
}

/// What a role may do, in a line.
fn role_about(v: &Visit, role: &str) -> String {
    match role {
        "owner" => v.say("everything in the account, its users and API keys too"),
        "developer" => v.say("works with endpoints, deliveries and events; sees API keys and the audit log"),
        _ => v.say("sees endpoints, deliveries and events, and changes nothing"),
    }
}

fn role_field(v: &Visit, value: &str, refused: Option<&Failure>) -> Markup {
    let labels = ROLES.map(|role| (role, format!("{}: {}", role_name(v, role), role_about(v, role))));
    let options = labels.each_ref().map(|(role, label)| (*role, label.as_str()));
    let error = refused.and_then(|failure| failure.of("role"));
    select(&Input { name: "role", label: &v.say("Role"), value, error, required: true, ..Input::default() }, &options)
}

/// `GET /users`
pub async fn list(v: Visit) -> Result<Page, Failure> {
    let found = v.get(&users(&v), &[("page", v.asked("page"))]).await?;
    let path = v.link("/users");
    let (to_invite, invite) = (v.link("/users/invite"), v.say("Invite a user"));
    let may = v.may("users:write");
    let content = html! {
        (head(
            &v.say("Users"),
            Some(&v.say("Who may sign in to this account, and what they may do.")),
            html! { @if may { (button(&to_invite, &invite, "primary")) } },
        ))
        (listed(
            &v,
            &found,
            &path,
            empty(
                &v.say("Nobody can sign in to this account yet"),
                &v.say("Whoever you invite chooses a password and signs in with their e-mail address."),
                may.then_some((to_invite.as_str(), invite.as_str())),
            ),
            |shown| table(&v, shown),
        ))
    };
    Ok(Page::new(v.say("Users"), SECTION, content))
}

fn table(v: &Visit, users: &[Item<'_>]) -> Markup {
    let columns = [v.say("E-mail"), v.say("Role"), v.say("Status"), v.say("Two-factor"), v.say("Last sign-in")];
    html! { div.scroll { table.list {
        thead { tr { @for name in &columns { th scope="col" { (name) } } } }
        tbody { @for user in users { tr {
            td.main data-label=(columns[0]) { a href=(v.link(&format!("/users/{}", user.id()))) { (user.text("email")) } }
            td data-label=(columns[1]) { (role_name(v, user.text("role"))) }
            td data-label=(columns[2]) { (status(v, user.text("status"))) }
            td data-label=(columns[3]) { (two_factor(v, *user)) }
            td.nowrap data-label=(columns[4]) { (last_sign_in(v, *user)) }
        } } }
    } } }
}

fn two_factor(v: &Visit, user: Item<'_>) -> String {
    if user.flag("two_factor") { v.say("On") } else { v.say("Off") }
}

fn last_sign_in(v: &Visit, user: Item<'_>) -> Markup {
    match user.text("last_sign_in_at") {
        "" => html! { (v.say("Never")) },
        at => time(v, at),
    }
}

/// `GET /users/invite`
pub fn invite_ask(v: Visit) -> Ready<Result<Page, Failure>> {
    ready(Ok(invitation_form(&v, None)))
}

/// `POST /users/invite`
pub async fn invite(v: Visit) -> Result<Page, Failure> {
    let body = json!({ "email": v.field("email").trim(), "role": v.field("role") });
    match v.send("POST", &users(&v), body).await {
        Ok(made) => Ok(shown_once(&v, &made)),
        Err(failure) => {
            let refused = mendable(failure, InviteUser::NAMES)?;
            Ok(invitation_form(&v, Some(&refused)).with_status(status_of(&refused)))
        }
    }
}

fn invitation_form(v: &Visit, refused: Option<&Failure>) -> Page {
    let role = if v.field("role").is_empty() { "developer" } else { v.field("role") };
    let content = html! {
        (crumbs(v, &[(&v.say("Users"), &v.link("/users"))]))
        (head(
            &v.say("Invite a user"),
            Some(&v.say("You get a link for them. With it they choose a password. No mail is sent: pass the link on yourself.")),
            html! {},
        ))
        (faults(v, refused))
        form.form method="post" action=(v.link("/users/invite")) data-submit-once {
            (v.form_start())
            (input(&Input {
                name: "email",
                label: &v.say("E-mail"),
                hint: &v.say("They sign in with it."),
                value: v.field("email"),
                error: refused.and_then(|failure| failure.of("email")),
                kind: "email",
                required: true,
                max: InviteUser::max_chars("email"),
                ..Input::default()
            }))
            (role_field(v, role, refused))
            div.buttons {
                (submit(&v.say("Create the invitation"), "primary"))
                (button(&v.link("/users"), &v.say("Cancel"), ""))
            }
        }
    };
    Page::new(v.say("Invite a user"), SECTION, content)
}

/// The answer that has the invitation's address; where the form was sent twice it has none.
fn shown_once(v: &Visit, made: &Doc) -> Page {
    let user = made.item();
    let title = v.fill("Invitation for {email}", &[("email", &user.text("email"))]);
    let to_user = v.link(&format!("/users/{}", user.id()));
    let content = html! {
        (crumbs(v, &[(&v.say("Users"), &v.link("/users")), (user.text("email"), &to_user)]))
        (head(&title, None, html! {}))
        @match user.text("invitation_url") {
            "" => (notice(Kind::Warn, html! {
                p { (v.say("The form was sent twice. There is one invitation, and its link was shown the first time.")) }
                p { (v.say("If you have not copied it, make a new link on the user's page.")) }
                a href=(to_user) { (v.say("To the user's page")) }
            })),
            url => {
                (secret(v, &v.say("Invitation link"), url))
                p { (v.say("No mail is sent: pass the link on yourself. It works once, for 7 days, for whoever has it.")) }
                p.muted { (v.say("It ends:")) " " (until(v, user.text("invitation_expires_at"))) }
            },
        }
        div.buttons { (button(&v.link("/users"), &v.say("Done"), "primary")) }
    };
    Page::new(title, SECTION, content)
}

/// `GET /users/{id}`
pub async fn show(v: Visit) -> Result<Page, Failure> {
    page(&v, None).await
}

/// `POST /users/{id}`
pub async fn set_role(v: Visit) -> Result<Page, Failure> {
    match v.send("PUT", &user(&v), json!({ "role": v.field("role") })).await {
        Ok(changed) => Ok(Page::Redirect(v.link(&format!("/users/{}", changed.item().id())))),
        Err(failure) => {
            let refused = mendable(failure, UpdateUser::NAMES)?;
            Ok(page(&v, Some(&refused)).await?.with_status(status_of(&refused)))
        }
    }
}

/// `POST /users/{id}/invitation`
pub async fn invite_again(v: Visit) -> Result<Page, Failure> {
    let found = v.get(&user(&v), &[]).await?;
    let v = match found.item().text("status") {
        "active" => match confirmed(v.clone()).await? {
            Ok(v) => v,
            Err((status, told)) => return refused_page(&v, status, told).await,
        },
        _ => v,
    };
    match v.send("POST", &format!("{}/invitation", user(&v)), Value::Null).await {
        Ok(made) => Ok(shown_once(&v, &made)),
        Err(failure) => {
            let refused = mendable(failure, &[])?;
            Ok(page(&v, Some(&refused)).await?.with_status(status_of(&refused)))
        }
    }
}

/// `POST /users/{id}/two-factor`
pub async fn reset_second_factor(v: Visit) -> Result<Page, Failure> {
    let visitor = v.visitor().cloned().ok_or_else(|| Failure { status: 404, ..Failure::default() })?;
    let (api, whose) = (&v.dashboard.api, (v.account(), v.param("id")));
    match api.reset_second_factor(&v.door, &visitor, whose, given(&v, "factor-")).await {
        Ok(()) => Ok(Page::Redirect(v.link(&format!("/users/{}", segment(v.param("id")))))),
        Err(SignInRefused::Refused(error)) if matches!(error.status(), 403 | 404) => {
            Err(Failure { status: error.status(), ..Failure::default() })
        }
        Err(refused) => {
            let (status, told) = me::told(&v, refused);
            refused_page(&v, status, told).await
        }
    }
}

/// What the visitor has typed to show who they are, in the fields whose names begin like this.
fn given<'a>(v: &'a Visit, prefix: &str) -> Confirmation<'a> {
    Confirmation { password: v.field(&format!("{prefix}current")), code: v.field(&format!("{prefix}code")) }
}

/// The visit of somebody who has given password and second factor again, or why that was refused.
async fn confirmed(v: Visit) -> Result<Result<Visit, (u16, String)>, Failure> {
    let visitor = v.visitor().cloned().ok_or_else(|| Failure { status: 404, ..Failure::default() })?;
    match v.dashboard.api.confirm(&v.door, &visitor, given(&v, "link-")).await {
        Ok(()) => Ok(Ok(Visit { caller: v.caller.clone().confirmed(), ..v })),
        Err(refused) => Ok(Err(me::told(&v, refused))),
    }
}

async fn refused_page(v: &Visit, status: u16, told: String) -> Result<Page, Failure> {
    let refused = Failure { status, ..local(vec![fault("", told, None)]) };
    Ok(page(v, Some(&refused)).await?.with_status(status_of(&refused)))
}

async fn page(v: &Visit, refused: Option<&Failure>) -> Result<Page, Failure> {
    let found = v.get(&user(v), &[]).await?;
    let shown = found.item();
    let content = html! {
        (crumbs(v, &[(&v.say("Users"), &v.link("/users"))]))
        (head(shown.text("email"), None, html! {}))
        (faults(v, refused))
        (about(v, shown))
        @if v.may("users:write") {
            (role_form(v, shown, refused))
            (invitation(v, shown))
            @if shown.flag("two_factor") && !is_visitor(v, shown) { (factor(v, shown)) }
            section.panel.danger-zone { div {
                div {
                    h2 { (v.say("Delete this user")) }
                    p.muted { (v.say("They are signed out at once and cannot sign in again.")) }
                }
                (button(&v.link(&format!("/users/{}/delete", shown.id())), &v.say("Delete the user"), "danger"))
            } }
        }
    };
    Ok(Page::new(shown.text("email"), SECTION, content))
}

fn about(v: &Visit, user: Item<'_>) -> Markup {
    let until_when = match user.text("invitation_expires_at") {
        "" => none(v),
        at if super::parts::milliseconds(at).is_some_and(|at| at <= v.now) => html! { (v.say("Expired")) },
        at => until(v, at),
    };
    let names = [
        v.say("Status"),
        v.say("Role"),
        v.say("Two-factor"),
        v.say("Last sign-in"),
        v.say("Invited"),
        v.say("Open invitation ends"),
        v.say("User id"),
    ];
    let rows = [
        (names[0].as_str(), status(v, user.text("status"))),
        (&names[1], html! { (role_name(v, user.text("role"))) }),
        (&names[2], html! { (two_factor(v, user)) }),
        (&names[3], last_sign_in(v, user)),
        (&names[4], time(v, user.text("created_at"))),
        (&names[5], until_when),
        (&names[6], copyable(v, user.id())),
    ];
    html! { section.panel aria-label=(v.say("About this user")) { (facts(&rows)) } }
}

fn role_form(v: &Visit, user: Item<'_>, refused: Option<&Failure>) -> Markup {
    let role = if v.field("role").is_empty() { user.text("role") } else { v.field("role") };
    html! { section.panel {
        h2 { (v.say("Role")) }
        p.muted { (v.say("A change holds from their next click on.")) }
        form method="post" action=(v.link(&format!("/users/{}", user.id()))) data-submit-once {
            (v.form_start())
            (role_field(v, role, refused))
            div.buttons { (submit(&v.say("Change the role"), "")) }
        }
    } }
}

/// Whether this is who looks at the page.
fn is_visitor(v: &Visit, user: Item<'_>) -> bool {
    v.visitor().is_some_and(|visitor| visitor.id() == user.id())
}

fn invitation(v: &Visit, user: Item<'_>) -> Markup {
    let action = v.link(&format!("/users/{}/invitation", user.id()));
    let make = v.say("Make a new link");
    let content = if user.text("status") == "invited" {
        html! {
            p.muted { (v.say("For when the first one was lost or has expired. The link before this one is dead at once.")) }
            div.buttons { (post(v, &action, &make, "")) }
        }
    } else if is_visitor(v, user) {
        html! {
            p.muted { (v.say("This is you. You change your own password under your account.")) }
            div.buttons { (button("/me", &v.say("Your account"), "")) }
        }
    } else {
        html! {
            p.muted { (v.say("For when the password was lost. What they sign in with stays until they use the link; then the password is the new one, and they are signed out everywhere else. A second factor stays, and they need its code.")) }
            (confirmation(v, &action, "link-", &make, ""))
        }
    };
    html! { section.panel {
        h2 { (v.say("New invitation link")) }
        (content)
    } }
}

fn factor(v: &Visit, user: Item<'_>) -> Markup {
    let action = v.link(&format!("/users/{}/two-factor", user.id()));
    html! { section.panel {
        h2 { (v.say("Second factor")) }
        p.muted { (v.say("For when their authenticator app was lost. They are signed out everywhere, sign in with their password alone, and are told that you turned it off.")) }
        (confirmation(v, &action, "factor-", &v.say("Turn off their second factor"), "danger"))
    } }
}

/// A form that asks the visitor who they are: their session alone may be in other hands.
fn confirmation(v: &Visit, action: &str, prefix: &str, label: &str, class: &str) -> Markup {
    let two_factor = v.visitor().is_some_and(Visitor::two_factor);
    html! { form.form method="post" action=(action) data-submit-once {
        (v.form_start())
        (me::current(v, &format!("{prefix}current")))
        @if two_factor { (me::code(v, &format!("{prefix}code"))) }
        div.buttons { (submit(label, class)) }
    } }
}

/// `GET /users/{id}/delete`
pub async fn delete_ask(v: Visit) -> Result<Page, Failure> {
    let found = v.get(&user(&v), &[]).await?;
    Ok(asked(&v, found.item(), false, None))
}

/// `POST /users/{id}/delete`
pub async fn delete(v: Visit) -> Result<Page, Failure> {
    let found = match v.get(&user(&v), &[]).await {
        // What the form asks for has been done.
        Err(failure) if failure.status == 404 => return Ok(Page::Redirect(v.link("/users"))),
        found => found?,
    };
    let shown = found.item();
    if !v.field("confirm").trim().eq_ignore_ascii_case(shown.text("email")) {
        return Ok(asked(&v, shown, true, None).with_status(422));
    }
    match v.send("DELETE", &user(&v), Value::Null).await {
        Err(failure) if failure.status != 404 => {
            let refused = mendable(failure, &[])?;
            Ok(asked(&v, shown, false, Some(&refused)).with_status(status_of(&refused)))
        }
        _ => Ok(Page::Redirect(v.link("/users"))),
    }
}

fn asked(v: &Visit, user: Item<'_>, mistyped: bool, failure: Option<&Failure>) -> Page {
    let email = user.text("email");
    let question = v.fill("Delete the user {email}?", &[("email", &email)]);
    let happens = [
        v.say("They are signed out everywhere at once, and cannot sign in again. An open invitation is dead."),
        v.say("What they made stays: endpoints, API keys, and what the audit log says of them."),
        v.say("API keys that they know still work. Revoke those that they should not use."),
    ];
    let to_user = v.link(&format!("/users/{}", user.id()));
    let content = html! {
        (crumbs(v, &[(&v.say("Users"), &v.link("/users")), (email, &to_user)]))
        (confirm(v, &Confirm {
            question: &question,
            happens: &happens,
            type_this: Some(email),
            mistyped,
            action: &v.link(&format!("/users/{}/delete", user.id())),
            label: &v.say("Delete the user"),
            cancel: &to_user,
            failure,
            ..Confirm::default()
        }))
    };
    Page::new(question, SECTION, content)
}
