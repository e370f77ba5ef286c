//! The dashboard: an account's pages for its users, the same through a portal link, and the operator's own.
//!
//! Pages are made here and are clients of the API, in process: what they show and change goes through the same door as a
//! program's calls, so no rule and no permission is written twice. They work by links and forms; a small script makes
//! them comfortable.

mod api_keys;
mod arrival;
mod asking;
mod audit;
mod chart;
mod deliveries;
mod endpoints;
mod entrance;
mod event_types;
mod filters;
mod frame;
mod me;
mod operator;
mod overview;
mod parts;
mod replays;
mod sign_in;
mod traffic;
mod users;
mod visit;
mod written;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::routing::{MethodRouter, get, post};

use crate::api::{Api, Inside};
use entrance::serve;
use visit::{Failure, Page, Visit};

pub(super) const STYLE: &str = include_str!("assets/dashboard.css");
pub(super) const SCRIPT: &str = include_str!("assets/dashboard.js");

/// What every page can reach. Clones share it.
#[derive(Clone)]
struct Dashboard(Arc<Parts>);

struct Parts {
    api: Api,
    inside: Inside,
}

impl std::ops::Deref for Dashboard {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// A page that is looked at.
fn look<F, R>(page: F) -> MethodRouter<Dashboard>
where
    F: Fn(Visit) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Page, Failure>> + Send + 'static,
{
    get(move |State(dashboard): State<Dashboard>, request: Request| serve(dashboard, request, page))
}

/// A form that is filled in, for those whom the API would let send it: nobody is asked in vain.
fn ask<F, R>(permission: &'static str, page: F) -> MethodRouter<Dashboard>
where
    F: Fn(Visit) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Page, Failure>> + Send + 'static,
{
    look(move |v: Visit| {
        let allowed = v.may(permission).then(|| page(v));
        async move {
            match allowed {
                Some(page) => page.await,
                None => Err(Failure { status: 403, ..Failure::default() }),
            }
        }
    })
}

/// A form that is sent.
fn act<F, R>(page: F) -> MethodRouter<Dashboard>
where
    F: Fn(Visit) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Page, Failure>> + Send + 'static,
{
    post(move |State(dashboard): State<Dashboard>, request: Request| serve(dashboard, request, page))
}

/// Every page.
pub fn router<S: Clone + Send + Sync + 'static>(api: Api) -> Router<S> {
    let dashboard = Dashboard(Arc::new(Parts { inside: Inside::new(api.clone()), api }));
    Router::new()
        .route("/", get(entrance::home))
        .route("/sign-in", get(sign_in::ask).post(sign_in::sign_in))
        .route("/sign-in/choose", post(sign_in::choose))
        .route("/sign-in/{token}", get(sign_in::by_link))
        .route("/join/{invitation}", get(sign_in::invited).post(sign_in::join))
        .route("/sign-out", act(me::sign_out))
        .route("/me", look(me::show))
        .route("/me/password", act(me::change_password))
        .route("/me/two-factor", look(me::enrol).merge(act(me::enable)))
        .route("/me/two-factor/off", act(me::disable))
        .route("/me/told", act(me::note_told))
        .route("/me/sessions", act(me::sign_out_everywhere))
        .route("/portal/{token}/theme.css", get(entrance::theme))
        .route("/me/", get(entrance::without_slash))
        .route("/operator/", get(entrance::without_slash))
        .route("/accounts/{account}/", get(entrance::without_slash))
        .route("/portal/{token}/", get(entrance::without_slash))
        .nest("/accounts/{account}", of_account())
        .nest("/portal/{token}", of_account())
        .nest("/operator", of_operator())
        .with_state(dashboard)
}

/// The pages of an account.
#[rustfmt::skip]
fn of_account() -> Router<Dashboard> {
    Router::new()
        .route("/", look(overview::show))
        .route("/endpoints", look(endpoints::list))
        .route("/endpoints/new", ask("webhooks:create", endpoints::new).merge(act(endpoints::create)))
        .route("/endpoints/{id}", look(endpoints::show))
        .route("/endpoints/{id}/edit", ask("webhooks:update", endpoints::edit).merge(act(endpoints::update)))
        .route("/endpoints/{id}/pause", act(endpoints::pause))
        .route("/endpoints/{id}/resume", act(endpoints::resume))
        .route("/endpoints/{id}/delete", ask("webhooks:delete", endpoints::delete_ask).merge(act(endpoints::delete)))
        .route("/endpoints/{id}/rotate", ask("webhooks:update", endpoints::rotate_ask).merge(act(endpoints::rotate)))
        .route("/endpoints/{id}/test", act(endpoints::test))
        .route("/endpoints/{id}/replay", ask("webhooks:update", replays::new).merge(act(replays::create)))
        .route("/replays/{id}", look(replays::show))
        .route("/replays/{id}/cancel", act(replays::cancel))
        .route("/deliveries", look(deliveries::list))
        .route("/deliveries/export", get(entrance::export_deliveries))
        .route("/deliveries/{id}", look(deliveries::show))
        .route("/deliveries/{id}/retry", act(deliveries::retry))
        .route("/events", look(event_types::events))
        .route("/events/{id}", look(event_types::event))
        .route("/event-types", look(event_types::list))
        .route("/event-types/{name}", look(event_types::show).merge(act(event_types::publish)))
        .route("/api-keys", look(api_keys::list))
        .route("/api-keys/new", ask("api_keys:write", api_keys::new).merge(act(api_keys::create)))
        .route("/api-keys/{id}/revoke", ask("api_keys:write", api_keys::revoke_ask).merge(act(api_keys::revoke)))
        .route("/users", look(users::list))
        .route("/users/invite", ask("users:write", users::invite_ask).merge(act(users::invite)))
        .route("/users/{id}", look(users::show).merge(act(users::set_role)))
        .route("/users/{id}/invitation", act(users::invite_again))
        .route("/users/{id}/two-factor", act(users::reset_second_factor))
        .route("/users/{id}/delete", ask("users:write", users::delete_ask).merge(act(users::delete)))
        .route("/audit-log", look(audit::list))
        .route("/audit-log/export", get(entrance::export_audit_log))
        .fallback(look(entrance::nothing))
}

/// The operator's own.
#[rustfmt::skip]
fn of_operator() -> Router<Dashboard> {
    Router::new()
        .route("/", look(operator::accounts))
        .route("/accounts/new", look(operator::account_new).merge(act(operator::account_create)))
        .route("/accounts/{id}", look(operator::account_edit).merge(act(operator::account_update)))
        .route("/accounts/{id}/delete", look(operator::account_delete_ask).merge(act(operator::account_delete)))
        .route("/event-types", look(operator::types))
        .route("/event-types/new", look(operator::type_new).merge(act(operator::type_create)))
        .route("/event-types/{name}", look(operator::type_edit).merge(act(operator::type_update)))
        .route("/event-types/{name}/delete", look(operator::type_delete_ask).merge(act(operator::type_delete)))
        .route("/audit-log", look(audit::list))
        .route("/audit-log/export", get(entrance::export_audit_log))
        .fallback(look(entrance::nothing))
}
