//! An older program beside this one, or after it: `scripts/old-node` builds it.

use serde_json::json;

use crate::app::{Call, EVENT, Receiver, eventually};
use crate::command_line::printed;
use crate::crash::{Server, other};
use crate::database;
use crate::migrations::{endpoint_with, forget_minimum, newer_attributes};

/// What a person has who publishes to a server: its endpoint and a key.
struct Publisher {
    key: String,
    receiver: Receiver,
    sent: usize,
}

impl Publisher {
    /// Publishes to this server, and waits until each event has arrived.
    async fn publish(&mut self, server: &Server, count: usize) {
        for number in 0..count {
            let body = json!({ "event": EVENT, "data": { "n": number } });
            let key = format!("{}-{number}", self.sent);
            let call = Call::new(server.address, "POST", "/v1/events").bearer(&self.key);
            call.header("idempotency-key", &key).json(&body).send().await.expect(202);
        }
        self.sent += count;
        self.receiver.wait_for(self.sent).await;
        Call::new(server.address, "GET", "/readyz").send().await.expect(200);
        let listed =
            Call::new(server.address, "GET", "/v1/events?per_page=1").bearer(&self.key).send().await.expect(200);
        assert_eq!(listed.json["meta"]["pagination"]["total"], self.sent);
    }
}

fn older_program() -> String {
    std::env::var("OLD_ALDABA").expect("OLD_ALDABA is the older program: ./scripts/test long builds it")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn an_older_program_accepts_and_delivers_on_the_tables_of_this_one() {
    let old = older_program();
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "mixed"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let receiver = Receiver::start().await;
    let new = Server::start(folder.path(), &[]);
    let body = json!({ "url": receiver.url(), "events": [EVENT] });
    Call::new(new.address, "POST", "/v1/webhooks").bearer(&key).json(&body).send().await.expect(201);
    let mut publisher = Publisher { key, receiver, sent: 0 };
    publisher.publish(&new, 20).await;
    if database::is_postgres() {
        let old = Server::start_other(&old, folder.path());
        for _ in 0..5 {
            publisher.publish(&old, 20).await;
            publisher.publish(&new, 20).await;
        }
        assert_eq!(new.terminate().code(), Some(0));
        publisher.publish(&old, 20).await;
        assert_eq!(old.terminate().code(), Some(0));
    } else {
        assert_eq!(new.terminate().code(), Some(0));
        let old = Server::start_other(&old, folder.path());
        publisher.publish(&old, 20).await;
        assert_eq!(old.terminate().code(), Some(0));
    }
    let new = Server::start(folder.path(), &[]);
    publisher.publish(&new, 20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long"]
async fn an_older_program_stops_before_a_row_is_written_of_which_it_would_ignore_an_attribute() {
    let old = older_program();
    let folder = tempfile::tempdir().expect("a folder");
    let account = printed(folder.path(), &["accounts", "create", "mixed"]);
    let key = printed(folder.path(), &["keys", "create", "--account", &account]);
    let new = Server::start(folder.path(), &[]);
    let older = database::is_postgres().then(|| Server::start_other(&old, folder.path()));
    let call = |method: &str, path: &str| Call::new(new.address, method, path).bearer(&key);
    for (name, value, _) in newer_attributes() {
        let body = endpoint_with(name, &value);
        let register = || call("POST", "/v1/webhooks").json(&body).send();
        if let Some(older) = &older {
            // A program of before version 17 does not name its version.
            let nodes = "SELECT count(*) FROM nodes WHERE version = 0 AND seen_at > 0";
            let work = format!("the older program to be a node before {name}");
            eventually(&work, || async { (database::number(folder.path(), nodes).await > 0).then_some(()) }).await;
            let ready = || Call::new(older.address, "GET", "/readyz").send();
            register().await.refused(503, "unavailable", "");
            let stop = format!("the older program to stop over {name}");
            eventually(&stop, || async { (ready().await.status == 503).then_some(()) }).await;
        }
        let made = eventually("the row", || async { Some(register().await).filter(|made| made.status == 201) }).await;
        let refused = other(&old, folder.path(), &["accounts", "list"]).output().expect("it runs");
        let text = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && text.contains("run a newer aldaba"), "{name}: {text}");
        call("DELETE", &format!("/v1/webhooks/{}", made.id())).send().await.expect(204);
        forget_minimum(folder.path()).await;
    }
}
