//! Why a connection that stands gave no answer, whether a receiver or a token server was asked.

use std::error::Error as _;

use super::fault::{LocalFault, exhausted};
use super::interim;
use super::tls::certificate_complaint;

/// Why there was no answer.
pub(super) enum NoAnswer {
    /// This machine lacks something.
    Local(LocalFault),
    /// What the other side did, in words for the receiver's owner.
    Broken(String),
    /// The other side closed the connection before it answered.
    Closed,
}

impl NoAnswer {
    /// Reads an error of a connection to `peer`, such as "the receiver".
    pub fn of(error: &hyper::Error, peer: &str) -> Self {
        let source = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
        if let Some(fault) = source.and_then(exhausted) {
            Self::Local(fault)
        } else if let Some(did) = source.and_then(|error| interim::complaint(error).or(certificate_complaint(error))) {
            Self::Broken(format!("{peer} {did}"))
        } else if error.is_parse_too_large() {
            Self::Broken(format!("the head of {peer}'s answer is too large"))
        } else if error.is_parse() {
            Self::Broken(format!("{peer}'s answer is not valid HTTP/1.1"))
        } else {
            Self::Closed
        }
    }
}
