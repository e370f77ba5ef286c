//! The shapes of the reference that no handler's own structure has: request bodies (handlers read those field by field,
//! to name every fault) and the value lists of single fields.
#![expect(dead_code, reason = "they describe what clients send, and are never built here")]

use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::delivery::DeliveryStatus;
use crate::domain::endpoint::{EndpointStatus, Ordering};
use crate::domain::permission::Permission;
use crate::domain::replay::{ReplayStatus, Selection};
use crate::domain::statistics::Period;
use crate::domain::user::Role;

/// Registers a receiver.
#[derive(ToSchema)]
pub struct CreateWebhook {
    /// Receiver URL. In production it must use HTTPS, and its host must not resolve to a private, local or reserved address.
    #[schema(format = "uri", max_length = 2048)]
    url: String,
    /// Event types to subscribe to, from the catalog; and `endpoint.auto_disabled`, `endpoint.disabled`, `endpoint.enabled`, `delivery.failed`, `secret.rotated`, by which the server tells of the account's other endpoints. Counted as sent, then duplicates are dropped.
    #[schema(min_items = 1, max_items = 10)]
    events: Vec<String>,
    /// Free-form label.
    #[schema(max_length = 255)]
    description: Option<String>,
    /// `fifo`: deliveries go in the order in which their events were accepted, one at a time; while one is being retried the others wait. `none` (the default): none waits for another. A change holds for what is accepted from then on.
    #[schema(required = false, value_type = OrderingName, inline)]
    ordering: Option<String>,
}

/// Changes what it names, and nothing else. At least one field.
#[derive(ToSchema)]
pub struct UpdateWebhook {
    /// Receiver URL, under the same rules as at registration.
    #[schema(nullable = false, format = "uri", max_length = 2048)]
    url: Option<String>,
    /// Event types to subscribe to, in place of those before.
    #[schema(nullable = false, min_items = 1, max_items = 10)]
    events: Option<Vec<String>>,
    /// Free-form label; `null` removes it.
    #[schema(max_length = 255)]
    description: Option<String>,
    /// `active` (which also clears the failure counter) or `disabled`.
    #[schema(required = false, value_type = SettableStatusName, inline)]
    status: Option<String>,
    /// `fifo`: deliveries go in the order in which their events were accepted, one at a time; while one is being retried the others wait. `none` (the default): none waits for another. A change holds for what is accepted from then on.
    #[schema(required = false, value_type = OrderingName, inline)]
    ordering: Option<String>,
}

/// How long the old secret lives on.
#[derive(ToSchema)]
pub struct RegenerateSecret {
    /// Seconds for which the old secret signs beside the new one. With 0 every older secret is dead at once.
    #[schema(nullable = false, minimum = 0, maximum = 604_800, default = 0)]
    overlap_seconds: Option<u32>,
}

/// Which events to send again.
#[derive(ToSchema)]
pub struct ReplayEvents {
    /// Events accepted at this time or later: an ISO 8601 date-time with its offset, or a date, which begins at midnight UTC.
    from: String,
    /// Events accepted until the end of this second, or of this day. Now, when it is not given.
    to: Option<String>,
    /// `failed`: tried in vain and not tried any more. `missed`: the endpoint subscribes to it and has no delivery of it. `all`: both, and those that were delivered.
    #[schema(required = false, default = "failed", value_type = SelectionName, inline)]
    status: Option<String>,
}

/// Something that happened.
#[derive(ToSchema)]
pub struct PublishEvent {
    /// An event type of the catalog.
    event: String,
    /// What receivers get as `data`, to the byte as it is sent. Where the event type has a schema, it must match.
    #[schema(value_type = FreeObject, inline)]
    data: Value,
    /// When it happened: ISO 8601 with its offset. Now, when it is not given.
    #[schema(format = DateTime)]
    timestamp: Option<String>,
    /// The account that it happened in. Required with an operator key; otherwise the key's own, if it is given.
    #[schema(format = "uuid")]
    account_id: Option<String>,
}

