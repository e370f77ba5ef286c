//! Deleting an endpoint.

use maud::html;
use serde_json::Value;

use super::paths::{address, resource, trail};
use crate::web::dashboard::page_context::{Failure, Item, Page, PageContext};
use crate::web::dashboard::parts::{Confirm, confirm};

/// `/endpoints/{id}/delete`
pub async fn delete_ask(cx: PageContext) -> Result<Page, Failure> {
    let doc = cx.get_json(&resource(&cx, ""), &[]).await?;
    Ok(asked(&cx, doc.item(), false))
}

/// The same, when it was confirmed.
pub async fn delete(cx: PageContext) -> Result<Page, Failure> {
    let doc = cx.get_json(&resource(&cx, ""), &[]).await?;
    if cx.field("confirm").trim() != doc.item().text("url") {
        return Ok(asked(&cx, doc.item(), true).with_status(422));
    }
    cx.send_json("DELETE", &resource(&cx, ""), Value::Null).await?;
    Ok(Page::Redirect(cx.link("/endpoints?done=deleted")))
}

fn asked(cx: &PageContext, endpoint: Item<'_>, mistyped: bool) -> Page {
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
            type_this: Some(endpoint.text("url")),
            mistyped,
            action: &address(cx, "/delete"),
            label: &cx.say("Delete the endpoint"),
            cancel: &address(cx, ""),
            ..Confirm::default()
        }))
    };
    Page::new(question, "endpoints", content)
}
