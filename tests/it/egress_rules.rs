//! Where requests go by the operator's own rules: networks, ports and translators, looked at on create and at each
//! attempt. And where they come from: the addresses that customers are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aldaba::domain::egress_rules::EgressRules;
use aldaba::domain::network_rules::NetworkRules;
use aldaba::domain::settings::EndpointSettings;
use aldaba::domain::url::{Environment, ReceiverUrl};
use aldaba::egress::{AttemptEnd, Egress, Routing, StoredTarget, TargetSource, resolver};
use aldaba::store::{Endpoints, Intake, Store, Target};
use serde_json::{Value, json};

use crate::app::{App, Call, EVENT, Receiver};
use crate::fixture::Fixture;

#[tokio::test]
async fn in_production_an_address_inside_another_decides() {
    let settings = [("ENVIRONMENT", "production"), ("EGRESS__NAT64_PREFIXES", "2a00:1:2:3::/96, 2a00:5::/32")];
    let app = App::with(&settings).await;
    let create = |url: String| app.post("/v1/webhooks", json!({ "url": url, "events": [EVENT] }));
    for inside in [
        // ISATAP in an ordinary network.
        "2001:4860::5efe:10.0.0.1",
        "2001:4860::200:5efe:127.0.0.1",
        // The operator's own translators.
        "2a00:1:2:3::10.0.0.1",
        "2a00:1:2:3::169.254.169.254",
        "2a00:5:a00:1::",
    ] {
        create(format!("https://[{inside}]/")).await.refused(400, "url_ssrf_blocked", "/data/attributes/url");
    }
    for public in ["2001:4860::5efe:8.8.8.8", "2a00:1:2:3::8.8.8.8", "2a00:5:808:808::", "2001:4860::a00:1"] {
        create(format!("https://[{public}]/")).await.expect(201);
    }
}

#[tokio::test]
async fn nothing_is_sent_to_a_network_that_the_operator_denies() {
    let denied = "1.2.3.0/24,2a00:9::/32,::ffff:1.2.5.0/120,::ffff:1.2.6.7";
    let app = App::with(&[("ENVIRONMENT", "production"), ("EGRESS__DENY_NETWORKS", denied)]).await;
    let create = |url: &str| app.post("/v1/webhooks", json!({ "url": url, "events": [EVENT] }));
    for denied in [
        "https://1.2.3.4/",
        "https://[2a00:9::1]/",
        "https://[2001:4860::5efe:1.2.3.4]/",
        "https://1.2.5.6/",
        "https://1.2.6.7/",
    ] {
        create(denied).await.refused(400, "url_ssrf_blocked", "/data/attributes/url");
    }
    create("https://1.2.4.4/").await.expect(201);
}

#[tokio::test]
async fn a_private_network_that_the_operator_allows_takes_receivers_in_production_but_over_https_only() {
    let settings = [
        ("ENVIRONMENT", "production"),
        ("EGRESS__ALLOW_NETWORKS", "10.1.0.0/16,fd00:7::1"),
        ("EGRESS__DENY_NETWORKS", "10.1.9.0/24"),
    ];
    let app = App::with(&settings).await;
    let create = |url: &str| app.post("/v1/webhooks", json!({ "url": url, "events": [EVENT] }));
    create("https://10.1.2.3/").await.expect(201);
    create("https://[fd00:7::1]/").await.expect(201);
    create("http://10.1.2.3/").await.refused(422, "webhook_url_not_https", "/data/attributes/url");
    for refused in ["https://10.2.0.1/", "https://10.1.9.1/", "https://[fd00:7::2]/", "https://localhost/"] {
        create(refused).await.refused(400, "url_ssrf_blocked", "/data/attributes/url");
    }
}

