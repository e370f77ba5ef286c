//! The words of the pages in English and Spanish. English stands where it is used; `es.txt` has the Spanish for each of
//! those sentences, and a test finds what is missing or no longer used.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::api::{Code, Language};

/// Pairs of lines, English and Spanish, with an empty line between pairs.
const SPANISH: &str = include_str!("es.txt");

static KNOWN: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let pair = |block: &'static str| block.trim().split_once('\n');
    SPANISH.split("\n\n").filter_map(pair).collect()
});

/// The language that a page is written in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tongue(pub Language);

impl Tongue {
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
        Self::ALL.into_iter().find(|tongue| tongue.code() == code)
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

    /// The detail of an error code as it may read.
    pub fn detail(self, code: &str, english: &str) -> String {
        let known = Code::ALL.iter().find(|known| known.name() == code);
        known.map_or_else(|| english.to_owned(), |known| known.example(self.0))
    }
}

#[cfg(test)]
thread_local! {
    static SAID: std::cell::RefCell<std::collections::BTreeSet<String>> = const { std::cell::RefCell::new(std::collections::BTreeSet::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_pages_is_known_in_spanish_and_no_other() {
        crate::web::every_page(Tongue(Language::Spanish));
        let said = SAID.take();
        let missing: Vec<_> = said.iter().filter(|text| !KNOWN.contains_key(text.as_str())).cloned().collect();
        assert!(missing.is_empty(), "es.txt lacks:\n{}", missing.join("\n\n"));
        let unused: Vec<_> = KNOWN.keys().filter(|text| !said.contains(**text)).copied().collect();
        assert!(unused.is_empty(), "es.txt has what no page says:\n{}", unused.join("\n\n"));
        let pairs = SPANISH.split("\n\n").filter(|block| !block.trim().is_empty()).count();
        assert_eq!(KNOWN.len(), pairs, "a text stands in es.txt twice");
    }
}
