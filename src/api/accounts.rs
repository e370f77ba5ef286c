//! `/v1/accounts` and their API keys.
//!
//! An operator's key manages all of them. An account's own key sees and changes its own account only, and makes keys
//! no stronger than itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::call::ApiCall;
use super::client_fields::{EXTERNAL_ID_SHAPE, METADATA_SHAPE, read_external_id, read_metadata};
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault};
use super::fields::{Field, List, RequestBody as _, Shape, Text, body};
use super::openapi::schemas::PermissionNames;
use crate::domain::account::{Account, AccountChange, ApiKey, MAX_NAME_CHARS, NewAccount, is_name};
use crate::domain::external_id::ExternalId;
use crate::domain::id::{AccountId, ApiKeyId};
use crate::domain::network_rules::{AccountNetworks, MAX_NETWORKS, NetworkList};
use crate::domain::permission::{Permission, Permissions};
use crate::domain::retention::MAX_DAYS;
use crate::domain::settings::Metadata;
use crate::domain::time::Timestamp;
use crate::store::{Accounts, NewApiKey, Paged, StoreError, WithKey};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// The owner of endpoints, events and keys.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AccountAttributes {
    /// A name for people.
    #[schema(min_length = 1, max_length = 255)]
    pub name: String,
    /// Days for which its deliveries and events are kept; `null` is as long as the server's settings say.
    #[schema(required, minimum = 1, maximum = 3650)]
    pub deliveries_retention_days: Option<u64>,
    /// Days for which the bodies of its events are kept, at most as long as their deliveries; `null` is as long as the
    /// server's settings say.
    #[schema(required, minimum = 1, maximum = 3650)]
    pub payloads_retention_days: Option<u64>,
    /// The operator's own notes. Only present where they were set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub metadata: Option<BTreeMap<String, String>>,
    /// The operator's own name for the account. Only present where it was set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub external_id: Option<String>,
    /// Networks where receivers of the account may live although they are private. Only shown to operators, where they
    /// were set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_items = 64)]
    pub egress_allow_networks: Option<Vec<String>>,
    /// Networks to which nothing of the account is sent. Only shown to operators, where they were set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, max_items = 64)]
    pub egress_deny_networks: Option<Vec<String>>,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    pub updated_at: String,
}

/// An account as somebody sees it. How the operator's own network is divided is for operators only.
fn resource(account: &Account, is_operator: bool) -> Resource<AccountAttributes> {
    let networks = |list: Option<&NetworkList>| list.filter(|_| is_operator).map(NetworkList::strings);
    Resource {
        r#type: "account".into(),
        id: account.id.to_string(),
        attributes: AccountAttributes {
            name: account.name.clone(),
            deliveries_retention_days: account.retention.deliveries.map(days),
            payloads_retention_days: account.retention.payloads.map(days),
            metadata: account.metadata.as_ref().map(|metadata| metadata.strings().clone()),
            external_id: account.external_id.as_ref().map(ToString::to_string),
            egress_allow_networks: networks(account.networks.allow.as_ref()),
            egress_deny_networks: networks(account.networks.deny.as_ref()),
            created_at: time(account.created_at),
            updated_at: time(account.updated_at),
        },
    }
}

/// An API key of the account.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct KeyAttributes {
    /// A name for people.
    #[schema(required)]
    pub name: Option<String>,
    /// The account that it acts for.
    #[schema(required, format = "uuid")]
    pub account_id: Option<String>,
    /// What it may do.
    #[schema(value_type = PermissionNames, inline)]
    pub permissions: Vec<Cow<'static, str>>,
    /// The key itself. Only present in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub key: Option<String>,
    /// Prefix and last 4 characters of the key. Present wherever the key is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub key_hint: Option<String>,
    /// After this it is refused; `null` when it never expires.
    #[schema(required, format = DateTime)]
    pub expires_at: Option<String>,
    /// When it was last used; `null` before the first use.
    #[schema(required, format = DateTime)]
    pub last_used_at: Option<String>,
    /// When it was made.
    #[schema(format = DateTime)]
    pub created_at: String,
}

/// A key with the key itself, in the one answer that shows it, or with its hint.
fn key_resource(key: &ApiKey, plain: Option<&str>) -> Resource<KeyAttributes> {
    Resource {
        r#type: "api_key".into(),
        id: key.id.to_string(),
        attributes: KeyAttributes {
            name: key.name.clone(),
            account_id: key.account.map(|(id, _)| id.to_string()),
            permissions: key.permissions.names().into_iter().map(Cow::Borrowed).collect(),
            key: plain.map(str::to_owned),
            key_hint: plain.is_none().then(|| key.hint.clone()),
            expires_at: key.expires_at.map(time),
            last_used_at: key.last_used_at.map(time),
            created_at: time(key.created_at),
        },
    }
}

