//! The components of the document: the resources as they are serialised, request bodies, `meta` and errors.

use serde_json::{Map, Value, json};
use utoipa::PartialSchema;

use super::Route;
use super::description::Kind;
use crate::api::error::Code;
use crate::api::{
    accounts, audit, deliveries, event_types, events, filter_preview, portal, replays, statistics, users, webhooks,
};

/// All of them, by name.
pub(super) fn components(routes: &[Route]) -> Map<String, Value> {
    let mut components: Map<String, Value> =
        Kind::ALL.iter().map(|kind| (kind.names().0.to_owned(), kind.component())).collect();
    let bodies = routes.iter().filter_map(|route| route.description.body.schema());
    components.extend(bodies.map(|body| (body.name.to_owned(), body.component())));
    components.extend([
        ("Meta".to_owned(), meta(json!({}))),
        ("PageMeta".to_owned(), meta(json!({ "pagination": { "$ref": "#/components/schemas/Pagination" } }))),
        ("ErrorMeta".to_owned(), meta_of_errors()),
        ("Pagination".to_owned(), pagination()),
        ("ErrorResponse".to_owned(), error_response()),
    ]);
    components
}

/// `meta` with these properties beside the usual ones; all of them are required.
fn meta(more: Value) -> Value {
    let mut properties = json!({
        "version": { "type": "string", "pattern": r"^\d+\.\d+\.\d+$", "description": "Version of the software." },
        "api_version": { "type": "string", "const": "v1", "description": "Version of the API." },
        "request_id": {
            "type": "string",
            "pattern": "^[0-9a-f]{12,}$",
            "description": "Names this request in the `X-Request-Id` header and in the logs.",
        },
        "datetime": {
            "type": "object",
            "description": "How every time of the answer is written.",
            "required": ["timezone", "format"],
            "properties": {
                "timezone": { "type": "string", "const": "UTC", "description": "Always UTC." },
                "format": { "type": "string", "const": "ISO 8601", "description": "With whole seconds and `Z`." },
            },
        },
    });
    if let (Some(properties), Value::Object(more)) = (properties.as_object_mut(), more) {
        properties.extend(more);
    }
    let required: Vec<&String> = properties.as_object().into_iter().flat_map(Map::keys).collect();
    json!({
        "type": "object",
        "description": "About the answer itself.",
        "required": required,
        "properties": properties,
    })
}

fn meta_of_errors() -> Value {
    let mut meta = meta(json!({}));
    let more = [
        (
            "retry_after",
            json!({ "type": "integer", "minimum": 1, "description": "With `rate_limit_exceeded`: seconds to wait." }),
        ),
        (
            "reason",
            json!({
                "type": "string",
                "description": "With `unavailable`, where a share is used up: what there is too much of.",
            }),
        ),
        (
            "event",
            json!({
                "type": "string",
                "description": "With `webhook_event_invalid` and `event_unknown`: the value that is no event type of \
                                the catalog.",
            }),
        ),
        ("limit", json!({ "type": "integer", "description": "With `webhook_limit_reached`: the account's cap." })),
        (
            "replays",
            json!({
                "type": "array",
                "items": { "type": "string", "format": "uuid" },
                "description": "With `replay_limit_reached`: the replays that are not finished.",
            }),
        ),
        (
            "permission",
            json!({
                "type": "string",
                "description": "With `permission_invalid`: the value that is no permission; with \
                                `portal_permission_invalid`: the one that no link can have.",
            }),
        ),
    ];
    for (name, schema) in more {
        meta["properties"][name] = schema;
    }
    meta
}

fn pagination() -> Value {
    let number = |least: u64, about: &str| json!({ "type": "integer", "minimum": least, "description": about });
    json!({
        "type": "object",
        "description": "Where in the list this page is.",
        "required": ["page", "per_page", "total", "total_pages"],
        "properties": {
            "page": number(1, "This page."),
            "per_page": number(1, "Rows on a page, at most 100."),
            "total": number(0, "Rows of the list, exactly; 100,000 when a filtered list has more."),
            "total_pages": number(0, "Pages that can be reached. They hold the newest 100,000 rows."),
            "total_is_minimum": {
                "type": "boolean",
                "enum": [true],
                "description": "`true` when the filtered list has more rows than `total`; absent when `total` is \
                                exact.",
            },
        },
    })
}

