//! Asks the name servers for the addresses of a name.
//!
//! The servers are those of the settings, else those of `resolv.conf(5)`. Names are absolute: search domains and
//! `nsswitch.conf(5)` are ignored (docs/decisions/0005-dns.md). `lookups` decides who may ask. [`ask_each`] asks each
//! server by itself, for `aldaba doctor`.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use resolv_conf::ScopedIp;
use tokio::time::Instant;

use super::fault::exhausted;
use super::guard::LookupError;
use super::lookups::{Addresses, NameSource, QueryFuture};
use crate::lock::Mutex;

/// Addresses of one name that are used. Further ones are dropped before the guard checks the others, so that nothing
/// unchecked is connected to.
const MAX_ADDRESSES: usize = 32;

/// How long a server has for its answer. A lost packet is sent again within this time.
const QUERY_TIMEOUT: Duration = Duration::from_secs(3);

/// How long [`ask_each`] waits for a server: for a first packet and one that is sent again, and for less time than a
/// check may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(4);

/// Rounds of questions after a first one without an answer. They go to the servers that answered others.
const MORE_ROUNDS: usize = 1;

/// Questions that wait at once on one connection to a server, which is used for answers too long for a packet.
const MAX_ON_CONNECTION: usize = 256;

/// How often it is looked whether the system's files have changed.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The port of the system's servers (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";

/// The name servers, and the names of the hosts file.
pub struct NameServers {
    /// Those of the settings; none are those of the system.
    configured: Vec<SocketAddr>,
    current: Mutex<Current>,
}

struct Current {
    resolver: Option<TokioResolver>,
    hosts: Arc<Hosts>,
    modified: Modified,
    checked_at: Instant,
}

/// When the files that say who is asked were last changed.
type Modified = [Option<SystemTime>; 2];

fn modified() -> Modified {
    [RESOLV_CONF, HOSTS].map(|path| std::fs::metadata(Path::new(path)).and_then(|file| file.modified()).ok())
}

impl NameServers {
    /// Asks these servers; without any, those of the system.
    pub fn new(configured: Vec<SocketAddr>) -> Self {
        let (modified, checked_at) = (modified(), Instant::now());
        let (resolver, hosts) = (build(&servers(&configured)), hosts());
        Self { configured, current: Mutex::new(Current { resolver, hosts, modified, checked_at }) }
    }

    /// The servers and hosts of now, read again after the files of the system changed.
    fn current(&self) -> (Option<TokioResolver>, Arc<Hosts>) {
        let mut current = self.current.lock();
        if current.checked_at.elapsed() >= FILE_CHECK_INTERVAL {
            current.checked_at = Instant::now();
            let modified = modified();
            if modified != current.modified {
                current.modified = modified;
                current.hosts = hosts();
                // The connections of the settings' servers stay.
                if self.configured.is_empty() {
                    current.resolver = build(&servers(&[]));
                }
            }
        }
        (current.resolver.clone(), current.hosts.clone())
    }

    async fn addresses(&self, name: &str) -> Result<Addresses, LookupError> {
        // A receiver's name is absolute, with or without the dot at its end.
        let mut absolute = Name::from_ascii(name).map_err(|_| LookupError::Unresolved)?;
        absolute.set_fqdn(true);
        let (resolver, hosts) = self.current();
        let listed = listed(&hosts, &absolute);
        if !listed.is_empty() {
            return Ok(Addresses { addresses: listed, ttl: Duration::ZERO });
        }
        let resolver = resolver.ok_or(LookupError::Unresolved)?;
        match resolver.lookup_ip(absolute).await {
            Ok(found) => {
                // The names on the way to the addresses count too. What came without a record is not cached.
                let ttl = found.as_lookup().answers().iter().map(|record| record.ttl).min().unwrap_or(0);
                let addresses = found.iter().take(MAX_ADDRESSES).collect();
                Ok(Addresses { addresses, ttl: Duration::from_secs(ttl.into()) })
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
                // RFC 2308: without a record that says for how long, nothing is cached.
                let ttl = Duration::from_secs(none.negative_ttl.unwrap_or(0).into());
                Ok(Addresses { addresses: vec![], ttl })
            }
            Err(NetError::Io(error)) => Err(exhausted(&error).map_or(LookupError::Unresolved, LookupError::Local)),
            Err(_) => Err(LookupError::Unresolved),
        }
    }
}

impl NameSource for NameServers {
    fn look_up<'a>(&'a self, name: &'a str) -> QueryFuture<'a> {
        Box::pin(self.addresses(name))
    }
}

/// What one name server said.
#[derive(Debug)]
pub struct ServerAnswer {
    /// The server.
    pub server: SocketAddr,
    /// How many records it has; 0 where it says that there are none. Or why there is no answer.
    pub answer: Result<usize, String>,
    /// How long it took.
    pub took: Duration,
}

