//! The end of a call over the network.

use std::time::Duration;

use super::connect;
use crate::store::errors::StoreError;

/// How long a call may take, the wait for a connection included: whoever asks gets an answer, whatever the network
/// does. A little longer than a statement may (`connect.rs`), so that most that are late are known not to have
/// happened.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A call over the network that fails after [`CALL_TIMEOUT`].
pub(super) fn in_time<T>(
    call: impl Future<Output = Result<T, StoreError>>,
) -> impl Future<Output = Result<T, StoreError>> {
    let call = Box::pin(call);
    async {
        let late = |_| {
            // The server may have stopped answering on connections that still stand.
            connect::suspect();
            StoreError::Unavailable("it did not answer in time".into())
        };
        tokio::time::timeout(CALL_TIMEOUT, call).await.map_err(late)?
    }
}
