//! The audit log: who did what, when and from where. An account's pages show what concerns it, the operator's
//! everything.

use maud::{Markup, html};

use super::filters::Filters;
use super::listing::{listed, segment};
use super::page_context::{Failure, Page, PageContext, PageOwner};
use super::parts::{Kind, button, code, empty, filled, head, none, notice, submit, time};
use crate::api::{AuditEntryResource, Code, Listing};

const SECTION: &str = "audit-log";

/// What the log can be narrowed by.
const FILTERS: [&str; 7] = ["action", "actor_id", "resource_type", "resource_id", "account_id", "from", "to"];

/// Filters behind "More filters".
const MORE: [&str; 3] = ["actor_id", "resource_id", "account_id"];

/// What can be done, by the names that the API has for it.
const ACTIONS: [&str; 29] = [
    "webhook.created",
    "webhook.updated",
    "webhook.deleted",
    "webhook.secret_regenerated",
    "delivery.retried",
    "replay.created",
    "replay.cancelled",
    "event_type.created",
    "event_type.updated",
    "event_type.deleted",
    "account.created",
    "account.updated",
    "account.deleted",
    "api_key.created",
    "api_key.revoked",
    "user.invited",
    "user.joined",
    "user.updated",
    "user.two_factor_reset",
    "user.deleted",
    "user.signed_in",
    "user.sign_in_failed",
    "user.signed_out_everywhere",
    "portal_link.created",
    "portal_link.opened",
    "portal_link.revoked",
    "secrets.rekeyed",
    "deliveries.held",
    "deliveries.resumed",
];

/// What it can be done to.
const RESOURCES: [&str; 10] = [
    "webhook_endpoint",
    "webhook_delivery",
    "webhook_replay",
    "event_type",
    "account",
    "api_key",
    "user",
    "portal_link",
    "master_key",
    "server",
];

/// `GET /audit-log`
pub async fn list(cx: PageContext) -> Result<Page, Failure> {
    let filters = Filters::read(&cx, &FILTERS);
    let asked = cx.get::<Listing<AuditEntryResource>>("/v1/audit-log", &filters.query(cx.asked("page"))).await;
    let (found, refused) = match asked {
        Ok(found) => (Some(found), None),
        Err(failure) if failure.is(Code::InvalidFilter) => (None, Some(failure)),
        Err(failure) => return Err(failure),
    };
    let about = match cx.owner {
        PageOwner::Operator => cx.say("Who changed what on this server, in every account, newest first."),
        _ => cx.say("Who changed what in this account, newest first."),
    };
    let export = |format| filters.address(&cx.link("/audit-log/export"), &[("format", format)]);
    let actions = html! {
        (button(&export("csv"), &cx.say("Export as CSV"), ""))
        (button(&export("xlsx"), &cx.say("Export as XLSX"), ""))
    };
    let content = html! {
        (head(&cx.say("Audit log"), Some(&about), actions))
        (form(&cx, &filters, refused.as_ref()))
        @match &found {
            Some(found) => (results(&cx, &filters, found)),
            None => (notice(Kind::Bad, html! {
                p { (cx.say("A filter cannot be read, so nothing is shown. What it takes stands beside it.")) }
            })),
        }
    };
    let page = Page::new(cx.say("Audit log"), SECTION, content);
    Ok(if refused.is_some() { page.with_status(422) } else { page })
}

fn form(cx: &PageContext, filters: &Filters, refused: Option<&Failure>) -> Markup {
    let listed = |any: String, names: &[&str], told: fn(&PageContext, &str) -> String| {
        let named = names.iter().map(|name| ((*name).to_owned(), told(cx, name)));
        [(String::new(), any)].into_iter().chain(named).collect::<Vec<_>>()
    };
    let operator = cx.owner == PageOwner::Operator;
    // The last two resources are the operator's.
    let resources = if operator { &RESOURCES[..] } else { &RESOURCES[..RESOURCES.len() - 2] };
    let typed = |name, label: String, kind| filters.typed(name, &label, kind, refused);
    let open = filters.any(&MORE) || refused.is_some_and(|failure| MORE.iter().any(|name| failure.of(name).is_some()));
    html! { form.filters method="get" action=(cx.link("/audit-log")) aria-label=(cx.say("Filters")) {
        (filters.chosen("action", &cx.say("Action"), &listed(cx.say("Any action"), &ACTIONS, in_words), refused))
        (filters.chosen(
            "resource_type",
            &cx.say("Done to"),
            &listed(cx.say("Anything"), resources, kind_in_words),
            refused,
        ))
        (typed("from", cx.say("From (UTC)"), "date"))
        (typed("to", cx.say("To (UTC)"), "date"))
        details open[open] {
            summary { (cx.say("More filters")) }
            div.row {
                (typed("actor_id", cx.say("Id of who did it"), "text"))
                (typed("resource_id", cx.say("Id of what it was done to"), "text"))
                @if operator { (typed("account_id", cx.say("Account id"), "text")) }
            }
        }
        div.buttons {
            (submit(&cx.say("Filter"), ""))
            @if !filters.is_empty() { (button(&cx.link("/audit-log"), &cx.say("Clear filters"), "")) }
        }
    } }
}

