//! What a page knows of its request: the caller, the language, the path, the query and the form; and calls of the API
//! for the caller.

use std::fmt::Display;

use axum::body::Body;
use axum::http::{Method, Response};
use maud::{Markup, html};
use ring::digest;
use serde_json::Value;

use super::state::Dashboard;
use crate::api::{Caller, Code, FaultJson, FromAnswer, InProcessCall, Refused, RequestContext, Session};
use crate::web::text::Locale;

/// Whose pages these are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageOwner {
    /// An account's, for its users or an operator.
    Account,
    /// An account's, through a portal link.
    Portal,
    /// The operator's own.
    Operator,
}

/// The context of a page.
#[derive(Clone)]
pub struct PageContext {
    /// The language of the page.
    pub locale: Locale,
    /// Milliseconds since the epoch.
    pub now: i64,
    /// Whose pages these are.
    pub owner: PageOwner,
    /// The parts of the path.
    pub params: Vec<(String, String)>,
    /// The query.
    pub query: Vec<(String, String)>,
    /// The form that was sent, without its hidden fields.
    pub form: Vec<(String, String)>,
    pub(super) dashboard: Dashboard,
    pub(super) caller: Caller,
    pub(super) request_context: RequestContext,
    pub(super) session: Option<Session>,
    pub(super) prefix: String,
    pub(super) account: String,
    /// Proves that a form was on a page of ours.
    pub(super) csrf: String,
    /// Names the forms of this page, so that what is sent twice is done once.
    pub(super) once: String,
    /// The name of the form that was sent.
    pub(super) sent: String,
}

impl PageContext {
    /// The sentence in the language of the request.
    pub fn say(&self, english: &str) -> String {
        self.locale.say(english)
    }

    /// The same with values in the place of their names in braces.
    pub fn fill(&self, english: &str, values: &[(&str, &dyn Display)]) -> String {
        let mut text = self.say(english);
        for (name, value) in values {
            text = text.replace(&format!("{{{name}}}"), &value.to_string());
        }
        text
    }

    /// Whether whoever is signed in may do this: the API refuses it anyway.
    pub fn may(&self, permission: &str) -> bool {
        self.caller.may(permission)
    }

    /// The address of a page beside this one.
    pub fn link(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// The account's id; empty among the operator's own pages.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// A part of the path.
    pub fn param(&self, name: &str) -> &str {
        last(&self.params, name)
    }

    /// The last value of a parameter of the query, or nothing.
    pub fn asked(&self, name: &str) -> &str {
        last(&self.query, name)
    }

    /// The last value of a field of the form, or nothing.
    pub fn field(&self, name: &str) -> &str {
        last(&self.form, name)
    }

    /// Every value of a field of the form.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        self.form.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    /// Reads from the API.
    pub async fn get<T: FromAnswer>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, Failure> {
        let address = with_query(path, query);
        let call = InProcessCall { method: Method::GET, address: &address, body: None, idempotency_key: None };
        Ok(self.dashboard.in_process.read(self.caller.clone(), &self.request_context, call).await?)
    }

    /// Changes something by the API; without a body where that is null. What the same form asks for twice is done once.
    pub async fn send<T: FromAnswer>(&self, method: &str, path: &str, body: Value) -> Result<T, Failure> {
        self.send_text(method, path, (!body.is_null()).then(|| body.to_string())).await
    }

    /// The same with a body as it was written, to the byte.
    pub async fn send_text<T: FromAnswer>(&self, method: &str, path: &str, body: Option<String>) -> Result<T, Failure> {
        let method = Method::from_bytes(method.as_bytes()).expect("a page names a method of HTTP");
        // Another body is another call: a form that was corrected after going back is no repetition.
        let text = body.as_deref().unwrap_or("");
        let key = (method == Method::POST && !self.sent.is_empty()).then(|| short_hash(&[&self.sent, text]));
        let call = InProcessCall { method, address: path, body, idempotency_key: key.as_deref() };
        Ok(self.dashboard.in_process.read(self.caller.clone(), &self.request_context, call).await?)
    }

    /// An answer of the API as it is, for what is a file.
    pub(super) async fn file(&self, path: &str) -> Response<Body> {
        let pairs: Vec<_> = self.query.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let address = with_query(path, &pairs);
        let call = InProcessCall { method: Method::GET, address: &address, body: None, idempotency_key: None };
        self.dashboard.in_process.call(self.caller.clone(), &self.request_context, call).await
    }

    /// What every form contains that changes something.
    pub fn form_start(&self) -> Markup {
        html! {
            input type="hidden" name="csrf" value=(self.csrf);
            input type="hidden" name="once" value=(self.once);
        }
    }

    /// The session; none in a portal.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }
}

/// 32 hex digits that tell these texts from others.
pub(super) fn short_hash(parts: &[&str]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part.as_bytes());
        context.update(b"\0");
    }
    hex::encode(&context.finish().as_ref()[..16])
}

fn last<'a>(pairs: &'a [(String, String)], name: &str) -> &'a str {
    pairs.iter().rev().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

fn with_query(path: &str, query: &[(&str, &str)]) -> String {
    if query.is_empty() {
        return path.to_owned();
    }
    let encoded = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
    format!("{path}?{encoded}")
}

/// A refusal of the API.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// Its status.
    pub status: u16,
    /// What is wrong.
    pub faults: Vec<Fault>,
    /// Seconds after which to try again.
    pub retry_after: Option<u64>,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What; `None` where the page found it itself.
    pub code: Option<Code>,
    /// The same in the language of the request.
    pub detail: String,
    /// The field or filter that is at fault.
    pub field: Option<String>,
    /// The replays that are in the way of another one.
    pub replays: Vec<String>,
}

impl Failure {
    /// The fault of a field.
    pub fn of(&self, field: &str) -> Option<&Fault> {
        self.faults.iter().find(|fault| fault.field.as_deref() == Some(field))
    }

    /// Whether it is for this reason.
    pub fn is(&self, code: Code) -> bool {
        self.faults.iter().any(|fault| fault.code == Some(code))
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        let retry_after = refused.faults.iter().find_map(FaultJson::retry_after);
        Self { status: refused.status, faults: refused.faults.into_iter().map(Fault::from).collect(), retry_after }
    }
}

impl From<FaultJson> for Fault {
    fn from(fault: FaultJson) -> Self {
        let field = fault.field().map(str::to_owned);
        let replays = fault.replays().map(str::to_owned).collect();
        Self { code: Some(fault.code), detail: fault.detail, field, replays }
    }
}

/// What a page answers.
pub enum Page {
    /// A page in its layout.
    Html {
        /// The HTTP status.
        status: u16,
        /// The title.
        title: String,
        /// The entry beside it that it belongs to.
        section: &'static str,
        /// What is in it.
        content: Markup,
    },
    /// Another page.
    Redirect(String),
    /// The session has ended: back to the sign-in page.
    SignedOut,
}

impl Page {
    /// A page.
    pub fn new(title: impl Into<String>, section: &'static str, content: Markup) -> Self {
        Self::Html { status: 200, title: title.into(), section, content }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        match self {
            Self::Html { title, section, content, .. } => Self::Html { status, title, section, content },
            other => other,
        }
    }
}
