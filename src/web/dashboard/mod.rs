//! The dashboard: an account's pages for its users, the same through a portal link, and the operator's own. `router`
//! has the route of every page.
//!
//! Pages are made on the server and are clients of the API, in process: the API checks their calls like those of a
//! program, so the pages repeat no rule and no permission. They work with links and forms; a small script adds comfort.

mod api_keys;
mod audit;
mod chart;
mod confirmation;
mod deliveries;
mod endpoints;
mod event_types;
mod filters;
mod form_errors;
mod json_fields;
mod layout;
mod listing;
mod me;
mod operator;
mod overview;
mod page_context;
mod page_request;
mod parts;
mod portal_links;
mod replays;
mod serve;
mod sign_in;
mod state;
mod traffic;
mod users;

use axum::Router;
use axum::extract::{Request, State};
use axum::routing::{MethodRouter, get, post};

use crate::api::Api;
use page_context::{Failure, Page, PageContext};
use serve::serve;
use state::Dashboard;

/// A page that is read.
fn view<F, R>(page: F) -> MethodRouter<Dashboard>
where
    F: Fn(PageContext) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Page, Failure>> + Send + 'static,
{
    get(move |State(dashboard): State<Dashboard>, request: Request| serve(dashboard, request, page))
}

/// A page with a form, for users whom the API would let send it.
fn form_page<F, R>(permission: &'static str, page: F) -> MethodRouter<Dashboard>
where
    F: Fn(PageContext) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Page, Failure>> + Send + 'static,
{
    view(move |cx: PageContext| {
        let allowed = cx.may(permission).then(|| page(cx));
        async move {
            match allowed {
                Some(page) => page.await,
                None => Err(Failure { status: 403, ..Failure::default() }),
            }
        }
    })
}

/// The action of a form.
fn form_action<F, R>(page: F) -> MethodRouter<Dashboard>
where
    F: Fn(PageContext) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Page, Failure>> + Send + 'static,
{
    post(move |State(dashboard): State<Dashboard>, request: Request| serve(dashboard, request, page))
}

/// Every page.
pub fn router<S: Clone + Send + Sync + 'static>(api: Api) -> Router<S> {
    let dashboard = Dashboard::new(api);
    Router::new()
        .route("/", get(serve::home))
        .route("/sign-in", get(sign_in::ask).post(sign_in::sign_in))
        .route("/sign-in/choose", post(sign_in::choose))
        .route("/sign-in/{token}", get(sign_in::by_link))
        .route("/join/{invitation}", get(sign_in::invited).post(sign_in::join))
        .route("/sign-out", form_action(me::sign_out))
        .route("/me", view(me::show))
        .route("/me/password", form_action(me::change_password))
        .route("/me/two-factor", view(me::enrol).merge(form_action(me::enable)))
        .route("/me/two-factor/off", form_action(me::disable))
        .route("/me/told", form_action(me::note_told))
        .route("/me/sessions", form_action(me::sign_out_everywhere))
        .route("/portal/{token}/theme.css", get(serve::theme))
        .route("/me/", get(serve::without_slash))
        .route("/operator/", get(serve::without_slash))
        .route("/accounts/{account}/", get(serve::without_slash))
        .route("/portal/{token}/", get(serve::without_slash))
        .nest("/accounts/{account}", of_account())
        .nest("/portal/{token}", of_account())
        .nest("/operator", of_operator())
        .with_state(dashboard)
}

/// The pages of an account.
#[rustfmt::skip]
fn of_account() -> Router<Dashboard> {
    Router::new()
        .route("/", view(overview::show))
        .route("/endpoints", view(endpoints::list))
        .route("/endpoints/new", form_page("webhooks:create", endpoints::new).merge(form_action(endpoints::create)))
        .route("/endpoints/{id}", view(endpoints::show))
        .route("/endpoints/{id}/edit",
            form_page("webhooks:update", endpoints::edit).merge(form_action(endpoints::update)))
        .route("/endpoints/{id}/pause", form_action(endpoints::pause))
        .route("/endpoints/{id}/resume", form_action(endpoints::resume))
        .route("/endpoints/{id}/delete",
            form_page("webhooks:delete", endpoints::delete_ask).merge(form_action(endpoints::delete)))
        .route("/endpoints/{id}/rotate",
            form_page("webhooks:update", endpoints::rotate_ask).merge(form_action(endpoints::rotate)))
        .route("/endpoints/{id}/test", form_action(endpoints::test))
        .route("/endpoints/{id}/replay", form_page("webhooks:update", replays::new).merge(form_action(replays::create)))
        .route("/replays/{id}", view(replays::show))
        .route("/replays/{id}/cancel", form_action(replays::cancel))
        .route("/deliveries", view(deliveries::list))
        .route("/deliveries/export", get(serve::export_deliveries))
        .route("/deliveries/{id}", view(deliveries::show))
        .route("/deliveries/{id}/retry", form_action(deliveries::retry))
        .route("/events", view(event_types::events))
        .route("/events/{id}", view(event_types::event))
        .route("/event-types", view(event_types::list))
        .route("/event-types/{name}", view(event_types::show).merge(form_action(event_types::publish)))
        .route("/api-keys", view(api_keys::list))
        .route("/api-keys/new", form_page("api_keys:write", api_keys::new).merge(form_action(api_keys::create)))
        .route("/api-keys/{id}/revoke",
            form_page("api_keys:write", api_keys::revoke_ask).merge(form_action(api_keys::revoke)))
        .route("/users", view(users::list))
        .route("/users/invite", form_page("users:write", users::invite_ask).merge(form_action(users::invite)))
        .route("/users/{id}", view(users::show).merge(form_action(users::set_role)))
        .route("/users/{id}/invitation", form_action(users::invite_again))
        .route("/users/{id}/two-factor", form_action(users::reset_second_factor))
        .route("/users/{id}/delete", form_page("users:write", users::delete_ask).merge(form_action(users::delete)))
        .route("/portal-links", view(portal_links::list))
        .route(
            "/portal-links/{id}/revoke",
            form_page("portal_links:delete", portal_links::revoke_ask).merge(form_action(portal_links::revoke)),
        )
        .route("/audit-log", view(audit::list))
        .route("/audit-log/export", get(serve::export_audit_log))
        .fallback(view(serve::nothing))
}

/// The operator's own.
#[rustfmt::skip]
fn of_operator() -> Router<Dashboard> {
    Router::new()
        .route("/", view(operator::accounts))
        .route("/accounts/new", view(operator::account_new).merge(form_action(operator::account_create)))
        .route("/accounts/{id}", view(operator::account_edit).merge(form_action(operator::account_update)))
        .route("/accounts/{id}/delete", view(operator::account_delete_ask).merge(form_action(operator::account_delete)))
        .route("/event-types", view(operator::types))
        .route("/event-types/new", view(operator::type_new).merge(form_action(operator::type_create)))
        .route("/event-types/{name}", view(operator::type_edit).merge(form_action(operator::type_update)))
        .route("/event-types/{name}/delete", view(operator::type_delete_ask).merge(form_action(operator::type_delete)))
        .route("/audit-log", view(audit::list))
        .route("/audit-log/export", get(serve::export_audit_log))
        .fallback(view(serve::nothing))
}
