//! The request that the running task works for, which every line of the log names.
//!
//! A `tracing` span for each request would do the same. It costs a tenth of accepting an event, even when no line is
//! written.

use std::sync::Arc;

use axum::http::{Method, Uri};
use percent_encoding::percent_decode_str;

tokio::task_local! {
    static CURRENT: RequestTrace;
}

/// What the log says of a request.
#[derive(Clone, Debug)]
pub struct RequestTrace {
    /// Its id.
    pub id: Arc<str>,
    /// Its method.
    pub method: Method,
    /// Its path and query.
    pub uri: Uri,
}

impl RequestTrace {
    /// The path; a query may hold what is searched for, and is not said.
    pub fn path(&self) -> String {
        loggable_path(self.uri.path())
    }
}

/// Parts of a path after which a secret token comes, which must not be logged.
const BEFORE_TOKEN: [&str; 3] = ["portal", "join", "sign-in"];

/// A part with so many hexadecimal digits in a row may be a token, wherever it is: a token has 64, an id 12 at most.
const TOKEN_DIGITS: usize = 24;

/// A path without secret tokens. It need not lead to a page: it may be misspelt.
fn loggable_path(path: &str) -> String {
    let mut token_is_next = false;
    let shown = path.split('/').map(|part| {
        let plain = percent_decode_str(part).decode_utf8_lossy();
        let holds_token = plain.split(|c: char| !c.is_ascii_hexdigit()).any(|digits| digits.len() >= TOKEN_DIGITS);
        let is_token = holds_token || token_is_next && !part.is_empty();
        let is_before = BEFORE_TOKEN.iter().any(|before| plain.eq_ignore_ascii_case(before));
        // Slashes that are doubled make empty parts.
        token_is_next = !is_token && (is_before || token_is_next);
        if is_token { "…" } else { part }
    });
    shown.collect::<Vec<_>>().join("/")
}

/// The request that the running task works for, if it works for one.
pub fn current_request() -> Option<RequestTrace> {
    CURRENT.try_with(RequestTrace::clone).ok()
}

/// Does `work` for this request.
pub(super) fn in_request<F: Future>(request: RequestTrace, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(request, work)
}

/// Wraps work for another task, so that it keeps the current request.
pub(super) fn with_current_request<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let request = current_request();
    async move {
        match request {
            Some(request) => in_request(request, work).await,
            None => work.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_path_is_not_told() {
        assert_eq!(loggable_path("/v1/webhooks/1"), "/v1/webhooks/1");
        assert_eq!(loggable_path("/portal/0123abcd/deliveries/7"), "/portal/…/deliveries/7");
        assert_eq!(loggable_path("/join/0123abcd"), "/join/…");
        assert_eq!(loggable_path("/sign-in/0123abcd"), "/sign-in/…");
        assert_eq!(loggable_path("/sign-in"), "/sign-in");
        let id = "/v1/webhooks/7f3d9a52-6c1e-4b0a-9d57-2f8e41c6b3aa/deliveries";
        assert_eq!(loggable_path(id), id);
    }

    #[test]
    fn a_key_in_a_misspelt_path_is_not_told() {
        let token = "0123456789abcdef".repeat(4);
        for (path, shown) in [
            ("//portal/T", "//portal/…"),
            ("/portal//T/deliveries", "/portal//…/deliveries"),
            ("/Portal/T", "/Portal/…"),
            ("/%70ortal/T", "/%70ortal/…"),
            ("/portal%2FT", "/…"),
            ("/portals/T", "/portals/…"),
            ("/x/JOIN/short", "/x/JOIN/…"),
            ("/accounts/1/portal-links", "/accounts/1/portal-links"),
        ] {
            assert_eq!(loggable_path(&path.replace('T', &token)), shown, "{path}");
        }
    }
}
