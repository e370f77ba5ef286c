//! Counting an attempt towards its endpoint's rate limit, right before its request.

use crate::domain::id::EndpointKey;
use crate::domain::rate_limit::{LONGEST_VALIDITY, Rate};
use crate::store::{Dispatch, StartPermit};

/// How often an attempt is counted before it waits, should each count take longer than it is valid.
pub const COUNT_TRIES: u32 = 3;

/// Each count after the first is valid for so many times as long as the one before: a database may be slow.
const PATIENCE: u32 = 4;

/// Counts an attempt that is about to send its request, in place of what was counted for it before: that has expired,
/// is of another limit, or allowed an earlier request. `tries` is how often this was done before. Returns whether the
/// attempt is counted; otherwise its delivery waits.
pub async fn count_start<S: Dispatch>(
    store: &S,
    endpoint: EndpointKey,
    rate: Rate,
    start: &StartPermit,
    tries: u32,
) -> bool {
    let validity = (rate.validity() * PATIENCE.pow(tries)).min(LONGEST_VALIDITY);
    let is_counted = match store.count_start(endpoint, rate, start.counted(), validity).await {
        Ok(counted) => {
            start.replace(counted);
            counted.is_some()
        }
        Err(error) => {
            tracing::warn!(%error, "an attempt could not be counted towards a rate limit: its delivery waits");
            false
        }
    };
    if !is_counted {
        start.note_refusal();
    }
    is_counted
}