fn results(cx: &PageContext, filters: &Filters, found: &Listing<AuditEntryResource>) -> Markup {
    let path = cx.link("/audit-log");
    let at_all = empty(
        &cx.say("Nothing has been changed yet"),
        &cx.say(
            "Every change of endpoints, secrets, keys and users stands here, with who made it. Published events do \
             not.",
        ),
        None,
    );
    let nothing = filters.nothing(cx, &path, &cx.say("No entry matches"), at_all);
    listed(cx, found, &path, nothing, |shown| table(cx, shown))
}

fn table(cx: &PageContext, entries: &[AuditEntryResource]) -> Markup {
    let columns = [
        cx.say("What"),
        cx.say("Done to"),
        cx.say("Who"),
        cx.say("When"),
        cx.say("From where"),
        cx.say("Request id"),
        cx.say("Account"),
    ];
    let operator = cx.owner == PageOwner::Operator;
    let shown = if operator { columns.len() } else { columns.len() - 1 };
    html! { div.scroll { table.list {
        thead { tr { @for name in &columns[..shown] { th scope="col" { (name) } } } }
        tbody { @for entry in entries { tr {
            td.main data-label=(columns[0]) { (what(cx, entry)) }
            td data-label=(columns[1]) { (resource(cx, entry)) }
            td data-label=(columns[2]) { (who(cx, entry)) }
            td.nowrap data-label=(columns[3]) { (time(cx, &entry.created_at)) }
            td data-label=(columns[4]) { (or_none(cx, entry.ip_address.as_deref())) }
            td data-label=(columns[5]) { (or_none(cx, entry.request_id.as_deref())) }
            @if operator { td data-label=(columns[6]) { @match &entry.account_id {
                None => (none(cx)),
                Some(id) => a href=(format!("/accounts/{id}")) { (code(id)) },
            } } }
        } } }
    } } }
}

fn or_none(cx: &PageContext, text: Option<&str>) -> Markup {
    filled(text).map_or_else(|| none(cx), code)
}

fn what(cx: &PageContext, entry: &AuditEntryResource) -> Markup {
    html! {
        strong { (in_words(cx, &entry.action)) }
        small { (code(&entry.action)) @for field in &entry.fields { " " (code(field)) } }
    }
}

fn who(cx: &PageContext, entry: &AuditEntryResource) -> Markup {
    let kind = match entry.actor_type.as_str() {
        "api_key" => cx.say("API key"),
        "operator_key" => cx.say("Operator's key"),
        "user" => cx.say("User"),
        "operator_user" => cx.say("Operator"),
        "portal_link" => cx.say("Portal link"),
        "command_line" => cx.say("Command line"),
        "anonymous" => cx.say("Somebody who had not signed in"),
        "system" => cx.say("The server itself"),
        other => other.to_owned(),
    };
    let id = filled(entry.actor_id.as_deref());
    let called = filled(entry.actor_name.as_deref()).or(id);
    let all = id.map(|id| Filters::default().address(&cx.link("/audit-log"), &[("actor_id", id)]));
    html! {
        (kind)
        @if let Some(called) = called { " " @match all {
            Some(all) => a href=(all) title=(cx.say("Everything that they did")) { (called) },
            None => (called),
        } }
    }
}

/// What it was done to, and the way there when it has a page and still exists.
fn resource(cx: &PageContext, entry: &AuditEntryResource) -> Markup {
    let (kind, id) = (&entry.resource_type, &entry.resource_id);
    let gone = entry.action.ends_with(".deleted") || entry.action == "api_key.revoked";
    let page = if gone { None } else { page_of(kind, id) };
    let to = page.and_then(|page| address(cx, entry.account_id.as_deref(), kind, &page));
    html! {
        (kind_in_words(cx, kind)) " "
        @match to { Some(to) => a href=(to) { (code(id)) }, None => (code(id)) }
    }
}

