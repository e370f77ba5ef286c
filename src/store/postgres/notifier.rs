//! Wakes other nodes for deliveries that wait in the store and that this one does not send: it has no memory, or does
//! not deliver at all.
//!
//! A `NOTIFY` holds up every commit for a moment, so that there is one for all that was said in [`GATHER`]. Should one
//! be lost, the others look by themselves within seconds.

use std::collections::BTreeSet;
use std::time::Duration;

use deadpool_postgres::Pool;
use tokio::sync::mpsc;

use super::sql::execute;
use crate::domain::id::EndpointKey;

/// How long words are gathered.
const GATHER: Duration = Duration::from_millis(20);

/// Endpoints in one notification; of more, everybody looks at everything.
const MAX_ENDPOINTS: usize = 300;

/// Words that may wait; others are forgotten, and found by whoever looks.
const QUEUE: usize = 4_096;

/// What stands before the endpoints in a notification.
const DUE: &str = "due ";

/// The way to the notifier, who ends with the last of these.
#[derive(Clone)]
pub(super) struct Notifier(mpsc::Sender<EndpointKey>);

impl Notifier {
    /// The endpoint has deliveries that are due.
    pub fn notify(&self, endpoint: EndpointKey) {
        let _ = self.0.try_send(endpoint);
    }
}

/// Starts the notifier.
pub(super) fn start(pool: Pool) -> Notifier {
    let (words, mut said) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Some(first) = said.recv().await {
            tokio::time::sleep(GATHER).await;
            let mut endpoints = BTreeSet::from([first]);
            while let Ok(more) = said.try_recv() {
                endpoints.insert(more);
            }
            let notified = super::time_limit::in_time(async {
                let text = write(&endpoints);
                execute(&pool.get().await?, "SELECT pg_notify('aldaba', $1)", &[&text]).await
            });
            if let Err(error) = notified.await {
                tracing::debug!(%error, "other nodes could not be notified of deliveries");
            }
        }
    });
    Notifier(words)
}

fn write(endpoints: &BTreeSet<EndpointKey>) -> String {
    if endpoints.len() > MAX_ENDPOINTS {
        return DUE.to_owned();
    }
    let keys: Vec<String> = endpoints.iter().map(|key| key.0.to_string()).collect();
    format!("{DUE}{}", keys.join(","))
}

/// The endpoints of a notification; none for "look at everything". `None` where it is about something else.
pub(super) fn read(text: &str) -> Option<Vec<EndpointKey>> {
    let keys = text.strip_prefix(DUE)?;
    Some(keys.split(',').filter_map(|key| key.parse().ok()).map(EndpointKey).collect())
}
