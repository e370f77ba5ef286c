//! Where the pages of one endpoint are, and what several of them show of it.

use maud::Markup;

use crate::api::EndpointResource;
use crate::web::dashboard::page_context::PageContext;
use crate::web::dashboard::parts::crumbs;

/// The id in the path. What can be none names no endpoint, and no other call of the API either.
pub fn id(cx: &PageContext) -> &str {
    let id = cx.param("id");
    if id.len() == 36 && uuid::Uuid::try_parse(id).is_ok() { id } else { "-" }
}

/// Where the API has the endpoint of this page, or something of it.
pub fn resource(cx: &PageContext, rest: &str) -> String {
    format!("/v1/webhooks/{}{rest}", id(cx))
}

/// The address of the endpoint's page, or of one below it.
pub fn address(cx: &PageContext, rest: &str) -> String {
    cx.link(&format!("/endpoints/{}{rest}", id(cx)))
}

/// Where a page below an endpoint's is.
pub fn trail(cx: &PageContext, endpoint: &EndpointResource) -> Markup {
    crumbs(cx, &[(&cx.say("Endpoints"), &cx.link("/endpoints")), (&endpoint.url, &address(cx, ""))])
}

/// The last characters of its secret.
pub fn ending(endpoint: &EndpointResource) -> &str {
    endpoint.secret_hint.as_deref().unwrap_or_default().trim_start_matches('.')
}
