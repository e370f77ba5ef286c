//! The SSRF guard: which addresses a receiver's host may lead to.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::fault::{LocalFault, exhausted};
use crate::domain::address::is_public;
use crate::domain::url::{Environment, Host, ReceiverUrl};

/// Addresses of one name that are looked at; a name with more is cut there.
const MAX_ADDRESSES: usize = 32;

/// Why a receiver is not connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuardError {
    /// The name leads nowhere.
    #[error("could not resolve host {host}")]
    Unresolved {
        /// The name.
        host: String,
    },
    /// Plain HTTP in production: registered in development, or written by hand.
    #[error("the URL of {host} does not use https, which production requires")]
    NotHttps {
        /// The name or the address.
        host: String,
    },
    /// The name, or an address that it leads to, is not public.
    #[error("{host} is or resolves to a private, local or reserved address, to which nothing is sent")]
    Blocked {
        /// The name or the address.
        host: String,
    },
    /// This machine could not look the name up.
    #[error(transparent)]
    Local(#[from] LocalFault),
}

/// Why a look-up brought no addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// The name leads nowhere, as far as the name servers say.
    Unresolved,
    /// The look-up could not be made.
    Local(LocalFault),
}

/// To be called when a look-up begins: until then it waits for this process, and the receiver's clock stands.
pub type Begun<'a> = &'a (dyn Fn() + Send + Sync);

/// What a look-up comes to.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, LookupError>> + Send + 'a>>;

/// Looks names up.
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of a name; none mean that it cannot be resolved. Calls `begun` when the look-up begins,
    /// within a bounded time.
    fn resolve<'a>(&'a self, name: &'a str, begun: Begun<'a>) -> Lookup<'a>;
}

/// Look-ups at once. One that hangs holds a thread for longer than anybody waits for it, and the pool of threads has
/// others to serve; with this many under way, a further one waits, and its attempt's clock stands.
const MAX_LOOKUPS: usize = 128;

/// A look-up that has not begun after this long is not made. Half of an attempt's usual time: meanwhile the attempt holds
/// a place in flight that another endpoint could use.
const MAX_LOOKUP_WAIT: Duration = Duration::from_secs(5);

/// File descriptors that a look-up may need at once: the system's configuration, and sockets for two name servers.
const LOOKUP_FILES: usize = 3;

/// The operating system's resolver.
#[derive(Clone, Debug)]
pub struct SystemResolver(Arc<Semaphore>);

impl Default for SystemResolver {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS)))
    }
}

impl SystemResolver {
    /// Waits for a permit and a thread, and begins the look-up.
    async fn begin(&self, name: String) -> Option<JoinHandle<std::io::Result<Vec<IpAddr>>>> {
        let permit = self.0.clone().acquire_owned().await.ok()?;
        let (begins, has_begun) = oneshot::channel();
        #[expect(clippy::disallowed_methods, reason = "the one place that resolves names of receivers")]
        let looking = tokio::task::spawn_blocking(move || {
            // Whoever asked may have gone.
            let _ = begins.send(());
            let found = std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), 0)).map_err(cause)?;
            // Held until the look-up is over, whoever still waits for it.
            drop(permit);
            Ok(found.map(|address| address.ip()).take(MAX_ADDRESSES).collect())
        });
        has_begun.await.ok()?;
        Some(looking)
    }
}

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str, begun: Begun<'a>) -> Lookup<'a> {
        Box::pin(async move {
            let not_made = LookupError::Local(LocalFault::LookupNotMade);
            let beginning = tokio::time::timeout(MAX_LOOKUP_WAIT, self.begin(name.to_owned()));
            let looking = beginning.await.ok().flatten().ok_or(not_made)?;
            begun();
            // A thread that panicked or was cancelled is no answer.
            let found = looking.await.map_err(|_| not_made)?;
            found.map_err(|error| exhausted(&error).map_or(LookupError::Unresolved, LookupError::Local))
        })
    }
}

/// Why a look-up failed. The system's resolver says of a missing descriptor only that the name cannot be resolved.
fn cause(error: std::io::Error) -> std::io::Error {
    let files: Result<Vec<_>, _> = (0..LOOKUP_FILES).map(|_| std::fs::File::open("/dev/null")).collect();
    match files {
        Err(missing) if exhausted(&missing).is_some() => missing,
        _ => error,
    }
}