/// Events that are accepted together, all or none.
#[derive(ToSchema)]
pub struct PublishEvents {
    /// The events, each up to `limits.max_body` bytes.
    #[schema(min_items = 1, max_items = 1000)]
    events: Vec<PublishEvent>,
}

/// A new entry of the catalog.
#[derive(ToSchema)]
pub struct CreateEventType {
    /// The name: lowercase letters, digits and underscores in parts separated by dots. `test` is taken.
    #[schema(pattern = r"^[a-z0-9_]+(\.[a-z0-9_]+)*$", max_length = 128)]
    name: String,
    /// What it means, for people.
    #[schema(max_length = 1000)]
    description: Option<String>,
    /// JSON Schema that the `data` of its events must match, without references to other documents.
    #[schema(required = false, value_type = NullableSchema, inline)]
    schema: Option<Value>,
    /// An example of `data`, which must match the schema.
    #[schema(required = false, value_type = NullableObject, inline)]
    example: Option<Value>,
}

/// Changes what it names, and nothing else. At least one field.
#[derive(ToSchema)]
pub struct UpdateEventType {
    /// What it means, for people; `null` removes it.
    #[schema(max_length = 1000)]
    description: Option<String>,
    /// JSON Schema that the `data` of its events must match; `null` removes it.
    #[schema(required = false, value_type = NullableSchema, inline)]
    schema: Option<Value>,
    /// An example of `data`; `null` removes it.
    #[schema(required = false, value_type = NullableObject, inline)]
    example: Option<Value>,
}

/// The account's name.
#[derive(ToSchema)]
pub struct NameAccount {
    /// A name for people.
    #[schema(min_length = 1, max_length = 255)]
    name: String,
}

/// What of the account is to be changed. Only an operator's key changes how long its history is kept.
#[derive(ToSchema)]
pub struct UpdateAccount {
    /// A name for people.
    #[schema(required = false, min_length = 1, max_length = 255)]
    name: String,
    /// Days for which its deliveries and events are kept; `null` is as long as the server's settings say.
    #[schema(minimum = 1, maximum = 3650)]
    deliveries_retention_days: Option<u64>,
    /// Days for which the bodies of its events are kept, at most as long as their deliveries; `null` is as long as the server's settings say.
    #[schema(minimum = 1, maximum = 3650)]
    payloads_retention_days: Option<u64>,
}

/// A new API key. It can do no more than the key that makes it.
#[derive(ToSchema)]
pub struct CreateApiKey {
    /// What it may do.
    #[schema(value_type = PermissionNames, inline)]
    permissions: Vec<String>,
    /// A name for people.
    #[schema(min_length = 1, max_length = 255)]
    name: Option<String>,
    /// After this it is refused: ISO 8601 in the future, with its offset. It never expires when this is not given.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
}

/// Somebody who shall be able to sign in.
#[derive(ToSchema)]
pub struct InviteUser {
    /// Their address. One address has one user on a server.
    #[schema(format = "email", max_length = 254)]
    email: String,
    /// What they may do: `owner` everything within the account, `developer` work with webhooks and events, `viewer` look.
    #[schema(value_type = RoleName, inline)]
    role: String,
}

/// Another role.
#[derive(ToSchema)]
pub struct UpdateUser {
    /// What they may do from now on. The account's last owner stays one.
    #[schema(value_type = RoleName, inline)]
    role: String,
}

/// A way into the account's pages.
#[derive(ToSchema)]
pub struct CreatePortalLink {
    /// What it allows, at most what the key itself may do: of webhooks, events and event types, `accounts:read`, `api_keys:read` and `audit:read`.
    #[schema(value_type = PermissionNames, inline)]
    permissions: Vec<String>,
    /// Seconds until it is dead.
    #[schema(minimum = 60, maximum = 86_400, default = 3600)]
    expires_in: Option<u64>,
    /// The name at the top of the pages, in place of ours.
    #[schema(min_length = 1, max_length = 60)]
    brand: Option<String>,
    /// The colour of what can be pressed.
    #[schema(pattern = "^#[0-9A-Fa-f]{6}$")]
    color: Option<String>,
    /// Sites that may show the pages in a frame, such as `https://app.example.com`. Without any no site may.
    #[schema(max_items = 10)]
    frame_origins: Option<Vec<String>>,
}

