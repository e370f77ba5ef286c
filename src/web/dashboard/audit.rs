//! The audit log: who did what, when and from where. An account's pages show what concerns it, the operator's everything.

use maud::{Markup, html};

use super::asking::{listed, segment};
use super::filters::Filters;
use super::parts::{Kind, button, code, empty, head, none, notice, submit, time};
use super::visit::{Doc, Failure, Item, Page, Place, Visit};

const SECTION: &str = "audit-log";

/// What the log can be narrowed by.
const FILTERS: [&str; 7] = ["action", "actor_id", "resource_type", "resource_id", "account_id", "from", "to"];

/// Those that are out of sight until somebody wants them.
const MORE: [&str; 3] = ["actor_id", "resource_id", "account_id"];

/// What can be done, by the names that the API has for it.
const ACTIONS: [&str; 27] = [
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
];

/// What it can be done to.
const RESOURCES: [&str; 9] = [
    "webhook_endpoint",
    "webhook_delivery",
    "webhook_replay",
    "event_type",
    "account",
    "api_key",
    "user",
    "portal_link",
    "master_key",
];

/// `GET /audit-log`
pub async fn list(v: Visit) -> Result<Page, Failure> {
    let filters = Filters::read(&v, &FILTERS);
    let (found, refused) = match v.get("/v1/audit-log", &filters.query(v.asked("page"))).await {
        Ok(found) => (Some(found), None),
        Err(failure) if failure.is("invalid_filter") => (None, Some(failure)),
        Err(failure) => return Err(failure),
    };
    let about = match v.place {
        Place::Operator => v.say("Who changed what on this server, in every account, newest first."),
        _ => v.say("Who changed what in this account, newest first."),
    };
    let export = |format| filters.address(&v.link("/audit-log/export"), &[("format", format)]);
    let actions = html! {
        (button(&export("csv"), &v.say("Export as CSV"), ""))
        (button(&export("xlsx"), &v.say("Export as XLSX"), ""))
    };
    let content = html! {
        (head(&v.say("Audit log"), Some(&about), actions))
        (form(&v, &filters, refused.as_ref()))
        @match &found {
            Some(found) => (results(&v, &filters, found)),
            None => (notice(Kind::Bad, html! {
                p { (v.say("A filter cannot be read, so nothing is shown. What it takes stands beside it.")) }
            })),
        }
    };
    let page = Page::new(v.say("Audit log"), SECTION, content);
    Ok(if refused.is_some() { page.with_status(422) } else { page })
}

fn form(v: &Visit, filters: &Filters, refused: Option<&Failure>) -> Markup {
    let listed = |any: String, names: &[&str], told: fn(&Visit, &str) -> String| {
        let named = names.iter().map(|name| ((*name).to_owned(), told(v, name)));
        [(String::new(), any)].into_iter().chain(named).collect::<Vec<_>>()
    };
    let operator = v.place == Place::Operator;
    // The last two resources are the operator's.
    let resources = if operator { &RESOURCES[..] } else { &RESOURCES[..RESOURCES.len() - 2] };
    let typed = |name, label: String, kind| filters.typed(name, &label, kind, refused);
    let open = filters.any(&MORE) || refused.is_some_and(|failure| MORE.iter().any(|name| failure.of(name).is_some()));
    html! { form.filters method="get" action=(v.link("/audit-log")) aria-label=(v.say("Filters")) {
        (filters.chosen("action", &v.say("Action"), &listed(v.say("Any action"), &ACTIONS, in_words), refused))
        (filters.chosen("resource_type", &v.say("Done to"), &listed(v.say("Anything"), resources, kind_in_words), refused))
        (typed("from", v.say("From (UTC)"), "date"))
        (typed("to", v.say("To (UTC)"), "date"))
        details open[open] {
            summary { (v.say("More filters")) }
            div.row {
                (typed("actor_id", v.say("Id of who did it"), "text"))
                (typed("resource_id", v.say("Id of what it was done to"), "text"))
                @if operator { (typed("account_id", v.say("Account id"), "text")) }
            }
        }
        div.buttons {
            (submit(&v.say("Filter"), ""))
            @if !filters.is_empty() { (button(&v.link("/audit-log"), &v.say("Clear filters"), "")) }
        }
    } }
}

fn results(v: &Visit, filters: &Filters, found: &Doc) -> Markup {
    let path = v.link("/audit-log");
    let at_all = empty(
        &v.say("Nothing has been changed yet"),
        &v.say("Every change of endpoints, secrets, keys and users stands here, with who made it. Published events do not."),
        None,
    );
    let nothing = filters.nothing(v, &path, &v.say("No entry matches"), at_all);
    listed(v, found, &path, nothing, |shown| table(v, shown))
}

