//! The result of a check of a database: its problems, and what a server on it would serve. Each store has the SQL
//! of its own tables (`sqlite/check.rs`, `postgres/check.rs`).

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use uuid::Uuid;

use super::credentials;
use super::errors::StoreError;
use super::settings::{AccountSettings, delivery_settings};
use crate::domain::credentials::Credentials;
use crate::domain::id::EndpointId;
use crate::domain::secret::{Keyring, OpenError, SealedSecret};
use crate::domain::time::Timestamp;
use crate::domain::url::{Environment, ReceiverUrl};

/// Rows of one problem that are named: enough for a person to begin with, and no terminal is flooded.
const MAX_NAMED: usize = 20;

/// Rows that one statement counts at most. With more, the whole database is damaged, and a number says no more.
pub const MAX_COUNTED: usize = 10_000;

/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// The version of the database.
    pub version: i64,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Why only the file was checked, and not its rows.
    pub left_out: Option<String>,
    /// What a server would serve, if the rows were checked.
    pub contents: Option<Contents>,
    /// What is sealed with master keys, if the rows were checked.
    pub seals: Seals,
}

impl Checked {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }
}

/// What is wrong with some rows of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The table; empty for a problem of the file itself.
    pub table: String,
    /// What is wrong with each of the rows.
    pub reason: String,
    /// How many rows: [`MAX_COUNTED`] at most.
    pub rows: usize,
    /// Some of them.
    pub named: Vec<String>,
}

impl Display for Problem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { table, reason, rows, named } = self;
        let (place, colon) = if table.is_empty() { ("", "") } else { (table.as_str(), ": ") };
        let more = if *rows > named.len() { ", …" } else { "" };
        write!(f, "{place}{colon}{reason} ({rows}: {}{more})", named.join(", "))
    }
}

/// What a server on the database would serve.
#[derive(Default, Debug)]
pub struct Contents {
    /// Accounts.
    pub accounts: u64,
    /// Endpoints by the name of their status.
    pub endpoints: BTreeMap<&'static str, u64>,
    /// Events, including those of tests.
    pub events: u64,
    /// When the newest event was accepted.
    pub newest_event: Option<Timestamp>,
    /// Deliveries by the name of their status.
    pub deliveries: BTreeMap<&'static str, u64>,
    /// Deliveries of active endpoints that are due, or were in memory: a server that starts sends them at once.
    pub due: u64,
    /// Since when deliveries are on hold.
    pub on_hold_since: Option<Timestamp>,
}

/// What is sealed with master keys: signing secrets, credentials, second factors.
#[derive(Default, Debug)]
pub struct Seals {
    /// How many there are.
    pub total: u64,
    /// Whether there were master keys to open them with.
    pub has_keys: bool,
    /// Those that are sealed with other keys than these.
    pub of_other_keys: u64,
}

/// The problems that were found so far.
#[derive(Default)]
pub(super) struct Findings(BTreeMap<(String, String), (usize, Vec<String>)>);

impl Findings {
    /// Notes what is wrong with a row of `table`.
    pub fn note(&mut self, table: &str, reason: &str, row: impl Display) {
        let (rows, named) = self.0.entry((table.to_owned(), reason.to_owned())).or_default();
        *rows += 1;
        if named.len() < MAX_NAMED {
            named.push(row.to_string());
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of the tables.
    pub fn problems(self) -> Vec<Problem> {
        let problem = |((table, reason), (rows, named))| Problem { table, reason, rows, named };
        self.0.into_iter().map(problem).collect()
    }
}

/// An endpoint's row, as far as it is checked outside of SQL.
pub(super) struct EndpointRow {
    pub id: Uuid,
    pub url: String,
    pub settings: String,
    pub credentials: Option<SealedSecret>,
}

/// Checks rows one by one: what is in their JSON, and what is sealed.
pub(super) struct RowChecks<'a> {
    pub findings: &'a mut Findings,
    pub seals: &'a mut Seals,
    pub keyring: Option<&'a Keyring>,
}

impl RowChecks<'_> {
    /// An account's settings.
    pub fn account(&mut self, id: Uuid, settings: &str) {
        if AccountSettings::read(settings).is_err() {
            self.findings.note("accounts", "its settings cannot be read", id);
        }
    }

