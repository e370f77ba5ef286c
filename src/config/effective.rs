//! The values in force, as text, each with its source. Secrets are compared and never shown.

use std::collections::BTreeMap;

use super::table::{SECRETS, is_reloadable};

/// What stands for a secret.
const MASK: &str = "***";

/// Every setting with the text of its value. It has no `Debug`: the text may be a secret.
#[derive(Clone, Default)]
pub struct EffectiveSettings(BTreeMap<String, Effective>);

#[derive(Clone)]
struct Effective {
    text: String,
    source: Option<String>,
}

/// A setting as it may be shown.
#[derive(Debug, PartialEq, Eq)]
pub struct ShownSetting {
    /// The name in the settings file.
    pub name: String,
    /// The value; three asterisks stand for a secret that is set.
    pub value: String,
    /// Where it is set; `None` is the default.
    pub source: Option<String>,
}

/// A setting that has another value than before.
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// The name in the settings file.
    pub name: String,
    /// The old value and the new one; three asterisks stand for each where it is a secret.
    pub values: (String, String),
    /// Whether a running server takes it over.
    pub is_reloadable: bool,
}

impl EffectiveSettings {
    /// What differs in `new`, in the order of the names.
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        let changed = |(name, setting): (&String, &Effective)| {
            let old = self.0.get(name)?;
            (old.text != setting.text).then(|| Change {
                name: name.clone(),
                values: (masked(name, &old.text).to_owned(), masked(name, &setting.text).to_owned()),
                is_reloadable: is_reloadable(name),
            })
        };
        new.0.iter().filter_map(changed).collect()
    }

    /// These settings, with those of `new` that a running server takes over.
    #[must_use]
    pub fn reloaded(&self, new: &Self) -> Self {
        let taken = new.0.iter().filter(|(name, _)| is_reloadable(name));
        let mut settings = self.clone();
        settings.0.extend(taken.map(|(name, setting)| (name.clone(), setting.clone())));
        settings
    }

    pub(super) fn add(&mut self, name: &str, text: &str, source: Option<String>) {
        self.0.insert(name.to_owned(), Effective { text: text.to_owned(), source });
    }

    /// Every setting, in the order of their names.
    pub fn shown(&self) -> Vec<ShownSetting> {
        let shown = |(name, setting): (&String, &Effective)| ShownSetting {
            name: name.clone(),
            value: masked(name, &setting.text).to_owned(),
            source: setting.source.clone(),
        };
        self.0.iter().map(shown).collect()
    }

    /// Whether a secret is set in this source, or in a line of it.
    pub fn has_secret_in(&self, file: &str) -> bool {
        SECRETS.iter().any(|name| {
            self.0.get(*name).is_some_and(|setting| {
                let of_file = setting.source.as_deref().and_then(|source| source.strip_prefix(file));
                of_file.is_some_and(|line| line.starts_with(':')) && masked(name, &setting.text) == MASK
            })
        })
    }
}

/// The text of a setting; a mask for a secret. The path of an SQLite database and an empty value are no secret.
fn masked<'a>(name: &str, text: &'a str) -> &'a str {
    let is_secret = SECRETS.contains(&name) && !text.is_empty() && !text.starts_with("sqlite://");
    if is_secret { MASK } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_until_the_server_has_taken_it_over() {
        let of = |timeout: &str, brand: &str, keys: &str| {
            let mut settings = EffectiveSettings::default();
            settings.add("webhooks.timeout", timeout, None);
            settings.add("brand", brand, None);
            settings.add("secrets.previous_master_keys", keys, None);
            settings
        };
        let (running, new) = (of("10s", "Aldaba", "hidden"), of("5s", "Acme", "hidden too"));
        let shown = |changes: Vec<Change>| -> Vec<(String, String, String, bool)> {
            let shown = |change: Change| (change.name, change.values.0, change.values.1, change.is_reloadable);
            changes.into_iter().map(shown).collect()
        };
        let row = |name: &str, old: &str, new: &str, is_reloadable| {
            (name.to_owned(), old.to_owned(), new.to_owned(), is_reloadable)
        };
        let brand = row("brand", "Aldaba", "Acme", false);
        let keys = row("secrets.previous_master_keys", MASK, MASK, true);
        let timeout = row("webhooks.timeout", "10s", "5s", true);
        assert_eq!(shown(running.changes(&new)), [brand.clone(), keys, timeout]);
        assert_eq!(shown(running.reloaded(&new).changes(&new)), [brand]);
    }

    #[test]
    fn a_secret_is_shown_as_a_mask() {
        let mut settings = EffectiveSettings::default();
        settings.add("brand", "Acme", None);
        settings.add("database_url", "postgres://ana:hidden@db/hooks", Some("aldaba.toml:3".into()));
        settings.add("secrets.master_key", "hidden", Some("ALDABA_SECRETS__MASTER_KEY".into()));
        settings.add("secrets.previous_master_keys", "", None);
        let shown: Vec<_> = settings.shown().into_iter().map(|setting| (setting.name, setting.value)).collect();
        let expected = [
            ("brand", "Acme"),
            ("database_url", MASK),
            ("secrets.master_key", MASK),
            ("secrets.previous_master_keys", ""),
        ];
        assert_eq!(shown, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(masked("database_url", "sqlite:///var/lib/aldaba.db"), "sqlite:///var/lib/aldaba.db");
        assert!(settings.has_secret_in("aldaba.toml") && !settings.has_secret_in("other.toml"));
    }
}
