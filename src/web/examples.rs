//! An operation as client code in four languages. The tests run each example against a real server.

use serde_json::Value;

use super::operations::Operation;

/// Where the pages show the server's own address.
pub const BASE: &str = "https://api.example.com";

/// The languages, as a page offers them and as a Markdown fence names them.
pub const LANGUAGES: [(&str, &str); 4] =
    [("curl", "sh"), ("Python", "python"), ("JavaScript", "javascript"), ("PHP", "php")];

/// The values that stand for the parts of a path.
pub const ENDPOINT_ID: &str = "8b7967bd-c278-46ca-8bbb-33e3131a6239";
/// A delivery.
pub const DELIVERY_ID: &str = "1882750559495127041";
/// A replay.
pub const REPLAY_ID: &str = "5e0f6d0c-3b0e-4f0b-9a55-0c6f2a1d7e84";
/// An event.
pub const EVENT_ID: &str = "019de1f5-8bb0-7000-8000-5c1f04f7a1d2";
/// An account.
pub const ACCOUNT_ID: &str = "3d6f0a3e-5f0c-4a57-9d0e-2f6b1f7c9a10";
/// An API key's id.
pub const KEY_ID: &str = "c1a4b8de-77f2-4b63-8a4b-0e5d9b2c6f31";
/// A user.
pub const USER_ID: &str = "a41c7b90-2d35-4f6e-8c11-9b0d5e7f3a26";
/// An id of a portal link.
pub const LINK_ID: &str = "e2f8c1d7-90ab-4e53-b6c4-1d7a3f5b8092";
/// An event type.
pub const EVENT_TYPE: &str = "order.shipped";

/// The request of a call with example values.
pub struct Example<'a> {
    method: &'a str,
    url: String,
    body: Option<&'a Value>,
    has_answer: bool,
}

impl<'a> Example<'a> {
    /// The first example of a call: without a body where the call needs none.
    pub fn of(operation: &'a Operation) -> Self {
        let body = operation.body.as_ref().filter(|body| body.required);
        Self::with_body(operation, body.map(|body| body.example))
    }

    /// The second example of a call whose body is optional: what it shows, and the call with the body.
    pub fn with_options(operation: &'a Operation) -> Option<(&'static str, Self)> {
        let body = operation.body.as_ref()?;
        Some((body.example_title?, Self::with_body(operation, Some(body.example))))
    }

    fn with_body(operation: &'a Operation, body: Option<&'a Value>) -> Self {
        let id = match operation.group {
            "Events" => EVENT_ID,
            "Accounts" | "API keys" | "Users" | "Portal links" => ACCOUNT_ID,
            _ if operation.path.starts_with("/v1/webhooks/deliveries/") => DELIVERY_ID,
            _ if operation.path.starts_with("/v1/webhooks/replays/") => REPLAY_ID,
            _ => ENDPOINT_ID,
        };
        let path = operation.path.replace("{id}", id).replace("{key_id}", KEY_ID).replace("{user_id}", USER_ID);
        let path = path.replace("{link_id}", LINK_ID).replace("{name}", EVENT_TYPE);
        let given = operation.parameters.iter().filter_map(|p| Some(format!("{}={}", p.name, p.example?)));
        let query = given.collect::<Vec<_>>().join("&");
        let query = if query.is_empty() { query } else { format!("?{query}") };
        Self {
            method: &operation.method,
            url: format!("{BASE}{path}{query}"),
            body,
            has_answer: operation.answer.is_some() || operation.is_file,
        }
    }

    /// The request in one of [`LANGUAGES`].
    pub fn in_language(&self, language: &str) -> String {
        match language {
            "curl" => self.curl(),
            "Python" => self.python(),
            "JavaScript" => self.javascript(),
            _ => self.php(),
        }
    }

    fn curl(&self) -> String {
        let method = if self.method == "GET" { String::new() } else { format!("-X {} ", self.method) };
        let mut text = format!("curl {method}'{}' \\\n  -H \"Authorization: Bearer $API_KEY\"", self.url);
        if let Some(body) = self.body {
            let body = pretty(body).replace('\'', "'\\''");
            text.push_str(" \\\n  -H 'Content-Type: application/json' \\\n  -d '");
            text.push_str(&body);
            text.push('\'');
        }
        text
    }

    fn python(&self) -> String {
        let mut text = String::from("import os\n\nimport requests\n\n");
        text.push_str(&format!("response = requests.{}(\n    \"{}\",\n", self.method.to_ascii_lowercase(), self.url));
        text.push_str("    headers={\"Authorization\": f\"Bearer {os.environ['API_KEY']}\"},\n");
        if let Some(body) = self.body {
            text.push_str(&format!("    json={},\n", literal(body, &PYTHON, 1)));
        }
        text.push_str("    timeout=30,\n)\nresponse.raise_for_status()\n");
        text.push_str(if self.has_answer { "print(response.text)" } else { "print(response.status_code)" });
        text
    }