fn table(v: &Visit, entries: &[Item<'_>]) -> Markup {
    let columns = [
        v.say("What"),
        v.say("Done to"),
        v.say("Who"),
        v.say("When"),
        v.say("From where"),
        v.say("Request id"),
        v.say("Account"),
    ];
    let operator = v.place == Place::Operator;
    let shown = if operator { columns.len() } else { columns.len() - 1 };
    html! { div.scroll { table.list {
        thead { tr { @for name in &columns[..shown] { th scope="col" { (name) } } } }
        tbody { @for entry in entries { tr {
            td.main data-label=(columns[0]) { (what(v, *entry)) }
            td data-label=(columns[1]) { (resource(v, *entry)) }
            td data-label=(columns[2]) { (who(v, *entry)) }
            td.nowrap data-label=(columns[3]) { (time(v, entry.text("created_at"))) }
            td data-label=(columns[4]) { (or_none(v, entry.text("ip_address"))) }
            td data-label=(columns[5]) { (or_none(v, entry.text("request_id"))) }
            @if operator { td data-label=(columns[6]) { @match entry.text("account_id") {
                "" => (none(v)),
                id => a href=(format!("/accounts/{id}")) { (code(id)) },
            } } }
        } } }
    } } }
}

fn or_none(v: &Visit, text: &str) -> Markup {
    if text.is_empty() { none(v) } else { code(text) }
}

fn what(v: &Visit, entry: Item<'_>) -> Markup {
    let (action, fields) = (entry.text("action"), entry.texts("fields"));
    html! {
        strong { (in_words(v, action)) }
        small { (code(action)) @for field in fields { " " (code(field)) } }
    }
}

fn who(v: &Visit, entry: Item<'_>) -> Markup {
    let kind = match entry.text("actor_type") {
        "api_key" => v.say("API key"),
        "operator_key" => v.say("Operator's key"),
        "user" => v.say("User"),
        "operator_user" => v.say("Operator"),
        "portal_link" => v.say("Portal link"),
        "command_line" => v.say("Command line"),
        "anonymous" => v.say("Somebody who had not signed in"),
        "system" => v.say("The server itself"),
        other => other.to_owned(),
    };
    let (id, name) = (entry.text("actor_id"), entry.text("actor_name"));
    let called = if name.is_empty() { id } else { name };
    let path = v.link("/audit-log");
    let all = Filters::default().address(&path, &[("actor_id", id)]);
    html! {
        (kind)
        @if !called.is_empty() { " " @if id.is_empty() { (called) } @else { a href=(all) title=(v.say("Everything that they did")) { (called) } } }
    }
}

/// What it was done to, and the way there when it has a page and still exists.
fn resource(v: &Visit, entry: Item<'_>) -> Markup {
    let (kind, id) = (entry.text("resource_type"), entry.text("resource_id"));
    let gone = entry.text("action").ends_with(".deleted") || entry.text("action") == "api_key.revoked";
    let page = if gone { None } else { page_of(kind, id) };
    let to = page.and_then(|page| address(v, entry.text("account_id"), kind, &page));
    html! {
        (kind_in_words(v, kind)) " "
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
fn address(v: &Visit, account: &str, kind: &str, page: &str) -> Option<String> {
    match (v.place, kind) {
        (Place::Operator, "event_type") => Some(v.link(page)),
        (Place::Operator, _) => (!account.is_empty()).then(|| format!("/accounts/{account}{page}")),
        (_, "user") if !v.may("users:read") => None,
        (_, "api_key") if !v.may("api_keys:read") => None,
        _ => Some(v.link(page)),
    }
}

fn kind_in_words(v: &Visit, kind: &str) -> String {
    match kind {
        "webhook_endpoint" => v.say("Endpoint"),
        "webhook_delivery" => v.say("Delivery"),
        "webhook_replay" => v.say("Replay"),
        "event_type" => v.say("Event type"),
        "account" => v.say("Account"),
        "api_key" => v.say("API key"),
        "user" => v.say("User"),
        "portal_link" => v.say("Portal link"),
        "master_key" => v.say("Master key"),
        other => other.replace('_', " "),
    }
}

/// What was done. What only a newer server knows has its name.
fn in_words(v: &Visit, action: &str) -> String {
    match action {
        "webhook.created" => v.say("Endpoint added"),
        "webhook.updated" => v.say("Endpoint changed"),
        "webhook.deleted" => v.say("Endpoint deleted"),
        "webhook.secret_regenerated" => v.say("Signing secret rotated"),
        "delivery.retried" => v.say("Delivery sent again"),
        "replay.created" => v.say("Replay started"),
        "replay.cancelled" => v.say("Replay cancelled"),
        "event_type.created" => v.say("Event type added"),
        "event_type.updated" => v.say("Event type changed"),
        "event_type.deleted" => v.say("Event type deleted"),
        "account.created" => v.say("Account created"),
        "account.updated" => v.say("Account changed"),
        "account.deleted" => v.say("Account deleted"),
        "api_key.created" => v.say("API key created"),
        "api_key.revoked" => v.say("API key revoked"),
        "user.invited" => v.say("User invited"),
        "user.joined" => v.say("Invitation accepted"),
        "user.updated" => v.say("User changed"),
        "user.deleted" => v.say("User deleted"),
        "user.two_factor_reset" => v.say("Second factor turned off by somebody else"),
        "user.signed_in" => v.say("Signed in"),
        "user.sign_in_failed" => v.say("Sign-in failed"),
        "user.signed_out_everywhere" => v.say("Signed out everywhere"),
        "portal_link.created" => v.say("Portal link created"),
        "portal_link.opened" => v.say("Portal link opened"),
        "portal_link.revoked" => v.say("Portal link revoked"),
        "secrets.rekeyed" => v.say("Secrets encrypted with another key"),
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
