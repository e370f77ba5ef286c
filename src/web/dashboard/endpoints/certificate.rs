//! An endpoint's client certificate: what its page shows, and the fields of its forms. No page shows a private key.

use maud::{Markup, html};
use serde_json::{Value, json};

use crate::api::EndpointResource;
use crate::web::dashboard::page_context::{Failure, PageContext};
use crate::web::dashboard::parts::{Input, area, checks, code, none, time};

/// What the endpoint's page shows.
pub fn shown(cx: &PageContext, endpoint: &EndpointResource) -> Markup {
    let Some(certificate) = &endpoint.client_certificate else { return none(cx) };
    html! {
        (certificate.subject) br;
        (cx.say("Valid until")) " " (time(cx, &certificate.not_after)) br;
        "SHA-256 " (code(&certificate.fingerprint))
    }
}

/// The fields of a form; `endpoint` is the one that is changed. What was written as the key is not shown again.
pub fn fields(cx: &PageContext, endpoint: Option<&EndpointResource>, failure: Option<&Failure>) -> Markup {
    let known = endpoint.and_then(|endpoint| endpoint.client_certificate.as_ref());
    // Somebody may have put the key there.
    let certificate = Some(cx.field("client_certificate")).filter(|text| !text.contains("PRIVATE KEY"));
    let hint = match known {
        None => cx.say(
            "For a receiver that demands one (mutual TLS): its PEM text, with those that lead to its authority after \
             it. The URL must use HTTPS.",
        ),
        Some(known) => cx.fill(
            "It has one: {subject}. Leave both fields empty to keep it, or give another one with its key.",
            &[("subject", &known.subject)],
        ),
    };
    html! {
        (area(
            &Input {
                name: "client_certificate",
                label: &cx.say("Client certificate"),
                value: certificate.unwrap_or_default(),
                hint: &hint,
                error: failure.and_then(|failure| failure.of("client_certificate")),
                ..Input::default()
            },
            4,
        ))
        (area(
            &Input {
                name: "private_key",
                label: &cx.say("Private key of the certificate"),
                hint: &cx.say("Its PEM text, not encrypted. It is kept encrypted, and never shown again."),
                ..Input::default()
            },
            4,
        ))
        @if known.is_some() {
            (checks(
                &cx.say("No client certificate any more"),
                "remove_certificate",
                &[("yes", &cx.say("Remove the client certificate"), false)],
                "",
                None,
            ))
        }
    }
}

/// What a form asks for. `None` leaves what there is.
pub fn sent(cx: &PageContext) -> Option<Value> {
    let (certificate, private_key) = (cx.field("client_certificate"), cx.field("private_key"));
    if certificate.trim().is_empty() && private_key.trim().is_empty() {
        return (!cx.field("remove_certificate").is_empty()).then_some(Value::Null);
    }
    Some(json!({ "certificate": certificate, "private_key": private_key }))
}
