//! The HTTP API: the whole surface is one list, in `routes`.
//!
//! A request passes `http_service`, the `middleware` and, for a call, `dispatch` (which finds it by its path) and
//! `pipeline` (key, rate limit, permission, body, idempotency). `state` is what handlers can reach, `call` what they
//! know of their request, `envelope` and `error` the shape of answers. The handlers are named like the URLs.

mod accounts;
mod answers;
mod audit;
mod auth;
mod bodies;
mod call;
mod certificate_fields;
mod client_fields;
mod code;
mod confirmation;
mod counting;
mod credential_fields;
mod deliveries;
mod device;
mod dispatch;
mod egress;
mod entries;
mod envelope;
mod error;
mod event_types;
mod events;
mod export;
mod fields;
mod filter_field;
mod filter_preview;
mod filters;
mod forms;
mod hashing;
mod health;
mod http_service;
mod idempotency;
mod in_process;
mod limits;
mod lookups;
mod memberships;
mod middleware;
pub mod openapi;
mod origin;
mod passwords;
mod pipeline;
mod portal;
mod replays;
mod request_context;
mod routes;
mod rules;
mod schema_bound;
mod schema_check;
mod second_factor;
mod session;
mod settings;
mod sign_in;
mod sign_in_limits;
mod slots;
mod state;
mod statistics;
#[cfg(test)]
mod test_api;
mod trace;
mod trace_context;
mod users;
mod webhook_fields;
mod webhooks;

pub(crate) use accounts::{CreateAccount, CreateApiKey, UpdateAccount, new_account, takes_proof};
pub(crate) use answers::{
    AccountResource, ApiKeyResource, AuditEntryResource, DeliveryDetailResource, DeliveryResource, EndpointResource,
    EventResource, EventTypeResource, FilterPreviewResource, FromAnswer, Listing, MissedResource, PortalLinkResource,
    Refused, ReplayResource, StatisticsResource, TestResultResource, UserResource,
};
pub use auth::Caller;
pub use confirmation::{Confirmation, Enrolment};
pub(crate) use credential_fields::RepeatedNames;
pub use device::KNOWN_DEVICE_SECONDS;
pub use egress::PublicAddresses;
pub(crate) use entries::Entries;
pub use envelope::RequestInfo;
pub(crate) use envelope::{Pagination, Resource};
pub(crate) use error::FaultJson;
pub use error::{ApiError, Code, Language};
pub(crate) use event_types::{CreateEventType, UpdateEventType, new_event_type};
pub(crate) use events::WithDeliveries as EventWithDeliveries;
pub(crate) use fields::RequestBody;
pub(crate) use filter_preview::PreviewFilter;
pub use forms::Form;
pub(crate) use hashing::site;
pub use http_service::{HttpService, not_found, root, unreadable};
pub use in_process::{InProcessApi, InProcessCall};
pub use limits::{Bucket, RateLimit, RateLimits};
pub use memberships::{Offer, SignedIn};
pub use openapi::Route;
pub use origin::{Network, Peer, base, is_trusted};
pub use passwords::{hash_for_address, hash_password};
pub(crate) use replays::ReplayEvents;
pub use request_context::RequestContext;
pub use routes::routes;
pub use schema_check::{Allowance, Schemas};
pub use session::{Invited, Opened, Portal, Session, SignInForm, SignInRefused};
pub use settings::{ChangingSettings, Sessions, Settings, SignInLink};
pub use state::Api;
pub use trace::{RequestTrace, current_request};
pub(crate) use users::{InviteUser, UpdateUser};
pub(crate) use webhook_fields::{CreateWebhook, RegenerateSecret, UpdateWebhook};
pub(crate) use webhooks::new_endpoint;

// Event types that no catalog has: pages do not import `domain`.
pub(crate) use crate::domain::event::{Operational, TEST_TYPE};