#[tokio::test]
async fn the_rules_of_an_account_hold_for_its_endpoints_and_token_servers_and_for_no_others() {
    let app = App::with(&[("ENVIRONMENT", "production"), ("EGRESS__DENY_NETWORKS", "10.1.9.0/24")]).await;
    let (_, stranger) = app.stranger().await;
    let create = |key: &str, url: &str| {
        let body = json!({ "url": url, "events": [EVENT] });
        app.call("POST", "/v1/webhooks").bearer(key).json(&body).send()
    };
    let rules = json!({ "egress_allow_networks": ["10.1.0.0/16"], "egress_deny_networks": ["1.2.3.0/24"] });
    let account = format!("/v1/accounts/{}", app.account);
    app.call("PUT", &account).bearer(&app.operator).json(&rules).send().await.expect(200);
    create(&app.key, "https://10.1.2.3/").await.expect(201);
    create(&stranger, "https://1.2.3.4/").await.expect(201);
    for (key, url) in [
        (&app.key, "https://1.2.3.4/"),
        (&app.key, "https://10.1.9.1/"),
        (&app.key, "https://10.2.0.1/"),
        (&stranger, "https://10.1.2.3/"),
    ] {
        create(key, url).await.refused(400, "url_ssrf_blocked", "/data/attributes/url");
    }
    let grant = |token_url: &str| {
        let oauth = json!({ "type": "oauth2", "token_url": token_url, "client_id": "a", "client_secret": "b" });
        let body = json!({ "url": "https://1.1.1.1/", "events": [EVENT], "authentication": oauth });
        app.call("POST", "/v1/webhooks").json(&body).bearer(&app.key).send()
    };
    grant("https://10.1.2.3/token").await.expect(201);
    let pointer = "/data/attributes/authentication/token_url";
    grant("https://1.2.3.4/token").await.refused(400, "url_ssrf_blocked", pointer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_denied_a_network_sends_nothing_more_there_not_even_over_a_connection_that_stands() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (_, stranger) = app.stranger().await;
    let (own, _) = app.endpoint(&receiver.url()).await;
    let body = json!({ "url": receiver.url(), "events": [EVENT] });
    let other = app.call("POST", "/v1/webhooks").bearer(&stranger).json(&body).send().await.expect(201).id();
    let test = |key: &str, id: &str| app.call("POST", &format!("/v1/webhooks/{id}/test")).bearer(key).send();
    for (key, id) in [(&app.key, &own), (&stranger, &other)] {
        assert_eq!(test(key, id).await.expect(200).attribute("delivered"), true);
    }
    assert_eq!(receiver.connections(), 1, "accounts without rules share a connection");
    let account = format!("/v1/accounts/{}", app.account);
    let deny = |networks: Value| {
        let body = json!({ "egress_deny_networks": networks });
        app.call("PUT", &account).bearer(&app.operator).json(&body).send()
    };
    deny(json!(["127.0.0.0/8"])).await.expect(200);
    let told = test(&app.key, &own).await.expect(200);
    assert_eq!(told.attribute("delivered"), false);
    assert!(told.attribute("error").as_str().expect("text").contains("to which nothing is sent"), "{}", told.json);
    assert_eq!(test(&stranger, &other).await.expect(200).attribute("delivered"), true);
    // The rules outlive the process.
    let app = app.restart(&[]).await;
    let test = |key: &str, id: &str| app.call("POST", &format!("/v1/webhooks/{id}/test")).bearer(key).send();
    assert_eq!(test(&app.key, &own).await.expect(200).attribute("delivered"), false);
    let body = json!({ "egress_deny_networks": null });
    app.call("PUT", &account).bearer(&app.operator).json(&body).send().await.expect(200);
    assert_eq!(test(&app.key, &own).await.expect(200).attribute("delivered"), true);
    assert_eq!(receiver.received().len(), 4);
}

#[tokio::test]
async fn rules_that_came_after_an_endpoint_hold_at_its_next_attempt_in_development_too() {
    let app = App::start().await;
    let receiver = Receiver::start().await;
    let (id, _) = app.endpoint(&receiver.url()).await;
    let test = format!("/v1/webhooks/{id}/test");
    let app = app.restart(&[("EGRESS__DENY_NETWORKS", "127.0.0.0/8")]).await;
    let told = app.call("POST", &test).send().await.expect(200);
    assert_eq!(told.attribute("delivered"), false);
    assert!(told.attribute("error").as_str().expect("text").contains("to which nothing is sent"), "{}", told.json);
    let app = app.restart(&[("EGRESS__ALLOW_PORTS", "443,8443")]).await;
    let told = app.call("POST", &test).send().await.expect(200);
    let expected = format!("this server sends nothing to port {}", receiver.address.port());
    assert_eq!(told.attribute("error"), &json!(expected));
    let refused = app.post("/v1/webhooks", json!({ "url": receiver.url(), "events": [EVENT] })).await;
    refused.refused(400, "url_port_blocked", "/data/attributes/url");
    assert_eq!(receiver.received().len(), 0);
    let app = app.restart(&[("EGRESS__ALLOW_PORTS", &receiver.address.port().to_string())]).await;
    let told = app.call("POST", &test).send().await.expect(200);
    assert_eq!(told.attribute("delivered"), true);
}

const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads an endpoint, and takes other rules over when it is read for the signature: the connection is made by then.
struct TakesRulesOver<'a> {
    row: StoredTarget<'a, Store>,
    egress: &'a Egress,
    rules: EgressRules,
    reads: AtomicU32,
}

