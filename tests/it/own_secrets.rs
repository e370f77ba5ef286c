//! Secrets that their owners bring: a receiver that moves here keeps the one that it has.

use aldaba::domain::permission::Permission;
use serde_json::{Value, json};

use crate::app::{Answer, App, EVENT, Received, Receiver};
use crate::command_line::printed;
use crate::database;
use crate::endpoint_settings::owners_browser;
use crate::migrations::minimum;
use crate::verify::{assert_signed, plain_verifies, standard_verifies, timestamped_verifies};

/// In the form of other senders, of 24 bytes; bare base64; and neither.
const PREFIXED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const BARE: &str = "C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const TEXT: &str = "correct-horse:battery~staple!";

const POINTER: &str = "/data/attributes/secret";

fn endpoint(url: &str, secret: &Value) -> Value {
    json!({ "url": url, "events": [EVENT], "secret": secret })
}

/// Registers an endpoint with this secret, which the answer shows, and returns its path.
async fn with(app: &App, url: &str, secret: &str) -> String {
    let made = app.post("/v1/webhooks", endpoint(url, &json!(secret))).await.expect(201);
    assert_eq!(made.attribute("secret"), secret);
    assert!(made.attribute("secret_hint").is_null());
    format!("/v1/webhooks/{}", made.id())
}

async fn rotate(app: &App, path: &str, body: Value) -> Answer {
    app.post(&format!("{path}/regenerate-secret"), body).await
}

/// Whether the Standard Webhooks header is signed with the characters of this secret as its key.
fn standard_verifies_as_text(request: &Received, secret: &str) -> bool {
    let webhook = standardwebhooks::Webhook::from_bytes(secret.into()).expect("a key");
    webhook.verify(&request.body, &request.headers).is_ok()
}

#[tokio::test]
async fn each_kind_of_own_secret_signs_in_all_three_ways() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    for (number, secret) in [PREFIXED, BARE].into_iter().enumerate() {
        let path = with(&app, &receiver.url(), secret).await;
        app.publish(json!({})).await;
        let request = receiver.wait_for(number + 1).await.remove(number);
        assert_signed(&request, secret);
        assert!(!standard_verifies_as_text(&request, secret), "its key is decoded");
        app.delete(&path).await.expect(204);
    }
    // The key is the same with the prefix and without it; the other two signatures take the text as it is.
    let path = with(&app, &receiver.url(), PREFIXED).await;
    app.publish(json!({})).await;
    let request = receiver.wait_for(3).await.remove(2);
    let bare = PREFIXED.trim_start_matches("whsec_");
    assert!(standard_verifies(&request, bare));
    assert!(!plain_verifies(&request, bare) && !timestamped_verifies(&request, bare));
    // On a rotation it is the same, and the one before goes on beside it.
    let rotated = rotate(&app, &path, json!({ "secret": TEXT, "overlap_seconds": 600 })).await.expect(200);
    assert_eq!((rotated.attribute("secret"), rotated.attribute("secret_hint")), (&json!(TEXT), &Value::Null));
    app.publish(json!({})).await;
    let request = receiver.wait_for(4).await.remove(3);
    assert!(plain_verifies(&request, TEXT) && timestamped_verifies(&request, TEXT));
    assert!(standard_verifies_as_text(&request, TEXT));
    assert!(timestamped_verifies(&request, PREFIXED) && standard_verifies(&request, PREFIXED), "until its time");
    rotate(&app, &path, json!({ "secret": BARE })).await.expect(200);
    app.publish(json!({})).await;
    let request = receiver.wait_for(5).await.remove(4);
    assert_signed(&request, BARE);
    assert!(!standard_verifies_as_text(&request, TEXT) && !standard_verifies(&request, PREFIXED));
}