    /// An endpoint that is not deleted: its settings and credentials.
    pub fn endpoint(&mut self, row: &EndpointRow) {
        let id = row.id;
        if ReceiverUrl::parse(&row.url, Environment::Development).is_err() {
            self.findings.note("endpoints", "its URL cannot be used", id);
        }
        match delivery_settings(&row.settings, None) {
            Ok(settings) => {
                let shown = settings.credentials;
                let Some(sealed) = &row.credentials else {
                    if shown.with(Credentials::default()).is_none() {
                        self.findings.note("endpoints", "its credentials are missing", id);
                    }
                    return;
                };
                self.sealed("endpoints", "credentials", id, |keyring| {
                    let held = credentials::open(keyring, EndpointId(id), Some(sealed))?;
                    shown.with(held).map(drop).ok_or(OpenError::Damaged)
                });
            }
            Err(_) => self.findings.note("endpoints", "its settings cannot be read", id),
        }
    }

    /// A signing secret of an endpoint, or a second factor of a user.
    pub fn secret(&mut self, table: &str, owner: Uuid, sealed: &SealedSecret) {
        self.sealed(table, "secret", owner, |keyring| keyring.open(sealed, owner).map(drop));
    }

    fn sealed(&mut self, table: &str, what: &str, row: Uuid, open: impl FnOnce(&Keyring) -> Result<(), OpenError>) {
        self.seals.total += 1;
        match self.keyring.map(open) {
            None | Some(Ok(())) => {}
            Some(Err(OpenError::UnknownKey(key))) => {
                self.seals.of_other_keys += 1;
                let reason = format!("its {what} is sealed with the master key {key}, which is not here");
                self.findings.note(table, &reason, row);
            }
            Some(Err(OpenError::Damaged)) => self.findings.note(table, &format!("its sealed {what} is damaged"), row),
        }
    }
}

/// The names of statuses with their numbers of rows.
pub(super) fn by_name(
    counted: impl IntoIterator<Item = (i64, u64)>,
    names: impl IntoIterator<Item = (i64, &'static str)>,
) -> BTreeMap<&'static str, u64> {
    let counted: BTreeMap<i64, u64> = counted.into_iter().collect();
    names.into_iter().map(|(column, name)| (name, counted.get(&column).copied().unwrap_or(0))).collect()
}

/// Why the rows of a database of this version are not looked at by a program of the version `own`; `None` where they
/// are.
pub(super) fn left_out(version: i64, own: i64) -> Option<String> {
    (version < own).then(|| {
        format!(
            "the database is of version {version} and this program of {own}: only the file was looked at. A server \
             that starts brings it to version {own}"
        )
    })
}

/// An error of a check that could not be made.
pub(super) fn unreadable(error: &StoreError) -> super::errors::OpenError {
    super::errors::OpenError(format!("the database cannot be checked: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_counted_and_some_of_their_rows_named() {
        let mut findings = Findings::default();
        for row in 0..MAX_NAMED + 5 {
            findings.note("deliveries", "its event is missing", row);
        }
        findings.note("accounts", "its settings cannot be read", "a");
        let problems = findings.problems();
        assert_eq!(problems[0].table, "accounts");
        assert_eq!((problems[1].rows, problems[1].named.len()), (MAX_NAMED + 5, MAX_NAMED));
    }

    #[test]
    fn what_no_key_opens_is_named_and_without_any_key_it_is_only_counted() {
        let (ours, owner) = (Keyring::new(&[1; 32], &[]), Uuid::from_u128(7));
        let secret = crate::domain::secret::Secret::from_random([9; 32]);
        let theirs = Keyring::new(&[2; 32], &[]).seal(&secret, owner, [3; 12]);
        for (keyring, problems) in [(Some(&ours), 1), (None, 0)] {
            let (mut findings, mut seals) = (Findings::default(), Seals::default());
            let mut rows = RowChecks { findings: &mut findings, seals: &mut seals, keyring };
            rows.secret("endpoint_secrets", owner, &theirs);
            rows.secret("endpoint_secrets", owner, &ours.seal(&secret, owner, [3; 12]));
            assert_eq!(findings.problems().len(), problems);
            assert_eq!((seals.total, seals.of_other_keys), (2, problems as u64));
        }
    }
}
