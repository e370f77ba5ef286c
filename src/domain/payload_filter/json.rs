//! JSON read into one list of nodes. Numbers stay text, so that nothing of them is lost; names and strings are borrowed
//! from the text where they have no escapes.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::decimal::Decimal;

/// Most levels of objects and lists in the data of an event that a filter can match; `data` itself is the first.
pub const MAX_EVENT_LEVELS: usize = 128;

/// Why a text was not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReadError {
    /// It is no JSON.
    Unreadable,
    /// It has more than [`MAX_EVENT_LEVELS`].
    TooDeep,
}

/// What a node is. What is below a list or an object follows it in the list of nodes.
pub(super) enum Kind<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number, as it is written.
    Number(&'a str),
    /// A string, without its escapes.
    Text(Cow<'a, str>),
    /// A list.
    List,
    /// An object. Several members may have one name.
    Object,
}

struct Node<'a> {
    /// The name of a member of an object; empty elsewhere.
    name: Cow<'a, str>,
    kind: Kind<'a>,
    /// The first node that is not below this one.
    end: usize,
}

/// A value that conditions compare with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Scalar<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Decimal),
    /// A string. The order of UTF-8 is that of code points.
    Text(Cow<'a, str>),
}

impl Scalar<'_> {
    /// The same without the text that it was read from.
    pub fn into_owned(self) -> Scalar<'static> {
        match self {
            Self::Null => Scalar::Null,
            Self::Bool(value) => Scalar::Bool(value),
            Self::Number(number) => Scalar::Number(number),
            Self::Text(text) => Scalar::Text(Cow::Owned(text.into_owned())),
        }
    }
}

/// A text of JSON that was read.
pub(super) struct Document<'a> {
    nodes: Vec<Node<'a>>,
}

impl<'a> Document<'a> {
    /// Reads a text.
    pub fn read(text: &'a str) -> Result<Self, ReadError> {
        let mut reader = Reader { text, at: 0, nodes: Vec::new() };
        reader.value(Cow::Borrowed(""), MAX_EVENT_LEVELS)?;
        reader.finish()
    }

    /// An object with the fields of an event: `event`, `data`, and `channels` where there are some. Reads `data`.
    pub fn of_event<C: AsRef<str>>(event_type: &'a str, data: &'a str, channels: &'a [C]) -> Result<Self, ReadError> {
        let mut reader = Reader { text: data, at: 0, nodes: Vec::new() };
        reader.push(Cow::Borrowed(""), Kind::Object);
        reader.push(Cow::Borrowed("event"), Kind::Text(Cow::Borrowed(event_type)));
        if !channels.is_empty() {
            let list = reader.push(Cow::Borrowed("channels"), Kind::List);
            for channel in channels {
                reader.push(Cow::Borrowed(""), Kind::Text(Cow::Borrowed(channel.as_ref())));
            }
            reader.close(list);
        }
        reader.value(Cow::Borrowed("data"), MAX_EVENT_LEVELS)?;
        reader.finish()
    }

    /// The whole.
    pub fn root(&self) -> Item<'_> {
        Item { nodes: &self.nodes, at: 0 }
    }
}

/// A node of a document.
#[derive(Clone, Copy)]
pub(super) struct Item<'e> {
    nodes: &'e [Node<'e>],
    at: usize,
}

impl<'e> Item<'e> {
    /// Its name, if it is a member of an object.
    pub fn name(self) -> &'e str {
        &self.nodes[self.at].name
    }

    /// What it is.
    pub fn kind(self) -> &'e Kind<'e> {
        &self.nodes[self.at].kind
    }

    /// Whether it is a list.
    pub fn is_list(self) -> bool {
        matches!(self.kind(), Kind::List)
    }

    /// Whether it is an object.
    pub fn is_object(self) -> bool {
        matches!(self.kind(), Kind::Object)
    }

    /// The members of a list or an object. Others have none.
    pub fn children(self) -> impl Iterator<Item = Item<'e>> {
        let nodes = self.nodes;
        let end = nodes[self.at].end;
        let mut next = self.at + 1;
        std::iter::from_fn(move || {
            let at = next;
            (at < end).then(|| {
                next = nodes[at].end;
                Item { nodes, at }
            })
        })
    }

    /// The member of an object with this name. Of equal names the last counts.
    pub fn field(self, name: &str) -> Option<Item<'e>> {
        if !self.is_object() {
            return None;
        }
        self.children().filter(|member| member.name() == name).last()
    }

    /// The members of an object in their order. Of equal names the last counts.
    pub fn members(self) -> Vec<Item<'e>> {
        let mut members: Vec<_> = self.children().collect();
        let mut seen = BTreeSet::new();
        members.reverse();
        members.retain(|member| seen.insert(member.name()));
        members.reverse();
        members
    }

    /// Its value to compare; `None` for a list, an object, and a number that is not compared.
    pub fn scalar(self) -> Option<Scalar<'e>> {
        match self.kind() {
            Kind::Null => Some(Scalar::Null),
            Kind::Bool(value) => Some(Scalar::Bool(*value)),
            Kind::Number(text) => Decimal::read(text).map(Scalar::Number),
            Kind::Text(text) => Some(Scalar::Text(Cow::Borrowed(text.as_ref()))),
            Kind::List | Kind::Object => None,
        }
    }

    /// Writes it without spaces. Of equal names only the last is written.
    pub fn write(self, text: &mut String) {
        match self.kind() {
            Kind::Null => text.push_str("null"),
            Kind::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
            Kind::Number(number) => text.push_str(number),
            Kind::Text(value) => write_string(value, text),
            Kind::List => {
                text.push('[');
                for (number, member) in self.children().enumerate() {
                    text.push_str(if number == 0 { "" } else { "," });
                    member.write(text);
                }
                text.push(']');
            }
            Kind::Object => {
                text.push('{');
                for (number, member) in self.members().into_iter().enumerate() {
                    text.push_str(if number == 0 { "" } else { "," });
                    write_string(member.name(), text);
                    text.push(':');
                    member.write(text);
                }
                text.push('}');
            }
        }
    }
}

