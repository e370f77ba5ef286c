//! An endpoint's signing secret: rotating it, and the one page that shows it.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::{address, ending, resource, trail};
use crate::api::{RegenerateSecret, RequestBody as _};
use crate::web::dashboard::asking::{mendable, status_of};
use crate::web::dashboard::parts::{self, Confirm, Input, Kind, button, confirm, crumbs, head, notice, post, select};
use crate::web::dashboard::visit::{Failure, Item, Page, Visit};

/// `/endpoints/{id}/rotate`
pub async fn rotate_ask(v: Visit) -> Result<Page, Failure> {
    let doc = v.get(&resource(&v, ""), &[]).await?;
    Ok(asked(&v, doc.item(), "0", None))
}

fn asked(v: &Visit, endpoint: Item<'_>, overlap: &str, failure: Option<&Failure>) -> Page {
    let question = v.say("Rotate the signing secret?");
    let happens = [
        v.say("A new secret is made and shown once, on the next page."),
        v.say("Without an overlap the old secret is dead at once. Until your receiver has the new one it rejects genuine deliveries; they fail and are retried on schedule."),
        v.say("With an overlap the old secret keeps signing beside the new one: webhook-signature and X-Webhook-Signature-Timestamped carry a signature by each. A receiver that accepts any of them notices nothing."),
        v.say("X-Webhook-Signature has room for one signature only. It is the new secret's at once, with an overlap too."),
    ];
    let fields = html! {
        (select(
            &Input {
                name: "overlap_seconds",
                label: &v.say("How long the old secret keeps signing"),
                hint: &v.say("If the secret has leaked, choose no overlap. Otherwise choose more time than your next deployment takes."),
                value: overlap,
                error: failure.and_then(|failure| failure.of("overlap_seconds")),
                ..Input::default()
            },
            &[
                ("0", &v.say("No overlap: it stops at once")),
                ("3600", &v.say("1 hour")),
                ("86400", &v.say("24 hours")),
                ("604800", &v.say("7 days")),
            ],
        ))
        p { a href="/docs/guides/rotate-a-secret" { (v.say("Rotate a secret")) } }
    };
    let content = html! {
        (trail(v, endpoint))
        (confirm(v, &Confirm {
            question: &question,
            happens: &happens,
            action: &address(v, "/rotate"),
            label: &v.say("Rotate secret"),
            cancel: &address(v, ""),
            failure,
            fields: Some(&fields),
            ..Confirm::default()
        }))
    };
    Page::new(question, "endpoints", content)
}

/// The same, when it was confirmed.
pub async fn rotate(v: Visit) -> Result<Page, Failure> {
    let typed = v.field("overlap_seconds").trim();
    // What is no number is refused by the API: no rotation may be sharper than was asked for.
    let overlap = typed.parse::<u64>().map_or_else(|_| Value::from(typed), Value::from);
    let path = resource(&v, "/regenerate-secret");
    match v.send("POST", &path, json!({ "overlap_seconds": overlap })).await {
        Ok(rotated) => Ok(rotated_page(&v, rotated.item(), typed)),
        Err(failure) => {
            let failure = mendable(failure, RegenerateSecret::NAMES)?;
            let doc = v.get(&resource(&v, ""), &[]).await?;
            Ok(asked(&v, doc.item(), typed, Some(&failure)).with_status(status_of(&failure)))
        }
    }
}

fn rotated_page(v: &Visit, endpoint: Item<'_>, overlap: &str) -> Page {
    let title = v.say("The secret is rotated");
    let old = match overlap {
        "0" => v.say("The old secret no longer works: no attempt is signed with it any more. Until your receiver has the new one it rejects deliveries, and they are retried."),
        "3600" => v.say("The old secret keeps signing beside the new one for 1 hour. Give your receiver the new one before it ends."),
        "86400" => v.say("The old secret keeps signing beside the new one for 24 hours. Give your receiver the new one before it ends."),
        _ => v.say("The old secret keeps signing beside the new one until the overlap ends. Give your receiver the new one before that."),
    };
    let next = html! {
        li {
            h3 { (v.say("Give it to your receiver")) }
            p { (old) }
            p { a href="/docs/guides/rotate-a-secret" { (v.say("Rotate a secret")) } }
        }
        (send_a_test(v, endpoint))
    };
    let content = html! {
        (trail(v, endpoint))
        (head(&title, Some(endpoint.text("url")), html! {}))
        (once(v, endpoint, &v.say("New signing secret")))
        (what_next(v, endpoint, &next))
    };
    Page::new(title, "endpoints", content)
}

/// The page after an endpoint was created.
pub fn created(v: &Visit, endpoint: Item<'_>) -> Page {
    let title = v.say("The endpoint is created");
    let next = html! {
        li {
            h3 { (v.say("Give the secret to your receiver")) }
            p { (v.say("Keep it with its other secrets, not in its code. Whoever has it can sign requests that your receiver believes.")) }
        }
        li {
            h3 { (v.say("Verify each request with it")) }
            p { (v.say("A few lines of code, ready to copy in several languages.")) }
            p { a href="/docs/guides/receive-and-verify" { (v.say("Receive and verify")) } }
        }
        (send_a_test(v, endpoint))
    };
    let content = html! {
        (crumbs(v, &[(&v.say("Endpoints"), &v.link("/endpoints"))]))
        (head(&title, Some(endpoint.text("url")), html! {}))
        (once(v, endpoint, &v.say("Signing secret")))
        (what_next(v, endpoint, &next))
    };
    Page::new(title, "endpoints", content)
}

/// The secret where the API shows it; where the form was sent twice it does not.
fn once(v: &Visit, endpoint: Item<'_>, label: &str) -> Markup {
    let secret = endpoint.text("secret");
    if !secret.is_empty() {
        return parts::secret(v, label, secret);
    }
    let content = html! {
        p { strong { (v.say("The secret was shown already.")) } }
        p { (v.fill("This form was sent before, and a secret is shown only once. All that is left to show is how it ends: {ending}.", &[("ending", &ending(endpoint))])) }
        p { (v.say("If nobody copied it, rotate it to get another one.")) }
        p { (button(&page_of(v, endpoint, "/rotate"), &v.say("Rotate secret"), "")) }
    };
    notice(Kind::Warn, content)
}

fn what_next(v: &Visit, endpoint: Item<'_>, steps: &Markup) -> Markup {
    html! {
        section.panel aria-labelledby="next" {
            h2 #next { (v.say("What to do next")) }
            ol.timeline { (steps) }
        }
        p { (button(&page_of(v, endpoint, ""), &v.say("To the endpoint"), "")) }
    }
}

fn send_a_test(v: &Visit, endpoint: Item<'_>) -> Markup {
    html! { @if v.may("webhooks:update") { li {
        h3 { (v.say("Send a test")) }
        p { (v.say("It goes out now, signed like every delivery, and you see what the receiver answers.")) }
        (post(v, &page_of(v, endpoint, "/test"), &v.say("Send a test"), ""))
    } } }
}

/// The endpoint may be new: the path of this page does not have its id.
fn page_of(v: &Visit, endpoint: Item<'_>, rest: &str) -> String {
    v.link(&format!("/endpoints/{}{rest}", endpoint.id()))
}
