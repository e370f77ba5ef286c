//! Headers and authentication in the forms of an endpoint and on its page. Values are typed and never shown, also where
//! a form is shown again: their owner types them once more.

use maud::{Markup, html};
use serde_json::{Map, Value, json};

use crate::api::EndpointResource;
use crate::web::dashboard::form_errors::{fault, local};
use crate::web::dashboard::page_context::{Failure, PageContext};
use crate::web::dashboard::parts::{Input, area, code, input, none, select};

/// What stands for a value that is stored: it keeps the value.
const MASK: &str = "...";

/// What the form calls fields that are members of `authentication` in the API.
pub const MEMBERS: &[&str] = &["token_url"];

/// Headers and authentication as they stand in the form.
#[derive(Default)]
pub struct CredentialsForm {
    /// A line for each: its name, a colon and its value, or the mask of the value that it keeps.
    headers: String,
    /// `keep`, `none`, `basic`, `bearer` or `oauth2`; nothing where the form does not say.
    kind: String,
    username: String,
    token_url: String,
    client_id: String,
    scope: String,
    audience: String,
    /// The password, the token or the client's secret.
    credential: String,
}

impl CredentialsForm {
    /// As it was sent.
    pub fn sent(cx: &PageContext) -> Self {
        let trimmed = |name: &str| cx.field(name).trim().to_owned();
        Self {
            headers: cx.field("headers").to_owned(),
            kind: trimmed("authentication"),
            username: trimmed("username"),
            token_url: trimmed("token_url"),
            client_id: trimmed("client_id"),
            scope: trimmed("scope"),
            audience: trimmed("audience"),
            credential: trimmed("credential"),
        }
    }

    /// As the API has it.
    pub fn of(endpoint: &EndpointResource) -> Self {
        let lines = endpoint.headers.iter().flatten().map(|(name, mask)| format!("{name}: {mask}\n"));
        let Some(known) = &endpoint.authentication else {
            return Self { headers: lines.collect(), ..Self::default() };
        };
        Self {
            headers: lines.collect(),
            kind: "keep".to_owned(),
            username: known.username.clone().unwrap_or_default(),
            token_url: known.token_url.clone().unwrap_or_default(),
            client_id: known.client_id.clone().unwrap_or_default(),
            scope: known.scope.clone().unwrap_or_default(),
            audience: known.audience.clone().unwrap_or_default(),
            credential: String::new(),
        }
    }

    /// Adds both to a body as the API takes it.
    pub fn add_to(&self, cx: &PageContext, body: &mut Value) -> Result<(), Failure> {
        body["headers"] = self.headers(cx)?;
        if !matches!(self.kind.as_str(), "" | "keep") {
            body["authentication"] = self.authentication();
        }
        Ok(())
    }

