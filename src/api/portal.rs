//! `/v1/accounts/{id}/portal-links`: a short-lived way into one account's pages, which an operator hands to a customer
//! or shows in a frame; the account and the operator see which there are, and end them.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::accounts::{MAX_PERMISSIONS_SENT, find, read_permissions};
use super::call::ApiCall;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault};
use super::fields::{Field, List, RequestBody as _, Shape, Text, body};
use super::openapi::schemas::PermissionNames;
use crate::domain::id::PortalLinkId;
use crate::domain::permission::{Permission as P, Permissions};
use crate::domain::user::{Color, PortalLink, parse_origin};
use crate::store::{NewPortalLink, PortalLinks, WithToken};

/// Seconds that a link may live: for one visit, not to stay signed in.
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
#[derive(Serialize, Deserialize, ToSchema)]
pub struct PortalLinkAttributes {
    /// The account whose pages it opens.
    #[schema(format = "uuid")]
    pub account_id: String,
    /// The address itself: whoever has it is let in. Only present in the answer that makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = "uri")]
    pub url: Option<String>,
    /// What it allows.
    #[schema(value_type = PermissionNames, inline)]
    pub permissions: Vec<Cow<'static, str>>,
    /// The name at the top of the pages; `null` is ours.
    #[schema(required, min_length = 1, max_length = 60)]
    pub brand: Option<String>,
    /// The colour of what can be pressed, `#rrggbb`; `null` is ours. It is shaded where it could not be read.
    #[schema(required, pattern = "^#[0-9a-f]{6}$")]
    pub color: Option<String>,
    /// Sites that may show the pages in a frame.
    pub frame_origins: Vec<String>,
    /// After this it is dead.
    #[schema(format = DateTime)]
    pub expires_at: String,
    /// When it was first opened; `null` before that.
    #[schema(required, format = DateTime)]
    pub opened_at: Option<String>,
}

fn resource(link: &PortalLink, url: Option<String>) -> Resource<PortalLinkAttributes> {
    Resource {
        r#type: "portal_link".into(),
        id: link.id.to_string(),
        attributes: PortalLinkAttributes {
            account_id: link.account.to_string(),
            url,
            permissions: link.permissions.names().into_iter().map(Cow::Borrowed).collect(),
            brand: link.brand.clone(),
            color: link.color.map(|color| color.to_string()),
            frame_origins: link.frame_origins.clone(),
            expires_at: time(link.expires_at),
            opened_at: link.opened_at.map(time),
        },
    }
}

/// `POST /v1/accounts/{id}/portal-links`
pub async fn create(call: ApiCall) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let body = CreatePortalLink::read(&call.json()?, &())?;
    let lives = body.expires_in.unwrap_or(Duration::from_secs(LIVES_BY_DEFAULT));
    let end = call.api.clock.now().plus(lives);
    let new = NewPortalLink {
        account: account.id,
        permissions: body.permissions,
        brand: body.brand,
        color: body.color,
        frame_origins: body.frame_origins.unwrap_or_default(),
        // A link that is made with a key ends with it at the latest, like a key.
        expires_at: call.caller.key_expires_at().map_or(end, |key_end| key_end.min(end)),
    };
    if !call.caller.permissions.covers(new.permissions) {
        return Err(Code::Forbidden.into());
    }
    let pending_reply =
        call.pending_reply(|made: &WithToken<PortalLink>| Answer::new(201, &resource(&made.resource, None)));
    let made = call.store().create_portal_link(new, pending_reply).await?;
    let url = made.token.as_ref().map(|token| format!("{}/portal/{}", call.base(), token.reveal()));
    Ok(Answer::new(201, &resource(&made.resource, url)))
}

/// `GET /v1/accounts/{id}/portal-links`
pub async fn list(call: ApiCall) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let page = call.page();
    let found = call.api.store.portal_links(account.id, page).await?;
    Ok(Answer::page(&found, page, |link| resource(link, None)))
}

/// `DELETE /v1/accounts/{id}/portal-links/{link_id}`
pub async fn delete(call: ApiCall) -> Result<Answer, ApiError> {
    let account = find(&call).await?;
    let id = call.param("link_id", PortalLinkId::parse)?;
    call.store().delete_portal_link(account.id, id).await?;
    Ok(Answer::no_content())
}