/// `GET /v1/accounts`
pub async fn list(call: ApiCall) -> Result<Answer, ApiError> {
    let page = call.page();
    let found = match call.caller.account() {
        None => call.api.store.accounts(page).await?,
        Some(own) => {
            let own = call.api.store.account(own).await?;
            Paged::exact(if page.page == 1 { vec![own] } else { vec![] }, 1)
        }
    };
    Ok(Answer::page(&found, page, |account| resource(account, is_operator(&call))))
}

/// `POST /v1/accounts`
pub async fn create(call: ApiCall) -> Result<Answer, ApiError> {
    let new = new_account(&call.json()?)?;
    let is_operator = is_operator(&call);
    let pending_reply = call.pending_reply(move |account: &Account| Answer::new(201, &resource(account, is_operator)));
    let account = call.store().create_account(new, pending_reply).await.map_err(refused)?;
    Ok(Answer::new(201, &resource(&account, is_operator)))
}

/// Reads a new account with every check that comes before the database.
pub fn new_account(body: &Map<String, Value>) -> Result<NewAccount, ApiError> {
    let CreateAccount { name, metadata, external_id, egress_allow_networks, egress_deny_networks } =
        CreateAccount::read(body, &())?;
    let networks = AccountNetworks { allow: egress_allow_networks, deny: egress_deny_networks };
    Ok(NewAccount { name, metadata, external_id, networks })
}

/// `GET /v1/accounts/{id}`
pub async fn read(call: ApiCall) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    Ok(Answer::new(200, &resource(&account, is_operator(&call))))
}

/// `PUT /v1/accounts/{id}`
pub async fn update(call: ApiCall) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let update = UpdateAccount::read_change(&call.json()?, &())?;
    let change = AccountChange {
        name: update.name,
        deliveries: update.deliveries_retention_days,
        payloads: update.payloads_retention_days,
        metadata: update.metadata,
        external_id: update.external_id,
        allow_networks: update.egress_allow_networks,
        deny_networks: update.egress_deny_networks,
    };
    // The operator pays for retention, requests go through the operator's network, and the rest is how
    // the operator finds the account.
    if !is_operator(&call) && change.fields().iter().any(|field| *field != "name") {
        return Err(Code::Forbidden.into());
    }
    let account = call.store().update_account(account.id, change).await.map_err(refused)?;
    Ok(Answer::new(200, &resource(&account, is_operator(&call))))
}

/// `DELETE /v1/accounts/{id}`
pub async fn delete(call: ApiCall) -> Result<Answer, ApiError> {
    let id = account_id(&call).await?;
    call.store().delete_account(id).await?;
    Ok(Answer::no_content())
}

/// `GET /v1/accounts/{id}/api-keys`
pub async fn list_keys(call: ApiCall) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let page = call.page();
    let mut found = call.api.store.api_keys(Some(account.id), page).await?;
    for key in &mut found.items {
        key.last_used_at = key.last_used_at.max(call.api.key_uses.last(key.id));
    }
    Ok(Answer::page(&found, page, |key| key_resource(key, None)))
}

/// `POST /v1/accounts/{id}/api-keys`
pub async fn create_key(call: ApiCall) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let CreateApiKey { name, permissions, expires_at } = CreateApiKey::read(&call.json()?, &call.api.clock.now())?;
    // A key counts as a person who has proved who they are: a session that was stolen must not become one.
    let lacks_proof = permissions.let_others_in() && !call.caller.is_proved();
    if lacks_proof || !call.caller.permissions.covers(permissions) {
        return Err(Code::Forbidden.into());
    }
    // A key that is made with a key ends with it at the latest, also where no end was asked for.
    let expires_at = expires_at.into_iter().chain(call.caller.key_expires_at()).min();
    let new = NewApiKey { account: Some(account.id), name, permissions, expires_at };
    let pending_reply = call.pending_reply(|made: &WithKey| Answer::new(201, &key_resource(&made.resource, None)));
    let made = call.store().create_api_key(new, call.api.settings.key_prefix.clone(), pending_reply).await?;
    Ok(Answer::new(201, &key_resource(&made.resource, Some(made.key.reveal()))))
}

/// Whether a person gives password and second factor before they make a key with the permissions of these names.
pub fn takes_proof(permissions: &[&str]) -> bool {
    let known = permissions.iter().filter_map(|name| Permission::parse(name));
    known.collect::<Permissions>().let_others_in()
}

/// `DELETE /v1/accounts/{id}/api-keys/{key_id}`
pub async fn delete_key(call: ApiCall) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let id = call.param("key_id", ApiKeyId::parse)?;
    call.store().delete_api_key(Some(account.id), id, call.caller.permissions).await?;
    Ok(Answer::no_content())
}

