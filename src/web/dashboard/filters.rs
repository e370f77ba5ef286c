//! Forms that narrow a list. The page's address is their state, and its parameters have the names that the API knows.

use maud::Markup;
use url::form_urlencoded::Serializer;

use super::page_context::{Failure, PageContext};
use super::parts::{Input, empty, input, select};

/// Filters of which the last value counts. Others take several.
const OF_ONE_VALUE: [&str; 6] = ["q", "from", "to", "min_attempt", "min_response_time_ms", "account_id"];

/// What a list is narrowed to.
#[derive(Default)]
pub struct Filters(Vec<(&'static str, String)>);

impl Filters {
    /// Those of `names` that the request asks for.
    pub fn read(cx: &PageContext, names: &[&'static str]) -> Self {
        Self::of_query(&cx.query, names)
    }

    fn of_query(query: &[(String, String)], names: &[&'static str]) -> Self {
        let asked = names.iter().map(|name| {
            let values = query.iter().filter(|(known, _)| known == name).map(|(_, value)| value.trim());
            let values: Vec<&str> = values.filter(|value| !value.is_empty()).collect();
            let value = match values.last() {
                Some(last) if OF_ONE_VALUE.contains(name) => (*last).to_owned(),
                _ => values.join(","),
            };
            (*name, value)
        });
        Self(asked.filter(|(_, value)| !value.is_empty()).collect())
    }

    /// The value of a filter, or nothing.
    pub fn of(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }

    /// Whether one of these is used.
    pub fn any(&self, names: &[&str]) -> bool {
        self.0.iter().any(|(name, _)| names.contains(name))
    }

    /// Whether the list is whole.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What stands where the list would be: `at_all` where there is nothing, and the way back where it is only narrowed
    /// too far.
    pub fn nothing(&self, cx: &PageContext, path: &str, no_match: &str, at_all: Markup) -> Markup {
        if self.is_empty() {
            return at_all;
        }
        let why = cx.say("There are none for which all of these filters hold.");
        empty(no_match, &why, Some((path, &cx.say("Clear filters"))))
    }

    /// The query that the API is asked with, for a page of the list.
    pub fn query<'a>(&'a self, page: &'a str) -> Vec<(&'a str, &'a str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str())).chain([("page", page)]).collect()
    }

    /// An address with these filters, and with what is added.
    pub fn address(&self, path: &str, added: &[(&str, &str)]) -> String {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(self.0.iter().map(|(name, value)| (*name, value.as_str()))).extend_pairs(added);
        let query = query.finish();
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// A field for a filter that is typed.
    pub fn typed(&self, name: &str, label: &str, kind: &str, refused: Option<&Failure>) -> Markup {
        let value = self.of(name);
        let error = refused.and_then(|failure| failure.of(name));
        input(&Input { name, label, value, kind: shown_as(kind, value), error, ..Input::default() })
    }

    /// A field for a filter that is chosen. What was asked for can be chosen too, whatever it is.
    pub fn chosen(&self, name: &str, label: &str, options: &[(String, String)], refused: Option<&Failure>) -> Markup {
        let value = self.of(name);
        let error = refused.and_then(|failure| failure.of(name));
        let mut options: Vec<(&str, &str)> =
            options.iter().map(|(value, label)| (value.as_str(), label.as_str())).collect();
        if !options.iter().any(|(known, _)| *known == value) {
            options.push((value, value));
        }
        select(&Input { name, label, value, error, ..Input::default() }, &options)
    }
}

/// A browser shows only dates and numbers in fields for them. Anything else that an address asks for is shown as text:
/// it would be lost otherwise.
fn shown_as<'a>(kind: &'a str, value: &str) -> &'a str {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fits = match kind {
        "date" => {
            let parts: Vec<&str> = value.split('-').collect();
            parts.iter().map(|part| part.len()).eq([4, 2, 2]) && parts.iter().all(|part| digits(part))
        }
        "number" => digits(value),
        _ => true,
    };
    if fits || value.is_empty() { kind } else { "text" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &[(&str, &str)]) -> Filters {
        let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Filters::of_query(&query, &["q", "status", "from"])
    }

    #[test]
    fn several_values_are_joined_where_the_api_takes_several() {
        let filters = read(&[
            ("status", "failed"),
            ("q", "a"),
            ("status", "pending"),
            ("q", " b&c "),
            ("from", " "),
            ("page", "2"),
        ]);
        assert_eq!((filters.of("status"), filters.of("q"), filters.of("from")), ("failed,pending", "b&c", ""));
        assert_eq!(filters.query("3"), [("q", "b&c"), ("status", "failed,pending"), ("page", "3")]);
        assert_eq!(filters.address("/x", &[("format", "csv")]), "/x?q=b%26c&status=failed%2Cpending&format=csv");
        assert!(filters.any(&["q"]) && !filters.any(&["from"]));
        assert!(read(&[]).is_empty() && read(&[]).address("/x", &[]) == "/x");
    }

    #[test]
    fn what_a_browser_would_not_show_is_shown_as_text() {
        for (kind, value, expected) in [
            ("date", "2026-05-01", "date"),
            ("date", "", "date"),
            ("date", "2026-05-01T05:14:38Z", "text"),
            ("date", "yesterday", "text"),
            ("number", "12", "number"),
            ("number", "-1", "text"),
            ("search", "x", "search"),
        ] {
            assert_eq!(shown_as(kind, value), expected, "{kind} {value}");
        }
    }
}
