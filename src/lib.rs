//! Aldaba: a webhook sender in one binary.

pub mod api;
pub mod clock;
pub mod domain;
pub mod egress;
pub mod engine;
pub mod metrics;
pub mod store;
