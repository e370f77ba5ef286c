//! Aldaba: a webhook sender in one binary.

pub mod clock;
pub mod domain;
pub mod egress;
pub mod engine;
pub mod metrics;
pub mod store;
