//! What a database must have, looked at once when a node starts.

use std::future::poll_fn;
use std::time::Duration;

use tokio_postgres::{AsyncMessage, Client};

use super::connect::{Connection, Connector};
use super::sql::describe;
use crate::clock::Random;

/// The one encoding that holds everything that a receiver may answer.
const ENCODING: &str = "UTF8";

/// How long a notification may take from one connection to another. It takes a millisecond; a server that is busy takes
/// longer.
const NOTIFICATION_TIMEOUT: Duration = Duration::from_secs(5);

/// The channel of the probe.
const PROBE: &str = "aldaba_probe";

/// What a server says of a session.
pub(super) struct Session {
    encoding: String,
    synchronous_commit: String,
    fsync: String,
}

impl Session {
    /// Why a node must not start.
    pub(super) fn refusal(&self) -> Option<String> {
        (self.encoding != ENCODING).then(|| {
            format!(
                "its encoding is {}, which cannot hold everything that receivers answer; it must be {ENCODING}: \
                 CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
                self.encoding
            )
        })
    }

    /// What weakens the promise that an event that was answered 202 is on disk.
    pub(super) fn warnings(&self) -> Vec<&'static str> {
        let mut warnings = Vec::new();
        if self.synchronous_commit == "off" {
            warnings.push(
                "synchronous_commit is off: when the database crashes, events that were answered 202 can be lost; \
                 set it to on for this role, database and server",
            );
        }
        if self.fsync == "off" {
            warnings.push("fsync is off: when the database's machine crashes, everything can be lost; set it to on");
        }
        warnings
    }
}

/// Refuses a database that this program cannot work on, with the reason. Returns what weakens its promises.
pub(super) async fn check(connector: &Connector, random: &dyn Random) -> Result<Vec<&'static str>, String> {
    let (listener, mut heard) = connector.connect().await.map_err(|error| error.to_string())?;
    let (client, connection) = connector.connect().await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let session = read(&client).await.map_err(|error| describe(&error))?;
    if let Some(reason) = session.refusal() {
        return Err(reason);
    }
    check_listening(&listener, &mut heard, &client, random).await?;
    Ok(session.warnings())
}

/// Reads what the server says of this session.
pub(super) async fn read(client: &Client) -> Result<Session, tokio_postgres::Error> {
    let sql =
        "SELECT current_setting('server_encoding'), current_setting('synchronous_commit'), current_setting('fsync')";
    let row = client.query_one(sql, &[]).await?;
    Ok(Session { encoding: row.try_get(0)?, synchronous_commit: row.try_get(1)?, fsync: row.try_get(2)? })
}

/// Proves that a session stays one: what one connection asks to hear arrives there. Behind a pooler in transaction mode
/// the notification goes to a connection of the pooler's, whose client has changed or is none.
async fn check_listening(
    listener: &Client,
    heard: &mut Connection,
    other: &Client,
    random: &dyn Random,
) -> Result<(), String> {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    let payload = hex::encode(bytes);
    let hear = async {
        loop {
            match poll_fn(|context| heard.poll_message(context)).await {
                // Other nodes may be starting too.
                Some(Ok(AsyncMessage::Notification(notification))) if notification.payload() == payload => {
                    return Ok(());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(describe(&error)),
                None => return Err("the connection was closed".to_owned()),
            }
        }
    };
    let ask = async {
        listener.batch_execute(&format!("LISTEN {PROBE}")).await?;
        other.batch_execute(&format!("SELECT pg_notify('{PROBE}', '{payload}')")).await?;
        tokio::time::sleep(NOTIFICATION_TIMEOUT).await;
        Ok(())
    };
    tokio::select! {
        heard = hear => heard,
        asked = ask => Err(match asked {
            Err::<(), tokio_postgres::Error>(error) => describe(&error),
            Ok(()) => format!(
                "LISTEN does not work on it: a notification did not arrive within {} s. A pooler in transaction or \
                 statement mode does this: use one in session mode (PgBouncer: pool_mode = session), or none",
                NOTIFICATION_TIMEOUT.as_secs()
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::Session;

    fn session(encoding: &str, synchronous_commit: &str) -> Session {
        Session { encoding: encoding.into(), synchronous_commit: synchronous_commit.into(), fsync: "on".into() }
    }

    #[test]
    fn an_encoding_that_is_not_utf8_is_refused_by_name() {
        assert_eq!(session("UTF8", "on").refusal(), None);
        for encoding in ["LATIN1", "SQL_ASCII", "EUC_JP"] {
            let reason = session(encoding, "on").refusal().expect("refused");
            assert!(reason.contains(encoding) && reason.contains("CREATE DATABASE"), "{reason}");
        }
    }

    #[test]
    fn what_weakens_a_202_is_a_warning() {
        assert!(session("UTF8", "on").warnings().is_empty());
        assert!(session("UTF8", "remote_apply").warnings().is_empty());
        assert!(session("UTF8", "off").warnings()[0].starts_with("synchronous_commit is off"));
    }
}
