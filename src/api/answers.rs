//! Answers as pages read them: into the structures that the handlers serialise. An answer without one of their fields
//! is a fault of the server, not a blank on a page.

use std::fmt::Display;

use axum::body::Body;
use axum::http::Response;
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::envelope::{Pagination, Resource};
use super::error::FaultJson;
use super::events::WithDeliveries;
use super::{
    accounts, audit, deliveries, event_types, events, filter_preview, portal, replays, statistics, users, webhooks,
};

/// Largest answer that is read: one delivery with its body and a thousand attempts fits.
const MAX_ANSWER: usize = 32 << 20;

/// An account.
pub type AccountResource = Resource<accounts::AccountAttributes>;
/// An API key.
pub type ApiKeyResource = Resource<accounts::KeyAttributes>;
/// An entry of the audit log.
pub type AuditEntryResource = Resource<audit::AuditAttributes>;
/// A delivery in a list.
pub type DeliveryResource = Resource<deliveries::Attributes>;
/// A delivery with its attempts.
pub type DeliveryDetailResource = Resource<deliveries::WithDetail>;
/// A webhook endpoint.
pub type EndpointResource = Resource<webhooks::Attributes>;
/// An event.
pub type EventResource = Resource<events::Attributes>;
/// An event type.
pub type EventTypeResource = Resource<event_types::Attributes>;
/// What a filter would have done.
pub type FilterPreviewResource = Resource<filter_preview::PreviewAttributes>;
/// What an endpoint has missed.
pub type MissedResource = Resource<replays::MissedAttributes>;
/// A portal link.
pub type PortalLinkResource = Resource<portal::PortalLinkAttributes>;
/// A replay.
pub type ReplayResource = Resource<replays::Attributes>;
/// Counts of attempts.
pub type StatisticsResource = Resource<statistics::StatisticsAttributes>;
/// What came of a test delivery.
pub type TestResultResource = Resource<webhooks::TestAttributes>;
/// A user.
pub type UserResource = Resource<users::UserAttributes>;

/// What can be read from the body of a success.
pub trait FromAnswer: Sized {
    /// Reads it.
    fn read(body: &[u8]) -> serde_json::Result<Self>;
}

/// That the call was a success is enough.
impl FromAnswer for () {
    fn read(_: &[u8]) -> serde_json::Result<Self> {
        Ok(())
    }
}

impl<A: DeserializeOwned> FromAnswer for Resource<A> {
    fn read(body: &[u8]) -> serde_json::Result<Self> {
        data(body)
    }
}

impl<A: DeserializeOwned> FromAnswer for Vec<Resource<A>> {
    fn read(body: &[u8]) -> serde_json::Result<Self> {
        data(body)
    }
}

impl FromAnswer for WithDeliveries {
    fn read(body: &[u8]) -> serde_json::Result<Self> {
        data(body)
    }
}

impl<R: DeserializeOwned> FromAnswer for Listing<R> {
    fn read(body: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(body)
    }
}

/// The `data` of an answer.
fn data<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    Ok(serde_json::from_slice::<Success<T>>(body)?.data)
}

#[derive(Deserialize)]
struct Success<T> {
    data: T,
}

/// A page of a list.
#[derive(Deserialize)]
pub struct Listing<R> {
    /// Its resources.
    #[serde(rename = "data")]
    pub items: Vec<R>,
    meta: ListingMeta,
}

#[derive(Deserialize)]
struct ListingMeta {
    pagination: Pagination,
}

impl<R> Listing<R> {
    /// Where in the list it is.
    pub fn pagination(&self) -> &Pagination {
        &self.meta.pagination
    }
}

/// A call that was refused, or whose answer cannot be read.
pub struct Refused {
    /// The status of the answer.
    pub status: u16,
    /// What is wrong with the call. Empty where the answer cannot be read.
    pub faults: Vec<FaultJson>,
}

