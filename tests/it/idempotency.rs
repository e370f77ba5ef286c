//! `Idempotency-Key`: the same call twice has its effect once.

use aldaba::domain::permission::Permission;
use serde_json::{Value, json};

use crate::app::{Answer, App, Call, EVENT, Receiver, Reply, eventually};
use crate::command_line::printed;
use crate::crash::Server;
use crate::database;

async fn post(app: &App, key: &str, path: &str, body: &Value) -> Answer {
    app.call("POST", path).header("idempotency-key", key).json(body).send().await
}

#[tokio::test]
async fn the_same_key_and_body_get_the_first_answer_byte_for_byte() {
    let app = App::start().await;
    let body = json!({ "event": EVENT, "data": { "n": 1 } });
    let first = post(&app, "order-1", "/v1/events", &body).await.expect(202);
    assert_eq!(first.header("idempotent-replayed"), "");
    let again = post(&app, "order-1", "/v1/events", &body).await.expect(202);
    assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &first.text));
    assert_eq!(again.header("x-request-id"), first.header("x-request-id"));
    assert_eq!(app.get("/v1/events").await.json["meta"]["pagination"]["total"], 1);
    let other = json!({ "event": EVENT, "data": { "n": 2 } });
    post(&app, "order-1", "/v1/events", &other).await.refused(422, "idempotency_key_reused", "");
    post(&app, "order-2", "/v1/events", &body).await.expect(202);
    post(&app, "order-1", "/v1/events/batch", &json!({ "events": [body] })).await.expect(202);
    let (_, stranger) = app.stranger().await;
    let call = app.call("POST", "/v1/events").bearer(&stranger).header("idempotency-key", "order-1");
    assert_eq!(call.json(&body).send().await.expect(202).header("idempotent-replayed"), "");
}

#[tokio::test]
async fn a_replayed_answer_shows_no_secret() {
    let app = App::start().await;
    let body = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT] });
    let first = post(&app, "k", "/v1/webhooks", &body).await.expect(201);
    let secret = first.attribute("secret").as_str().expect("a secret").to_owned();
    let again = post(&app, "k", "/v1/webhooks", &body).await.expect(201);
    assert_eq!(again.attribute("secret_hint"), &json!(format!("...{}", &secret[60..])));
    assert!(again.attribute("secret").is_null() && !String::from_utf8_lossy(&again.text).contains(&secret));
    assert_eq!(app.get("/v1/webhooks").await.json["data"].as_array().map(Vec::len), Some(1));

    let path = format!("/v1/webhooks/{}/regenerate-secret", first.id());
    let rotate = || app.call("POST", &path).header("idempotency-key", "r").send();
    let rotated = rotate().await.expect(200);
    let secret = rotated.attribute("secret").as_str().expect("a secret").to_owned();
    let again = rotate().await.expect(200);
    assert_eq!(again.attribute("secret_hint"), &json!(format!("...{}", &secret[60..])));
    assert_eq!(again.json["meta"]["request_id"], rotated.json["meta"]["request_id"]);

    let path = format!("/v1/accounts/{}/api-keys", app.account);
    let body = json!({ "permissions": ["webhooks:read"] });
    let made = post(&app, "k", &path, &body).await.expect(201);
    let key = made.attribute("key").as_str().expect("a key").to_owned();
    let again = post(&app, "k", &path, &body).await.expect(201);
    assert_eq!(again.attribute("key_hint"), &json!(format!("mxcep_...{}", &key[66..])));
    assert!(again.attribute("key").is_null());
    if database::is_postgres() {
        for shown in [secret, key] {
            let sql =
                format!("SELECT count(*) FROM kept_answers WHERE position('{shown}' in encode(answer, 'escape')) > 0");
            assert_eq!(database::number(app.folder(), &sql).await, 0, "nothing is kept in the clear");
        }
        return;
    }
    let database = std::fs::read(app.folder().join("aldaba.db-wal")).expect("a log");
    for shown in [secret, key] {
        assert!(
            !database.windows(shown.len()).any(|window| window == shown.as_bytes()),
            "nothing on disk in the clear"
        );
    }
}

#[tokio::test]
async fn refusals_are_kept_too_and_a_wrong_key_is_refused() {
    let app = App::start().await;
    let body = json!({ "event": "no.such", "data": {} });
    let first = post(&app, "k", "/v1/events", &body).await.expect(422);
    let again = post(&app, "k", "/v1/events", &body).await.expect(422);
    assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &first.text));
    for key in ["", "with space", "ñ", &"x".repeat(256), "a.b"] {
        let sent = app.call("POST", "/v1/events").header("idempotency-key", key).json(&body).send().await;
        sent.refused(400, "invalid_idempotency_key", "");
    }
    post(&app, &"x".repeat(255), "/v1/events", &json!({ "event": EVENT, "data": {} })).await.expect(202);
}

