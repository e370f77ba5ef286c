//! Deleting an endpoint.

use maud::html;
use serde_json::Value;

use super::paths::{address, resource, trail};
use crate::api::EndpointResource;
use crate::web::dashboard::page_context::{Failure, Page, PageContext};
use crate::web::dashboard::parts::{Confirm, confirm};

/// `/endpoints/{id}/delete`
pub async fn delete_ask(cx: PageContext) -> Result<Page, Failure> {
    let endpoint: EndpointResource = cx.get(&resource(&cx, ""), &[]).await?;
    Ok(asked(&cx, &endpoint, false))
}

/// The same, when it was confirmed.
pub async fn delete(cx: PageContext) -> Result<Page, Failure> {
    let endpoint: EndpointResource = cx.get(&resource(&cx, ""), &[]).await?;
    if cx.field("confirm").trim() != endpoint.url {
        return Ok(asked(&cx, &endpoint, true).with_status(422));
    }
    cx.send::<()>("DELETE", &resource(&cx, ""), Value::Null).await?;
    Ok(Page::Redirect(cx.link("/endpoints?done=deleted")))
}

fn asked(cx: &PageContext, endpoint: &EndpointResource, mistyped: bool) -> Page {
    let question = cx.say("Delete this endpoint?");
    let happens = [
        cx.say("Nothing is sent to it any more, from this moment on."),
        cx.say("Its deliveries and the count of what it missed go with it. Its secret is forgotten."),
        cx.say("This cannot be undone. To stop deliveries for a while, pause the endpoint instead."),
    ];
    let content = html! {
        (trail(cx, endpoint))
        (confirm(cx, &Confirm {
            question: &question,
            happens: &happens,
            type_this: Some(&endpoint.url),
            mistyped,
            action: &address(cx, "/delete"),
            label: &cx.say("Delete the endpoint"),
            cancel: &address(cx, ""),
            ..Confirm::default()
        }))
    };
    Page::new(question, "endpoints", content)
}