fn write_string(value: &str, text: &mut String) {
    text.push_str(&serde_json::to_string(value).expect("a string is JSON"));
}

/// Reads a text from its beginning. It takes what RFC 8259 takes, as `serde_json` does.
struct Reader<'a> {
    text: &'a str,
    at: usize,
    nodes: Vec<Node<'a>>,
}

impl<'a> Reader<'a> {
    fn push(&mut self, name: Cow<'a, str>, kind: Kind<'a>) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node { name, kind, end: at + 1 });
        at
    }

    /// Puts all nodes after this one below it.
    fn close(&mut self, node: usize) {
        self.nodes[node].end = self.nodes.len();
    }

    fn finish(mut self) -> Result<Document<'a>, ReadError> {
        self.skip_spaces();
        self.close(0);
        if self.at == self.text.len() { Ok(Document { nodes: self.nodes }) } else { Err(ReadError::Unreadable) }
    }

    /// Reads a value with so many levels at most. `levels` bounds the recursion.
    fn value(&mut self, name: Cow<'a, str>, levels: usize) -> Result<(), ReadError> {
        self.skip_spaces();
        let (kind, closing) = match self.peek() {
            Some(b'{') => (Kind::Object, Some(b'}')),
            Some(b'[') => (Kind::List, Some(b']')),
            Some(b'"') => (Kind::Text(self.string()?), None),
            Some(b't') => (self.word("true", Kind::Bool(true))?, None),
            Some(b'f') => (self.word("false", Kind::Bool(false))?, None),
            Some(b'n') => (self.word("null", Kind::Null)?, None),
            _ => (Kind::Number(self.number()?), None),
        };
        let node = self.push(name, kind);
        if let Some(closing) = closing {
            self.at += 1;
            self.contents(closing, levels.checked_sub(1).ok_or(ReadError::TooDeep)?)?;
            self.close(node);
        }
        Ok(())
    }

    /// Reads the members of a list or an object, and its end.
    fn contents(&mut self, closing: u8, levels: usize) -> Result<(), ReadError> {
        self.skip_spaces();
        if self.take(closing) {
            return Ok(());
        }
        loop {
            let name = if closing == b'}' { self.name()? } else { Cow::Borrowed("") };
            self.value(name, levels)?;
            self.skip_spaces();
            if self.take(closing) {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn name(&mut self) -> Result<Cow<'a, str>, ReadError> {
        self.skip_spaces();
        let name = self.string()?;
        self.skip_spaces();
        self.expect(b':')?;
        Ok(name)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, ReadError> {
        self.expect(b'"')?;
        let text = self.text;
        let mut decoded = String::new();
        let mut from = self.at;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    decoded.push_str(&text[from..self.at]);
                    self.at += 1;
                    decoded.push(self.escaped()?);
                    from = self.at;
                }
                None | Some(..=0x1f) => return Err(ReadError::Unreadable),
                Some(_) => self.at += 1,
            }
        }
        let rest = &text[from..self.at];
        self.at += 1;
        // An escape is a character, so that nothing was decoded where this is empty.
        if decoded.is_empty() {
            return Ok(Cow::Borrowed(rest));
        }
        decoded.push_str(rest);
        Ok(Cow::Owned(decoded))
    }

    /// The character of an escape, after its backslash.
    fn escaped(&mut self) -> Result<char, ReadError> {
        let letter = self.peek().ok_or(ReadError::Unreadable)?;
        self.at += 1;
        match letter {
            b'"' | b'\\' | b'/' => Ok(char::from(letter)),
            b'b' => Ok('\u{8}'),
            b'f' => Ok('\u{c}'),
            b'n' => Ok('\n'),
            b'r' => Ok('\r'),
            b't' => Ok('\t'),
            b'u' => self.unicode(),
            _ => Err(ReadError::Unreadable),
        }
    }

    /// The character of one code unit of UTF-16, or of two. Half of a pair alone is U+FFFD: publishers that cut strings
    /// send such halves, and the rest of their event can be looked into.
    fn unicode(&mut self) -> Result<char, ReadError> {
        let first = self.code_unit()?;
        let after_first = self.at;
        if (0xd800..0xdc00).contains(&first) && self.take(b'\\') && self.take(b'u') {
            let pair = [first, self.code_unit()?];
            if let Some(Ok(both)) = char::decode_utf16(pair).next() {
                return Ok(both);
            }
        }
        // What follows is no second half, and is read by itself.
        self.at = after_first;
        Ok(char::from_u32(first.into()).unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn code_unit(&mut self) -> Result<u16, ReadError> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(ReadError::Unreadable)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(ReadError::Unreadable);
        }
        self.at += 4;
        u16::from_str_radix(digits, 16).map_err(|_| ReadError::Unreadable)
    }

    fn number(&mut self) -> Result<&'a str, ReadError> {
        let from = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        Ok(&self.text[from..self.at])
    }

    /// Digits, one at least.
    fn digits(&mut self) -> Result<(), ReadError> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at > from { Ok(()) } else { Err(ReadError::Unreadable) }
    }

    fn word(&mut self, word: &str, kind: Kind<'a>) -> Result<Kind<'a>, ReadError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(ReadError::Unreadable);
        }
        self.at += word.len();
        Ok(kind)
    }

    fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), ReadError> {
        if self.take(byte) { Ok(()) } else { Err(ReadError::Unreadable) }
    }

    /// Goes past this byte, if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// Pieces of JSON, whole and broken.
    const PIECES: [&str; 27] = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        " ",
        "\n",
        "\"a\"",
        "\"é\\n\"",
        "\"",
        "\\",
        "\\ud83d",
        "\\ude00",
        "\"\\u00e9\"",
        "\"\\ud800\"",
        "0",
        "12",
        "-",
        ".5",
        "e3",
        "E+",
        "true",
        "false",
        "null",
        "nul",
        "\u{1}",
    ];

    fn read(text: &str) -> Result<Document<'_>, ReadError> {
        Document::read(text)
    }

    fn written(text: &str) -> String {
        let mut written = String::new();
        read(text).expect(text).root().write(&mut written);
        written
    }

    #[test]
    fn json_is_written_without_spaces_and_with_its_numbers_as_they_were() {
        for (text, expected) in [
            (" { \"b\" : [ 1.0 , -2E+3 , [ ] , { } ] , \"a\" : null } ", r#"{"b":[1.0,-2E+3,[],{}],"a":null}"#),
            (r#"{"a":1,"b":{"c":1,"c":2},"a":3}"#, r#"{"b":{"c":2},"a":3}"#),
            (r#""\u0041\/\ud83d\ude00\u0000\b""#, "\"A/😀\\u0000\\b\""),
        ] {
            assert_eq!(written(text), expected);
        }
    }

    #[test]
    fn half_of_a_surrogate_pair_is_the_replacement_character() {
        for text in [r#""\ud83d""#, r#""\ude00""#] {
            assert_eq!(written(text), "\"\u{fffd}\"", "{text}");
        }
        assert_eq!(written(r#""\ud83d\ud83d\ude00\ud83dx\ud83d\n""#), "\"\u{fffd}😀\u{fffd}x\u{fffd}\\n\"");
    }

    #[test]
    fn what_is_deeper_than_the_bound_is_not_read() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |levels: usize| format!("{}0{}", open.repeat(levels), close.repeat(levels));
            assert!(read(&nested(MAX_EVENT_LEVELS)).is_ok());
            assert_eq!(read(&nested(MAX_EVENT_LEVELS + 1)).err(), Some(ReadError::TooDeep));
            assert_eq!(read(&open.repeat(100_000)).err(), Some(ReadError::TooDeep));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn a_text_is_read_where_serde_json_reads_it(
            pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..9),
        ) {
            let text = pieces.concat();
            prop_assert_eq!(read(&text).is_ok(), serde_json::from_str::<&RawValue>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn any_text_is_read_or_refused_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = read(&String::from_utf8_lossy(&bytes));
            let _ = read(&format!("\"{}", String::from_utf8_lossy(&bytes)));
        }

        #[test]
        fn strings_are_read_however_they_are_escaped(text in "\\PC{0,20}[\\x00-\\x20\"\\\\/]{0,5}") {
            let json = serde_json::to_string(&text).expect("JSON");
            let units = text.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
            let escaped = format!("\"{}\"", units.collect::<String>());
            for json in [json, escaped] {
                let document = read(&json).expect("JSON");
                prop_assert_eq!(document.root().scalar(), Some(Scalar::Text(Cow::Borrowed(text.as_str()))));
            }
        }
    }
}