fn error_response() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    json!({
        "type": "object",
        "description": "A refusal: everything that is wrong with the call, in the order of its fields.",
        "required": ["errors", "meta"],
        "properties": {
            "errors": { "type": "array", "minItems": 1, "items": {
                "type": "object",
                "required": ["status", "code", "detail"],
                "properties": {
                    "status": { "type": "string", "pattern": "^[45][0-9]{2}$", "description": "The HTTP status." },
                    "code": {
                        "type": "string",
                        "enum": codes,
                        "description": "What is wrong. Stable, never translated.",
                    },
                    "detail": { "type": "string", "description": "The same in words, in English or Spanish." },
                    "source": {
                        "type": "object",
                        "description": "Where, when one field is at fault.",
                        "properties": {
                            "pointer": {
                                "type": "string",
                                "description": "JSON Pointer (RFC 6901) to the field, below `/data/attributes`; in a \
                                                batch below `/events/<index>`.",
                            },
                            "parameter": { "type": "string", "description": "The parameter of the query." },
                        },
                    },
                    "meta": {
                        "type": "object",
                        "description": "Values that a program may want, the same as in the `meta` of the answer.",
                    },
                },
            } },
            "meta": { "$ref": "#/components/schemas/ErrorMeta" },
        },
    })
}

impl Kind {
    const ALL: [Self; 16] = [
        Self::WebhookEndpoint,
        Self::WebhookTestResult,
        Self::WebhookDelivery,
        Self::WebhookDeliveryDetail,
        Self::WebhookReplay,
        Self::WebhookMissed,
        Self::Event,
        Self::EventWithDeliveries,
        Self::EventType,
        Self::Account,
        Self::ApiKey,
        Self::AuditEntry,
        Self::User,
        Self::PortalLink,
        Self::WebhookStatistics,
        Self::WebhookFilterPreview,
    ];