/// The page of a resource, within an account's or the operator's.
fn page_of(kind: &str, id: &str) -> Option<String> {
    let id = segment(id);
    match kind {
        "webhook_endpoint" => Some(format!("/endpoints/{id}")),
        "webhook_delivery" => Some(format!("/deliveries/{id}")),
        "webhook_replay" => Some(format!("/replays/{id}")),
        "event_type" => Some(format!("/event-types/{id}")),
        "api_key" => Some("/api-keys".to_owned()),
        "user" => Some(format!("/users/{id}")),
        "account" => Some(String::new()),
        _ => None,
    }
}

/// From the operator's pages, what belongs to an account is on that account's.
fn address(cx: &PageContext, account: Option<&str>, kind: &str, page: &str) -> Option<String> {
    match (cx.owner, kind) {
        (PageOwner::Operator, "event_type") => Some(cx.link(page)),
        (PageOwner::Operator, _) => account.map(|account| format!("/accounts/{account}{page}")),
        (_, "user") if !cx.may("users:read") => None,
        (_, "api_key") if !cx.may("api_keys:read") => None,
        _ => Some(cx.link(page)),
    }
}

fn kind_in_words(cx: &PageContext, kind: &str) -> String {
    match kind {
        "webhook_endpoint" => cx.say("Endpoint"),
        "webhook_delivery" => cx.say("Delivery"),
        "webhook_replay" => cx.say("Replay"),
        "event_type" => cx.say("Event type"),
        "account" => cx.say("Account"),
        "api_key" => cx.say("API key"),
        "user" => cx.say("User"),
        "portal_link" => cx.say("Portal link"),
        "master_key" => cx.say("Master key"),
        "server" => cx.say("Server"),
        other => other.replace('_', " "),
    }
}

/// What was done. What only a newer server knows has its name.
fn in_words(cx: &PageContext, action: &str) -> String {
    match action {
        "webhook.created" => cx.say("Endpoint added"),
        "webhook.updated" => cx.say("Endpoint changed"),
        "webhook.deleted" => cx.say("Endpoint deleted"),
        "webhook.secret_regenerated" => cx.say("Signing secret rotated"),
        "delivery.retried" => cx.say("Delivery sent again"),
        "replay.created" => cx.say("Replay started"),
        "replay.cancelled" => cx.say("Replay cancelled"),
        "event_type.created" => cx.say("Event type added"),
        "event_type.updated" => cx.say("Event type changed"),
        "event_type.deleted" => cx.say("Event type deleted"),
        "account.created" => cx.say("Account created"),
        "account.updated" => cx.say("Account changed"),
        "account.deleted" => cx.say("Account deleted"),
        "api_key.created" => cx.say("API key created"),
        "api_key.revoked" => cx.say("API key revoked"),
        "user.invited" => cx.say("User invited"),
        "user.joined" => cx.say("Invitation accepted"),
        "user.updated" => cx.say("User changed"),
        "user.deleted" => cx.say("User deleted"),
        "user.two_factor_reset" => cx.say("Second factor turned off by somebody else"),
        "user.signed_in" => cx.say("Signed in"),
        "user.sign_in_failed" => cx.say("Sign-in failed"),
        "user.signed_out_everywhere" => cx.say("Signed out everywhere"),
        "portal_link.created" => cx.say("Portal link created"),
        "portal_link.opened" => cx.say("Portal link opened"),
        "portal_link.revoked" => cx.say("Portal link revoked"),
        "secrets.rekeyed" => cx.say("Secrets encrypted with another key"),
        "deliveries.held" => cx.say("All deliveries put on hold"),
        "deliveries.resumed" => cx.say("Hold of all deliveries ended"),
        other => other.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_has_a_page_whatever_its_id_holds() {
        assert_eq!(page_of("event_type", "order.created").as_deref(), Some("/event-types/order.created"));
        assert_eq!(page_of("webhook_endpoint", "a/../b?c").as_deref(), Some("/endpoints/a%2F..%2Fb%3Fc"));
        assert_eq!(page_of("portal_link", "x"), None);
    }
}
