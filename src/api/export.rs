//! Streams lists as files: reads rows in batches and writes them as fast as the client reads, while the caller may read
//! them. Each list's own file has its columns.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};

use super::Api;
use super::auth::{Caller, Credential, authenticate};
use super::call::ApiCall;
use super::envelope::{Answer, time};
use super::error::{ApiError, Code};
use super::trace::with_current_request;
use crate::store::{PortalLinks, SignIn, Snapshot, StoreError, Stretch};
use crate::table::{Cell, Format, Table};

/// Rows of one file.
pub const MAX_ROWS: u32 = 100_000;

/// Exports at once, in all and of one account. Each holds a stretch of rows, and then the bytes of two: some 3 MiB
/// where every row has the longest URL and answer.
const AT_ONCE: (usize, usize) = (32, 2);

/// Bytes that are handed to the connection at once.
const PIECE: usize = 64 * 1024;

/// A client that takes no piece for this long loses its place, so the least rate is 6.4 KiB a second. A network that is
/// interrupted for seconds ends no file.
const STALLED: Duration = Duration::from_secs(10);

/// Answers with the rows of a list, from its beginning on, as `format` and `limit` say.
pub async fn answer<T, F>(
    call: &ApiCall,
    name: &str,
    columns: &[(&str, u16)],
    walk: impl Fn(Option<i64>) -> F + Send + Sync + 'static,
    cells: fn(&T) -> Vec<Cell<'_>>,
) -> Result<Answer, ApiError>
where
    T: Send + 'static,
    F: Future<Output = Result<Stretch<T>, StoreError>> + Send,
{
    let query = call.query();
    let format = query.iter().rev().find(|(known, _)| known == "format").map_or(Format::Csv, |(_, f)| Format::parse(f));
    let limit = call.number("limit", MAX_ROWS, 1, MAX_ROWS) as usize;
    let Some(slot) = call.api.exports.take(call.caller.account(), AT_ONCE) else {
        return Err(ApiError::from(Code::Unavailable).with_header("retry-after", 5));
    };
    // The first read comes before the status, so that its failure can still be answered.
    let first = walk(None).await?;
    let table = Table::begin(format, columns).map_err(|error| {
        tracing::error!(%error, "a file could not be begun");
        ApiError::from(Code::InternalError)
    })?;
    let (sender, body) = Channel::<Bytes, io::Error>::new(1);
    let (api, caller) = (call.api.clone(), call.caller.clone());
    let walk_on = move |from| {
        let (api, caller, stretch) = (api.clone(), caller.clone(), walk(from));
        async move {
            match still_may(&api, &caller).await {
                Ok(true) => stretch.await.map_err(io::Error::other),
                Ok(false) => Err(io::Error::other("its caller may no longer read it")),
                Err(error) => Err(io::Error::other(error)),
            }
        }
    };
    tokio::spawn(with_current_request(async move {
        let _slot = slot;
        write(sender, table, first, limit, walk_on, cells).await;
    }));
    let today = time(call.api.clock.now()).chars().take(10).collect::<String>();
    Ok(Answer::file(format.media_type(), format!("{name}-{today}.{}", format.name()), Body::new(body)))
}

/// Whether a caller may do what they could when their call came. A file can take minutes: meanwhile a key or a link may
/// have been revoked or have expired, a session may have ended, and a user may have got another role.
async fn still_may(api: &Api, caller: &Caller) -> Result<bool, StoreError> {
    let permissions = match caller.credential() {
        Credential::Key(hash, _) => {
            api.store.refresh_stale().await?;
            authenticate(hash, api.store.view(), api.clock.now()).ok().map(|caller| caller.permissions)
        }
        Credential::Session(token) => {
            let user = api.store.session(*token, api.sessions().idle, false).await?;
            user.map(|user| user.role.permissions())
        }
        Credential::PortalLink(token) => api.store.portal_link(*token).await?.map(|link| link.permissions),
    };
    Ok(permissions.is_some_and(|permissions| permissions.covers(caller.permissions)))
}

async fn write<T, F>(
    mut sender: Sender<Bytes, io::Error>,
    table: Table,
    first: Stretch<T>,
    limit: usize,
    walk_on: impl Fn(Option<i64>) -> F,
    cells: fn(&T) -> Vec<Cell<'_>>,
) where
    T: Send + 'static,
    F: Future<Output = io::Result<Stretch<T>>>,
{
    let (mut table, mut stretch, mut left) = (table, first, limit);
    let failed = loop {
        let (items, next) = (stretch.items, stretch.next);
        let count = items.len().min(left);
        left -= count;
        let ends = left == 0 || next.is_none();
        // Compressing runs on a blocking thread, so that it does not delay other calls.
        let written = tokio::task::spawn_blocking(move || {
            for item in &items[..count] {
                table.row(&cells(item))?;
            }
            if ends {
                table.finish().map(|bytes| (None, bytes))
            } else {
                table.take().map(|bytes| (Some(table), bytes))
            }
        });
        let (rest, bytes) = match written.await.map_err(io::Error::other).flatten() {
            Ok(written) => written,
            Err(error) => break error,
        };
        match send(&mut sender, bytes.into()).await {
            Sent::Whole => {}
            Sent::ClientLeft => return,
            Sent::Stalled => break io::Error::from(io::ErrorKind::TimedOut),
        }
        // The end of the file.
        let Some(rest) = rest else { return };
        table = rest;
        match walk_on(next).await {
            Ok(found) => stretch = found,
            Err(error) => break error,
        }
    };
    tracing::warn!(error = %failed, "an export broke off");
    // The connection is aborted, so that the client does not take the part for the whole file.
    sender.abort(failed);
}

/// What came of sending bytes.
enum Sent {
    Whole,
    ClientLeft,
    Stalled,
}

/// Sends bytes as the client takes them. Without bytes an empty piece is sent, which shows whether the client has left.
async fn send(sender: &mut Sender<Bytes, io::Error>, mut bytes: Bytes) -> Sent {
    loop {
        let piece = bytes.split_to(bytes.len().min(PIECE));
        match tokio::time::timeout(STALLED, sender.send_data(piece)).await {
            Ok(Ok(())) if bytes.is_empty() => return Sent::Whole,
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Sent::ClientLeft,
            Err(_) => return Sent::Stalled,
        }
    }
}
