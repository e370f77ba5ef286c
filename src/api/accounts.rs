//! `/v1/accounts` and their API keys.
//!
//! An operator's key manages all of them. An account's own key sees and changes its own account only, and makes keys
//! no stronger than itself.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::call::Call;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault};
use super::openapi::schemas::PermissionNames;
use crate::domain::account::{Account, AccountChange, ApiKey, MAX_NAME_CHARS};
use crate::domain::id::{AccountId, ApiKeyId};
use crate::domain::permission::{Permission, Permissions};
use crate::domain::retention::MAX_DAYS;
use crate::domain::time::Timestamp;
use crate::store::{Accounts, NewApiKey, Paged, WithKey};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// The owner of endpoints, events and keys.
#[derive(Serialize, ToSchema)]
pub(super) struct AccountAttributes {
    /// A name for people.
    #[schema(min_length = 1, max_length = 255)]
    name: String,
    /// Days for which its deliveries and events are kept; `null` is as long as the server's settings say.
    #[schema(required, minimum = 1, maximum = 3650)]
    deliveries_retention_days: Option<u64>,
    /// Days for which the bodies of its events are kept, at most as long as their deliveries; `null` is as long as the server's settings say.
    #[schema(required, minimum = 1, maximum = 3650)]
    payloads_retention_days: Option<u64>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
}

fn resource(account: &Account) -> Resource<AccountAttributes> {
    Resource {
        r#type: "account",
        id: account.id.to_string(),
        attributes: AccountAttributes {
            name: account.name.clone(),
            deliveries_retention_days: account.retention.deliveries.map(days),
            payloads_retention_days: account.retention.payloads.map(days),
            created_at: time(account.created_at),
            updated_at: time(account.updated_at),
        },
    }
}

/// An API key of the account.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyAttributes {
    /// A name for people.
    #[schema(required)]
    name: Option<String>,
    /// The account that it acts for.
    #[schema(required, format = "uuid")]
    account_id: Option<String>,
    /// What it may do.
    #[schema(value_type = PermissionNames, inline)]
    permissions: Vec<&'static str>,
    /// The key itself. Only present in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
    /// Prefix and last 4 characters of the key. Present wherever the key is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key_hint: Option<String>,
    /// After this it is refused; `null` when it never expires.
    #[schema(required, format = DateTime)]
    expires_at: Option<String>,
    /// When it was last used; `null` before the first use.
    #[schema(required, format = DateTime)]
    last_used_at: Option<String>,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
}

/// A key with the key itself, in the one answer that shows it, or with its hint.
fn key_resource(key: &ApiKey, plain: Option<&str>) -> Resource<KeyAttributes> {
    Resource {
        r#type: "api_key",
        id: key.id.to_string(),
        attributes: KeyAttributes {
            name: key.name.clone(),
            account_id: key.account.map(|(id, _)| id.to_string()),
            permissions: key.permissions.names(),
            key: plain.map(str::to_owned),
            key_hint: plain.is_none().then(|| key.hint.clone()),
            expires_at: key.expires_at.map(time),
            last_used_at: key.last_used_at.map(time),
            created_at: time(key.created_at),
        },
    }
}

/// `GET /v1/accounts`
pub async fn list(call: Call) -> Result<Answer, ApiError> {
    let page = call.page();
    let found = match call.caller.account() {
        None => call.api.store.accounts(page).await?,
        Some(own) => {
            let own = call.api.store.account(own).await?;
            Paged::exact(if page.page == 1 { vec![own] } else { vec![] }, 1)
        }
    };
    Ok(Answer::page(&found, page, resource))
}

/// `POST /v1/accounts`
pub async fn create(call: Call) -> Result<Answer, ApiError> {
    let name = read_name(&call.json()?)?;
    let keep = call.keep(|account: &Account| Answer::new(201, &resource(account)));
    let account = call.store().create_account(name, keep).await?;
    Ok(Answer::new(201, &resource(&account)))
}

/// `GET /v1/accounts/{id}`
pub async fn read(call: Call) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    Ok(Answer::new(200, &resource(&account)))
}

/// `PUT /v1/accounts/{id}`
pub async fn update(call: Call) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let body = call.json()?;
    let mut faults = Vec::new();
    let name = body.contains_key("name").then(|| read_name(&body).map_err(|fault| faults.push(fault)).ok()).flatten();
    let mut retention = |field| match body.get(field).map(|value| read_days(value, field)) {
        Some(Err(fault)) => {
            faults.push(fault);
            None
        }
        read => read.and_then(Result::ok),
    };
    let deliveries = retention("deliveries_retention_days");
    let payloads = retention("payloads_retention_days");
    ApiError::check(faults)?;
    let change = AccountChange { name, deliveries, payloads };
    if change.fields().is_empty() {
        let fields = "name, deliveries_retention_days, payloads_retention_days";
        return Err(Fault::new(Code::NoValidFields).naming(fields).into());
    }
    // How long is kept is what the operator pays for.
    if call.caller.account().is_some() && (change.deliveries.is_some() || change.payloads.is_some()) {
        return Err(Code::Forbidden.into());
    }
    let account = call.store().update_account(account.id, change).await?;
    Ok(Answer::new(200, &resource(&account)))
}

