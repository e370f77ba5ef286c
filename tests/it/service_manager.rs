//! What a service manager such as systemd is told: that the server answers, and that it stops.

use std::os::unix::net::UnixDatagram;

use crate::app::{Call, PATIENCE};
use crate::crash::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_is_told_when_the_server_answers_and_when_it_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let told = || {
        let mut message = [0; 256];
        let length = socket.recv(&mut message).expect("a message");
        String::from_utf8_lossy(&message[..length]).into_owned()
    };
    let server = Server::start(folder.path(), &[("NOTIFY_SOCKET", path.to_str().expect("text"))]);
    assert_eq!(told(), "READY=1\n");
    Call::new(server.address, "GET", "/readyz").send().await.expect(200);
    server.signal("TERM");
    assert_eq!(told(), "STOPPING=1\n");
    assert_eq!(server.wait().code(), Some(0));
}
