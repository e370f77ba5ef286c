//! The request that the running task works for, which every line of the log names.
//!
//! A `tracing` span for each request would do the same. It costs a tenth of accepting an event, even when no line is
//! written.

use std::sync::Arc;

use axum::http::{Method, Uri};

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

/// Paths in which the next part is a secret token, which must not be logged.
const WITH_KEY: [&str; 3] = ["/portal/", "/join/", "/sign-in/"];

/// A path without its secret token.
fn loggable_path(path: &str) -> String {
    let Some(before) = WITH_KEY.into_iter().find(|before| path.starts_with(before)) else { return path.to_owned() };
    let after = path[before.len()..].split_once('/').map_or(String::new(), |(_, after)| format!("/{after}"));
    format!("{before}…{after}")
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
    }
}