#[tokio::test]
async fn an_own_secret_is_shown_once_and_is_in_no_list_and_no_log() {
    let app = App::start().await;
    let path = with(&app, "http://127.0.0.1:9/", PREFIXED).await;
    rotate(&app, &path, json!({ "secret": TEXT })).await.expect(200);
    for read in [&*path, "/v1/webhooks", "/v1/audit-log"] {
        let answer = app.get(read).await.expect(200);
        let text = String::from_utf8_lossy(&answer.text);
        assert!(!text.contains(PREFIXED) && !text.contains(TEXT), "{text}");
    }
    let read = app.get(&path).await.expect(200);
    assert_eq!((read.attribute("secret_hint"), read.attribute("secret")), (&json!("...ple!"), &Value::Null));
    let changed = app.put(&path, json!({ "description": "a" })).await.expect(200);
    assert_eq!(changed.attribute("secret_hint"), "...ple!");
}

#[tokio::test]
async fn the_secret_that_the_endpoint_has_is_refused_and_every_other_taken() {
    let app = App::start().await;
    let path = with(&app, "http://127.0.0.1:9/", PREFIXED).await;
    let other = with(&app, "http://127.0.0.1:9/", PREFIXED).await;
    for overlap in [0, 60] {
        let same = json!({ "secret": PREFIXED, "overlap_seconds": overlap });
        rotate(&app, &path, same).await.refused(422, "webhook_secret_invalid", POINTER);
    }
    let entries = app.get("/v1/audit-log?action=webhook.secret_regenerated").await.expect(200);
    assert_eq!(entries.json["data"], json!([]), "nothing was written");
    rotate(&app, &path, json!({ "secret": BARE, "overlap_seconds": 60 })).await.expect(200);
    rotate(&app, &path, json!({ "secret": BARE })).await.refused(422, "webhook_secret_invalid", POINTER);
    // One that was before, also where it still signs, is another.
    rotate(&app, &path, json!({ "secret": PREFIXED, "overlap_seconds": 60 })).await.expect(200);
    let generated = rotate(&app, &other, json!({ "secret": null })).await.expect(200);
    let generated = generated.attribute("secret").as_str().expect("a secret").to_owned();
    assert!(generated.len() == 64 && generated.bytes().all(|b| b.is_ascii_hexdigit()), "one is generated");
    rotate(&app, &other, json!({ "secret": generated })).await.refused(422, "webhook_secret_invalid", POINTER);
    rotate(&app, &other, json!({})).await.expect(200);
}

