//! The end of an endpoint.

use maud::html;
use serde_json::Value;

use super::{address, resource, trail};
use crate::web::dashboard::parts::{Confirm, confirm};
use crate::web::dashboard::visit::{Failure, Item, Page, Visit};

/// `/endpoints/{id}/delete`
pub async fn delete_ask(v: Visit) -> Result<Page, Failure> {
    let doc = v.get(&resource(&v, ""), &[]).await?;
    Ok(asked(&v, doc.item(), false))
}

/// The same, when it was confirmed.
pub async fn delete(v: Visit) -> Result<Page, Failure> {
    let doc = v.get(&resource(&v, ""), &[]).await?;
    if v.field("confirm").trim() != doc.item().text("url") {
        return Ok(asked(&v, doc.item(), true).with_status(422));
    }
    v.send("DELETE", &resource(&v, ""), Value::Null).await?;
    Ok(Page::Redirect(v.link("/endpoints?done=deleted")))
}

fn asked(v: &Visit, endpoint: Item<'_>, mistyped: bool) -> Page {
    let question = v.say("Delete this endpoint?");
    let happens = [
        v.say("Nothing is sent to it any more, from this moment on."),
        v.say("Its deliveries and the count of what it missed go with it. Its secret is forgotten."),
        v.say("This cannot be undone. To stop deliveries for a while, pause the endpoint instead."),
    ];
    let content = html! {
        (trail(v, endpoint))
        (confirm(v, &Confirm {
            question: &question,
            happens: &happens,
            type_this: Some(endpoint.text("url")),
            mistyped,
            action: &address(v, "/delete"),
            label: &v.say("Delete the endpoint"),
            cancel: &address(v, ""),
            ..Confirm::default()
        }))
    };
    Page::new(question, "endpoints", content)
}
