//! Reads the forms of pages. They share memory like the bodies of calls: by account, or by address before a sign-in.

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;

use super::Api;
use super::bodies::{BodyError, Reservation, declared_length};
use super::error::ApiError;
use super::origin::Network;
use super::request_context::RequestContext;
use super::session::Session;
use crate::domain::id::AccountId;

/// A form, with its memory until this is dropped.
pub struct Form {
    /// The bytes.
    pub bytes: Bytes,
    _of_account: Option<Reservation<Option<AccountId>>>,
    _of_address: Option<Reservation<Option<Network>>>,
}

impl Api {
    /// Reads a form up to a size; `Ok(None)` where it is too large or did not arrive.
    pub async fn read_form(
        &self,
        (context, session): (&RequestContext, Option<&Session>),
        headers: &HeaderMap,
        body: Body,
        most: usize,
    ) -> Result<Option<Form>, ApiError> {
        let declared = declared_length(headers);
        let read = if let Some(session) = session {
            let read = self.bodies.read(session.account_id(), body, declared, most).await;
            read.map(|(bytes, memory)| Form { bytes, _of_account: Some(memory), _of_address: None })
        } else {
            let read = self.forms.read(context.address().map(Network::of), body, declared, most).await;
            read.map(|(bytes, memory)| Form { bytes, _of_account: None, _of_address: Some(memory) })
        };
        match read {
            Ok(form) => Ok(Some(form)),
            Err(error @ BodyError::NoMemory) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }
}