#[tokio::test]
async fn what_is_no_secret_is_refused_in_both_languages_and_changes_nothing() {
    let app = App::start().await;
    let (id, secret) = app.endpoint("http://127.0.0.1:9/").await;
    let path = format!("/v1/webhooks/{id}");
    let wrong = [
        json!(7),
        json!(true),
        json!([TEXT]),
        json!({ "secret": TEXT }),
        json!(""),
        json!("a".repeat(23)),
        json!("a".repeat(129)),
        json!("with a space in between them"),
        json!("señal-con-una-letra-de-fuera"),
        json!("with-a-nul-somewhere-in-it\u{0}"),
        json!("with-a-line-break-at-its-end\r\n"),
        json!("whsec_"),
        json!("whsec_no-base64-but-long-enough"),
        json!(format!("whsec_{}", "A".repeat(31))),
        json!(format!("whsec_{}=", "A".repeat(31))),
        json!(format!("whsec_{}=", "A".repeat(87))),
        json!(format!("whsec_{}", "A".repeat(34))),
    ];
    for value in &wrong {
        let refused = app.post("/v1/webhooks", endpoint("http://127.0.0.1:9/", value)).await;
        refused.refused(422, "webhook_secret_invalid", POINTER);
        rotate(&app, &path, json!({ "secret": value })).await.refused(422, "webhook_secret_invalid", POINTER);
    }
    for (language, words) in [("en", "24 to 128 visible ASCII"), ("es", "24 a 128 caracteres ASCII visibles")] {
        let call = app.call("POST", "/v1/webhooks").header("accept-language", language);
        let refused = call.json(&endpoint("http://127.0.0.1:9/", &wrong[5])).send().await.expect(422);
        let detail = refused.json["errors"][0]["detail"].as_str().expect("a detail");
        assert!(detail.contains(words) && !detail.contains("aaa"), "{detail}");
    }
    let both = rotate(&app, &path, json!({ "overlap_seconds": -1, "secret": 7 })).await.expect(422);
    assert_eq!(both.codes(), ["webhook_overlap_invalid", "webhook_secret_invalid"]);
    let listed = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(listed.json["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed.json["data"][0]["attributes"]["secret_hint"], format!("...{}", &secret[60..]));
    assert_eq!(minimum(app.folder()).await, 0);
}

#[tokio::test]
async fn a_change_knows_no_secret() {
    let app = App::start().await;
    let (id, secret) = app.endpoint("http://127.0.0.1:9/").await;
    let path = format!("/v1/webhooks/{id}");
    app.put(&path, json!({ "secret": TEXT })).await.refused(422, "no_valid_fields", "");
    for value in [json!(TEXT), json!("short")] {
        let changed = app.put(&path, json!({ "secret": value, "description": "a" })).await.expect(200);
        assert_eq!(changed.attribute("secret_hint"), &json!(format!("...{}", &secret[60..])));
    }
}

#[tokio::test]
async fn only_who_may_create_or_change_endpoints_brings_a_secret() {
    let app = App::start().await;
    let (id, _) = app.endpoint("http://127.0.0.1:9/").await;
    let reader = app.key_for(&[Permission::WebhooksRead]).await;
    let rotation = format!("/v1/webhooks/{id}/regenerate-secret");
    for path in ["/v1/webhooks", rotation.as_str()] {
        let body = endpoint("http://127.0.0.1:9/", &json!(TEXT));
        app.call("POST", path).bearer(&reader).json(&body).send().await.refused(403, "forbidden", "");
    }
    let (_, stranger) = app.stranger().await;
    let others = app.call("POST", &rotation).bearer(&stranger).json(&json!({ "secret": TEXT })).send().await;
    others.refused(404, "not_found", "");
}

#[tokio::test]
async fn a_repeated_call_shows_no_secret_and_nothing_of_it_is_kept() {
    let app = App::start().await;
    let body = endpoint("http://127.0.0.1:9/", &json!(TEXT));
    let call = |path: &str, body: &Value| app.call("POST", path).header("idempotency-key", "k").json(body).send();
    let made = call("/v1/webhooks", &body).await.expect(201);
    assert_eq!(made.attribute("secret"), TEXT);
    let again = call("/v1/webhooks", &body).await.expect(201);
    assert_eq!((again.header("idempotent-replayed"), again.attribute("secret_hint")), ("true", &json!("...ple!")));
    assert!(!String::from_utf8_lossy(&again.text).contains(TEXT));
    let other = endpoint("http://127.0.0.1:9/", &json!(BARE));
    call("/v1/webhooks", &other).await.refused(422, "idempotency_key_reused", "");
    let rotation = format!("/v1/webhooks/{}/regenerate-secret", made.id());
    let next = json!({ "secret": PREFIXED });
    call(&rotation, &next).await.expect(200);
    let again = call(&rotation, &next).await.expect(200);
    assert_eq!((again.header("idempotent-replayed"), again.attribute("secret_hint")), ("true", &json!("...LaSw")));
    // Who reads the database finds neither a secret nor what a guess could be compared with.
    for (secret, body) in [(TEXT, &body), (PREFIXED, &next)] {
        let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, body.to_string().as_bytes()));
        let [in_answer, as_hash] = if database::is_postgres() {
            [
                format!("position('{secret}' in encode(answer, 'escape')) > 0"),
                format!("encode(body_hash, 'hex') = '{hash}'"),
            ]
        } else {
            [format!("instr(CAST(answer AS TEXT), '{secret}') > 0"), format!("lower(hex(body_hash)) = '{hash}'")]
        };
        let sql = format!("SELECT count(*) FROM kept_answers WHERE {in_answer} OR {as_hash}");
        assert_eq!(database::number(app.folder(), &sql).await, 0);
    }
    assert_eq!(database::number(app.folder(), "SELECT count(*) FROM kept_answers").await, 2);
}

