//! `/v1/accounts/{id}/users`: the people who may sign in to an account's dashboard.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::accounts::find;
use super::call::ApiCall;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault};
use super::fields::{Field, RequestBody as _, Shape, Text, body};
use super::openapi::schemas::{RoleName, UserStatusName};
use crate::domain::account::Account;
use crate::domain::id::UserId;
use crate::domain::user::{Email, MAX_EMAIL_CHARS, Role, User};
use crate::store::{NewUser, StoreError, Users, WithToken};

/// Somebody who may sign in to the account's dashboard.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct UserAttributes {
    /// The account that they belong to.
    #[schema(required, format = "uuid")]
    pub account_id: Option<String>,
    /// Their address, in lowercase; it is theirs alone in this account.
    #[schema(format = "email")]
    pub email: String,
    /// `owner` may do everything within the account, `developer` works with webhooks and events, `viewer` looks.
    #[schema(value_type = RoleName, inline)]
    pub role: Cow<'static, str>,
    /// `invited` until they have set a password, then `active`.
    #[schema(value_type = UserStatusName, inline)]
    pub status: Cow<'static, str>,
    /// Whether signing in takes a second factor.
    pub two_factor: bool,
    /// Where they set their password. Only present in the answer that makes the invitation.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uri")]
    pub invitation_url: Option<String>,
    /// Until when the latest invitation can be used; `null` when there is none.
    #[schema(required, format = DateTime)]
    pub invitation_expires_at: Option<String>,
    /// When they last signed in; `null` before the first time.
    #[schema(required, format = DateTime)]
    pub last_sign_in_at: Option<String>,
    /// When they were invited.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When they were last changed.
    #[schema(format = DateTime)]
    pub updated_at: String,
}

fn resource(user: &User, invitation: Option<String>) -> Resource<UserAttributes> {
    Resource {
        r#type: "user".into(),
        id: user.id.to_string(),
        attributes: UserAttributes {
            account_id: user.account.map(|(id, _)| id.to_string()),
            email: user.email.to_string(),
            role: user.role.name().into(),
            status: Cow::Borrowed(if user.joined { "active" } else { "invited" }),
            two_factor: user.two_factor,
            invitation_url: invitation,
            invitation_expires_at: user.invited_until.map(time),
            last_sign_in_at: user.last_sign_in_at.map(time),
            created_at: time(user.created_at),
            updated_at: time(user.updated_at),
        },
    }
}

/// `GET /v1/accounts/{id}/users`
pub async fn list(call: ApiCall) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let page = call.page();
    let found = call.api.store.users(Some(account.id), page).await?;
    Ok(Answer::page(&found, page, |user| resource(user, None)))
}

/// `POST /v1/accounts/{id}/users`
pub async fn invite(call: ApiCall) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    may_let_in(&call)?;
    let InviteUser { email, role } = InviteUser::read(&call.json()?, &())?;
    may_give(&call, role)?;
    let new = NewUser { account: Some(account.id), email: email.clone(), role, password: None };
    let pending_reply = call.pending_reply(|made: &WithToken<User>| Answer::new(201, &resource(&made.resource, None)));
    let made = call.store().create_user(new, pending_reply).await.map_err(|error| match error {
        StoreError::Exists => Fault::of_field(Code::EmailTaken, "email").naming(&email).into(),
        other => ApiError::from(other),
    })?;
    Ok(Answer::new(201, &resource(&made.resource, url(&call, &made))))
}

/// `GET /v1/accounts/{id}/users/{user_id}`
pub async fn read(call: ApiCall) -> Result<Answer, ApiError> {
    let (_, user) = find_user(&call).await?;
    Ok(Answer::new(200, &resource(&user, None)))
}

/// `PUT /v1/accounts/{id}/users/{user_id}`
pub async fn update(call: ApiCall) -> Result<Answer, ApiError> {
    let (account, user) = find_user(&call).await?;
    let UpdateUser { role } = UpdateUser::read_change(&call.json()?, &())?;
    may_give(&call, role)?;
    may_give(&call, user.role)?;
    if !user.role.permissions().covers(role.permissions()) {
        may_let_in(&call)?;
    }
    let user = call.store().update_user(Some(account.id), user.id, role).await?;
    Ok(Answer::new(200, &resource(&user, None)))
}

