//! Commands that work on the database directly, beside a running server too.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::args::{Output, print_line, printable};
use crate::api::{Allowance, Schemas};
use crate::clock::{Clock as _, SystemClock};
use crate::domain::account::{ApiKey, MAX_NAME_CHARS, is_name};
use crate::domain::duration::parse_duration;
use crate::domain::event::{NewEvent, message, validation_id};
use crate::domain::id::{AccountId, ApiKeyId};
use crate::domain::permission::{Permission, Permissions};
use crate::domain::time::Timestamp;
use crate::store::keys::KeySource;
use crate::store::{Accounts, Intake, Lifecycle, NewApiKey, Page, Snapshot, Store, StoreError};

/// Rows that a listing prints.
pub(super) const LISTED: Page = Page { page: 1, per_page: 100 };

pub(super) async fn create_account(store: &Store, name: String, output: Output) -> anyhow::Result<()> {
    let account = store.create_account(checked_name(&name)?.into(), None).await?;
    output.print(&json!({ "id": account.id.to_string(), "name": account.name }), &account.id.to_string())
}

pub(super) async fn list_accounts(store: &Store, output: Output) -> anyhow::Result<()> {
    let accounts = store.accounts(LISTED).await?;
    if output.json {
        let rows = accounts
            .items
            .iter()
            .map(|a| json!({ "id": a.id.to_string(), "name": a.name, "created_at": a.created_at.to_string() }));
        print_line(rows.collect::<Value>())?;
    } else {
        for account in &accounts.items {
            print_line(format_args!("{}  {}  {}", account.id, account.created_at, printable(&account.name)))?;
        }
        tell_rest(accounts.items.len(), accounts.total);
    }
    Ok(())
}

/// Reads what a new key shall be.
pub(super) fn new_key(
    account: Option<&str>,
    permissions: &[String],
    expires: Option<&str>,
    name: Option<String>,
) -> anyhow::Result<NewApiKey> {
    let parse = |name: &String| {
        let known = || Permission::ALL.iter().map(|p| p.name()).collect::<Vec<_>>().join(", ");
        Permission::parse(name).with_context(|| format!("unknown permission {name}; allowed: {}", known()))
    };
    let permissions: Permissions = permissions.iter().map(parse).collect::<anyhow::Result<_>>()?;
    let now = SystemClock.now();
    let expires_at = expires
        .map(|when| {
            let at = parse_duration(when).map(|duration| now.plus(duration)).or_else(|| Timestamp::parse(when));
            at.filter(|at| *at > now).with_context(|| {
                format!(
                    "--expires {when} is no time in the future; allowed: a duration such as 90d, or an ISO 8601 \
                         date-time"
                )
            })
        })
        .transpose()?;
    Ok(NewApiKey {
        account: account.map(account_id).transpose()?,
        name: name.map(|name| checked_name(&name)).transpose()?,
        permissions: if permissions.is_empty() { Permissions::all() } else { permissions },
        expires_at,
    })
}

/// Prints the key alone, so that a script can take it.
pub(super) async fn create_key(store: &Store, new: NewApiKey, prefix: String, output: Output) -> anyhow::Result<()> {
    let made = store.create_api_key(new, prefix, None).await.map_err(|error| match error {
        StoreError::NotFound => anyhow::anyhow!("no such account; see `aldaba accounts list`"),
        other => other.into(),
    })?;
    let mut shown = key_json(&made.resource);
    shown["key"] = made.key.reveal().into();
    output.print(&shown, made.key.reveal())
}

pub(super) async fn list_keys(store: &Store, account: Option<&str>, output: Output) -> anyhow::Result<()> {
    let account = account.map(account_id).transpose()?;
    let keys = store.api_keys(account, LISTED).await.context("no such account")?;
    if output.json {
        print_line(keys.items.iter().map(key_json).collect::<Value>())?;
    } else {
        for key in &keys.items {
            let expires = key.expires_at.map_or_else(|| "never expires".to_owned(), |at| format!("expires {at}"));
            let (hint, permissions) = (printable(&key.hint), key.permissions.to_column());
            print_line(format_args!("{}  {hint}  {expires}  {permissions}", key.id))?;
        }
        tell_rest(keys.items.len(), keys.total);
    }
    Ok(())
}