    fn javascript(&self) -> String {
        let mut text = format!("const response = await fetch(\"{}\", {{\n", self.url);
        if self.method != "GET" {
            text.push_str(&format!("  method: \"{}\",\n", self.method));
        }
        let authorization = "Authorization: `Bearer ${process.env.API_KEY}`";
        match self.body {
            Some(body) => text.push_str(&format!(
                "  headers: {{\n    {authorization},\n    \"Content-Type\": \"application/json\",\n  }},\n\
                 \x20 body: JSON.stringify({}),\n",
                literal(body, &JAVASCRIPT, 1)
            )),
            None => text.push_str(&format!("  headers: {{ {authorization} }},\n")),
        }
        text.push_str("});\nif (!response.ok) throw new Error(`${response.status} ${await response.text()}`);\n");
        text.push_str(if self.has_answer {
            "console.log(await response.text());"
        } else {
            "console.log(response.status);"
        });
        text
    }

    fn php(&self) -> String {
        let mut text = format!("<?php\n$curl = curl_init(\"{}\");\ncurl_setopt_array($curl, [\n", self.url);
        if self.method != "GET" {
            text.push_str(&format!("    CURLOPT_CUSTOMREQUEST => \"{}\",\n", self.method));
        }
        let authorization = "\"Authorization: Bearer \" . getenv(\"API_KEY\")";
        match self.body {
            Some(body) => text.push_str(&format!(
                "    CURLOPT_HTTPHEADER => [\n        {authorization},\n        \"Content-Type: application/json\",\n\
                 \x20   ],\n    CURLOPT_POSTFIELDS => json_encode({}),\n",
                literal(body, &PHP, 1)
            )),
            None => text.push_str(&format!("    CURLOPT_HTTPHEADER => [{authorization}],\n")),
        }
        text.push_str(
            "    CURLOPT_RETURNTRANSFER => true,\n    CURLOPT_TIMEOUT => 30,\n]);\n$body = curl_exec($curl);\n",
        );
        text.push_str("$status = curl_getinfo($curl, CURLINFO_RESPONSE_CODE);\n");
        text.push_str("if ($body === false || $status >= 400) {\n");
        text.push_str("    fwrite(STDERR, \"$status \" . ($body ?: curl_error($curl)) . \"\\n\");\n    exit(1);\n}\n");
        text.push_str(if self.has_answer { "echo $body, \"\\n\";" } else { "echo $status, \"\\n\";" });
        text
    }
}

/// JSON as people read it.
pub fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

/// How a language writes values.
struct Syntax {
    indent: usize,
    list: [&'static str; 2],
    object: [&'static str; 2],
    entry: &'static str,
    words: [&'static str; 3],
    /// Whether keys that are plain names go without quotes.
    bare_keys: bool,
    /// A `$` in a string.
    dollar: &'static str,
}

const PYTHON: Syntax = Syntax {
    indent: 4,
    list: ["[", "]"],
    object: ["{", "}"],
    entry: ": ",
    words: ["None", "True", "False"],
    bare_keys: false,
    dollar: "$",
};
const JAVASCRIPT: Syntax = Syntax { indent: 2, words: ["null", "true", "false"], bare_keys: true, ..PYTHON };
const PHP: Syntax =
    Syntax { object: ["[", "]"], entry: " => ", words: ["null", "true", "false"], dollar: "\\$", ..PYTHON };

/// A value as a literal, `depth` steps in. What is short stays on one line.
fn literal(value: &Value, syntax: &Syntax, depth: usize) -> String {
    let line = |items: &[String], [open, close]: [&str; 2]| {
        let flat = format!("{open}{}{close}", items.join(", "));
        if flat.len() <= 60 && !flat.contains('\n') {
            return flat;
        }
        let (inner, outer) = (" ".repeat(syntax.indent * (depth + 1)), " ".repeat(syntax.indent * depth));
        let items: Vec<String> = items.iter().map(|item| format!("{inner}{item},\n")).collect();
        format!("{open}\n{}{outer}{close}", items.concat())
    };
    let string = |text: &str| Value::from(text).to_string().replace('$', syntax.dollar);
    match value {
        Value::Null => syntax.words[0].to_owned(),
        Value::Bool(yes) => syntax.words[if *yes { 1 } else { 2 }].to_owned(),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| literal(item, syntax, depth + 1)).collect();
            line(&items, syntax.list)
        }
        Value::Object(fields) => {
            let entry = |(name, value): (&String, &Value)| {
                let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                let name = if syntax.bare_keys && plain { name.clone() } else { string(name) };
                format!("{name}{}{}", syntax.entry, literal(value, syntax, depth + 1))
            };
            let items: Vec<_> = fields.iter().map(entry).collect();
            line(&items, syntax.object)
        }
        // But for a `$`, strings are written alike in all of these: the examples hold no escapes.
        Value::String(text) => string(text),
        Value::Number(number) => number.to_string(),
    }
}