impl TargetSource for TakesRulesOver<'_> {
    fn planned(&self) -> Option<Arc<Target>> {
        self.row.planned()
    }

    async fn current(&self) -> Option<Arc<Target>> {
        if self.reads.fetch_add(1, Ordering::SeqCst) == 1 {
            self.egress.reload(self.rules.clone(), TIMEOUT);
        }
        self.row.current().await
    }

    async fn keep_counted<T: Send>(&self, work: impl Future<Output = T> + Send) -> T {
        self.row.keep_counted(work).await
    }

    fn sending(&self) {}
}

#[tokio::test]
async fn rules_that_are_taken_over_after_a_connection_was_made_hold_for_its_first_request() {
    let mut f = Fixture::new().await;
    let receiver = Receiver::start().await;
    let url = ReceiverUrl::parse(&receiver.url(), Environment::Development).expect("a URL");
    let new = EndpointSettings::new(&url, vec![EVENT.into()]);
    f.store.create_endpoint(f.account, new.into(), None).await.expect("an endpoint");
    f.store.accept(vec![f.event(1)], None).await.expect("accepted");
    let job = f.jobs(1).await.remove(0).job;
    let routing = Routing::direct(Environment::Development);
    let egress = Egress::new(routing, "Aldaba", TIMEOUT, f.clock.clone(), resolver(Vec::new()), None);
    let networks = NetworkRules { allow: vec![], deny: vec!["127.0.0.0/8".parse().expect("a network")] };
    let row = StoredTarget { store: &f.store, job: &job, requires_active: true, start: None };
    let rules = EgressRules { networks, ..EgressRules::default() };
    let targets = TakesRulesOver { row, egress: &egress, rules, reads: AtomicU32::new(0) };
    let AttemptEnd::Outcome(outcome) = egress.attempt(&job, &targets).await else { panic!("it was made") };
    let error = outcome.error.expect("it failed");
    assert!(error.contains("to which nothing is sent"), "{error}");
    assert_eq!(receiver.received().len(), 0);
}

#[tokio::test]
async fn whoever_asks_without_a_key_is_told_the_addresses_that_the_operator_has_named() {
    let app = App::with(&[("EGRESS__PUBLIC_ADDRESSES", "192.0.2.7, 2001:db8:7::/64,198.51.100.0/28")]).await;
    let ask = |method: &str, accept: &str| Call::new(app.address, method, "/egress").header("accept", accept);
    let named = ["192.0.2.7", "2001:db8:7::/64", "198.51.100.0/28"];
    for accept in ["*/*", "application/json", "application/json, text/html;q=0.9"] {
        let told = ask("GET", accept).send().await.expect(200);
        assert_eq!((told.header("content-type"), &told.json["data"]["addresses"]), ("application/json", &json!(named)));
        assert!(told.json["data"]["detail"].as_str().expect("words").contains("your firewall"), "{}", told.json);
        assert_eq!(told.json["meta"]["request_id"], told.header("x-request-id"));
        assert_eq!(told.header("cache-control"), "public, max-age=300");
    }
    let told = ask("GET", "*/*").header("accept-language", "es").send().await.expect(200);
    assert!(told.json["data"]["detail"].as_str().expect("words").contains("tu cortafuegos"), "{}", told.json);
    let browser = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (language, title) in [("en", "Where requests come from"), ("es", "De dónde vienen las solicitudes")] {
        let page = ask("GET", browser).header("accept-language", language).send().await.expect(200);
        let text = String::from_utf8(page.text.to_vec()).expect("text");
        assert!(page.header("content-type").starts_with("text/html") && text.contains(title), "{text}");
        assert!(named.iter().all(|address| text.contains(&format!("<code>{address}</code>"))), "{text}");
        assert_eq!((page.header("cache-control"), page.header("set-cookie")), ("public, max-age=300", ""));
    }
    ask("HEAD", "*/*").send().await.expect(200);
    ask("POST", "*/*").send().await.refused(405, "method_not_allowed", "");
}

#[tokio::test]
async fn without_named_addresses_none_is_guessed() {
    let app = App::with(&[("EGRESS__SOURCE_ADDRESS", "127.0.0.2")]).await;
    let told = Call::new(app.address, "GET", "/egress").send().await.expect(200);
    assert_eq!(told.json["data"]["addresses"], json!([]));
    assert!(told.json["data"]["detail"].as_str().expect("words").contains("has not named"), "{}", told.json);
}
