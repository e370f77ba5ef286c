//! The SSRF guard: which addresses a receiver's host may lead to.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;

use super::fault::LocalFault;
use crate::domain::egress_rules::EgressRules;
use crate::domain::id::{AccountId, AccountKey};
use crate::domain::network_rules::NetworkRules;
use crate::domain::url::{Environment, Host, ReceiverUrl};

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
    /// The account has as many look-ups under way as its share allows.
    #[error("too many look-ups of this account are under way")]
    ShareUsedUp,
    /// The operator allows other ports only.
    #[error("this server sends nothing to port {port}")]
    Port {
        /// The port of the URL.
        port: u16,
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
    /// The owner has as many look-ups under way as its share allows.
    ShareUsedUp,
}

/// Whose share a look-up counts against.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LookupOwner {
    /// A client of this account wants a URL checked: refused where the share stays used up.
    Check(AccountId),
    /// An attempt for this account: it waits, and its clock stands.
    Attempt(AccountKey),
    /// No account: the server asks for its own proxy, whose look-ups are apart from those of receivers.
    Proxy,
}

/// Called when a look-up begins. Until then it waits for a permit, which is not the receiver's time.
pub type OnBegin<'a> = &'a (dyn Fn() + Send + Sync);

/// What a look-up comes to.
pub type Lookup<'a> = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, LookupError>> + Send + 'a>>;

/// Looks names up.
pub trait Resolver: Send + Sync + 'static {
    /// The addresses of a name that may be used, which need not be all of them; none mean that it cannot be resolved.
    /// Calls `on_begin` when the look-up begins, within a bounded time.
    fn resolve<'a>(&'a self, name: &'a str, owner: LookupOwner, on_begin: OnBegin<'a>) -> Lookup<'a>;
}

/// The server's rules, and what an operator has set for the account beside them.
pub(super) type Rules<'a> = (&'a EgressRules, Option<&'a NetworkRules>);

/// Resolves a URL's host and checks every address that the resolver brings. What is returned may be connected to, and
/// nothing else may.
pub(super) async fn addresses(
    url: &ReceiverUrl,
    environment: Environment,
    (rules, account): Rules<'_>,
    resolver: &dyn Resolver,
    (owner, on_begin): (LookupOwner, OnBegin<'_>),
) -> Result<Vec<SocketAddr>, GuardError> {
    let guarded = environment == Environment::Production;
    if !rules.allows_port(url.port) {
        return Err(GuardError::Port { port: url.port });
    }
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
            let found = resolver.resolve(name, owner, on_begin).await;
            // The receiver's clock runs from here on, whatever the resolver said.
            on_begin();
            match found {
                Ok(found) => found,
                Err(LookupError::Unresolved) => vec![],
                Err(LookupError::Local(fault)) => return Err(fault.into()),
                Err(LookupError::ShareUsedUp) => return Err(GuardError::ShareUsedUp),
            }
        }
    };
    if found.is_empty() {
        return Err(GuardError::Unresolved { host: url.host.to_string() });
    }
    // One blocked address is enough: a name that sometimes resolves to a private address is no receiver.
    if !found.iter().all(|address| rules.admits(*address, environment, account)) {
        return Err(blocked());
    }
    Ok(found.into_iter().map(|address| SocketAddr::new(address, url.port)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKER: LookupOwner = LookupOwner::Attempt(AccountKey(1));

    struct Fixed(Vec<IpAddr>);

    impl Resolver for Fixed {
        fn resolve<'a>(&'a self, _: &'a str, _: LookupOwner, on_begin: OnBegin<'a>) -> Lookup<'a> {
            on_begin();
            Box::pin(async move { Ok(self.0.clone()) })
        }
    }

    async fn check(url: &str, environment: Environment, resolves_to: &[&str]) -> Result<Vec<SocketAddr>, GuardError> {
        let url = ReceiverUrl::parse(url, environment).expect("a URL");
        let found = resolves_to.iter().map(|address| address.parse().expect("an address")).collect();
        addresses(&url, environment, (&EgressRules::default(), None), &Fixed(found), (ASKER, &|| {})).await
    }

    #[tokio::test]
    async fn a_name_that_leads_to_public_addresses_may_be_connected_to_at_exactly_those() {
        let found = check("https://shop.example:8443/", Environment::Production, &["1.1.1.1", "2606:4700::1"]).await;
        assert_eq!(found, Ok(vec!["1.1.1.1:8443".parse().unwrap(), "[2606:4700::1]:8443".parse().unwrap()]));
    }

    #[tokio::test]
    async fn one_private_address_among_public_ones_blocks_the_name() {
        for private in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00::1"] {
            let found = check("https://shop.example/", Environment::Production, &["1.1.1.1", private]).await;
            assert_eq!(found, Err(GuardError::Blocked { host: "shop.example".into() }), "{private}");
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
        let rules = EgressRules::default();
        let found = addresses(&url, Environment::Production, (&rules, None), &resolver, (ASKER, &|| {})).await;
        assert_eq!(found, Err(GuardError::NotHttps { host: "shop.example".into() }));
    }

    #[tokio::test]
    async fn in_production_a_network_that_the_operator_allows_needs_https_all_the_same_and_localhost_stays_blocked() {
        let networks = NetworkRules { allow: vec!["127.0.0.0/8".parse().expect("a network")], deny: vec![] };
        let rules = EgressRules { networks, ..EgressRules::default() };
        let resolver = Fixed(vec!["127.0.0.1".parse().expect("an address")]);
        let found = async |url: &str| {
            let url = ReceiverUrl::parse(url, Environment::Development).expect("a URL");
            addresses(&url, Environment::Production, (&rules, None), &resolver, (ASKER, &|| {})).await
        };
        for url in ["https://shop.example/", "https://127.0.0.1/"] {
            assert_eq!(found(url).await, Ok(vec!["127.0.0.1:443".parse().unwrap()]), "{url}");
        }
        assert!(matches!(found("http://shop.example/").await, Err(GuardError::NotHttps { .. })));
        assert!(matches!(found("https://localhost/").await, Err(GuardError::Blocked { .. })));
        assert!(matches!(found("https://10.0.0.1/").await, Err(GuardError::Blocked { .. })));
    }

    #[tokio::test]
    async fn in_development_private_addresses_pass() {
        assert!(check("http://localhost:3000/", Environment::Development, &["127.0.0.1"]).await.is_ok());
        assert!(check("http://127.0.0.1:3000/", Environment::Development, &[]).await.is_ok());
    }
}
