//! Access tokens of OAuth 2 in attempts: when they are fetched, how long they are kept, and what follows where there is
//! none.

use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::app::{App, EVENT, Received, Receiver, Reply, eventually};

const SECRET: &str = "the-secret-of-the-client";

/// What a token server says.
fn token(token: &str, more: &str) -> Reply {
    let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer"{more}}}"#);
    Reply::Full(200, vec![("content-type", "application/json".into())], body)
}

fn oauth2(token_url: &str) -> Value {
    json!({ "type": "oauth2", "token_url": token_url, "client_id": "aldaba", "client_secret": SECRET })
}

/// An endpoint whose tokens come from there: its id.
async fn with(app: &App, url: &str, authentication: Value, more: Value) -> String {
    let mut body = json!({ "url": url, "events": [EVENT], "authentication": authentication });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    app.post("/v1/webhooks", body).await.expect(201).id()
}

/// What the requests authenticate with.
fn tokens(requests: &[Received]) -> Vec<&str> {
    requests.iter().map(|request| request.header("authorization")).collect()
}

/// What the endpoint's failed delivery says.
async fn error(app: &App, id: &str) -> String {
    let failed = app.delivery(id, "failed").await;
    assert_eq!(failed["attributes"]["response_status"], Value::Null, "the receiver was not asked");
    failed["attributes"]["error_message"].as_str().expect("an error").to_owned()
}

