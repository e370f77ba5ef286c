//! Forms of the pages for people: they take memory like the bodies of calls, by account or by address.

use axum::body::Body;
use axum::http::HeaderMap;
use bytes::Bytes;

use super::bodies::{BodyError, Reservation, declared_length};
use super::{Api, ApiError, Doorstep, Network, Visitor};
use crate::domain::id::AccountId;

/// A form, with its memory until this is dropped.
pub struct Form {
    /// The bytes.
    pub bytes: Bytes,
    _of_visitor: Option<Reservation<Option<AccountId>>>,
    _of_stranger: Option<Reservation<Option<Network>>>,
}

impl Api {
    /// Reads a form up to a size; `Ok(None)` where it is too large or did not arrive.
    pub async fn read_form(
        &self,
        (door, visitor): (&Doorstep, Option<&Visitor>),
        headers: &HeaderMap,
        body: Body,
        most: usize,
    ) -> Result<Option<Form>, ApiError> {
        let declared = declared_length(headers);
        let read = if let Some(visitor) = visitor {
            let read = self.bodies.read(visitor.account_id(), body, declared, most).await;
            read.map(|(bytes, memory)| Form { bytes, _of_visitor: Some(memory), _of_stranger: None })
        } else {
            let read = self.forms.read(door.address().map(Network::of), body, declared, most).await;
            read.map(|(bytes, memory)| Form { bytes, _of_visitor: None, _of_stranger: Some(memory) })
        };
        match read {
            Ok(form) => Ok(Some(form)),
            Err(error @ BodyError::NoMemory) => Err(error.into()),
            Err(_) => Ok(None),
        }
    }
}
