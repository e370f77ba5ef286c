//! The texts of the pages in English and Spanish. The code has the English; `es.txt` and `dashboard/es.txt` have the
//! Spanish for each sentence. Tests find sentences that are missing or no longer used.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::api::{Code, Language};

/// Pairs of lines, English and Spanish, with an empty line between pairs: of the reference, and of the dashboard.
const SPANISH: &str = include_str!("es.txt");
const DASHBOARD: &str = include_str!("dashboard/es.txt");

static KNOWN: LazyLock<HashMap<&'static str, &'static str>> =
    LazyLock::new(|| pairs(SPANISH).chain(pairs(DASHBOARD)).collect());

fn pairs(text: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    text.split("\n\n").filter_map(|block| block.trim().split_once('\n'))
}

/// The language that a page is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Locale(pub Language);

impl Locale {
    /// Both.
    pub const ALL: [Self; 2] = [Self(Language::English), Self(Language::Spanish)];

    /// The code of the language (BCP 47).
    pub fn code(self) -> &'static str {
        match self.0 {
            Language::English => "en",
            Language::Spanish => "es",
        }
    }

    /// What its speakers call it.
    pub fn own_name(self) -> &'static str {
        match self.0 {
            Language::English => "English",
            Language::Spanish => "Español",
        }
    }

    /// The language with this code.
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|locale| locale.code() == code)
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self.0 {
            Language::English => Self(Language::Spanish),
            Language::Spanish => Self(Language::English),
        }
    }

    /// A text in this language, paragraph by paragraph. What has no translation stays English.
    pub fn say(self, english: &str) -> String {
        if self.0 == Language::English || english.is_empty() {
            return english.to_owned();
        }
        let paragraphs = english.split("\n\n").map(|paragraph| {
            #[cfg(test)]
            SAID.with_borrow_mut(|said| said.insert(paragraph.to_owned()));
            KNOWN.get(paragraph).copied().unwrap_or(paragraph)
        });
        paragraphs.collect::<Vec<_>>().join("\n\n")
    }

    /// The detail of an error code as it may read, of a call whose body has these fields.
    pub fn detail(self, code: &str, fields: &str) -> String {
        let known = Code::ALL.iter().find(|known| known.name() == code);
        known.map(|known| known.example_of(self.0, fields)).unwrap_or_default()
    }
}

#[cfg(test)]
thread_local! {
    static SAID: std::cell::RefCell<std::collections::BTreeSet<String>> =
        const { std::cell::RefCell::new(std::collections::BTreeSet::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_reference_is_known_in_spanish_and_no_other() {
        crate::web::every_page(Locale(Language::Spanish));
        let said = SAID.take();
        let known: HashMap<_, _> = pairs(SPANISH).collect();
        let missing: Vec<_> = said.iter().filter(|text| !known.contains_key(text.as_str())).cloned().collect();
        assert!(missing.is_empty(), "es.txt lacks:\n{}", missing.join("\n\n"));
        let unused: Vec<_> = known.keys().filter(|text| !said.contains(**text)).copied().collect();
        assert!(unused.is_empty(), "es.txt has what no page says:\n{}", unused.join("\n\n"));
        assert_eq!(known.len(), pairs(SPANISH).count(), "a text stands in es.txt twice");
    }

    /// The texts that the dashboard's sources say: literals after `say(` and `fill(`.
    fn said_by_the_dashboard() -> std::collections::BTreeSet<String> {
        let mut said = std::collections::BTreeSet::new();
        let mut folders = vec![std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/dashboard")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|found| found == "rs") {
                    let text = std::fs::read_to_string(&path).expect("a file");
                    let text = text.split("#[cfg(test)]").next().unwrap_or("");
                    for (at, _) in text.match_indices("say(").chain(text.match_indices("fill(")) {
                        let rest = text[at..].split_once('(').expect("it is there").1.trim_start();
                        said.extend(literal(rest));
                    }
                }
            }
        }
        said
    }

    fn literal(text: &str) -> Option<String> {
        let text = text.strip_prefix('"')?;
        let end = text.match_indices('"').map(|(at, _)| at).find(|at| !text[..*at].ends_with('\\'))?;
        // After a backslash at the end of a line, a literal goes on with the first letter of the next one.
        let mut lines = text[..end].split("\\\n");
        let first = lines.next()?.to_owned();
        let text = lines.fold(first, |text, line| text + line.trim_start());
        Some(text.replace("\\\"", "\""))
    }

    #[test]
    fn every_word_of_the_dashboard_is_known_in_spanish_and_no_other() {
        let said = said_by_the_dashboard();
        let known: HashMap<_, _> = pairs(DASHBOARD).collect();
        let missing: Vec<_> = said.iter().filter(|text| !known.contains_key(text.as_str())).cloned().collect();
        assert!(missing.is_empty(), "dashboard/es.txt lacks:\n{}", missing.join("\n"));
        let unused: Vec<_> = known.keys().filter(|text| !said.contains(**text)).copied().collect();
        assert!(unused.is_empty(), "dashboard/es.txt has what no page says:\n{}", unused.join("\n"));
        assert_eq!(known.len(), pairs(DASHBOARD).count(), "a text stands in dashboard/es.txt twice");
        for (english, spanish) in known {
            let places = |text: &str| {
                let mut names: Vec<_> = text.split('{').skip(1).filter_map(|rest| rest.split('}').next()).collect();
                names.sort_unstable();
                names.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            assert_eq!(places(english), places(spanish), "{english}");
        }
    }
}