#[tokio::test]
async fn a_token_is_fetched_when_it_is_needed_and_used_until_it_expires() {
    let app = App::start().await;
    let (receiver, server) = (Receiver::start().await, Receiver::start().await);
    server.script([token("first", r#","expires_in":3600"#)]);
    let mut authentication = oauth2(&format!("{}?tenant=7", server.url()));
    (authentication["scope"], authentication["audience"]) = (json!("read write"), json!("https://shop.example"));
    let id = with(&app, &receiver.url(), authentication, json!({})).await;
    assert!(server.received().is_empty(), "nothing is fetched at registration");
    for count in 1..=3 {
        app.publish(json!({})).await;
        receiver.wait_for(count).await;
    }
    let tested = app.call("POST", &format!("/v1/webhooks/{id}/test")).send().await.expect(200);
    assert_eq!(tested.attribute("delivered"), true, "{}", tested.json);
    assert_eq!(tokens(&receiver.wait_for(4).await), ["Bearer first"; 4]);
    let asked = server.received();
    assert_eq!((asked.len(), asked[0].path.as_str()), (1, "/hook?tenant=7"));
    assert!(asked[0].head.starts_with("POST "));
    assert_eq!(asked[0].header("content-type"), "application/x-www-form-urlencoded");
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("aldaba:{SECRET}"));
    assert_eq!(asked[0].header("authorization"), format!("Basic {pair}"));
    let body = "grant_type=client_credentials&scope=read+write&audience=https%3A%2F%2Fshop.example";
    assert_eq!(String::from_utf8_lossy(&asked[0].body), body);
}

#[tokio::test]
async fn a_token_that_has_expired_is_fetched_anew_after_5_seconds_at_the_earliest() {
    let app = App::start().await;
    let (receiver, server) = (Receiver::start().await, Receiver::start().await);
    server.script([token("first", r#","expires_in":1"#), token("second", "")]);
    with(&app, &receiver.url(), oauth2(&server.url()), json!({})).await;
    let mut sent = 0;
    eventually("another token", || {
        sent += 1;
        let (app, receiver, server, sent) = (&app, &receiver, &server, sent);
        async move {
            app.publish(json!({})).await;
            receiver.wait_for(sent).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            (server.received().len() == 2).then_some(())
        }
    })
    .await;
    let requests = receiver.received();
    assert_eq!((tokens(&requests)[0], tokens(&requests)[requests.len() - 1]), ("Bearer first", "Bearer second"));
    let asked = server.received();
    assert!(asked[1].at - asked[0].at > Duration::from_secs(4), "it is kept for 5 s");
}

#[tokio::test]
async fn attempts_that_wait_for_a_token_share_one_fetch() {
    let app = App::start().await;
    let (receiver, server) = (Receiver::start().await, Receiver::start().await);
    let body = r#"{"access_token":"shared","token_type":"bearer"}"#.to_owned();
    server.script([Reply::LateFull(Duration::from_millis(700), body)]);
    let id = with(&app, &receiver.url(), oauth2(&server.url()), json!({})).await;
    let path = format!("/v1/webhooks/{id}/test");
    let test = || app.call("POST", &path).send();
    // Tests are attempts too, and they begin at once.
    let (first, second, third) = tokio::join!(test(), test(), test());
    for tested in [first, second, third] {
        assert_eq!(tested.expect(200).attribute("delivered"), true);
    }
    assert_eq!(tokens(&receiver.received()), ["Bearer shared"; 3]);
    assert_eq!(server.received().len(), 1);
}

#[tokio::test]
async fn after_a_401_the_next_attempt_gets_another_token_once_a_minute() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "1s,1s,1s")]).await;
    let (receiver, server) = (Receiver::start().await, Receiver::start().await);
    server.script([token("first", ""), token("second", ""), token("third", "")]);
    receiver.script([Reply::Status(401), Reply::Status(401), Reply::Status(401)]);
    let id = with(&app, &receiver.url(), oauth2(&server.url()), json!({})).await;
    app.publish(json!({})).await;
    let delivery = app.delivery(&id, "success").await;
    let requests = receiver.received();
    assert_eq!(tokens(&requests), ["Bearer first", "Bearer second", "Bearer second", "Bearer second"]);
    assert_eq!(server.received().len(), 2);
    let detail = format!("/v1/webhooks/deliveries/{}", delivery["id"].as_str().expect("an id"));
    let attempts = app.get(&detail).await.expect(200).attribute("attempts").clone();
    assert_eq!(attempts[0]["error_message"], "the receiver answered 401");
}

#[tokio::test]
async fn another_secret_gets_another_token() {
    let app = App::start().await;
    let (receiver, server) = (Receiver::start().await, Receiver::start().await);
    server.script([token("first", ""), token("second", "")]);
    let id = with(&app, &receiver.url(), oauth2(&server.url()), json!({})).await;
    let path = format!("/v1/webhooks/{id}");
    let test = async || app.call("POST", &format!("{path}/test")).send().await.expect(200);
    test().await;
    app.put(&path, json!({ "description": "a" })).await.expect(200);
    test().await;
    let mut other = oauth2(&server.url());
    other["client_secret"] = json!("another-secret");
    app.put(&path, json!({ "authentication": other })).await.expect(200);
    test().await;
    assert_eq!(tokens(&receiver.wait_for(3).await), ["Bearer first", "Bearer first", "Bearer second"]);
    let pair = base64::engine::general_purpose::STANDARD.encode("aldaba:another-secret");
    assert_eq!(server.received()[1].header("authorization"), format!("Basic {pair}"));
}

#[tokio::test]
async fn a_token_that_cannot_be_had_is_told_with_the_status_and_the_code_only() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "")]).await;
    let (receiver, server) = (Receiver::start().await, Receiver::start().await);
    let elsewhere = vec![("location", receiver.url())];
    let refusal = format!(r#"{{"error":"invalid_client","error_description":"{SECRET} is wrong"}}"#);
    for (reply, told) in [
        (Reply::Full(401, vec![], refusal), "the token server answered 401 (invalid_client)"),
        (Reply::Full(400, vec![], format!(r#"{{"error":"{SECRET}"}}"#)), "the token server answered 400"),
        (Reply::Full(302, elsewhere, String::new()), "the token server answered 302"),
        (Reply::Full(503, vec![], "later".into()), "the token server answered 503"),
        (Reply::Full(200, vec![], "hello".into()), "the token server answered 200 without a bearer token"),
        (Reply::Full(200, vec![], "x".repeat(70_000)), "the token server's answer is larger than 64 KiB"),
        (
            Reply::Full(200, vec![("x-long", "x".repeat(140_000))], String::new()),
            "the head of the token server's answer is too large",
        ),
        (Reply::Close, "the token server closed the connection before it answered"),
    ] {
        server.script([reply]);
        let id = with(&app, &receiver.url(), oauth2(&server.url()), json!({})).await;
        app.publish(json!({})).await;
        assert_eq!(error(&app, &id).await, format!("no access token: {told}"));
        app.delete(&format!("/v1/webhooks/{id}")).await.expect(204);
    }
    let id = with(&app, &receiver.url(), oauth2("http://127.0.0.1:9/token"), json!({})).await;
    app.publish(json!({})).await;
    let told = error(&app, &id).await;
    assert_eq!(told, "no access token: could not connect to 127.0.0.1:9: connection refused");
    let read = app.get(&format!("/v1/webhooks/{id}")).await.expect(200);
    assert_eq!(read.attribute("consecutive_failures"), 1, "it counts as a failure");
    assert!(receiver.received().is_empty(), "nothing is sent without a token, and no redirect is followed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_server_that_does_not_answer_holds_up_its_own_endpoint_only() {
    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "")]).await;
    let (receiver, server) = (Receiver::start().await, Receiver::start().await);
    server.always(Reply::Hang);
    let slow = with(&app, &receiver.url(), oauth2(&server.url()), json!({ "timeout_seconds": 2 })).await;
    let (other, _) = app.endpoint(&receiver.url()).await;
    app.publish(json!({})).await;
    let tested = app.call("POST", &format!("/v1/webhooks/{slow}/test")).send();
    app.delivery(&other, "success").await;
    assert_eq!(tokens(&receiver.received()), [""], "the other endpoint has its delivery first");
    let told = "no access token: the token server did not answer within 1s";
    assert_eq!(error(&app, &slow).await, told);
    assert_eq!(tested.await.expect(200).attribute("error"), told);
}

#[tokio::test]
async fn a_token_server_is_asked_at_an_address_that_the_guard_allows() {
    // Registered in development, and run in production.
    let app = App::start().await;
    let server = Receiver::start().await;
    let id = with(&app, "http://127.0.0.1:9/", oauth2(&server.url()), json!({})).await;
    let app = app.restart(&[("ENVIRONMENT", "production")]).await;
    let tested = app.call("POST", &format!("/v1/webhooks/{id}/test")).send().await.expect(200);
    let told = tested.attribute("error").as_str().expect("an error").to_owned();
    assert_eq!(told, "no access token: the URL of 127.0.0.1 does not use https, which production requires");
    assert!(server.received().is_empty());
}

/// A token server made with a library of others, for one client. It prints its port.
const AUTHLIB: &str = r#"
import os
os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"
from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import ClientMixin, grants
from flask import Flask
from werkzeug.serving import make_server

class Client(ClientMixin):
    def get_client_id(self):
        return "aldaba"
    def get_default_redirect_uri(self):
        return None
    def get_allowed_scope(self, scope):
        return " ".join(name for name in (scope or "").split() if name in ("read", "write"))
    def check_redirect_uri(self, redirect_uri):
        return False
    def check_client_secret(self, client_secret):
        return client_secret == "the-secret-of-the-client"
    def check_endpoint_auth_method(self, method, endpoint):
        return method == "client_secret_basic"
    def check_response_type(self, response_type):
        return False
    def check_grant_type(self, grant_type):
        return grant_type == "client_credentials"

class Grant(grants.ClientCredentialsGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic"]

app = Flask(__name__)
tokens = []
server = AuthorizationServer(
    app,
    query_client=lambda client_id: Client() if client_id == "aldaba" else None,
    save_token=lambda token, request: tokens.append(f"{token['access_token']} {token.get('scope')}"),
)
server.register_grant(Grant)
app.add_url_rule("/token", "token", server.create_token_response, methods=["POST"])
app.add_url_rule("/tokens", "tokens", lambda: tokens)
listening = make_server("127.0.0.1", 0, app, threaded=True)
print(listening.port, flush=True)
listening.serve_forever()
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_come_from_a_server_that_others_have_made() {
    let python = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin/python");
    assert!(python.exists(), "{} is missing; run ./scripts/test once, which installs it", python.display());
    let mut command = tokio::process::Command::new(python);
    command.args(["-c", AUTHLIB]).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut running = command.spawn().expect("it runs");
    let mut lines = BufReader::new(running.stdout.take().expect("its output")).lines();
    let port = lines.next_line().await.expect("readable").expect("a port");
    let address: std::net::SocketAddr = format!("127.0.0.1:{port}").parse().expect("an address");

    let app = App::with(&[("WEBHOOKS__RETRY_SCHEDULE", "")]).await;
    let receiver = Receiver::start().await;
    let mut authentication = oauth2(&format!("http://{address}/token"));
    authentication["scope"] = json!("read write");
    let id = with(&app, &receiver.url(), authentication.clone(), json!({})).await;
    for count in 1..=2 {
        app.publish(json!({})).await;
        receiver.wait_for(count).await;
    }
    let given = crate::app::Call::new(address, "GET", "/tokens").send().await.expect(200).json;
    let given = given.as_array().expect("a list").iter().map(|token| token.as_str().expect("a token"));
    let given: Vec<_> = given.collect();
    let [given] = given.as_slice() else { panic!("one token: {given:?}") };
    let (given, scope) = given.split_once(' ').expect("a token and its scope");
    assert_eq!((tokens(&receiver.received()), scope), (vec![&*format!("Bearer {given}"); 2], "read write"));

    authentication["client_secret"] = json!("a-wrong-secret");
    app.put(&format!("/v1/webhooks/{id}"), json!({ "authentication": authentication })).await.expect(200);
    app.publish(json!({})).await;
    assert_eq!(error(&app, &id).await, "no access token: the token server answered 401 (invalid_client)");
}
