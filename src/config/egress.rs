//! The settings of where requests go, and of networks in general.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::reader::{Reader, list};
use super::table::MAX_DNS_SERVERS;
use crate::domain::egress_rules::{EgressRules, Nat64Prefix};
use crate::domain::network_rules::{NetworkRules, canonical};
use crate::domain::source_addresses::SourceAddresses;

/// The port of a name server that is given without one (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

impl Reader {
    pub(super) fn dns_servers(&mut self) -> Vec<SocketAddr> {
        let parse = |text: &str| {
            let address = text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, DNS_PORT)));
            address.filter(|address: &SocketAddr| address.port() != 0)
        };
        self.take("egress.dns_servers", |text| {
            list(text).map(parse).collect::<Option<Vec<_>>>().filter(|servers| servers.len() <= MAX_DNS_SERVERS)
        })
    }

    pub(super) fn networks(&mut self, name: &str) -> Vec<IpNet> {
        let parse = |part: &str| part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)).ok().map(canonical);
        self.take(name, |text| list(text).map(parse).collect())
    }

    pub(super) fn source_addresses(&mut self) -> SourceAddresses {
        self.take("egress.source_address", |text| {
            SourceAddresses::new(list(text).map(|part| part.parse().ok()).collect::<Option<Vec<IpAddr>>>()?)
        })
    }

    /// Addresses and networks as they are told to customers: a network with bits beyond its length is a mistake.
    pub(super) fn public_addresses(&mut self) -> Vec<String> {
        let told = |part: &str| match part.parse::<IpAddr>() {
            Ok(address) => Some(address.to_string()),
            Err(_) => {
                let network: IpNet = part.parse().ok()?;
                (network == network.trunc()).then(|| network.to_string())
            }
        };
        self.take("egress.public_addresses", |text| list(text).map(told).collect())
    }

    pub(super) fn egress_rules(&mut self) -> EgressRules {
        EgressRules {
            networks: NetworkRules {
                allow: self.networks("egress.allow_networks"),
                deny: self.networks("egress.deny_networks"),
            },
            allow_ports: self.take("egress.allow_ports", |text| {
                list(text).map(|part| part.parse().ok().filter(|port| *port > 0)).collect()
            }),
            nat64_prefixes: self.take("egress.nat64_prefixes", |text| list(text).map(Nat64Prefix::parse).collect()),
        }
    }
}