/// Resolves a URL's host and checks every address. What is returned may be connected to, and nothing else may.
pub(super) async fn addresses(
    url: &ReceiverUrl,
    environment: Environment,
    resolver: &dyn Resolver,
    begun: Begun<'_>,
) -> Result<Vec<SocketAddr>, GuardError> {
    let guarded = environment == Environment::Production;
    let blocked = || GuardError::Blocked { host: url.host.to_string() };
    if guarded && !url.https {
        return Err(GuardError::NotHttps { host: url.host.to_string() });
    }
    if guarded && url.host.is_localhost() {
        return Err(blocked());
    }
    let found = match &url.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => {
            let found = resolver.resolve(name, begun).await;
            // The receiver's clock runs from here on, whatever the resolver said.
            begun();
            match found {
                Ok(found) => found,
                Err(LookupError::Unresolved) => vec![],
                Err(LookupError::Local(fault)) => return Err(fault.into()),
            }
        }
    };
    if found.is_empty() {
        return Err(GuardError::Unresolved { host: url.host.to_string() });
    }
    // One bad address is enough: a name that leads inside even sometimes is no receiver.
    if guarded && !found.iter().copied().all(is_public) {
        return Err(blocked());
    }
    Ok(found.into_iter().map(|address| SocketAddr::new(address, url.port)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<IpAddr>);

    impl Resolver for Fixed {
        fn resolve<'a>(&'a self, _: &'a str, begun: Begun<'a>) -> Lookup<'a> {
            begun();
            Box::pin(async move { Ok(self.0.clone()) })
        }
    }

    async fn check(url: &str, environment: Environment, resolves_to: &[&str]) -> Result<Vec<SocketAddr>, GuardError> {
        let url = ReceiverUrl::parse(url, environment).expect("a URL");
        let found = resolves_to.iter().map(|address| address.parse().expect("an address")).collect();
        addresses(&url, environment, &Fixed(found), &|| {}).await
    }

    #[tokio::test]
    async fn a_name_that_leads_to_public_addresses_may_be_connected_to_at_exactly_those() {
        let found = check("https://shop.example:8443/", Environment::Production, &["1.1.1.1", "2606:4700::1"]).await;
        assert_eq!(found, Ok(vec!["1.1.1.1:8443".parse().unwrap(), "[2606:4700::1]:8443".parse().unwrap()]));
    }

    #[tokio::test]
    async fn one_private_address_among_public_ones_blocks_the_name() {
        for inside in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00::1"] {
            let found = check("https://shop.example/", Environment::Production, &["1.1.1.1", inside]).await;
            assert_eq!(found, Err(GuardError::Blocked { host: "shop.example".into() }), "{inside}");
        }
    }

    #[tokio::test]
    async fn a_literal_address_and_localhost_are_checked_without_a_look_up() {
        for url in ["https://127.0.0.1/", "https://[::1]/", "https://localhost/", "https://a.localhost./"] {
            let found = check(url, Environment::Production, &["1.1.1.1"]).await;
            assert!(matches!(found, Err(GuardError::Blocked { .. })), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_without_addresses_cannot_be_resolved() {
        let found = check("https://shop.example/", Environment::Production, &[]).await;
        assert_eq!(found.unwrap_err().to_string(), "could not resolve host shop.example");
    }

    #[tokio::test]
    async fn in_production_plain_http_leads_nowhere() {
        let url = ReceiverUrl::parse("http://shop.example/", Environment::Development).expect("a URL");
        let resolver = Fixed(vec!["1.1.1.1".parse().expect("an address")]);
        let found = addresses(&url, Environment::Production, &resolver, &|| {}).await;
        assert_eq!(found, Err(GuardError::NotHttps { host: "shop.example".into() }));
    }

    #[tokio::test]
    async fn in_development_private_addresses_pass() {
        assert!(check("http://localhost:3000/", Environment::Development, &["127.0.0.1"]).await.is_ok());
        assert!(check("http://127.0.0.1:3000/", Environment::Development, &[]).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_up_that_gets_no_permit_is_a_fault_of_this_machine_and_ends_in_bounded_time() {
        let resolver = SystemResolver::default();
        let permits = u32::try_from(MAX_LOOKUPS).expect("few");
        let _all = resolver.0.clone().acquire_many_owned(permits).await.expect("open");
        let begin = tokio::time::Instant::now();
        let found = resolver.resolve("localhost", &|| panic!("it has not begun")).await;
        assert_eq!(found, Err(LookupError::Local(LocalFault::LookupNotMade)));
        assert!(begin.elapsed() < MAX_LOOKUP_WAIT + Duration::from_millis(50));
    }
}
