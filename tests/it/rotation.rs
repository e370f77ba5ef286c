//! Rotation: the new secret is shown once, the old one stops working at once, under load too.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::json;

use crate::app::{App, Receiver, Reply, eventually};
use crate::verify::{assert_signed, plain_verifies, standard_verifies, timestamped_verifies};

#[tokio::test]
async fn a_rotated_secret_signs_the_next_attempt() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, old) = app.endpoint(&receiver.url()).await;
    let rotated = app.call("POST", &format!("/v1/webhooks/{id}/regenerate-secret")).send().await.expect(200);
    assert_eq!(rotated.json["data"]["type"], "webhook_endpoint");
    let new = rotated.attribute("secret").as_str().expect("a secret").to_owned();
    assert!(rotated.attribute("secret_hint").is_null());
    assert_ne!(old, new);
    app.publish(json!({})).await;
    let request = &receiver.wait_for(1).await[0];
    assert_signed(request, &new);
    assert!(
        !plain_verifies(request, &old) && !timestamped_verifies(request, &old) && !standard_verifies(request, &old)
    );
    let read = app.get(&format!("/v1/webhooks/{id}")).await.expect(200);
    assert_eq!(read.attribute("secret_hint"), &json!(format!("...{}", &new[60..])));
}

#[tokio::test]
async fn a_retry_is_signed_with_the_secret_of_its_own_time() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1s")]).await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Status(500)]);
    let (id, old) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let first = receiver.wait_for(1).await.remove(0);
    assert_signed(&first, &old);
    let rotated = app.call("POST", &format!("/v1/webhooks/{id}/regenerate-secret")).send().await.expect(200);
    let second = receiver.wait_for(2).await.remove(1);
    assert_signed(&second, rotated.attribute("secret").as_str().expect("a secret"));
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"), "the same delivery");
    assert_eq!(first.body, second.body, "the same bytes");
}

#[tokio::test]
async fn with_an_overlap_both_secrets_verify_and_without_one_every_older_secret_dies() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, first) = app.endpoint(&receiver.url()).await;
    let path = format!("/v1/webhooks/{id}/regenerate-secret");
    let second = app.post(&path, json!({ "overlap_seconds": 600 })).await.expect(200);
    let second = second.attribute("secret").as_str().expect("a secret").to_owned();
    app.publish(json!({})).await;
    let during = receiver.wait_for(1).await.remove(0);
    assert_signed(&during, &second);
    assert!(timestamped_verifies(&during, &first) && standard_verifies(&during, &first));
    assert!(!plain_verifies(&during, &first), "a header with one signature carries the new one");
    let third = app.post(&path, json!({})).await.expect(200);
    let third = third.attribute("secret").as_str().expect("a secret").to_owned();
    app.publish(json!({})).await;
    let after = receiver.wait_for(2).await.remove(1);
    assert_signed(&after, &third);
    for dead in [&first, &second] {
        assert!(!timestamped_verifies(&after, dead) && !standard_verifies(&after, dead));
    }
    for wrong in [json!(-1), json!(604_801), json!("60"), json!(1.5), json!(true), json!(null)] {
        let refused = app.post(&path, json!({ "overlap_seconds": wrong })).await;
        refused.refused(422, "webhook_overlap_invalid", "/data/attributes/overlap_seconds");
    }
    app.post(&path, json!({ "overlap_seconds": 604_800 })).await.expect(200);
    app.post(&path, json!({ "overlap_seconds": 0 })).await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_no_attempt_that_begins_after_the_answer_carries_the_old_secret() {
    let app = Arc::new(App::start().await);
    let receiver = Receiver::start().await;
    let (id, first) = app.endpoint(&receiver.url()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut publishers = Vec::new();
    for _ in 0..4 {
        let (app, stop) = (app.clone(), stop.clone());
        publishers.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                app.publish(json!({ "load": true })).await;
            }
        }));
    }
    let mut secrets = vec![(first, None::<Instant>)];
    for round in 1..=20 {
        receiver.wait_for(round * 10).await;
        let rotated = app.call("POST", &format!("/v1/webhooks/{id}/regenerate-secret")).send().await.expect(200);
        let answered = Instant::now();
        if let Some(last) = secrets.last_mut() {
            last.1 = Some(answered);
        }
        secrets.push((rotated.attribute("secret").as_str().expect("a secret").to_owned(), None));
    }
    receiver.wait_for(receiver.received().len() + 20).await;
    stop.store(true, Ordering::Relaxed);
    for publisher in publishers {
        publisher.await.expect("publishing goes on");
    }
    // A request may be on its way while the secret changes: what an old secret signed must have been written before
    // the rotation was answered, and so arrives at most a scheduling delay later.
    let slack = std::time::Duration::from_millis(250);
    for request in receiver.received() {
        let signer = secrets.iter().find(|(secret, _)| plain_verifies(&request, secret));
        let (_, dead_since) = signer.expect("one of the secrets signed it");
        if let Some(dead_since) = dead_since {
            assert!(request.at <= *dead_since + slack, "{:?} after its death", request.at - *dead_since);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_rotations_at_once_both_succeed_and_the_last_to_commit_signs() {
    let app = Arc::new(App::start().await);
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    for round in 1..=10 {
        let rotations: Vec<_> = (0..4)
            .map(|_| {
                let (app, path) = (app.clone(), format!("/v1/webhooks/{id}/regenerate-secret"));
                tokio::spawn(async move { app.call("POST", &path).send().await.expect(200) })
            })
            .collect();
        let mut secrets = Vec::new();
        for rotation in rotations {
            secrets.push(rotation.await.expect("no panic").attribute("secret").as_str().expect("a secret").to_owned());
        }
        app.publish(json!({})).await;
        let request = receiver.wait_for(round).await.remove(round - 1);
        let hint = app.get(&format!("/v1/webhooks/{id}")).await;
        let hint = hint.attribute("secret_hint").as_str().expect("a hint").to_owned();
        let signers: Vec<_> = secrets.iter().filter(|secret| plain_verifies(&request, secret)).collect();
        assert_eq!(signers.len(), 1);
        assert_eq!(hint, format!("...{}", &signers[0][60..]), "the hint and the signature are the same secret's");
    }
}

#[tokio::test]
async fn a_connection_that_took_long_is_signed_with_the_secret_of_now() {
    // The receiver accepts late: the connection is made while the listener's queue holds it, and the request is only
    // written then. A hanging first delivery keeps the only slot busy until after the rotation.
    let app = App::with(&[("WEBHOOKS__MAX_IN_FLIGHT_PER_ENDPOINT", "1"), ("WEBHOOKS__TIMEOUT", "1s")]).await;
    let receiver = Receiver::start().await;
    receiver.script([Reply::Hang]);
    let (id, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({ "n": 1 })).await;
    receiver.wait_for(1).await;
    app.publish(json!({ "n": 2 })).await;
    let rotated = app.call("POST", &format!("/v1/webhooks/{id}/regenerate-secret")).send().await.expect(200);
    let new = rotated.attribute("secret").as_str().expect("a secret").to_owned();
    let second = eventually("the second delivery", || async {
        receiver
            .received()
            .into_iter()
            .find(|r| r.body.windows(7).any(|w| w == b"\"n\":2}}" || w.starts_with(b"\"n\":2")))
    })
    .await;
    assert_signed(&second, &new);
}