    /// The component's name, the resource's `type`, and what its id is.
    pub(super) fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::WebhookEndpoint => ("WebhookEndpoint", "webhook_endpoint", "Endpoint identifier."),
            Self::WebhookTestResult => {
                ("WebhookTestResult", "webhook_test_result", "Identifier of the test's delivery.")
            }
            Self::WebhookDelivery => {
                let id = "Delivery identifier: a decimal integer that grows with time, the same over all attempts.";
                ("WebhookDelivery", "webhook_delivery", id)
            }
            Self::WebhookDeliveryDetail => {
                ("WebhookDeliveryDetail", "webhook_delivery", Self::WebhookDelivery.names().2)
            }
            Self::WebhookReplay => ("WebhookReplay", "webhook_replay", "Replay identifier."),
            Self::WebhookMissed => ("WebhookMissed", "webhook_missed", "Endpoint identifier."),
            Self::Event => ("Event", "event", "Event identifier."),
            Self::EventWithDeliveries => ("EventWithDeliveries", "event", "Event identifier."),
            Self::EventType => ("EventType", "event_type", "The type's name."),
            Self::Account => ("Account", "account", "Account identifier."),
            Self::ApiKey => ("ApiKey", "api_key", "Key identifier. It is not the key."),
            Self::AuditEntry => ("AuditEntry", "audit_entry", "Entry identifier."),
            Self::User => ("User", "user", "User identifier."),
            Self::PortalLink => ("PortalLink", "portal_link", "Link identifier. It is not the address."),
            Self::WebhookStatistics => {
                ("WebhookStatistics", "webhook_statistics", "The endpoint that is counted, or the account.")
            }
            Self::WebhookFilterPreview => {
                ("WebhookFilterPreview", "webhook_filter_preview", "The account whose events were looked at.")
            }
        }
    }

    fn attributes(self) -> Value {
        match self {
            Self::WebhookEndpoint => schema::<webhooks::Attributes>(),
            Self::WebhookTestResult => schema::<webhooks::TestAttributes>(),
            Self::WebhookDelivery => schema::<deliveries::Attributes>(),
            Self::WebhookDeliveryDetail => both(schema::<deliveries::Attributes>(), schema::<deliveries::Detail>()),
            Self::WebhookReplay => schema::<replays::Attributes>(),
            Self::WebhookMissed => schema::<replays::MissedAttributes>(),
            Self::Event | Self::EventWithDeliveries => schema::<events::Attributes>(),
            Self::EventType => schema::<event_types::Attributes>(),
            Self::Account => schema::<accounts::AccountAttributes>(),
            Self::ApiKey => schema::<accounts::KeyAttributes>(),
            Self::AuditEntry => schema::<audit::AuditAttributes>(),
            Self::User => schema::<users::UserAttributes>(),
            Self::PortalLink => schema::<portal::PortalLinkAttributes>(),
            Self::WebhookStatistics => schema::<statistics::StatisticsAttributes>(),
            Self::WebhookFilterPreview => schema::<filter_preview::PreviewAttributes>(),
        }
    }

    fn id(self) -> Value {
        let about = self.names().2;
        match self {
            Self::WebhookDelivery | Self::WebhookDeliveryDetail | Self::WebhookTestResult => {
                json!({ "type": "string", "pattern": "^[1-9][0-9]*$", "description": about })
            }
            Self::EventType => json!({ "type": "string", "description": about }),
            _ => json!({ "type": "string", "format": "uuid", "description": about }),
        }
    }

    fn component(self) -> Value {
        let (_, kind, _) = self.names();
        let attributes = self.attributes();
        let mut component = json!({
            "type": "object",
            "description": attributes["description"],
            "required": ["type", "id", "attributes"],
            "properties": {
                "type": { "type": "string", "const": kind, "description": "What kind of resource this is." },
                "id": self.id(),
                "attributes": attributes,
            },
        });
        if self == Self::EventWithDeliveries {
            component["required"] = json!(["type", "id", "attributes", "relationships"]);
            component["properties"]["relationships"] = json!({
                "type": "object",
                "required": ["deliveries"],
                "properties": { "deliveries": {
                    "type": "object",
                    "required": ["data"],
                    "properties": { "data": {
                        "type": "array",
                        "description": "The event's deliveries, in the order of their ids.",
                        "items": { "$ref": "#/components/schemas/WebhookDelivery" },
                    } },
                } },
            });
        }
        component
    }
}

/// The fields of two structures that are serialised into one object.
fn both(first: Value, mut second: Value) -> Value {
    let properties = [&first, &second].into_iter().filter_map(|schema| schema["properties"].as_object());
    let properties: Map<String, Value> =
        properties.flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    let required = [&first, &second].into_iter().filter_map(|schema| schema["required"].as_array());
    let required: Vec<Value> = required.flatten().cloned().collect();
    second["properties"] = properties.into();
    second["required"] = required.into();
    second
}

/// A comment of several lines is one paragraph of the document.
fn join_lines(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "description" => *text = text.replace('\n', " "),
                    other => join_lines(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(join_lines),
        _ => {}
    }
}

fn schema<T: PartialSchema>() -> Value {
    let mut schema = serde_json::to_value(T::schema()).expect("a schema is strings, numbers and lists of them");
    join_lines(&mut schema);
    for (_, property) in schema["properties"].as_object_mut().into_iter().flatten() {
        // The macro tells a field's description beside the field's own schema, as if it were an object.
        if let Some([inner, Value::Object(outer)]) = property["allOf"].as_array().map(Vec::as_slice) {
            let mut inner = inner.clone();
            inner["description"] = outer["description"].clone();
            *property = inner;
        }
    }
    schema
}