fn is_operator(call: &ApiCall) -> bool {
    call.caller.account().is_none()
}

/// The id of the account that the path names, by its id or by its external id.
async fn account_id(call: &ApiCall) -> Result<AccountId, ApiError> {
    let named = call.param("id", |text| Some(text.to_owned()))?;
    if let Some(id) = AccountId::parse(&named) {
        return Ok(id);
    }
    let external_id = ExternalId::parse(&named).ok_or(Code::NotFound)?;
    Ok(call.api.store.account_named(external_id).await?)
}

/// Why an account was not written.
fn refused(error: StoreError) -> ApiError {
    match error {
        StoreError::ExternalIdTaken => Fault::of_field(Code::AccountExternalIdTaken, "external_id").into(),
        other => other.into(),
    }
}

/// The account of the path, if the caller may see it.
pub(super) async fn find(call: &ApiCall) -> Result<Account, ApiError> {
    let id = account_id(call).await?;
    if call.caller.account().is_some_and(|own| own != id) {
        return Err(Code::NotFound.into());
    }
    Ok(call.api.store.account(id).await?)
}

const NAME: Field<(), String> = Field {
    about: "A name for people.",
    shape: Shape::Text(NAME_LIMITS),
    nullable: false,
    codes: &[Code::NameInvalid],
    read: |(), value| read_name(value),
};

/// The name of an account that has one: it cannot be removed.
const NEW_NAME: Field<(), String> = Field {
    codes: &[Code::NameRequired, Code::NameInvalid],
    read: |(), value| if value.is_null() { Err(vec![Fault::new(Code::NameRequired)]) } else { read_name(value) },
    ..NAME
};

const NAME_LIMITS: Text = Text { min: Some(1), max: Some(MAX_NAME_CHARS), ..Text::ANY };

fn read_name(value: &Value) -> Result<String, Vec<Fault>> {
    let name = value.as_str().map(str::trim).filter(|name| is_name(name));
    name.map(str::to_owned).ok_or_else(|| vec![Fault::new(Code::NameInvalid)])
}

/// A retention in days; `None` is what the settings say.
const RETENTION: Field<(), Option<Duration>> = Field {
    about: "Days for which its deliveries and events are kept; `null` is as long as the server's settings say.",
    shape: Shape::Number(1, MAX_DAYS as u64),
    nullable: true,
    codes: &[Code::RetentionInvalid],
    read: |(), value| {
        if value.is_null() {
            return Ok(None);
        }
        let days = value.as_u64().filter(|days| (1..=u64::from(MAX_DAYS)).contains(days));
        days.map(|days| Some(Duration::from_secs(days * DAY))).ok_or_else(|| vec![Fault::new(Code::RetentionInvalid)])
    },
};

fn days(keep: Duration) -> u64 {
    keep.as_secs() / DAY
}

const METADATA: Field<(), Option<Metadata>> = Field {
    about: "The operator's own notes: up to 20 keys of up to 64 letters, digits, hyphens and underscores, with strings \
            of up to 512 characters. `null` removes them.",
    shape: METADATA_SHAPE,
    nullable: true,
    codes: &[Code::AccountMetadataInvalid],
    read: |(), value| read_metadata(value, Code::AccountMetadataInvalid),
};

const EXTERNAL_ID: Field<(), Option<ExternalId>> = Field {
    about: "The operator's own name for the account, which no other account of the server has. Every path that takes \
            the account's id takes it too, and so does an event's `account_id`. It is no UUID. `null` removes it.",
    shape: EXTERNAL_ID_SHAPE,
    nullable: true,
    codes: &[Code::AccountExternalIdInvalid, Code::AccountExternalIdTaken],
    read: |(), value| read_external_id(value, Code::AccountExternalIdInvalid),
};

/// A list of networks.
const NETWORKS: Field<(), Option<NetworkList>> = Field {
    about: "Networks where receivers of the account may live although they are private or special, beside those of the \
            server's settings. What the server or the account denies is denied all the same. `null` removes them.",
    shape: Shape::List(List { items: &NETWORK_SHAPE, min: None, max: Some(MAX_NETWORKS) }),
    nullable: true,
    codes: &[Code::AccountEgressNetworksInvalid],
    read: |(), value| {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let texts = match value {
            Value::Null => return Ok(None),
            Value::Array(list) => list.iter().map(text).collect::<Option<Vec<String>>>(),
            _ => None,
        };
        let networks = texts.and_then(|texts| NetworkList::parse(&texts));
        networks.map(Some).ok_or_else(|| vec![Fault::new(Code::AccountEgressNetworksInvalid)])
    },
};

