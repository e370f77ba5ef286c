//! Black-box tests: a real server or a real store, a fresh database, a real receiver.

mod accounts;
mod app;
mod cluster;
mod command_line;
mod crash;
mod database;
mod delivery;
mod differential;
mod envelope;
mod events;
mod examples;
mod export;
mod failover;
mod filters;
mod guides;
mod idempotency;
mod import;
mod reference;
mod replay;
mod rotation;
mod simulation;
mod store;
mod tidy;
mod tools;
mod verify;
mod webhooks;
