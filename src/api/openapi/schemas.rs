//! The value lists of single fields of answers.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::domain::delivery::DeliveryStatus;
use crate::domain::endpoint::{EndpointStatus, Ordering};
use crate::domain::permission::Permission;
use crate::domain::replay::{ReplayStatus, Selection};
use crate::domain::statistics::Period;
use crate::domain::user::Role;

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
pub struct AnyObject;

impl ToSchema for AnyObject {}

impl PartialSchema for AnyObject {
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
