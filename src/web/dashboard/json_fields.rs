//! JSON and lists in forms and pages: parsing what was entered, and laying out what is shown.

use std::collections::BTreeMap;

use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::form_errors::{fault, local};
use super::page_context::{Failure, PageContext};

/// The deepest nesting that is laid out in lines: beyond, it is mostly spaces.
const MAX_DEPTH: usize = 64;

/// The longest text that comes of it, in bytes.
const MAX_LAID_OUT: usize = 1 << 20;

/// Reads a field that holds JSON; the refusal says where it stops being JSON.
pub fn read(cx: &PageContext, field: &str, text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| refusal(cx, field, text, &error))
}

/// The text of a field that holds JSON, whose numbers keep their digits.
pub fn read_text<'t>(cx: &PageContext, field: &str, text: &'t str) -> Result<&'t str, Failure> {
    let json = serde_json::from_str::<&RawValue>(text);
    json.map(RawValue::get).map_err(|error| refusal(cx, field, text, &error))
}

/// A JSON object as text, with one more member that is JSON as it was written.
pub fn with_text(object: &Value, name: &str, text: &str) -> String {
    let object = object.to_string();
    let rest = object.strip_prefix('{').expect("an object begins so");
    let comma = if rest == "}" { "" } else { "," };
    format!("{{{name}:{text}{comma}{rest}", name = json!(name))
}

fn refusal(cx: &PageContext, field: &str, text: &str, error: &serde_json::Error) -> Failure {
    let place: [(&str, &dyn std::fmt::Display); 2] = [("line", &error.line()), ("column", &error.column())];
    let detail = if text.trim().is_empty() {
        cx.say("Nothing is written here. The smallest JSON object is {}.")
    } else if error.classify() == Category::Eof {
        cx.fill("This is not JSON yet: it ends early, at line {line}, column {column}.", &place)
    } else {
        cx.fill("This is not JSON: there is a mistake at line {line}, column {column}.", &place)
    };
    local(vec![fault(detail, Some(field))])
}

/// The same where nothing may be written: that is `null`.
pub fn read_optional(cx: &PageContext, field: &str, text: &str) -> Result<Value, Failure> {
    if text.trim().is_empty() { Ok(Value::Null) } else { read(cx, field, text) }
}

/// What a field lists, separated by commas, spaces or lines.
pub fn listed(text: &str) -> Vec<&str> {
    text.split([',', ' ', '\n', '\r', '\t']).filter(|name| !name.is_empty()).collect()
}

/// A field that holds a whole number, or nothing. What is no number goes on as it is: the API refuses it.
pub fn number(text: &str) -> Value {
    match text.parse::<u64>() {
        Ok(number) => number.into(),
        Err(_) if text.is_empty() => Value::Null,
        Err(_) => text.into(),
    }
}

/// JSON in lines; nothing where there is none.
pub fn pretty(value: Option<&Value>) -> String {
    value.map(|value| format!("{value:#}")).unwrap_or_default()
}

/// JSON text in lines; nothing where there is none.
pub fn laid_out_or_nothing(json: Option<&RawValue>) -> String {
    json.map(|json| laid_out(json.get()).unwrap_or_else(|| json.get().to_owned())).unwrap_or_default()
}

/// A client's own notes as JSON in lines; nothing where there are none.
pub fn notes(metadata: Option<&BTreeMap<String, String>>) -> String {
    pretty(metadata.map(|notes| json!(notes)).as_ref())
}

/// JSON text in lines, each of its names, texts and numbers as it was written. `None` where it is no JSON, or too much.
pub fn laid_out(text: &str) -> Option<String> {
    let json = serde_json::from_str::<&RawValue>(text).ok()?.get();
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    let mut chars = json.chars().peekable();
    while let Some(c) = chars.next() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            ' ' | '\t' | '\n' | '\r' => {}
            '{' | '[' => {
                out.push(c);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(close) = chars.next_if(|c| matches!(c, '}' | ']')) {
                    out.push(close);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            '}' | ']' => {
                // It is JSON: what is closed was opened.
                depth -= 1;
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            _ => {
                quoted = c == '"';
                out.push(c);
            }
        }
        if depth > MAX_DEPTH || out.len() > MAX_LAID_OUT {
            return None;
        }
    }
    Some(out)
}

fn line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_laid_out_with_its_words_as_they_are() {
        let text = concat!(
            r#" {"n":1.0,"big":12345678901234567890123,"t":"a\"{,}\\","e":{ },"l":[ ],"#,
            r#""m":[1,{"x":null}],"ñ":"\u00e9"} "#,
        );
        let expected = "{\n  \"n\": 1.0,\n  \"big\": 12345678901234567890123,\n  \"t\": \"a\\\"{,}\\\\\",\n  \
                        \"e\": {},\n  \"l\": [],\n  \
                        \"m\": [\n    1,\n    {\n      \"x\": null\n    }\n  ],\n  \"ñ\": \"\\u00e9\"\n}";
        assert_eq!(laid_out(text).as_deref(), Some(expected));
        assert_eq!(laid_out(expected).as_deref(), Some(expected));
        assert_eq!(laid_out("7").as_deref(), Some("7"));
    }

    #[test]
    fn a_member_goes_into_an_object_as_it_was_written() {
        assert_eq!(with_text(&json!({ "a": 1 }), "f", "{\"n\": 1.50}"), r#"{"f":{"n": 1.50},"a":1}"#);
        assert_eq!(with_text(&json!({}), "f", "null"), r#"{"f":null}"#);
    }

    #[test]
    fn what_is_no_json_or_mostly_spaces_is_not_laid_out() {
        for text in ["", "{", "hello", "{} {}", "{\"a\":}"] {
            assert_eq!(laid_out(text), None, "{text}");
        }
        assert_eq!(laid_out(&format!("{}{}", "[".repeat(100), "]".repeat(100))), None);
        let wide = format!("{}{}1{}", "[".repeat(60), "1,".repeat(20_000), "]".repeat(60));
        assert_eq!(laid_out(&wide), None);
    }
}