#[tokio::test]
async fn what_a_weak_key_may_not_do_is_not_kept_for_a_stronger_one() {
    let app = App::start().await;
    let path = format!("/v1/accounts/{}/api-keys", app.account);
    let body = json!({ "permissions": ["*"] });
    let weak = app.key_for(&[Permission::ApiKeysWrite]).await;
    let planted = app.call("POST", &path).bearer(&weak).header("idempotency-key", "k").json(&body).send().await;
    planted.refused(403, "forbidden", "");
    let made = post(&app, "k", &path, &body).await.expect(201);
    assert_eq!(made.header("idempotent-replayed"), "");
    assert_eq!(post(&app, "k", &path, &body).await.expect(201).header("idempotent-replayed"), "true");
}

#[tokio::test]
async fn a_replay_costs_nothing_of_the_limit_and_a_429_is_not_kept() {
    let app = App::with(&[("RATE_LIMITS__EVENTS_CREATE", "2/1s")]).await;
    let body = json!({ "event": EVENT, "data": {} });
    let first = post(&app, "k", "/v1/events", &body).await.expect(202);
    for _ in 0..10 {
        let again = post(&app, "k", "/v1/events", &body).await.expect(202);
        assert_eq!(again.text, first.text);
    }
    let mut refused = false;
    for n in 0..20 {
        let answer = post(&app, &format!("other-{n}"), "/v1/events", &body).await;
        if answer.status == 429 {
            refused = true;
            crate::app::eventually("the next window", || async {
                (post(&app, &format!("other-{n}"), "/v1/events", &body).await.status == 202).then_some(())
            })
            .await;
            break;
        }
    }
    assert!(refused);
}

#[tokio::test]
async fn a_429_for_what_an_account_has_stored_is_not_kept_either() {
    let app = App::with(&[("RATE_LIMITS__EVENTS_STORAGE", "2/1s")]).await;
    let body = json!({ "event": EVENT, "data": {} });
    for n in 0..100 {
        let key = format!("k{n}");
        if post(&app, &key, "/v1/events", &body).await.status == 429 {
            eventually("the next window", || async {
                (post(&app, &key, "/v1/events", &body).await.status == 202).then_some(())
            })
            .await;
            return;
        }
    }
    panic!("each event takes all that a window has");
}

/// All faults of a batch are in its answer, which is kept a day: calls of 4 KB each took 250 KB of the disk.
#[tokio::test]
async fn large_refusals_that_are_kept_count_as_what_an_account_stores() {
    let app = App::with(&[("RATE_LIMITS__EVENTS_STORAGE", "100/1d")]).await;
    let path = "/v1/events/batch";
    let batch = json!({ "events": vec![json!({}); 1_000] });
    let first = post(&app, "first", path, &batch).await.expect(422);
    assert_eq!(first.codes().len(), 2_000, "all faults are told");
    assert!(first.text.len() > 100 << 10, "more than the account may store");
    let again = post(&app, "first", path, &batch).await.expect(422);
    assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &first.text));
    for _ in 0..2 {
        let refused = post(&app, "second", path, &batch).await.refused(429, "rate_limit_exceeded", "");
        assert_eq!((refused.header("idempotent-replayed"), refused.header("x-ratelimit-limit")), ("", "100"));
    }
    assert_eq!(database::number(app.folder(), "SELECT count(*) FROM kept_answers").await, 1);
    // Without a key nothing is kept, and small refusals are as bounded as the calls.
    app.post(path, batch.clone()).await.expect(422);
    post(&app, "small", "/v1/events", &json!({ "event": "no.such", "data": {} })).await.expect(422);
    let (_, stranger) = app.stranger().await;
    let call = app.call("POST", path).bearer(&stranger).header("idempotency-key", "first");
    call.json(&batch).send().await.expect(422);
}

#[tokio::test]
async fn while_the_first_is_in_flight_the_second_is_told_so() {
    let app = App::with(&[("WEBHOOKS__TIMEOUT", "2s")]).await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Hang]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    let path = format!("/v1/webhooks/{id}/test");
    let send = || app.call("POST", &path).header("idempotency-key", "t").send();
    let (first, second) = tokio::join!(send(), async {
        receiver.wait_for(1).await;
        send().await
    });
    let second = second.refused(409, "idempotency_key_in_progress", "");
    assert!((1..=5).contains(&second.header("retry-after").parse::<u32>().expect("seconds")));
    let first = first.expect(200);
    assert_eq!(first.attribute("delivered"), false);
    let replayed = send().await.expect(200);
    assert_eq!((replayed.header("idempotent-replayed"), &replayed.text), ("true", &first.text));
    assert_eq!(receiver.received().len(), 1, "sent once");
}

