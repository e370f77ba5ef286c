//! An endpoint's signing secret: rotating it, and the one page that shows it.

use maud::{Markup, html};
use serde_json::{Value, json};

use super::paths::{address, ending, resource, trail};
use crate::api::{EndpointResource, RegenerateSecret, RequestBody as _};
use crate::web::dashboard::form_errors::{mendable, status_of};
use crate::web::dashboard::page_context::{Failure, Page, PageContext};
use crate::web::dashboard::parts::{self, Confirm, Input, Kind, button, confirm, crumbs, head, notice, post, select};

/// `/endpoints/{id}/rotate`
pub async fn rotate_ask(cx: PageContext) -> Result<Page, Failure> {
    let endpoint: EndpointResource = cx.get(&resource(&cx, ""), &[]).await?;
    Ok(asked(&cx, &endpoint, "0", None))
}

fn asked(cx: &PageContext, endpoint: &EndpointResource, overlap: &str, failure: Option<&Failure>) -> Page {
    let question = cx.say("Rotate the signing secret?");
    let happens = [
        cx.say("A new secret is made and shown once, on the next page."),
        cx.say(
            "Without an overlap the old secret stops working at once. Until your receiver has the new one it rejects \
             genuine deliveries; they fail and are retried on schedule.",
        ),
        cx.say(
            "With an overlap the old secret keeps signing beside the new one: webhook-signature and \
             X-Webhook-Signature-Timestamped carry a signature by each. A receiver that accepts any of them notices \
             nothing.",
        ),
        cx.say(
            "X-Webhook-Signature has room for one signature only. It is the new secret's at once, with an overlap too.",
        ),
    ];
    let fields = html! {
        (select(
            &Input {
                name: "overlap_seconds",
                label: &cx.say("How long the old secret keeps signing"),
                hint: &cx.say(
                    "If the secret has leaked, choose no overlap. Otherwise choose more time than your next deployment \
                     takes.",
                ),
                value: overlap,
                error: failure.and_then(|failure| failure.of("overlap_seconds")),
                ..Input::default()
            },
            &[
                ("0", &cx.say("No overlap: it stops at once")),
                ("3600", &cx.say("1 hour")),
                ("86400", &cx.say("24 hours")),
                ("604800", &cx.say("7 days")),
            ],
        ))
        (own(cx, failure))
        p { a href="/docs/guides/rotate-a-secret" { (cx.say("Rotate a secret")) } }
    };
    let content = html! {
        (trail(cx, endpoint))
        (confirm(cx, &Confirm {
            question: &question,
            happens: &happens,
            action: &address(cx, "/rotate"),
            label: &cx.say("Rotate secret"),
            cancel: &address(cx, ""),
            failure,
            fields: Some(&fields),
            ..Confirm::default()
        }))
    };
    Page::new(question, "endpoints", content)
}

/// The field for a secret that the receiver has already. What was typed is not shown again. It has no greatest
/// length: a browser would cut off the rest of a longer one, and that would be another secret. A browser must not fill
/// in the password of a sign-in, which it does in spite of `off`.
pub fn own(cx: &PageContext, failure: Option<&Failure>) -> Markup {
    let hint = if cx.field("secret").trim().is_empty() {
        cx.say(
            "Only if your receiver has one already, for example from another sender: 24 to 128 visible ASCII \
             characters. Leave it empty to get a new one.",
        )
    } else {
        // The form is shown again without it.
        cx.say("Type your own secret again: it is not shown. If this field stays empty, a new secret is made.")
    };
    parts::input(&Input {
        name: "secret",
        label: &cx.say("Your own signing secret"),
        hint: &hint,
        error: failure.and_then(|failure| failure.of("secret")),
        kind: "password",
        autocomplete: "new-password",
        ..Input::default()
    })
}

/// The same, when it was confirmed.
pub async fn rotate(cx: PageContext) -> Result<Page, Failure> {
    let typed = cx.field("overlap_seconds").trim();
    // What is no number is refused by the API: no rotation may be sharper than was asked for.
    let overlap = typed.parse::<u64>().map_or_else(|_| Value::from(typed), Value::from);
    let own = Some(cx.field("secret").trim()).filter(|secret| !secret.is_empty());
    let path = resource(&cx, "/regenerate-secret");
    let body = json!({ "overlap_seconds": overlap, "secret": own });
    match cx.send::<EndpointResource>("POST", &path, body).await {
        Ok(rotated) => Ok(rotated_page(&cx, &rotated, typed)),
        Err(failure) => {
            let failure = mendable(failure, RegenerateSecret::NAMES)?;
            let endpoint: EndpointResource = cx.get(&resource(&cx, ""), &[]).await?;
            Ok(asked(&cx, &endpoint, typed, Some(&failure)).with_status(status_of(&failure)))
        }
    }
}

