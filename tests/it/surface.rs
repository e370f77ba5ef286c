//! What every answer tells browsers, and where the numbers for operators are.

use crate::app::{App, Call};

#[tokio::test]
async fn every_answer_says_that_its_type_is_not_to_be_guessed() {
    let app = App::start().await;
    for path in
        ["/v1/webhooks", "/v1/none", "/healthz", "/metrics", "/openapi.json", "/sign-in", "/", "/docs", "/egress"]
    {
        let answer = app.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("strict-transport-security"), "", "{path}: nobody said that there is TLS");
    }
    let unauthorized = Call::new(app.address, "GET", "/v1/webhooks").send().await.expect(401);
    assert_eq!(unauthorized.header("x-content-type-options"), "nosniff");
}

#[tokio::test]
async fn behind_https_browsers_are_told_to_stay_there() {
    let app = App::with(&[("PUBLIC_URL", "https://hooks.example.com")]).await;
    for path in ["/v1/webhooks", "/healthz", "/sign-in", "/docs"] {
        assert_eq!(app.get(path).await.header("strict-transport-security"), "max-age=31536000", "{path}");
    }
    let plain = App::with(&[("PUBLIC_URL", "http://hooks.example.com")]).await;
    assert_eq!(plain.get("/sign-in").await.header("strict-transport-security"), "");
}

#[tokio::test]
async fn metrics_with_a_listener_of_their_own_are_not_beside_the_api() {
    let app = App::with(&[("METRICS_LISTEN", "127.0.0.1:0")]).await;
    let metrics = app.metrics.expect("an address");
    let told = Call::new(metrics, "GET", "/metrics").send().await.expect(200);
    assert!(String::from_utf8_lossy(&told.text).contains("aldaba_http_requests_total"));
    Call::new(app.address, "GET", "/metrics").send().await.refused(404, "not_found", "");
    app.get("/healthz").await.expect(200);
    // And nothing else is beside the metrics.
    for path in ["/v1/webhooks", "/healthz", "/docs", "/"] {
        Call::new(metrics, "HEAD", path).bearer(&app.key).send().await.expect(404);
    }
    assert!(App::start().await.metrics.is_none());
}

#[tokio::test]
async fn a_page_of_the_reference_is_the_same_at_each_request_and_head_tells_its_length() {
    let app = App::start().await;
    let ask = |method: &str, path: &str| Call::new(app.address, method, path).send();
    for path in ["/docs", "/docs/search.json?lang=es", "/llms.txt", "/docs/guides/errors.md", "/assets/dashboard.css"] {
        let (first, second) = (ask("GET", path).await.expect(200), ask("GET", path).await.expect(200));
        assert!(!first.text.is_empty() && first.text == second.text, "{path}");
        let head = ask("HEAD", path).await.expect(200);
        assert_eq!(head.header("content-length"), first.text.len().to_string(), "{path}");
    }
    let shown = String::from_utf8(ask("GET", "/llms.txt").await.text.to_vec()).expect("text");
    assert!(shown.contains("](http://localhost/docs/") && !shown.contains("api.example.com"), "{shown}");
}
