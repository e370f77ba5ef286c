//! Which request the running task works for, so that every line of the log can say it.
//!
//! A span for each request would do the same, and costs a tenth of accepting an event even when no line is written.

use axum::http::{Method, Uri};

tokio::task_local! {
    static CURRENT: Traced;
}

/// What the log says of a request.
#[derive(Clone, Debug)]
pub struct Traced {
    /// Its id.
    pub id: String,
    /// Its method.
    pub method: Method,
    /// What was asked for; only its path is said, a query may hold what is searched for.
    pub uri: Uri,
}

/// The request that the running task works for, if it works for one.
pub fn current_request() -> Option<Traced> {
    CURRENT.try_with(Traced::clone).ok()
}

/// Does `work` for this request.
pub(super) async fn within<F: Future>(request: Traced, work: F) -> F::Output {
    CURRENT.scope(request, work).await
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
