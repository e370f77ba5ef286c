//! The context of a request for a page: its id and language, the address of the client, and the store with the user as
//! its actor.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{HeaderMap, Response};

use super::Api;
use super::envelope::{RequestInfo, refuse};
use super::error::ApiError;
use super::origin::Peer;
use crate::domain::audit::{Actor, Origin};
use crate::domain::user::User;
use crate::store::Store;

/// What the API needs to know of a request for a page.
#[derive(Clone, Debug)]
pub struct RequestContext {
    info: RequestInfo,
    address: Option<IpAddr>,
    host: String,
}

impl RequestContext {
    pub(super) fn info(&self) -> &RequestInfo {
        &self.info
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// A refusal in the API's envelope, for clients that do not accept HTML.
    pub fn refuse(&self, error: &ApiError) -> Response<Body> {
        refuse(error, &self.info)
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }
}

impl Api {
    /// The context of a request.
    pub fn request_context(&self, info: &RequestInfo, headers: &HeaderMap, peer: Option<Peer>) -> RequestContext {
        let address = peer.map(|Peer(peer)| self.client(peer, headers));
        let host = headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or("").to_owned();
        RequestContext { info: info.clone(), address, host }
    }

    /// The store with this user as the actor of the audit log.
    pub(super) fn acting(&self, context: &RequestContext, user: &User) -> Store {
        let RequestContext { info, address, .. } = context.clone();
        self.store.acting(Origin { actor: Actor::of_user(user), address, request: Some(info.id.to_string()) })
    }
}