#[tokio::test]
async fn permission_is_checked_before_a_replay() {
    let app = App::start().await;
    let body = json!({ "url": "http://127.0.0.1:9/", "events": [EVENT] });
    post(&app, "k", "/v1/webhooks", &body).await.expect(201);
    let reader = app.key_for(&[Permission::WebhooksRead]).await;
    let call = app.call("POST", "/v1/webhooks").bearer(&reader).header("idempotency-key", "k").json(&body);
    call.send().await.refused(403, "forbidden", "");
}

#[tokio::test]
async fn a_stored_reply_survives_a_restart() {
    let app = App::start().await;
    let body = json!({ "event": EVENT, "data": {} });
    let first = post(&app, "k", "/v1/events", &body).await.expect(202);
    let app = app.restart(&[]).await;
    let again = post(&app, "k", "/v1/events", &body).await.expect(202);
    assert_eq!((again.header("idempotent-replayed"), &again.text), ("true", &first.text));
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test's client")]
async fn a_client_that_goes_away_and_comes_back_has_its_effect_once() {
    use tokio::io::AsyncWriteExt as _;
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Late(std::time::Duration::from_secs(1))]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    let path = format!("/v1/webhooks/{id}/test");
    let mut stream = tokio::net::TcpStream::connect(app.address).await.expect("connected");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\nidempotency-key: gone\r\ncontent-length: \
         0\r\n\r\n",
        app.key
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    receiver.wait_for(1).await;
    drop(stream);
    let again = || app.call("POST", &path).header("idempotency-key", "gone").send();
    again().await.refused(409, "idempotency_key_in_progress", "");
    let answer = crate::app::eventually("the first answer", || async {
        let answer = again().await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer.header("idempotent-replayed"), "true");
    assert_eq!(receiver.received().len(), 1, "one effect");
    assert_eq!(answer.id(), receiver.received()[0].header("webhook-id"));
}

/// A mark runs out after 180 s: what is answered within [`PATIENCE`](crate::app::PATIENCE) was not left to that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_node_was_killed_is_free_as_soon_as_the_node_is_found_dead() {
    if !database::is_postgres() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "killed"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let receiver = Receiver::start().await;
    receiver.script([Reply::Hang]);
    let (victim, survivor) = (Server::start(folder.path(), &[]), Server::start(folder.path(), &[]));
    let body = json!({ "url": receiver.url(), "events": [EVENT] });
    let made = Call::new(survivor.address, "POST", "/v1/webhooks").bearer(&key).json(&body).send().await.expect(201);
    let path = format!("/v1/webhooks/{}/test", made.id());
    let call = |address| Call::new(address, "POST", &path).bearer(&key).header("idempotency-key", "k");
    let lost = tokio::spawn(call(victim.address).try_send());
    receiver.wait_for(1).await;
    call(survivor.address).send().await.refused(409, "idempotency_key_in_progress", "");
    victim.kill();
    assert!(lost.await.expect("no panic").is_none(), "the first call died with its node");
    let answer = eventually("the key to be free", || async {
        let answer = call(survivor.address).send().await;
        (answer.status != 409).then_some(answer)
    })
    .await;
    assert_eq!(answer.expect(200).attribute("delivered"), true);
}

#[tokio::test]
async fn a_key_is_free_again_after_the_database_was_away_while_its_call_ended() {
    if !database::is_postgres() {
        return;
    }
    let app = App::start().await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Late(std::time::Duration::from_secs(1))]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    let path = format!("/v1/webhooks/{id}/test");
    let call = || app.call("POST", &path).header("idempotency-key", "k").send();
    let (first, ()) = tokio::join!(call(), async {
        receiver.wait_for(1).await;
        database::destroy(app.folder()).await;
    });
    first.refused(503, "unavailable", "");
    database::restore(app.folder()).await;
    let answer = eventually("the key to be free", || async {
        let answer = call().await;
        (![409, 503].contains(&answer.status)).then_some(answer)
    })
    .await;
    assert_eq!(answer.expect(200).attribute("delivered"), true);
    eventually("no mark to be left", || async {
        (database::number(app.folder(), "SELECT count(*) FROM calls_in_flight").await == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_path_that_no_route_can_have_is_not_kept_with_a_key() {
    let app = App::start().await;
    // What PostgreSQL compresses is no test of its limit for an entry of an index.
    let id = |length| (0..length).filter_map(|n| char::from_digit(10 + n * n % 89 % 26, 36)).collect::<String>();
    for (length, is_kept) in [(900, true), (5_000, false), (60_000, false)] {
        let path = format!("/v1/webhooks/{}/test", id(length));
        let call = || app.call("POST", &path).header("idempotency-key", "long").send();
        call().await.refused(404, "not_found", "");
        let again = call().await.refused(404, "not_found", "");
        assert_eq!(again.header("idempotent-replayed") == "true", is_kept, "{length}");
    }
}