/// `DELETE /v1/accounts/{id}/users/{user_id}`
pub async fn delete(call: ApiCall) -> Result<Answer, ApiError> {
    let (account, user) = find_user(&call).await?;
    may_give(&call, user.role)?;
    // Whoever deletes a user and invites the address anew has replaced the password and the second factor.
    if user.joined && !call.caller.is_proved() {
        return Err(Code::Forbidden.into());
    }
    call.store().delete_user(Some(account.id), user.id).await?;
    Ok(Answer::no_content())
}

/// `POST /v1/accounts/{id}/users/{user_id}/invitation`
pub async fn invite_again(call: ApiCall) -> Result<Answer, ApiError> {
    let (account, user) = find_user(&call).await?;
    may_let_in(&call)?;
    call.optional_json()?;
    may_give(&call, user.role)?;
    if user.joined && !call.caller.may_replace_password_of(user.id) {
        return Err(Code::Forbidden.into());
    }
    let pending_reply = call.pending_reply(|made: &WithToken<User>| Answer::new(200, &resource(&made.resource, None)));
    let made = call.store().invite_user(Some(account.id), user.id, pending_reply).await?;
    Ok(Answer::new(200, &resource(&made.resource, url(&call, &made))))
}

async fn find_user(call: &ApiCall) -> Result<(Account, User), ApiError> {
    let account = find(call).await?;
    let id = call.param("user_id", UserId::parse)?;
    let user = call.api.store.user(Some(account.id), id).await?;
    Ok((account, user))
}

/// A caller may only give, take or replace roles whose permissions they have.
fn may_give(call: &ApiCall, role: Role) -> Result<(), ApiError> {
    if call.caller.permissions.covers(role.permissions()) { Ok(()) } else { Err(Code::Forbidden.into()) }
}

/// A user outlives the key or the session that made them. So a key that expires makes none and gives none more than
/// they have, and neither does a session alone, which may have been stolen.
fn may_let_in(call: &ApiCall) -> Result<(), ApiError> {
    if call.caller.key_expires_at().is_some() {
        return Err(Code::KeyExpires.into());
    }
    if call.caller.is_proved() { Ok(()) } else { Err(Code::Forbidden.into()) }
}

fn url(call: &ApiCall, made: &WithToken<User>) -> Option<String> {
    made.token.as_ref().map(|token| format!("{}/join/{}", call.base(), token.reveal()))
}

const EMAIL: Field<(), Email> = Field {
    about: "Their address. One address has one user in an account.",
    shape: Shape::Text(Text { format: Some("email"), max: Some(MAX_EMAIL_CHARS), ..Text::ANY }),
    nullable: false,
    codes: &[Code::EmailInvalid],
    read: |(), value| value.as_str().and_then(Email::parse).ok_or_else(|| vec![Fault::new(Code::EmailInvalid)]),
};

const ROLE: Field<(), Role> = Field {
    about: "What they may do: `owner` everything within the account, `developer` work with webhooks and events, \
            `viewer` look.",
    shape: Shape::OneOf(|| Role::OF_ACCOUNT.map(Role::name).to_vec()),
    nullable: false,
    codes: &[Code::RoleInvalid],
    read: |(), value| {
        let role = value.as_str().and_then(Role::parse).filter(|role| Role::OF_ACCOUNT.contains(role));
        role.ok_or_else(|| vec![Fault::new(Code::RoleInvalid)])
    },
};

body! {
    /// Somebody who shall be able to sign in.
    pub struct InviteUser(()) {
        email: Email = EMAIL.required(Code::EmailRequired),
        role: Role = ROLE.required(Code::RoleInvalid),
    }
}

body! {
    /// Another role.
    pub struct UpdateUser(()) {
        role: Role = ROLE
            .about("What they may do from now on. The account's last owner stays one.")
            .required(Code::RoleInvalid),
    }
}