fn one_of(names: impl IntoIterator<Item = &'static str>) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
}

/// The values of an endpoint's ordering.
pub struct OrderingName;

impl ToSchema for OrderingName {}

impl PartialSchema for OrderingName {
    fn schema() -> RefOr<Schema> {
        one_of([Ordering::None, Ordering::Fifo].map(Ordering::name))
    }
}

/// The values of an endpoint's status.
pub struct EndpointStatusName;

impl ToSchema for EndpointStatusName {}

impl PartialSchema for EndpointStatusName {
    fn schema() -> RefOr<Schema> {
        one_of(
            [EndpointStatus::Active, EndpointStatus::Disabled, EndpointStatus::AutoDisabled].map(EndpointStatus::name),
        )
    }
}

/// The values that an owner may set an endpoint's status to.
pub struct SettableStatusName;

impl ToSchema for SettableStatusName {}

impl PartialSchema for SettableStatusName {
    fn schema() -> RefOr<Schema> {
        one_of([EndpointStatus::Active, EndpointStatus::Disabled].map(EndpointStatus::name))
    }
}

/// The values of a delivery's status.
pub struct DeliveryStatusName;

impl ToSchema for DeliveryStatusName {}

impl PartialSchema for DeliveryStatusName {
    fn schema() -> RefOr<Schema> {
        one_of(DeliveryStatus::ALL.map(DeliveryStatus::name))
    }
}

/// The values of what a replay takes.
pub struct SelectionName;

impl ToSchema for SelectionName {}

impl PartialSchema for SelectionName {
    fn schema() -> RefOr<Schema> {
        one_of(Selection::ALL.map(Selection::name))
    }
}

/// The values of a replay's status.
pub struct ReplayStatusName;

impl ToSchema for ReplayStatusName {}

impl PartialSchema for ReplayStatusName {
    fn schema() -> RefOr<Schema> {
        one_of(ReplayStatus::ALL.map(ReplayStatus::name))
    }
}

/// The roles of an account's users.
pub struct RoleName;

impl ToSchema for RoleName {}

impl PartialSchema for RoleName {
    fn schema() -> RefOr<Schema> {
        one_of(Role::OF_ACCOUNT.map(Role::name))
    }
}

/// The values of a user's status.
pub struct UserStatusName;

impl ToSchema for UserStatusName {}

impl PartialSchema for UserStatusName {
    fn schema() -> RefOr<Schema> {
        one_of(["invited", "active"])
    }
}

/// The periods of statistics.
pub struct PeriodName;

impl ToSchema for PeriodName {}

impl PartialSchema for PeriodName {
    fn schema() -> RefOr<Schema> {
        one_of(Period::ALL.map(Period::name))
    }
}

/// Header names and their values, or null.
pub struct NullableHeaders;

impl ToSchema for NullableHeaders {}

impl PartialSchema for NullableHeaders {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
            .additional_properties(Some(ObjectBuilder::new().schema_type(Type::String)))
            .into()
    }
}

/// A list of permissions.
pub struct PermissionNames;

impl ToSchema for PermissionNames {}

impl PartialSchema for PermissionNames {
    fn schema() -> RefOr<Schema> {
        let names = Permission::ALL.iter().map(|permission| permission.name());
        ArrayBuilder::new().items(one_of(names)).min_items(Some(1)).into()
    }
}

/// Any JSON object.
pub struct FreeObject;

impl ToSchema for FreeObject {}

impl PartialSchema for FreeObject {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Object).into()
    }
}

/// Any JSON object, or null.
pub struct NullableObject;

impl ToSchema for NullableObject {}

impl PartialSchema for NullableObject {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Object, Type::Null])).into()
    }
}

/// A JSON Schema, or null.
pub struct NullableSchema;

impl ToSchema for NullableSchema {}

impl PartialSchema for NullableSchema {
    fn schema() -> RefOr<Schema> {
        let kinds = [Type::Object, Type::Boolean, Type::Null];
        ObjectBuilder::new().schema_type(SchemaType::from_iter(kinds)).into()
    }
}
