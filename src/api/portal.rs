//! `/v1/accounts/{id}/portal-links`: a short-lived way into one account's pages, which an operator hands to a customer or shows
//! in a frame; the account and the operator see which there are, and end them.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::accounts::{find, read_permissions};
use super::call::Call;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault};
use super::openapi::schemas::PermissionNames;
use crate::domain::id::PortalLinkId;
use crate::domain::permission::{Permission as P, Permissions};
use crate::domain::user::{Color, PortalLink, parse_origin};
use crate::store::{NewPortalLink, PortalLinks, WithToken};

/// Seconds that a link may live: as long as somebody looks at a page; not a way to sign in.
const LIVES: std::ops::RangeInclusive<u64> = 60..=86_400;

/// Where nothing is said.
const LIVES_BY_DEFAULT: u64 = 3_600;

/// Longest name at the top, in characters.
const MAX_BRAND_CHARS: usize = 60;

/// Sites that one link may name.
const MAX_ORIGINS: usize = 10;

/// What a link can allow: nothing by which its holder could stay longer than it lives, or let others in.
const ALLOWED: [P; 10] = [
    P::WebhooksRead,
    P::WebhooksCreate,
    P::WebhooksUpdate,
    P::WebhooksDelete,
    P::EventsCreate,
    P::EventsRead,
    P::EventTypesRead,
    P::AccountsRead,
    P::ApiKeysRead,
    P::AuditRead,
];

/// A short-lived URL into the account's pages.
#[derive(Serialize, ToSchema)]
pub(super) struct PortalLinkAttributes {
    /// The account whose pages it opens.
    #[schema(format = "uuid")]
    account_id: String,
    /// The address itself: whoever has it is let in. Only present in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uri")]
    url: Option<String>,
    /// What it allows.
    #[schema(value_type = PermissionNames, inline)]
    permissions: Vec<&'static str>,
    /// The name at the top of the pages; `null` is ours.
    #[schema(required, min_length = 1, max_length = 60)]
    brand: Option<String>,
    /// The colour of what can be pressed, `#rrggbb`; `null` is ours. It is shaded where it could not be read.
    #[schema(required, pattern = "^#[0-9a-f]{6}$")]
    color: Option<String>,
    /// Sites that may show the pages in a frame.
    frame_origins: Vec<String>,
    /// After this it is dead.
    #[schema(format = DateTime)]
    expires_at: String,
    /// When it was first opened; `null` before that.
    #[schema(required, format = DateTime)]
    opened_at: Option<String>,
}

fn resource(link: &PortalLink, url: Option<String>) -> Resource<PortalLinkAttributes> {
    Resource {
        r#type: "portal_link",
        id: link.id.to_string(),
        attributes: PortalLinkAttributes {
            account_id: link.account.to_string(),
            url,
            permissions: link.permissions.names(),
            brand: link.brand.clone(),
            color: link.color.map(|color| color.to_string()),
            frame_origins: link.frame_origins.clone(),
            expires_at: time(link.expires_at),
            opened_at: link.opened_at.map(time),
        },
    }
}

/// `POST /v1/accounts/{id}/portal-links`
pub async fn create(call: Call) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let body = call.json()?;
    let mut faults = Vec::new();
    let permissions = read_allowed(&body).map_err(|mut found| faults.append(&mut found)).ok();
    let lives = read_lives(&body).map_err(|fault| faults.push(fault)).ok();
    let brand = read_brand(&body).map_err(|fault| faults.push(fault)).ok();
    let color = read_color(&body).map_err(|fault| faults.push(fault)).ok();
    let frame_origins = read_origins(&body).map_err(|fault| faults.push(fault)).ok();
    ApiError::check(faults)?;
    let new = NewPortalLink {
        account: account.id,
        permissions: permissions.unwrap_or_default(),
        brand: brand.flatten(),
        color: color.flatten(),
        frame_origins: frame_origins.unwrap_or_default(),
        lives: lives.unwrap_or_default(),
    };
    if !call.caller.permissions.covers(new.permissions) {
        return Err(Code::Forbidden.into());
    }
    let keep = call.keep(|made: &WithToken<PortalLink>| Answer::new(201, &resource(&made.resource, None)));
    let made = call.store().create_portal_link(new, keep).await?;
    let url = made.token.as_ref().map(|token| format!("{}/portal/{}", call.base(), token.reveal()));
    Ok(Answer::new(201, &resource(&made.resource, url)))
}

/// `GET /v1/accounts/{id}/portal-links`
pub async fn list(call: Call) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let page = call.page();
    let found = call.api.store.portal_links(account.id, page).await?;
    Ok(Answer::page(&found, page, |link| resource(link, None)))
}

/// `DELETE /v1/accounts/{id}/portal-links/{link_id}`
pub async fn delete(call: Call) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let id = call.param("link_id", PortalLinkId::parse)?;
    call.store().delete_portal_link(account.id, id).await?;
    Ok(Answer::no_content())
}

fn read_allowed(body: &Map<String, Value>) -> Result<Permissions, Vec<Fault>> {
    let read = read_permissions(body)?;
    let allowed: Permissions = ALLOWED.into_iter().collect();
    let beyond = P::ALL.iter().filter(|permission| read.has(**permission) && !allowed.has(**permission));
    let faults: Vec<_> = beyond
        .map(|permission| {
            let name = permission.name();
            Fault::of_field(Code::PortalPermissionInvalid, "permissions").naming(name).with_meta("permission", name)
        })
        .collect();
    if faults.is_empty() { Ok(read) } else { Err(faults) }
}

fn read_lives(body: &Map<String, Value>) -> Result<Duration, Fault> {
    let seconds = match body.get("expires_in") {
        None | Some(Value::Null) => Some(LIVES_BY_DEFAULT),
        Some(value) => value.as_u64().filter(|seconds| LIVES.contains(seconds)),
    };
    seconds.map(Duration::from_secs).ok_or_else(|| Fault::of_field(Code::ExpiresInInvalid, "expires_in"))
}

fn read_brand(body: &Map<String, Value>) -> Result<Option<String>, Fault> {
    match body.get("brand") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let brand = value.as_str().map(str::trim);
            let fits = |brand: &&str| {
                (1..=MAX_BRAND_CHARS).contains(&brand.chars().count()) && !brand.chars().any(char::is_control)
            };
            let brand = brand.filter(fits).ok_or_else(|| Fault::of_field(Code::BrandInvalid, "brand"))?;
            Ok(Some(brand.to_owned()))
        }
    }
}

fn read_color(body: &Map<String, Value>) -> Result<Option<Color>, Fault> {
    match body.get("color") {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let color = value.as_str().and_then(Color::parse);
            color.map(Some).ok_or_else(|| Fault::of_field(Code::ColorInvalid, "color"))
        }
    }
}

fn read_origins(body: &Map<String, Value>) -> Result<Vec<String>, Fault> {
    let wrong = || Fault::of_field(Code::FrameOriginsInvalid, "frame_origins");
    match body.get("frame_origins") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) if list.len() <= MAX_ORIGINS => {
            let origins = list.iter().map(|origin| origin.as_str().and_then(parse_origin).ok_or_else(wrong));
            let mut origins = origins.collect::<Result<Vec<_>, _>>()?;
            origins.sort_unstable();
            origins.dedup();
            Ok(origins)
        }
        Some(_) => Err(wrong()),
    }
}
