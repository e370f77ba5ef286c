//! Portal links: the ways into an account's pages without a sign-in, which are listed and ended here. Programs of the
//! operator make them, so there is no form for a new one.

use maud::{Markup, html};
use serde_json::Value;

use super::form_errors::{mendable, status_of};
use super::listing::{find, listed, segment};
use super::page_context::{Failure, Page, PageContext};
use super::parts::{Confirm, code, confirm, crumbs, empty, head, time, until};
use crate::api::{Listing, PortalLinkResource};

const SECTION: &str = "portal-links";

/// The API's list of links.
fn links(cx: &PageContext) -> String {
    format!("/v1/accounts/{}/portal-links", cx.account())
}

/// `GET /portal-links`
pub async fn list(cx: PageContext) -> Result<Page, Failure> {
    let found: Listing<PortalLinkResource> = cx.get(&links(&cx), &[("page", cx.asked("page"))]).await?;
    let may = cx.may("portal_links:delete");
    let content = html! {
        (head(
            &cx.say("Portal links"),
            Some(&cx.say(
                "Each opens pages of this account without a sign-in, for whoever has its address, until it ends. Its \
                 address was shown when it was made.",
            )),
            html! {},
        ))
        (listed(
            &cx,
            &found,
            &cx.link("/portal-links"),
            empty(
                &cx.say("No portal link is open"),
                &cx.say("Whoever runs this server makes them, to show you these pages within another product."),
                None,
            ),
            |shown| table(&cx, shown, may),
        ))
    };
    Ok(Page::new(cx.say("Portal links"), SECTION, content))
}

fn table(cx: &PageContext, links: &[PortalLinkResource], may: bool) -> Markup {
    let columns = [cx.say("Name"), cx.say("Permissions"), cx.say("First opened"), cx.say("Ends")];
    html! { div.scroll { table.list {
        thead { tr {
            @for name in &columns { th scope="col" { (name) } }
            @if may { th scope="col" { span.sr { (cx.say("Actions")) } } }
        } }
        tbody { @for link in links { tr {
            td.main data-label=(columns[0]) { strong { (name(cx, link)) } small.mono { (link.id) } }
            td data-label=(columns[1]) { @for permission in &link.permissions { (code(permission)) " " } }
            td.nowrap data-label=(columns[2]) { (opened(cx, link)) }
            td.nowrap data-label=(columns[3]) { (until(cx, &link.expires_at)) }
            @if may { td.actions {
                a.button.danger href=(cx.link(&format!("/portal-links/{}/revoke", link.id))) {
                    (cx.say("Revoke")) span.sr { " " (link.id) }
                }
            } }
        } } }
    } } }
}

/// The name that its pages have at the top.
fn name(cx: &PageContext, link: &PortalLinkResource) -> String {
    link.brand.clone().unwrap_or_else(|| cx.say("No name"))
}

fn opened(cx: &PageContext, link: &PortalLinkResource) -> Markup {
    match &link.opened_at {
        None => html! { (cx.say("Never")) },
        Some(at) => time(cx, at),
    }
}

/// `GET /portal-links/{id}/revoke`
pub async fn revoke_ask(cx: PageContext) -> Result<Page, Failure> {
    let link: PortalLinkResource = find(&cx, &links(&cx), cx.param("id")).await?;
    Ok(asked(&cx, &link, None))
}

/// `POST /portal-links/{id}/revoke`
pub async fn revoke(cx: PageContext) -> Result<Page, Failure> {
    let link = format!("{}/{}", links(&cx), segment(cx.param("id")));
    match cx.send::<()>("DELETE", &link, Value::Null).await {
        Err(failure) if failure.status != 404 => {
            let refused = mendable(failure, &[])?;
            let link: PortalLinkResource = find(&cx, &links(&cx), cx.param("id")).await?;
            Ok(asked(&cx, &link, Some(&refused)).with_status(status_of(&refused)))
        }
        // What has ended by itself is what the form asks for.
        _ => Ok(Page::Redirect(cx.link("/portal-links"))),
    }
}

fn asked(cx: &PageContext, link: &PortalLinkResource, failure: Option<&Failure>) -> Page {
    let question = cx.say("Revoke the portal link?");
    let happens = [
        cx.say("Whoever has it open sees nothing more from their next click on."),
        cx.say("It cannot be brought back. Whoever made it can make another."),
    ];
    let fields = html! {
        p.muted {
            (name(cx, link)) " · " code { (link.id) } " · " (cx.say("First opened:")) " " (opened(cx, link))
        }
    };
    let content = html! {
        (crumbs(cx, &[(&cx.say("Portal links"), &cx.link("/portal-links"))]))
        (confirm(cx, &Confirm {
            question: &question,
            happens: &happens,
            action: &cx.link(&format!("/portal-links/{}/revoke", link.id)),
            label: &cx.say("Revoke the link"),
            cancel: &cx.link("/portal-links"),
            failure,
            fields: Some(&fields),
            ..Confirm::default()
        }))
    };
    Page::new(question, SECTION, content)
}