fn rotated_page(cx: &PageContext, endpoint: &EndpointResource, overlap: &str) -> Page {
    let title = cx.say("The secret is rotated");
    let old = match overlap {
        "0" => cx.say(
            "The old secret no longer works: no attempt is signed with it any more. Until your receiver has the new \
             one it rejects deliveries, and they are retried.",
        ),
        "3600" => cx.say(
            "The old secret keeps signing beside the new one for 1 hour. Give your receiver the new one before it \
             ends.",
        ),
        "86400" => cx.say(
            "The old secret keeps signing beside the new one for 24 hours. Give your receiver the new one before it \
             ends.",
        ),
        _ => cx.say(
            "The old secret keeps signing beside the new one until the overlap ends. Give your receiver the new one \
             before that.",
        ),
    };
    let next = html! {
        li {
            h3 { (cx.say("Give it to your receiver")) }
            p { (old) }
            p { a href="/docs/guides/rotate-a-secret" { (cx.say("Rotate a secret")) } }
        }
        (send_a_test(cx, endpoint))
    };
    let content = html! {
        (trail(cx, endpoint))
        (head(&title, Some(&endpoint.url), html! {}))
        (once(cx, endpoint, &cx.say("New signing secret")))
        (what_next(cx, endpoint, &next))
    };
    Page::new(title, "endpoints", content)
}

/// The page after an endpoint was created.
pub fn created(cx: &PageContext, endpoint: &EndpointResource) -> Page {
    let title = cx.say("The endpoint is created");
    let next = html! {
        li {
            h3 { (cx.say("Give the secret to your receiver")) }
            p { (cx.say(
                "Keep it with its other secrets, not in its code. Whoever has it can sign requests that your receiver \
                 believes.",
            )) }
        }
        li {
            h3 { (cx.say("Verify each request with it")) }
            p { (cx.say("A few lines of code, ready to copy in several languages.")) }
            p { a href="/docs/guides/receive-and-verify" { (cx.say("Receive and verify")) } }
        }
        (send_a_test(cx, endpoint))
    };
    let content = html! {
        (crumbs(cx, &[(&cx.say("Endpoints"), &cx.link("/endpoints"))]))
        (head(&title, Some(&endpoint.url), html! {}))
        (once(cx, endpoint, &cx.say("Signing secret")))
        (what_next(cx, endpoint, &next))
    };
    Page::new(title, "endpoints", content)
}

/// The secret where the API shows it; where the form was sent twice it does not.
fn once(cx: &PageContext, endpoint: &EndpointResource, label: &str) -> Markup {
    if let Some(secret) = &endpoint.secret {
        return parts::secret(cx, label, secret);
    }
    let content = html! {
        p { strong { (cx.say("The secret was shown already.")) } }
        p { (cx.fill(
            "This form was sent before, and a secret is shown only once. All that is left to show is how it ends: \
             {ending}.",
            &[("ending", &ending(endpoint))],
        )) }
        p { (cx.say("If nobody copied it, rotate it to get another one.")) }
        p { (button(&page_of(cx, endpoint, "/rotate"), &cx.say("Rotate secret"), "")) }
    };
    notice(Kind::Warn, content)
}

fn what_next(cx: &PageContext, endpoint: &EndpointResource, steps: &Markup) -> Markup {
    html! {
        section.panel aria-labelledby="next" {
            h2 #next { (cx.say("What to do next")) }
            ol.timeline { (steps) }
        }
        p { (button(&page_of(cx, endpoint, ""), &cx.say("To the endpoint"), "")) }
    }
}

fn send_a_test(cx: &PageContext, endpoint: &EndpointResource) -> Markup {
    html! { @if cx.may("webhooks:update") { li {
        h3 { (cx.say("Send a test")) }
        p { (cx.say("It goes out now, signed like every delivery, and you see what the receiver answers.")) }
        (post(cx, &page_of(cx, endpoint, "/test"), &cx.say("Send a test"), ""))
    } } }
}

/// The endpoint may be new: the path of this page does not have its id.
fn page_of(cx: &PageContext, endpoint: &EndpointResource, rest: &str) -> String {
    cx.link(&format!("/endpoints/{}{rest}", endpoint.id))
}