    fn headers(&self, cx: &PageContext) -> Result<Value, Failure> {
        let mut headers = Map::new();
        for line in self.headers.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let added = line.split_once(':').map(|(name, value)| {
                let value = Some(value.trim()).filter(|value| !value.starts_with(MASK));
                headers.insert(name.trim().to_owned(), json!(value))
            });
            if !matches!(added, Some(None)) {
                let detail = cx.say("Each line is a name, a colon and a value, and no name stands twice.");
                return Err(local(vec![fault(detail, Some("headers"))]));
            }
        }
        Ok(if headers.is_empty() { Value::Null } else { headers.into() })
    }

    /// A kind that does not exist goes on as it is: the API refuses it.
    fn authentication(&self) -> Value {
        let given = |text: &String| (!text.is_empty()).then(|| text.clone());
        match self.kind.as_str() {
            "none" => Value::Null,
            "basic" => json!({ "type": "basic", "username": self.username, "password": self.credential }),
            "bearer" => json!({ "type": "bearer", "token": self.credential }),
            kind => json!({
                "type": kind,
                "token_url": self.token_url,
                "client_id": self.client_id,
                "client_secret": self.credential,
                "scope": given(&self.scope),
                "audience": given(&self.audience),
            }),
        }
    }

    /// The lines without the values that were typed.
    fn shown_headers(&self) -> String {
        let shown = |line: &str| {
            let (name, value) = line.split_once(':')?;
            let mask = if value.trim().starts_with(MASK) { value.trim() } else { "" };
            Some(format!("{}: {mask}\n", name.trim()))
        };
        self.headers.lines().filter_map(shown).collect()
    }

    /// The fields. `current` is how requests authenticate now.
    pub fn fields(&self, cx: &PageContext, current: Option<&str>, failure: Option<&Failure>) -> Markup {
        let error = |name: &str| failure.and_then(|failure| failure.of(name));
        let line = |name: &str, label: &str, value: &str| {
            input(&Input { name, label, value, error: error(name), ..Input::default() })
        };
        html! {
            (area(
                &Input {
                    name: "headers",
                    label: &cx.say("Headers"),
                    value: &self.shown_headers(),
                    hint: &cx.say(
                        "Up to 20 headers that each request carries, one on a line, such as X-Api-Key: my-key. Values \
                         are not shown again: a value of ... keeps the one that is stored. A line that you delete \
                         removes its header.",
                    ),
                    error: error("headers"),
                    ..Input::default()
                },
                4,
            ))
            (self.kinds(cx, current, failure))
            (line("username", &cx.say("User name (Basic)"), &self.username))
            (input(&Input {
                name: "credential",
                label: &cx.say("Password, token or client secret"),
                hint: &cx.say("It is not shown again. To change the authentication, give it anew."),
                kind: "password",
                // Else a browser fills the password of a sign-in in, and it is sent to the receiver.
                autocomplete: "new-password",
                ..Input::default()
            }))
            (line("token_url", &cx.say("Token URL (OAuth 2)"), &self.token_url))
            (line("client_id", &cx.say("Client ID (OAuth 2)"), &self.client_id))
            (line("scope", &cx.say("Scope (OAuth 2, optional)"), &self.scope))
            (line("audience", &cx.say("Audience (OAuth 2, optional)"), &self.audience))
        }
    }

    fn kinds(&self, cx: &PageContext, current: Option<&str>, failure: Option<&Failure>) -> Markup {
        let keep = current.map(|kind| cx.fill("Keep the one that is set ({kind})", &[("kind", &name(kind))]));
        let [nothing, basic, bearer, oauth2] = [
            cx.say("No authentication"),
            cx.say("Basic: a user name and a password"),
            cx.say("Bearer: a token"),
            cx.say("OAuth 2: access tokens from a token server"),
        ];
        let mut options: Vec<(&str, &str)> = keep.iter().map(|label| ("keep", label.as_str())).collect();
        options.extend([("none", &*nothing), ("basic", &*basic), ("bearer", &*bearer), ("oauth2", &*oauth2)]);
        select(
            &Input {
                name: "authentication",
                label: &cx.say("Authentication"),
                value: &self.kind,
                hint: &cx.say(
                    "How each request authenticates to your receiver, beside its signature. Fill in the fields below \
                     that belong to your choice.",
                ),
                error: failure.and_then(|failure| failure.of("authentication")),
                ..Input::default()
            },
            &options,
        )
    }
}

/// What a way to authenticate is called.
fn name(kind: &str) -> &str {
    match kind {
        "basic" => "Basic",
        "bearer" => "Bearer",
        "oauth2" => "OAuth 2",
        other => other,
    }
}

/// The names of headers, each with the mask of its value.
pub fn headers(cx: &PageContext, endpoint: &EndpointResource) -> Markup {
    match &endpoint.headers {
        Some(masks) if !masks.is_empty() => html! {
            @for (name, mask) in masks { (code(name)) ": " (mask) br; }
        },
        _ => none(cx),
    }
}

/// How requests authenticate, with all that may be shown of it.
pub fn authentication(cx: &PageContext, endpoint: &EndpointResource) -> Markup {
    let Some(known) = &endpoint.authentication else { return none(cx) };
    let members = [&known.username, &known.token_url, &known.client_id, &known.scope, &known.audience];
    html! {
        (name(&known.kind))
        @for member in members.into_iter().flatten() { br; (code(member)) }
    }
}