#[tokio::test]
async fn the_first_secret_that_older_programs_cannot_open_raises_the_minimum_version() {
    let app = App::start().await;
    let generated = "0123456789abcdef".repeat(4);
    let path = with(&app, "http://127.0.0.1:9/", &generated).await;
    rotate(&app, &path, json!({ "secret": generated.replace('0', "f") })).await.expect(200);
    assert_eq!(minimum(app.folder()).await, 0, "it looks like those that are generated");
    rotate(&app, &path, json!({ "secret": TEXT })).await.expect(200);
    assert_eq!(minimum(app.folder()).await, 18);

    let app = App::start().await;
    with(&app, "http://127.0.0.1:9/", PREFIXED).await;
    assert_eq!(minimum(app.folder()).await, 18);
}

#[tokio::test]
async fn own_secrets_survive_a_restart_and_a_new_master_key() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    with(&app, &receiver.url(), PREFIXED).await;
    let app = app.restart(&[]).await;
    app.publish(json!({})).await;
    assert_signed(&receiver.wait_for(1).await[0], PREFIXED);
    if database::is_postgres() {
        // There the key is given by the settings of every node.
        return;
    }
    assert_eq!(printed(app.folder(), &["secrets", "rekey"]), "1 secrets are sealed with the current master key");
    let app = app.restart(&[]).await;
    app.publish(json!({})).await;
    assert_signed(&receiver.wait_for(2).await[1], PREFIXED);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_own_secret_is_given_in_the_dashboard_and_not_shown_in_a_form() {
    let app = App::start().await;
    let mut browser = owners_browser(&app).await;
    let new = format!("/accounts/{}/endpoints/new", app.account);
    let page = browser.open(&new).await.expect(200);
    let field = "type=\"password\" autocomplete=\"new-password\"";
    assert!(page.html.contains(field), "no browser fills in the password of a sign-in: {}", page.content());
    let form = |secret| [("url", "http://127.0.0.1:9/"), ("events", EVENT), ("secret", secret)];
    let refused = browser.submit(&page, &new, &form("too-short-a-secret")).await.expect(422);
    assert!(refused.html.contains("f-secret-error") && !refused.html.contains("too-short"), "{}", refused.content());
    let made = browser.submit(&page, &new, &form(PREFIXED)).await.expect(200);
    assert!(made.html.contains(PREFIXED), "{}", made.content());
    let again = browser.submit(&page, &new, &form(PREFIXED)).await.expect(200);
    assert!(!again.html.contains(PREFIXED), "shown once");
    let listed = app.get("/v1/webhooks").await.expect(200);
    assert_eq!(listed.json["data"].as_array().map(Vec::len), Some(1));
    assert_eq!(listed.json["data"][0]["attributes"]["secret_hint"], "...LaSw");
    let id = listed.json["data"][0]["id"].as_str().expect("an id");

    let rotation = format!("/accounts/{}/endpoints/{id}/rotate", app.account);
    let page = browser.open(&rotation).await.expect(200);
    let form = |secret| [("overlap_seconds", "0"), ("secret", secret)];
    let same = browser.submit(&page, &rotation, &form(PREFIXED)).await.expect(422);
    assert!(same.html.contains("f-secret-error") && !same.html.contains(PREFIXED), "{}", same.content());
    let rotated = browser.submit(&page, &rotation, &form(BARE)).await.expect(200);
    assert!(rotated.html.contains(BARE), "{}", rotated.content());
    let generated = browser.submit(&page, &rotation, &form("")).await.expect(200);
    assert!(!generated.html.contains(BARE), "an empty field asks for one that is generated");
    let read = app.get(&format!("/v1/webhooks/{id}")).await.expect(200);
    assert_ne!(read.attribute("secret_hint"), "...b7oD");
}