const PERMISSIONS: Field<(), Permissions> = Field {
    about: "What it allows, at most what the key itself may do: of webhooks, events and event types, `accounts:read`, \
            `api_keys:read` and `audit:read`.",
    shape: Shape::List(List {
        items: &Shape::OneOf(|| ALLOWED.map(P::name).to_vec()),
        min: Some(1),
        max: Some(MAX_PERMISSIONS_SENT),
    }),
    nullable: false,
    codes: &[Code::PermissionsRequired, Code::PermissionInvalid, Code::PortalPermissionInvalid],
    read: |(), value| {
        let read = read_permissions(value)?;
        let allowed: Permissions = ALLOWED.into_iter().collect();
        let beyond = P::ALL.iter().filter(|permission| read.has(**permission) && !allowed.has(**permission));
        let faults: Vec<_> = beyond
            .map(|permission| {
                let name = permission.name();
                Fault::new(Code::PortalPermissionInvalid).naming(name).with_meta("permission", name)
            })
            .collect();
        if faults.is_empty() { Ok(read) } else { Err(faults) }
    },
};

const EXPIRES_IN: Field<(), Duration> = Field {
    about: "Seconds until it is dead. A link that is made with a key ends with the key at the latest.",
    shape: Shape::Number(*LIVES.start(), *LIVES.end()),
    nullable: true,
    codes: &[Code::ExpiresInInvalid],
    read: |(), value| {
        let seconds = value.as_u64().filter(|seconds| LIVES.contains(seconds));
        seconds.map(Duration::from_secs).ok_or_else(|| vec![Fault::new(Code::ExpiresInInvalid)])
    },
};

const BRAND: Field<(), String> = Field {
    about: "The name at the top of the pages, in place of ours.",
    shape: Shape::Text(Text { min: Some(1), max: Some(MAX_BRAND_CHARS), ..Text::ANY }),
    nullable: true,
    codes: &[Code::BrandInvalid],
    read: |(), value| {
        let fits = |brand: &&str| {
            (1..=MAX_BRAND_CHARS).contains(&brand.chars().count()) && !brand.chars().any(char::is_control)
        };
        let brand = value.as_str().map(str::trim).filter(fits);
        brand.map(str::to_owned).ok_or_else(|| vec![Fault::new(Code::BrandInvalid)])
    },
};

const COLOR: Field<(), Color> = Field {
    about: "The colour of what can be pressed.",
    shape: Shape::Text(Text { pattern: Some("^#[0-9A-Fa-f]{6}$"), ..Text::ANY }),
    nullable: true,
    codes: &[Code::ColorInvalid],
    read: |(), value| value.as_str().and_then(Color::parse).ok_or_else(|| vec![Fault::new(Code::ColorInvalid)]),
};

const FRAME_ORIGINS: Field<(), Vec<String>> = Field {
    about: "Sites that may show the pages in a frame, such as `https://app.example.com`. Without any no site may.",
    shape: Shape::List(List { items: &Shape::Text(Text::ANY), min: None, max: Some(MAX_ORIGINS) }),
    nullable: true,
    codes: &[Code::FrameOriginsInvalid],
    read: |(), value| {
        let list = value.as_array().filter(|list| list.len() <= MAX_ORIGINS);
        let origins = list.and_then(|list| list.iter().map(|origin| parse_origin(origin.as_str()?)).collect());
        let mut origins: Vec<String> = origins.ok_or_else(|| vec![Fault::new(Code::FrameOriginsInvalid)])?;
        origins.sort_unstable();
        origins.dedup();
        Ok(origins)
    },
};

body! {
    /// A way into the account's pages.
    pub struct CreatePortalLink(()) {
        permissions: Permissions = PERMISSIONS.required(Code::PermissionsRequired),
        expires_in: Option<Duration> = EXPIRES_IN.maybe().shown(|| LIVES_BY_DEFAULT.into()),
        brand: Option<String> = BRAND.maybe(),
        color: Option<Color> = COLOR.maybe(),
        frame_origins: Option<Vec<String>> = FRAME_ORIGINS.maybe(),
    }
}