pub(super) async fn revoke_key(store: &Store, id: &str, account: Option<&str>, output: Output) -> anyhow::Result<()> {
    let id = ApiKeyId::parse(id).with_context(|| format!("{id} is no key id; see `aldaba keys list`"))?;
    store.delete_api_key(account.map(account_id).transpose()?, id, Permissions::all()).await.context("no such key")?;
    output.print(&json!({ "revoked": id.to_string() }), &format!("revoked {id}"))
}

pub(super) async fn publish(
    store: &Store,
    event: &str,
    account: &str,
    data: &str,
    output: Output,
) -> anyhow::Result<()> {
    let account = account_id(account)?;
    let types = store.view().event_types();
    let entry = types.get(event).with_context(|| {
        let mut names: Vec<_> = types.keys().map(String::as_str).collect();
        names.sort_unstable();
        format!("unknown event type {event}; the catalog has: {}", names.join(", "))
    })?;
    let mut text = data.to_owned();
    if data == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    }
    let parsed: Value = serde_json::from_str(&text).context("--data is not valid JSON")?;
    if !parsed.is_object() {
        bail!("--data must be a JSON object");
    }
    Schemas::default()
        .check(entry, &text, &mut Allowance::unbounded())
        .map_err(|error| anyhow::anyhow!("--data does not match the schema: {error}"))?;
    let occurred_at = SystemClock.now();
    let new = NewEvent {
        account,
        event_type: event.to_owned(),
        occurred_at,
        validation_id: validation_id(event, parsed["id"].as_str()),
        channels: None,
        trace: None,
        body: message(event, occurred_at, text.trim()),
    };
    let accepted = store.accept(vec![new], None).await.map_err(|error| match error {
        StoreError::NotFound => anyhow::anyhow!("no such account; see `aldaba accounts list`"),
        other => other.into(),
    })?;
    for event in accepted {
        let shown = json!({ "id": event.id.to_string(), "deliveries": event.deliveries });
        output.print(&shown, &format!("{}  deliveries: {}", event.id, event.deliveries))?;
    }
    Ok(())
}

/// Moves an SQLite database into this one. Its master keys are those of the file beside it, or of the settings.
pub(super) async fn import(store: &Store, path: &Path, keys: &KeySource, output: Output) -> anyhow::Result<()> {
    let own_keys = KeySource::file_of(path);
    let keys = if own_keys.exists() { &own_keys } else { keys };
    let on_progress = |table: &str, rows: usize| {
        if !output.json && rows.is_multiple_of(100_000) {
            eprintln!("{table}: {rows}");
        }
    };
    let rows = store.import(path, keys, &SystemClock, on_progress).await?;
    let text = format!("{rows} rows were moved; the server of {} does not start any more", path.display());
    output.print(&json!({ "rows": rows }), &text)
}

fn key_json(key: &ApiKey) -> Value {
    json!({
        "id": key.id.to_string(),
        "account_id": key.account.map(|(id, _)| id.to_string()),
        "name": key.name,
        "key_hint": key.hint,
        "permissions": key.permissions.names(),
        "expires_at": key.expires_at.map(|at| at.to_string()),
        "last_used_at": key.last_used_at.map(|at| at.to_string()),
        "created_at": key.created_at.to_string(),
    })
}

pub(super) fn account_id(text: &str) -> anyhow::Result<AccountId> {
    AccountId::parse(text).with_context(|| format!("{text} is no account id (a UUID); see `aldaba accounts list`"))
}

fn checked_name(name: &str) -> anyhow::Result<String> {
    let name = name.trim();
    if !is_name(name) {
        bail!("a name has 1 to {MAX_NAME_CHARS} characters, none of them a control character");
    }
    Ok(name.to_owned())
}

pub(super) fn tell_rest(shown: usize, total: u64) {
    let rest = total.saturating_sub(shown as u64);
    if rest > 0 {
        eprintln!("and {rest} more");
    }
}