/// Asks every server that attempts may ask, all at the same time and each by itself: for the addresses of a name, or
/// for the servers of the root, which every resolver knows.
pub async fn ask_each(configured: &[SocketAddr], name: Option<&str>) -> Vec<ServerAnswer> {
    let ask_one = |server| tokio::spawn(ask(server, name.map(str::to_owned)));
    let asking: Vec<_> = servers(configured).into_iter().map(ask_one).collect();
    let mut answers = Vec::new();
    for answer in asking {
        answers.extend(answer.await);
    }
    answers
}

async fn ask(server: SocketAddr, name: Option<String>) -> ServerAnswer {
    let began = Instant::now();
    let late = |_| Err(format!("no answer within {} s", ASK_TIMEOUT.as_secs()));
    let answer = tokio::time::timeout(ASK_TIMEOUT, count_records(server, name)).await.unwrap_or_else(late);
    ServerAnswer { server, answer, took: began.elapsed() }
}

async fn count_records(server: SocketAddr, name: Option<String>) -> Result<usize, String> {
    let resolver = build(&[server]).ok_or("it cannot be asked")?;
    let records = match name {
        Some(name) => {
            let mut absolute = Name::from_ascii(name).map_err(|error| error.to_string())?;
            absolute.set_fqdn(true);
            resolver.lookup_ip(absolute).await.map(|found| found.iter().count())
        }
        None => resolver.lookup(Name::root(), RecordType::NS).await.map(|found| found.answers().len()),
    };
    match records {
        Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Ok(0),
        records => records.map_err(|error| error.to_string()),
    }
}

/// The addresses that the hosts file has for a name: where it has some, no server is asked for others.
fn listed(hosts: &Hosts, name: &Name) -> Vec<IpAddr> {
    let families = [RecordType::A, RecordType::AAAA];
    let found = families.into_iter().filter_map(|family| hosts.lookup_static_host(&Query::query(name.clone(), family)));
    let addresses =
        found.flat_map(|lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect::<Vec<_>>());
    addresses.take(MAX_ADDRESSES).collect()
}

/// The hosts file. One that cannot be read lists nothing, as for the system's resolver.
fn hosts() -> Arc<Hosts> {
    Arc::new(Hosts::from_system().unwrap_or_default())
}

/// The servers to ask. A missing or empty file means a server on this machine, as `resolv.conf(5)` says.
fn servers(configured: &[SocketAddr]) -> Vec<SocketAddr> {
    if !configured.is_empty() {
        return configured.to_vec();
    }
    let text = std::fs::read(RESOLV_CONF).unwrap_or_default();
    // A line that cannot be read is passed over, as the system's resolver does.
    let (mut config, _) = resolv_conf::Config::parse_with_errors(&text);
    config.glibc_normalize();
    // An address with a zone (`fe80::1%eth0`) cannot be told to the resolver.
    let reachable = |address: &ScopedIp| !matches!(address, ScopedIp::V6(_, Some(_)));
    let servers = config.get_nameservers_or_local().into_iter().filter(reachable);
    servers.map(|address| SocketAddr::new(address.into(), DNS_PORT)).collect()
}

fn build(servers: &[SocketAddr]) -> Option<TokioResolver> {
    let servers = servers.iter().map(|address| {
        let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
            connection.port = address.port();
            connection
        });
        NameServerConfig::new(address.ip(), true, connections.into())
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options();
    builder
        .build()
        .inspect_err(|error| tracing::error!(%error, "the name servers cannot be asked: no name is resolved"))
        .ok()
}

fn options() -> ResolverOpts {
    let mut options = ResolverOpts::default();
    options.timeout = QUERY_TIMEOUT;
    options.attempts = MORE_ROUNDS;
    // One server at a time, the one that answers best: each question that hangs holds a socket.
    options.num_concurrent_reqs = 1;
    options.max_active_requests = MAX_ON_CONNECTION;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    // The cache of `lookups` needs no permit, and an entry of it is small whatever a server answers.
    options.cache_size = 0;
    // Read here, so that changes are seen.
    options.use_hosts_file = ResolveHosts::Never;
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_hosts_file_has_the_addresses_of_both_families_and_no_others() {
        let mut hosts = Hosts::default();
        hosts.read_hosts_conf("192.0.2.7 shop\n2001:db8::7 shop\n192.0.2.8 old.example\n".as_bytes()).expect("a file");
        let addresses = |name: &str| {
            let mut name = Name::from_ascii(name).expect("a name");
            name.set_fqdn(true);
            listed(&hosts, &name).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(addresses("shop"), ["192.0.2.7", "2001:db8::7"]);
        assert_eq!(addresses("OLD.example."), ["192.0.2.8"]);
        assert!(addresses("shop.example").is_empty());
    }

    #[tokio::test]
    async fn localhost_is_this_machine_whatever_the_name_servers_say() {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        let found = NameServers::new(vec![nobody]).addresses("localhost").await.expect("resolved");
        assert!(found.addresses.iter().all(IpAddr::is_loopback) && !found.addresses.is_empty(), "{found:?}");
    }
}
