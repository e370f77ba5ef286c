//! What a node knows of the database's history, and what it reads anew when that may be another one. Only PostgreSQL
//! has more than one node.

use aldaba::domain::id::{AccountId, ApiKeyId};
use aldaba::domain::permission::Permission;
use aldaba::store::{Housekeeping, Snapshot};

use crate::app::{App, Call, Receiver, eventually};
use crate::database;

const LISTENER: &str = "SELECT coalesce(max(pid), 0)::bigint FROM pg_stat_activity \
                        WHERE datname = current_database() \
                        AND query IN ('LISTEN aldaba', 'SHOW transaction_read_only')";

/// Ends the connection on which the node hears of changes, and waits until it has another.
async fn cut_listener(app: &App) {
    let listener = || async { Some(database::number(app.folder(), LISTENER).await).filter(|pid| *pid > 0) };
    let before = eventually("the node to listen", listener).await;
    let cut = format!("SELECT pg_terminate_backend({before})::int::bigint");
    assert_eq!(database::number(app.folder(), &cut).await, 1);
    eventually("the node to listen again", || async { listener().await.filter(|pid| *pid != before) }).await;
}

/// Makes a key and deletes it behind the node's back: whoever reads everything anew finds it gone, and nobody else
/// does.
async fn forgotten_key(app: &App) -> String {
    let key = app.key_for(&[Permission::WebhooksRead]).await;
    assert_eq!(status(app, &key).await, 200);
    let last =
        "DELETE FROM api_keys WHERE id = (SELECT id FROM changes WHERE kind = 2 ORDER BY generation DESC LIMIT 1)";
    let deleted = database::connect(&database::url(app.folder())).await.execute(last, &[]).await.expect("deleted");
    assert_eq!(deleted, 1);
    key
}

async fn status(app: &App, key: &str) -> u16 {
    Call::new(app.address, "GET", "/v1/webhooks").bearer(key).send().await.status
}

#[tokio::test]
async fn a_lost_listener_has_nothing_read_anew_unless_the_history_is_another() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let key = forgotten_key(&app).await;
    for round in 0..3 {
        cut_listener(&app).await;
        assert_eq!(status(&app, &key).await, 200, "round {round}: the history is the same");
    }
    // A standby that did not have the last change, and has numbered another one like it.
    let client = database::connect(&database::url(app.folder())).await;
    client.batch_execute("UPDATE changes SET nonce = gen_random_uuid()").await.expect("another history");
    eventually("everything to be read", || async { (status(&app, &key).await == 401).then_some(()) }).await;
    // And one that had lost the last change, and has none since.
    let key = forgotten_key(&app).await;
    cut_listener(&app).await;
    assert_eq!(status(&app, &key).await, 200, "the node goes on from what it has read");
    let lost = "DELETE FROM changes WHERE generation = (SELECT value FROM settings WHERE name = 'generation'); \
                UPDATE settings SET value = value - 1 WHERE name = 'generation'";
    client.batch_execute(lost).await.expect("a shorter history");
    eventually("everything to be read", || async { (status(&app, &key).await == 401).then_some(()) }).await;
}

#[tokio::test]
async fn a_change_that_was_read_long_ago_still_proves_the_history() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let key = forgotten_key(&app).await;
    let client = database::connect(&database::url(app.folder())).await;
    client.batch_execute("UPDATE changes SET made_at = 0").await.expect("long ago");
    while app.store.purge_stored_replies().await.expect("tidied up") {}
    cut_listener(&app).await;
    assert_eq!(status(&app, &key).await, 200, "changes are forgotten, and the last ones are not");
}

#[tokio::test]
async fn everything_is_read_in_pieces_and_completely() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let many = "INSERT INTO accounts (id, name, created_at, updated_at) \
                SELECT gen_random_uuid(), 'many', 0, 0 FROM generate_series(1, 4500); \
                INSERT INTO api_keys (id, hash, permissions, hint, created_at) \
                SELECT gen_random_uuid(), sha256(n::text::bytea), '*', 'h', 0 FROM generate_series(1, 4500) AS n; \
                INSERT INTO endpoints (id, account, url, events, created_at, updated_at) \
                SELECT gen_random_uuid(), 0, 'https://many.example', 'a', 0, 0 FROM generate_series(1, 4500)";
    database::connect(&database::url(app.folder())).await.batch_execute(many).await.expect("rows");
    let receiver = Receiver::start().await;
    // It is read with the last piece.
    app.endpoint(&receiver.url()).await;
    let next = app.another(&[]).await;
    next.publish(serde_json::json!({})).await;
    receiver.wait_for(1).await;
    let client = database::connect(&database::url(app.folder())).await;
    for row in client.query("SELECT id FROM accounts", &[]).await.expect("accounts") {
        assert!(next.store.view().has_account(AccountId(row.get(0))));
    }
    for row in client.query("SELECT id, hash FROM api_keys", &[]).await.expect("keys") {
        let hash: Vec<u8> = row.get(1);
        let hash = aldaba::domain::account::KeyHash::from_bytes(hash.try_into().expect("32 bytes"));
        assert_eq!(next.store.view().api_key(&hash).map(|key| key.id), Some(ApiKeyId(row.get(0))));
    }
}
