//! Which request the running task works for, so that every line of the log can say it.
//!
//! A span for each request would do the same, and costs a tenth of accepting an event even when no line is written.

use std::sync::Arc;

use axum::http::{Method, Uri};

tokio::task_local! {
    static CURRENT: Traced;
}

/// What the log says of a request.
#[derive(Clone, Debug)]
pub struct Traced {
    /// Its id.
    pub id: Arc<str>,
    /// Its method.
    pub method: Method,
    /// Where it goes to.
    pub uri: Uri,
}

impl Traced {
    /// The path; a query may hold what is searched for, and is not said.
    pub fn path(&self) -> String {
        told(self.uri.path())
    }
}

/// Where a part of the path is a key: whoever reads the log must not come in by it.
const WITH_KEY: [&str; 3] = ["/portal/", "/join/", "/sign-in/"];

/// A path as the log may say it.
fn told(path: &str) -> String {
    let Some(before) = WITH_KEY.into_iter().find(|before| path.starts_with(before)) else { return path.to_owned() };
    let after = path[before.len()..].split_once('/').map_or(String::new(), |(_, after)| format!("/{after}"));
    format!("{before}…{after}")
}

/// The request that the running task works for, if it works for one.
pub fn current_request() -> Option<Traced> {
    CURRENT.try_with(Traced::clone).ok()
}

/// Does `work` for this request.
pub(super) fn within<F: Future>(request: Traced, work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(request, work)
}

/// The same work for a task of its own, which the current request goes along to.
pub(super) fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let request = current_request();
    async move {
        match request {
            Some(request) => within(request, work).await,
            None => work.await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_the_path_is_not_told() {
        assert_eq!(told("/v1/webhooks/1"), "/v1/webhooks/1");
        assert_eq!(told("/portal/0123abcd/deliveries/7"), "/portal/…/deliveries/7");
        assert_eq!(told("/join/0123abcd"), "/join/…");
        assert_eq!(told("/sign-in/0123abcd"), "/sign-in/…");
        assert_eq!(told("/sign-in"), "/sign-in");
    }
}
