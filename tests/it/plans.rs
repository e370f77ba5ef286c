//! What statements of the hot path read on PostgreSQL, whatever their plans were made for: rows that they name, and no others.

use serde_json::json;

use crate::app::{App, EVENT, Receiver, eventually};
use crate::cluster::{arrivals, delivered_once};
use crate::database;

#[tokio::test]
async fn what_has_piled_up_since_a_plan_was_made_is_still_found_by_its_keys() {
    if !database::is_postgres() {
        return;
    }
    let api = App::with(&[("ROLES", "api")]).await;
    let _sender = api.another(&[("ROLES", "delivery")]).await;
    let receiver = Receiver::start().await;
    api.endpoint(&receiver.url()).await;
    // As many claims as it takes until the plan for a small table is kept, which nobody has analysed since.
    for sent in 1..=30 {
        api.publish(json!({})).await;
        receiver.wait_for(sent).await;
    }
    let events = vec![json!({ "event": EVENT, "data": {} }); 1_000];
    for _ in 0..3 {
        api.post("/v1/events/batch", json!({ "events": events })).await.expect(202);
    }
    eventually("all of them", || async { (arrivals(&receiver).len() == 3_030).then_some(()) }).await;
    let sql =
        "SELECT sum(idx_tup_fetch + seq_tup_read)::bigint FROM pg_stat_user_tables WHERE relname LIKE 'payloads%'";
    // The database counts a little later.
    let read = eventually("the count of rows", || async {
        let read = database::number(api.folder(), sql).await;
        (read >= 3_030).then_some(read)
    })
    .await;
    assert!(read < 10 * 3_030, "each body is read once, and not the table for each: {read} rows");
}

/// A queue that was nearly empty when it was last analysed is still asked by its keys for what it holds now.
#[tokio::test]
async fn an_outcome_is_written_without_reading_all_that_is_under_way() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    delivered_once(&app, &endpoint, &receiver).await;
    let others = "INSERT INTO queue (account, delivery, endpoint, event, size, lease) \
                  SELECT 0, n, 0, n, 0, (SELECT max(key) FROM nodes) FROM generate_series(1, 20000) AS n ON CONFLICT DO NOTHING";
    let gone = "DELETE FROM queue WHERE delivery < 20000";
    for sql in ["ALTER TABLE queue SET (autovacuum_enabled = off)", others, gone, "VACUUM ANALYZE queue", others] {
        database::execute(app.folder(), sql).await;
    }
    for sent in 2..=240 {
        app.publish(json!({})).await;
        receiver.wait_for(sent).await;
    }
    let sql = "SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes WHERE relname = 'queue' \
               AND (SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'queue') >= 20239";
    // The database counts a little later.
    let read = eventually("the count of rows", || async {
        let read = database::number(app.folder(), sql).await;
        (read > 0).then_some(read)
    })
    .await;
    assert!(read < 15 * 20_000, "the node itself looks now and then, and no outcome does: {read} rows");
}

/// What others have missed is nothing to a replay's outcomes.
#[tokio::test]
async fn an_outcome_of_a_replay_reads_nothing_of_what_others_have_missed() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (endpoint, _) = app.endpoint(&receiver.url()).await;
    let path = format!("/v1/webhooks/{endpoint}");
    app.put(&path, json!({ "status": "disabled" })).await.expect(200);
    for n in 0..20 {
        app.publish(json!({ "n": n })).await;
    }
    app.put(&path, json!({ "status": "active" })).await.expect(200);
    let others = "INSERT INTO missed (account, endpoint, type, event) SELECT 0, n % 50, 'a.b', n FROM generate_series(1, 20000) AS n; \
                  ANALYZE missed";
    database::execute(app.folder(), others).await;
    let replay = app.replay(&endpoint, json!({ "from": "2020-01-01T00:00:00Z", "status": "missed" })).await;
    receiver.wait_for(20).await;
    app.replayed(&replay).await;
    let left = "SELECT count(*) FROM missed WHERE account > 0";
    eventually("all to be missed no more", || async {
        (database::number(app.folder(), left).await == 0).then_some(())
    })
    .await;
    let sql = "SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes WHERE relname = 'missed' \
               AND (SELECT n_tup_del FROM pg_stat_user_tables WHERE relname = 'missed') >= 20";
    // The database counts a little later.
    let read = eventually("the count of rows", || async {
        let read = database::number(app.folder(), sql).await;
        (read > 0).then_some(read)
    })
    .await;
    assert!(read < 2_000, "{read} rows");
}
