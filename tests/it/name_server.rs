//! A name server of the tests' own: it answers for some names, denies others, and swallows the questions for the rest.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// The type of a record with an IPv4 address (RFC 1035, section 3.2.2).
const A: u16 = 1;

/// Answers questions on a port of its own. What a name begins with says what becomes of a question for it:
/// `silent`, nothing; `fading`, an address until [`NameServer::fade`], then nothing; `missing`, that there is no such
/// name, which may be kept for a minute; `inside`, a private address; `crowded`, 32 addresses of this machine from
/// 127.0.1.1 on, and then 127.0.0.1; every other name, 127.0.0.1.
pub struct NameServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    ttl: AtomicU32,
    faded: AtomicBool,
    /// Questions for addresses by their name, without those that were sent again.
    asked: Mutex<HashMap<String, HashSet<u16>>>,
}

impl NameServer {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let serving = tokio::spawn(serve(socket, shared.clone()));
        Self { address, shared, serving }
    }

    /// For how many seconds its addresses may be kept; 0 at first.
    pub fn set_ttl(&self, seconds: u32) {
        self.shared.ttl.store(seconds, Ordering::SeqCst);
    }

    /// Names that begin with `fading` are not answered any more.
    pub fn fade(&self) {
        self.shared.faded.store(true, Ordering::SeqCst);
    }

    /// How often it was asked for a name's IPv4 address.
    pub fn asked(&self, name: &str) -> usize {
        self.shared.asked.lock().expect("no panic").get(name).map_or(0, HashSet::len)
    }

    /// How many names it was asked for that begin so.
    pub fn names(&self, beginning: &str) -> usize {
        self.shared.asked.lock().expect("no panic").keys().filter(|name| name.starts_with(beginning)).count()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(socket: UdpSocket, shared: Arc<Shared>) {
    let mut buffer = [0; 1_500];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
        if let Some(answer) = answer(&buffer[..length], &shared) {
            let _ = socket.send_to(&answer, peer).await;
        }
    }
}

/// The addresses of a name.
fn addresses(name: &str) -> Vec<Ipv4Addr> {
    if name.starts_with("inside") {
        vec![Ipv4Addr::new(10, 0, 0, 1)]
    } else if name.starts_with("crowded") {
        (1..=32).map(|n| Ipv4Addr::new(127, 0, 1, n)).chain([Ipv4Addr::LOCALHOST]).collect()
    } else {
        vec![Ipv4Addr::LOCALHOST]
    }
}

/// The answer to a question (RFC 1035, section 4).
fn answer(question: &[u8], shared: &Shared) -> Option<Vec<u8>> {
    let id = u16::from_be_bytes([question[0], question[1]]);
    let (mut at, mut labels) = (12, Vec::new());
    while question[at] != 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
        at = end;
    }
    let (name, end) = (labels.join("."), at + 5);
    let asks_for = u16::from_be_bytes([question[at + 1], question[at + 2]]);
    if asks_for == A {
        shared.asked.lock().expect("no panic").entry(name.clone()).or_default().insert(id);
    }
    let faded = shared.faded.load(Ordering::SeqCst);
    if name.starts_with("silent") || name.starts_with("fading") && faded {
        return None;
    }
    let missing = name.starts_with("missing");
    let addresses = if missing || asks_for != A { vec![] } else { addresses(&name) };
    let count = u8::try_from(addresses.len()).expect("few addresses");
    let mut answer = Vec::from(id.to_be_bytes());
    answer.extend([0x81, if missing { 0x83 } else { 0x80 }]);
    answer.extend([0, 1, 0, count, 0, u8::from(count == 0), 0, 0]);
    answer.extend(&question[12..end]);
    for address in &addresses {
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(shared.ttl.load(Ordering::SeqCst).to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    if addresses.is_empty() {
        // The zone's SOA, whose last number says for how long the absence may be kept.
        answer.extend([0xc0, 12, 0, 6, 0, 1]);
        answer.extend(60_u32.to_be_bytes());
        answer.extend([0, 22, 0, 0]);
        answer.extend([1_u32, 3_600, 600, 86_400, 60].into_iter().flat_map(u32::to_be_bytes));
    }
    Some(answer)
}
