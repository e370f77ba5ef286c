//! The whole HTTP surface of `/v1`: each call with its method, its path, its rate limit, its permission, whose keys it
//! is for, its handler and its description.

use axum::http::Method;

use super::call::ApiCall;
use super::dispatch::RouteList;
use super::envelope::Answer;
use super::error::ApiError;
use super::limits::Bucket as B;
use super::openapi::description::{Body, Description};
use super::openapi::{Route, calls};
use super::rules::KeyScope::{self, Account, Both, Operator};
use super::rules::RouteRules;
use super::{
    accounts, audit, deliveries, event_types, events, filter_preview, portal, replays, statistics, users, webhooks,
};
use crate::domain::permission::Permission as P;

/// The methods, as the surface writes them.
const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const DELETE: Method = Method::DELETE;

impl RouteList {
    fn call<H, F>(
        self,
        method: Method,
        path: &'static str,
        (bucket, permission, keys): (B, P, KeyScope),
        handler: H,
        description: &'static Description,
    ) -> Self
    where
        H: Fn(ApiCall) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Answer, ApiError>> + Send + 'static,
    {
        let rules = RouteRules { bucket, permission, keys, batch: matches!(description.body, Body::Batch(..)) };
        self.with(Route { method, path, rules, description }, handler)
    }
}

/// Every call.
pub fn route_list() -> RouteList {
    with_accounts(with_events(with_webhooks(RouteList::default())))
}

/// Endpoints and deliveries.
#[rustfmt::skip]
fn with_webhooks(list: RouteList) -> RouteList {
    list
        .call(GET, "/v1/webhooks", (B::WebhooksList, P::WebhooksRead, Account),
            webhooks::list, &calls::LIST_WEBHOOKS)
        .call(POST, "/v1/webhooks", (B::WebhooksWrite, P::WebhooksCreate, Account),
            webhooks::create, &calls::CREATE_WEBHOOK)
        .call(GET, "/v1/webhooks/{id}", (B::WebhooksRead, P::WebhooksRead, Account),
            webhooks::read, &calls::GET_WEBHOOK)
        .call(PUT, "/v1/webhooks/{id}", (B::WebhooksWrite, P::WebhooksUpdate, Account),
            webhooks::update, &calls::UPDATE_WEBHOOK)
        .call(DELETE, "/v1/webhooks/{id}", (B::WebhooksWrite, P::WebhooksDelete, Account),
            webhooks::delete, &calls::DELETE_WEBHOOK)
        .call(POST, "/v1/webhooks/{id}/regenerate-secret", (B::WebhooksWrite, P::WebhooksUpdate, Account),
            webhooks::regenerate_secret, &calls::REGENERATE_SECRET)
        .call(POST, "/v1/webhooks/{id}/test", (B::WebhooksTest, P::WebhooksUpdate, Account),
            webhooks::test, &calls::TEST_WEBHOOK)
        .call(GET, "/v1/webhooks/{id}/deliveries", (B::DeliveriesList, P::WebhooksRead, Account),
            deliveries::of_endpoint, &calls::LIST_WEBHOOK_DELIVERIES)
        .call(GET, "/v1/webhooks/{id}/deliveries/export", (B::DeliveriesExport, P::WebhooksRead, Account),
            deliveries::export_of_endpoint, &calls::EXPORT_WEBHOOK_DELIVERIES)
        .call(GET, "/v1/webhooks/statistics", (B::WebhooksRead, P::WebhooksRead, Account),
            statistics::read, &calls::GET_STATISTICS)
        .call(GET, "/v1/webhooks/deliveries", (B::DeliveriesList, P::WebhooksRead, Account),
            deliveries::of_account, &calls::LIST_DELIVERIES)
        .call(GET, "/v1/webhooks/deliveries/export", (B::DeliveriesExport, P::WebhooksRead, Account),
            deliveries::export_of_account, &calls::EXPORT_DELIVERIES)
        .call(GET, "/v1/webhooks/deliveries/{id}", (B::DeliveriesRead, P::WebhooksRead, Account),
            deliveries::read, &calls::GET_DELIVERY)
        .call(POST, "/v1/webhooks/deliveries/{id}/retry", (B::DeliveriesRetry, P::WebhooksUpdate, Account),
            deliveries::retry, &calls::RETRY_DELIVERY)
        .call(POST, "/v1/webhooks/{id}/replay", (B::DeliveriesRetry, P::WebhooksUpdate, Account),
            replays::create, &calls::REPLAY)
        .call(GET, "/v1/webhooks/replays/{id}", (B::DeliveriesRead, P::WebhooksRead, Account),
            replays::read, &calls::GET_REPLAY)
        .call(DELETE, "/v1/webhooks/replays/{id}", (B::DeliveriesRetry, P::WebhooksUpdate, Account),
            replays::cancel, &calls::CANCEL_REPLAY)
        .call(GET, "/v1/webhooks/{id}/missed", (B::DeliveriesRead, P::WebhooksRead, Account),
            replays::missed, &calls::GET_MISSED)
        .call(POST, "/v1/webhooks/filters/preview", (B::WebhooksPreview, P::WebhooksRead, Account),
            filter_preview::preview, &calls::PREVIEW_FILTER)
}

