//! The values that hold, as text, each with its source. Secrets are compared and never shown.

use std::collections::BTreeMap;

use super::table::SECRETS;

/// What stands for a secret.
const MASK: &str = "***";

/// Every setting with the text of its value. It has no `Debug`: the text may be a secret.
#[derive(Default)]
pub struct EffectiveSettings(BTreeMap<String, Effective>);

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

impl EffectiveSettings {
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

/// The text of a setting, without what is secret. The path of an SQLite database and an empty value are none.
fn masked<'a>(name: &str, text: &'a str) -> &'a str {
    let is_secret = SECRETS.contains(&name) && !text.is_empty() && !text.starts_with("sqlite://");
    if is_secret { MASK } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

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