impl Refused {
    fn unreadable(error: &dyn Display) -> Self {
        tracing::error!(%error, "a page could not read the answer of the API");
        Self { status: 500, faults: Vec::new() }
    }
}

#[derive(Deserialize)]
struct Refusal {
    errors: Vec<FaultJson>,
}

/// Reads an answer.
pub async fn read<T: FromAnswer>(response: Response<Body>) -> Result<T, Refused> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| Refused::unreadable(&error))?.to_bytes();
    if status.is_success() {
        return T::read(&body).map_err(|error| Refused::unreadable(&error));
    }
    let refusal: Refusal = serde_json::from_slice(&body).map_err(|error| Refused::unreadable(&error))?;
    Err(Refused { status: status.as_u16(), faults: refusal.errors })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::envelope::{Answer, RequestInfo, refuse};
    use crate::api::error::{ApiError, Code, Fault, Language};
    use crate::store::{Page, Paged};

    fn missed(count: u64) -> MissedResource {
        let attributes = replays::MissedAttributes { count, oldest_at: None };
        Resource { r#type: "webhook_missed".into(), id: count.to_string(), attributes }
    }

    #[tokio::test]
    async fn a_page_of_a_list_is_read_as_it_was_written() {
        for total_is_minimum in [false, true] {
            let paged = Paged { items: vec![3, 4], total: 7, total_is_minimum };
            let answer = Answer::page(&paged, Page { page: 2, per_page: 2 }, |count| missed(*count));
            let read = read::<Listing<MissedResource>>(answer.into_response("c4d5e6f7a8b9")).await;
            let listing = read.unwrap_or_else(|refused| panic!("{}", refused.status));
            let counts = listing.items.iter().map(|item| (item.id.as_str(), item.count));
            assert_eq!(counts.collect::<Vec<_>>(), [("3", 3), ("4", 4)]);
            let Pagination { page, per_page, total, total_pages, .. } = *listing.pagination();
            assert_eq!((page, per_page, total, total_pages), (2, 2, 7, 4));
            assert_eq!(listing.pagination().total_is_minimum, total_is_minimum);
        }
    }

    #[tokio::test]
    async fn an_answer_that_lacks_a_field_is_a_fault_of_the_server() {
        let answer = Answer::new(200, &serde_json::json!({ "type": "webhook_missed", "id": "3", "attributes": {} }));
        let refused =
            read::<MissedResource>(answer.into_response("c4d5e6f7a8b9")).await.map(|_| ()).expect_err("refused");
        assert_eq!((refused.status, refused.faults.len()), (500, 0));
    }

    #[tokio::test]
    async fn a_refusal_is_read_with_its_codes_and_fields() {
        let info = RequestInfo { id: "c4d5e6f7a8b9".into(), language: Language::English };
        let faults = vec![
            Fault::of_field(Code::UrlNotHttps, "url"),
            Fault::of_parameter(Code::InvalidFilter, "from"),
            Fault::new(Code::FilterInvalid).at("/data/url/$gt").in_field("filter"),
            Fault::new(Code::ReplayLimitReached).with_meta("replays", vec!["a", "b"]),
            Fault::new(Code::RateLimitExceeded).with_meta("retry_after", 45),
        ];
        let refused = read::<()>(refuse(&ApiError::of(faults), &info)).await.expect_err("refused");
        assert_eq!(refused.status, Code::UrlNotHttps.status());
        let read = refused.faults.iter().map(|fault| (fault.code, fault.field()));
        let expected = [
            (Code::UrlNotHttps, Some("url")),
            (Code::InvalidFilter, Some("from")),
            (Code::FilterInvalid, Some("filter")),
            (Code::ReplayLimitReached, None),
            (Code::RateLimitExceeded, None),
        ];
        assert_eq!(read.collect::<Vec<_>>(), expected);
        assert_eq!(refused.faults[3].replays().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(refused.faults.iter().find_map(FaultJson::retry_after), Some(45));
    }
}