const NETWORK_SHAPE: Shape = Shape::Text(Text { pattern: Some("^[0-9A-Fa-f.:]+/[0-9]{1,3}$"), ..Text::ANY });

const DENIED_NETWORKS: &str = "Networks to which nothing of the account is sent, beside those of the server's \
                               settings. `null` removes them.";

body! {
    /// A new account.
    pub struct CreateAccount(()) {
        name: String = NAME.required(Code::NameRequired),
        metadata: Option<Metadata> = METADATA.or_default(),
        external_id: Option<ExternalId> = EXTERNAL_ID.or_default(),
        egress_allow_networks: Option<NetworkList> = NETWORKS.or_default(),
        egress_deny_networks: Option<NetworkList> = NETWORKS.about(DENIED_NETWORKS).or_default(),
    }
}

body! {
    /// What of the account is to be changed. Only an operator's key changes more than its name.
    pub struct UpdateAccount(()) {
        name: Option<String> = NEW_NAME.change(),
        deliveries_retention_days: Option<Option<Duration>> = RETENTION.change(),
        payloads_retention_days: Option<Option<Duration>> = RETENTION
            .about("Days for which the bodies of its events are kept, at most as long as their deliveries; `null` is \
                    as long as the server's settings say.")
            .change(),
        metadata: Option<Option<Metadata>> = METADATA.change(),
        external_id: Option<Option<ExternalId>> = EXTERNAL_ID.change(),
        egress_allow_networks: Option<Option<NetworkList>> = NETWORKS.change(),
        egress_deny_networks: Option<Option<NetworkList>> = NETWORKS.about(DENIED_NETWORKS).change(),
    }
}

/// Most entries of a list of permissions, repeated ones included: several times as many as there are permissions.
pub(super) const MAX_PERMISSIONS_SENT: usize = 100;

/// Permissions, of which the least is one.
pub(super) fn read_permissions(value: &Value) -> Result<Permissions, Vec<Fault>> {
    let list = match value {
        Value::Array(list) if list.is_empty() => return Err(vec![Fault::new(Code::PermissionsRequired)]),
        // Each entry could be a fault of its own, and make an answer a hundred times as large as the body.
        Value::Array(list) if list.len() > MAX_PERMISSIONS_SENT => {
            let shown = format!("a list of {} entries", list.len());
            return Err(vec![Fault::new(Code::PermissionInvalid).naming(shown)]);
        }
        Value::Array(list) => list,
        other => return Err(vec![Fault::new(Code::PermissionInvalid).naming(other)]),
    };
    let mut known = Vec::new();
    let mut faults = Vec::new();
    for item in list {
        match item.as_str().and_then(Permission::parse) {
            Some(permission) => known.push(permission),
            None => {
                let shown = item.as_str().map_or_else(|| item.to_string(), str::to_owned);
                let shown: String = shown.chars().take(200).collect();
                faults.push(Fault::new(Code::PermissionInvalid).naming(&shown).with_meta("permission", shown));
            }
        }
    }
    if faults.is_empty() { Ok(known.into_iter().collect()) } else { Err(faults) }
}

const PERMISSIONS: Field<Timestamp, Permissions> = Field {
    about: "What it may do.",
    shape: Shape::List(List {
        items: &Shape::OneOf(|| Permission::ALL.iter().map(|permission| permission.name()).collect()),
        min: Some(1),
        max: Some(MAX_PERMISSIONS_SENT),
    }),
    nullable: false,
    codes: &[Code::PermissionsRequired, Code::PermissionInvalid],
    read: |_, value| read_permissions(value),
};

/// The name of a key, which it need not have.
const KEY_NAME: Field<Timestamp, String> = Field {
    about: NAME.about,
    shape: NAME.shape,
    nullable: true,
    codes: NAME.codes,
    read: |_, value| read_name(value),
};

/// When a key ends: after now, which is the context.
const EXPIRES_AT: Field<Timestamp, Timestamp> = Field {
    about: "After this it is refused: ISO 8601 in the future, with its offset. It never expires when this is not \
            given.",
    shape: Shape::Text(Text { format: Some("date-time"), ..Text::ANY }),
    nullable: true,
    codes: &[Code::ExpiresAtInvalid],
    read: |now, value| {
        let at = value.as_str().and_then(Timestamp::parse).filter(|at| at > now);
        at.ok_or_else(|| vec![Fault::new(Code::ExpiresAtInvalid)])
    },
};

body! {
    /// A new API key. It can do no more than the key that makes it.
    pub struct CreateApiKey(Timestamp) {
        name: Option<String> = KEY_NAME.maybe(),
        permissions: Permissions = PERMISSIONS.required(Code::PermissionsRequired),
        expires_at: Option<Timestamp> = EXPIRES_AT.maybe(),
    }
}
