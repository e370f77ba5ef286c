//! Black-box tests: a real server or a real store, a fresh database, a real receiver.

mod app;
mod crash;
mod delivery;
mod events;
mod accounts;
mod command_line;
mod envelope;
mod idempotency;
mod rotation;
mod simulation;
mod store;
mod tidy;
mod verify;
mod webhooks;
