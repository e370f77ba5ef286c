//! What the product means: values and decisions, and nothing else.
//!
//! No I/O, no clock, no SQL. Time and randomness arrive as parameters. The only wire formats here are those of
//! receivers: the message (`event`) and the signatures (`sign`); and the JSON of filters and of the events that they
//! look into (`payload_filter`).

pub mod account;
pub mod address;
pub mod audit;
pub mod authentication;
pub mod channels;
pub mod client_certificate;
pub mod credential;
pub mod credentials;
pub mod custom_headers;
pub mod delivery;
pub mod duration;
pub mod egress_rules;
pub mod endpoint;
pub mod event;
pub mod external_id;
pub mod filter;
pub mod http_proxy;
pub mod id;
mod id_times;
pub mod network_rules;
pub mod payload_filter;
pub mod permission;
pub mod rate_limit;
pub mod replay;
pub mod retention;
pub mod retry;
pub mod secret;
pub mod settings;
pub mod sign;
pub mod source_addresses;
pub mod statistics;
pub mod subscription;
pub mod time;
pub mod trace_context;
pub mod transition;
pub mod url;
pub mod user;
