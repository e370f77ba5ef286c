//! `/v1/audit-log`: who did what. An account's key sees what concerns its account, an operator's everything.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::call::ApiCall;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Words};
use super::export;
use super::filters;
use crate::domain::audit::{AuditEntry, AuditFilter};
use crate::store::AuditLog;
use crate::table::Cell;

/// An entry of the audit log.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct AuditAttributes {
    /// What was done, such as `webhook.updated`.
    pub action: String,
    /// The account that it concerns; `null` for what is the operator's.
    #[schema(required, format = "uuid")]
    pub account_id: Option<String>,
    /// `api_key`, `user`, `portal_link`, `operator_key`, `operator_user`, `command_line`, `anonymous` or `system`.
    pub actor_type: String,
    /// The id of the API key; `null` where the actor has none. An account is told of its own keys only.
    #[schema(required)]
    pub actor_id: Option<String>,
    /// The key's name or hint as it was then, or the name of the user at the command line.
    #[schema(required)]
    pub actor_name: Option<String>,
    /// The type of what it was done to.
    pub resource_type: String,
    /// The id of what it was done to; of an event type its name.
    pub resource_id: String,
    /// The fields that the change named. Their values are not kept.
    pub fields: Vec<String>,
    /// The address that the request came from. An account is told of its own requests only.
    #[schema(required)]
    pub ip_address: Option<String>,
    /// The id of the request, as its answer carried it.
    #[schema(required)]
    pub request_id: Option<String>,
    /// When it was done.
    #[schema(format = DateTime)]
    pub created_at: String,
}

fn resource(entry: &AuditEntry) -> Resource<AuditAttributes> {
    let (actor_type, actor_id, actor_name) = entry.actor.clone();
    let (resource_type, resource_id) = entry.resource.clone();
    Resource {
        r#type: "audit_entry".into(),
        id: entry.id.to_string(),
        attributes: AuditAttributes {
            action: entry.action.clone(),
            account_id: entry.account.map(|id| id.to_string()),
            actor_type,
            actor_id,
            actor_name,
            resource_type,
            resource_id,
            fields: entry.fields.clone(),
            ip_address: entry.address.clone(),
            request_id: entry.request.clone(),
            created_at: time(entry.created_at),
        },
    }
}

/// What a filter takes.
fn allowed(name: &str) -> Words {
    match name {
        "action" => Words::new(
            "action takes names such as webhook.updated, separated by commas",
            "action admite nombres como webhook.updated, separados por comas",
        ),
        "resource_type" => Words::new(
            "resource_type takes types such as webhook_endpoint, separated by commas",
            "resource_type admite tipos como webhook_endpoint, separados por comas",
        ),
        "account_id" => Words::new("account_id takes a UUID", "account_id admite un UUID"),
        "from" | "to" => filters::time_of(name),
        _ => Words::new(
            format!("{name} takes ids, separated by commas"),
            format!("{name} admite identificadores, separados por comas"),
        ),
    }
}

fn filter(call: &ApiCall) -> Result<AuditFilter, ApiError> {
    AuditFilter::read(&call.query()).map_err(|names| ApiError::of_filters(names, allowed))
}

/// `GET /v1/audit-log`
pub async fn list(call: ApiCall) -> Result<Answer, ApiError> {
    let (page, filter) = (call.page(), filter(&call)?);
    let found = call.api.store.audit_log(call.caller.account(), filter, page).await?;
    Ok(Answer::page(&found, page, resource))
}

/// The columns of an export, named like the attributes, and their widths.
const COLUMNS: [(&str, u16); 12] = [
    ("id", 38),
    ("created_at", 22),
    ("action", 26),
    ("account_id", 38),
    ("actor_type", 14),
    ("actor_id", 38),
    ("actor_name", 24),
    ("resource_type", 18),
    ("resource_id", 38),
    ("fields", 24),
    ("ip_address", 18),
    ("request_id", 14),
];

/// `GET /v1/audit-log/export`
pub async fn export(call: ApiCall) -> Result<Answer, ApiError> {
    let filter = filter(&call)?;
    let (store, owner) = (call.api.store.clone(), call.caller.account());
    let walk = move |before| {
        let (store, filter) = (store.clone(), filter.clone());
        async move { store.walk_audit_log(owner, filter, before).await }
    };
    export::answer(&call, "audit-log", &COLUMNS, walk, cells).await
}

fn cells(entry: &AuditEntry) -> Vec<Cell<'_>> {
    let (actor_type, actor_id, actor_name) = &entry.actor;
    let (resource_type, resource_id) = &entry.resource;
    vec![
        Cell::owned(entry.id),
        Cell::owned(time(entry.created_at)),
        Cell::text(&entry.action),
        Cell::maybe(entry.account, Cell::owned),
        Cell::text(actor_type),
        Cell::maybe(actor_id.as_deref(), Cell::text),
        Cell::maybe(actor_name.as_deref(), Cell::text),
        Cell::text(resource_type),
        Cell::text(resource_id),
        Cell::owned(entry.fields.join(" ")),
        Cell::maybe(entry.address.as_deref(), Cell::text),
        Cell::maybe(entry.request.as_deref(), Cell::text),
    ]
}
