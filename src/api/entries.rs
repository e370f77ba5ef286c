//! Objects of JSON whose names are data, such as headers: their entries, in their order.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

/// Names and their values.
#[derive(Debug)]
pub struct Entries<T>(Vec<(String, T)>);

impl<T> Entries<T> {
    /// The value of a name.
    pub fn of(&self, name: &str) -> Option<&T> {
        self.pairs().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    /// Each of them.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &T)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Of several with the same name the last one counts.
impl<T> FromIterator<(String, T)> for Entries<T> {
    fn from_iter<I: IntoIterator<Item = (String, T)>>(entries: I) -> Self {
        let mut collected: Vec<(String, T)> = Vec::new();
        for (name, value) in entries {
            match collected.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) => *known = value,
                None => collected.push((name, value)),
            }
        }
        Self(collected)
    }
}

impl<T: Serialize> Serialize for Entries<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.pairs())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(InOrder(PhantomData))
    }
}

struct InOrder<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
    type Value = Entries<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Entries<T>, M::Error> {
        let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(0));
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_keep_their_order_and_a_name_its_last_value() {
        let headers = [("z", "1"), ("a", "2"), ("z", "3")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers: Entries<String> = headers.into_iter().collect();
        let text = serde_json::to_string(&headers).expect("JSON");
        assert_eq!(text, r#"{"z":"3","a":"2"}"#);
        let read: Entries<String> = serde_json::from_str(&text).expect("entries");
        assert_eq!(read.0, headers.0);
        assert_eq!((read.of("a").map(String::as_str), read.of("b")), (Some("2"), None));
    }
}