/// `DELETE /v1/accounts/{id}`
pub async fn delete(call: Call) -> Result<Answer, ApiError> {
    let id = call.param("id", AccountId::parse)?;
    call.store().delete_account(id).await?;
    Ok(Answer::no_content())
}

/// `GET /v1/accounts/{id}/api-keys`
pub async fn list_keys(call: Call) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let page = call.page();
    let mut found = call.api.store.api_keys(Some(account.id), page).await?;
    for key in &mut found.items {
        key.last_used_at = key.last_used_at.max(call.api.key_uses.last(key.id));
    }
    Ok(Answer::page(&found, page, |key| key_resource(key, None)))
}

/// `POST /v1/accounts/{id}/api-keys`
pub async fn create_key(call: Call) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let body = call.json()?;
    let mut faults = Vec::new();
    let name = match body.get("name") {
        None | Some(Value::Null) => None,
        Some(_) => read_name(&body).map_err(|fault| faults.push(fault)).ok(),
    };
    let permissions = read_permissions(&body).map_err(|mut found| faults.append(&mut found)).ok();
    let expires_at = read_expiry(&body, call.api.clock.now()).map_err(|fault| faults.push(fault)).ok().flatten();
    ApiError::check(faults)?;
    let permissions = permissions.unwrap_or_default();
    if !call.caller.permissions.covers(permissions) {
        return Err(Code::Forbidden.into());
    }
    // A key that is made with a key ends with it at the latest, also where no end was asked for.
    let expires_at = expires_at.into_iter().chain(call.caller.key_expires_at()).min();
    let new = NewApiKey { account: Some(account.id), name, permissions, expires_at };
    let keep = call.keep(|made: &WithKey| Answer::new(201, &key_resource(&made.resource, None)));
    let made = call.store().create_api_key(new, call.api.settings.key_prefix.clone(), keep).await?;
    Ok(Answer::new(201, &key_resource(&made.resource, Some(made.key.reveal()))))
}

/// `DELETE /v1/accounts/{id}/api-keys/{key_id}`
pub async fn delete_key(call: Call) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let id = call.param("key_id", ApiKeyId::parse)?;
    call.store().delete_api_key(Some(account.id), id, call.caller.permissions).await?;
    Ok(Answer::no_content())
}

/// The account of the path, if the caller may see it.
pub(super) async fn find(call: &Call) -> Result<Account, ApiError> {
    let id = call.param("id", AccountId::parse)?;
    if call.caller.account().is_some_and(|own| own != id) {
        return Err(Code::NotFound.into());
    }
    Ok(call.api.store.account(id).await?)
}

fn read_name(body: &Map<String, Value>) -> Result<String, Fault> {
    match body.get("name") {
        None | Some(Value::Null) => Err(Fault::of_field(Code::NameRequired, "name")),
        Some(Value::String(name)) if (1..=MAX_NAME_CHARS).contains(&name.trim().chars().count()) => {
            Ok(name.trim().to_owned())
        }
        Some(_) => Err(Fault::of_field(Code::NameInvalid, "name")),
    }
}

fn days(keep: Duration) -> u64 {
    keep.as_secs() / DAY
}

/// A retention in days; `None` is what the settings say.
fn read_days(value: &Value, field: &'static str) -> Result<Option<Duration>, Fault> {
    if value.is_null() {
        return Ok(None);
    }
    let days = value.as_u64().filter(|days| (1..=u64::from(MAX_DAYS)).contains(days));
    days.map(|days| Some(Duration::from_secs(days * DAY))).ok_or(Fault::of_field(Code::RetentionInvalid, field))
}

pub(super) fn read_permissions(body: &Map<String, Value>) -> Result<Permissions, Vec<Fault>> {
    let field = |code| Fault::of_field(code, "permissions");
    let list = match body.get("permissions") {
        None | Some(Value::Null) => return Err(vec![field(Code::PermissionsRequired)]),
        Some(Value::Array(list)) if list.is_empty() => return Err(vec![field(Code::PermissionsRequired)]),
        Some(Value::Array(list)) => list,
        Some(other) => return Err(vec![field(Code::PermissionInvalid).naming(other)]),
    };
    let mut known = Vec::new();
    let mut faults = Vec::new();
    for item in list {
        match item.as_str().and_then(Permission::parse) {
            Some(permission) => known.push(permission),
            None => {
                let shown = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                let shown: String = shown.chars().take(200).collect();
                faults.push(field(Code::PermissionInvalid).naming(&shown).with_meta("permission", shown));
            }
        }
    }
    if faults.is_empty() { Ok(known.into_iter().collect()) } else { Err(faults) }
}

fn read_expiry(body: &Map<String, Value>, now: Timestamp) -> Result<Option<Timestamp>, Fault> {
    match body.get("expires_at") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let at = value.as_str().and_then(Timestamp::parse).filter(|at| *at > now);
            at.map(Some).ok_or_else(|| Fault::of_field(Code::ExpiresAtInvalid, "expires_at"))
        }
    }
}