/// Events and the catalog of their types.
#[rustfmt::skip]
fn with_events(list: RouteList) -> RouteList {
    list
        .call(POST, "/v1/events", (B::EventsCreate, P::EventsCreate, Both),
            events::publish, &calls::PUBLISH_EVENT)
        .call(POST, "/v1/events/batch", (B::EventsCreate, P::EventsCreate, Both),
            events::publish_batch, &calls::PUBLISH_EVENTS)
        .call(GET, "/v1/events", (B::EventsRead, P::EventsRead, Account),
            events::list, &calls::LIST_EVENTS)
        .call(GET, "/v1/events/{id}", (B::EventsRead, P::EventsRead, Account),
            events::read_one, &calls::GET_EVENT)
        .call(GET, "/v1/event-types", (B::EventTypesRead, P::EventTypesRead, Both),
            event_types::list, &calls::LIST_EVENT_TYPES)
        .call(POST, "/v1/event-types", (B::EventTypesWrite, P::EventTypesWrite, Operator),
            event_types::create, &calls::CREATE_EVENT_TYPE)
        .call(PUT, "/v1/event-types/{name}", (B::EventTypesWrite, P::EventTypesWrite, Operator),
            event_types::update, &calls::UPDATE_EVENT_TYPE)
        .call(DELETE, "/v1/event-types/{name}", (B::EventTypesWrite, P::EventTypesWrite, Operator),
            event_types::delete, &calls::DELETE_EVENT_TYPE)
}

/// Accounts and what belongs to them.
#[rustfmt::skip]
fn with_accounts(list: RouteList) -> RouteList {
    list
        .call(GET, "/v1/accounts", (B::AccountsRead, P::AccountsRead, Both),
            accounts::list, &calls::LIST_ACCOUNTS)
        .call(POST, "/v1/accounts", (B::AccountsWrite, P::AccountsWrite, Operator),
            accounts::create, &calls::CREATE_ACCOUNT)
        .call(GET, "/v1/accounts/{id}", (B::AccountsRead, P::AccountsRead, Both),
            accounts::read, &calls::GET_ACCOUNT)
        .call(PUT, "/v1/accounts/{id}", (B::AccountsWrite, P::AccountsWrite, Both),
            accounts::update, &calls::UPDATE_ACCOUNT)
        .call(DELETE, "/v1/accounts/{id}", (B::AccountsWrite, P::AccountsWrite, Operator),
            accounts::delete, &calls::DELETE_ACCOUNT)
        .call(GET, "/v1/accounts/{id}/api-keys", (B::ApiKeysRead, P::ApiKeysRead, Both),
            accounts::list_keys, &calls::LIST_API_KEYS)
        .call(POST, "/v1/accounts/{id}/api-keys", (B::ApiKeysWrite, P::ApiKeysWrite, Both),
            accounts::create_key, &calls::CREATE_API_KEY)
        .call(DELETE, "/v1/accounts/{id}/api-keys/{key_id}", (B::ApiKeysWrite, P::ApiKeysWrite, Both),
            accounts::delete_key, &calls::DELETE_API_KEY)
        .call(GET, "/v1/accounts/{id}/users", (B::UsersRead, P::UsersRead, Both),
            users::list, &calls::LIST_USERS)
        .call(POST, "/v1/accounts/{id}/users", (B::UsersWrite, P::UsersWrite, Both),
            users::invite, &calls::INVITE_USER)
        .call(GET, "/v1/accounts/{id}/users/{user_id}", (B::UsersRead, P::UsersRead, Both),
            users::read, &calls::GET_USER)
        .call(PUT, "/v1/accounts/{id}/users/{user_id}", (B::UsersWrite, P::UsersWrite, Both),
            users::update, &calls::UPDATE_USER)
        .call(DELETE, "/v1/accounts/{id}/users/{user_id}", (B::UsersWrite, P::UsersWrite, Both),
            users::delete, &calls::DELETE_USER)
        .call(POST, "/v1/accounts/{id}/users/{user_id}/invitation", (B::UsersWrite, P::UsersWrite, Both),
            users::invite_again, &calls::RENEW_INVITATION)
        .call(POST, "/v1/accounts/{id}/portal-links", (B::PortalLinks, P::PortalLinksCreate, Operator),
            portal::create, &calls::CREATE_PORTAL_LINK)
        .call(GET, "/v1/accounts/{id}/portal-links", (B::PortalLinks, P::PortalLinksRead, Both),
            portal::list, &calls::LIST_PORTAL_LINKS)
        .call(DELETE, "/v1/accounts/{id}/portal-links/{link_id}", (B::PortalLinks, P::PortalLinksDelete, Both),
            portal::delete, &calls::DELETE_PORTAL_LINK)
        .call(GET, "/v1/audit-log", (B::AuditRead, P::AuditRead, Both),
            audit::list, &calls::LIST_AUDIT_LOG)
        .call(GET, "/v1/audit-log/export", (B::AuditRead, P::AuditRead, Both),
            audit::export, &calls::EXPORT_AUDIT_LOG)
}

/// What is known of every call, in the order of the reference.
pub fn routes() -> Vec<Route> {
    route_list().routes()
}
