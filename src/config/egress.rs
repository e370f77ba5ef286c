//! The settings of where requests go, and of networks in general.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::Reader;
use crate::domain::egress_rules::{EgressRules, Nat64Prefix};

/// Name servers in `egress.dns_servers`: a look-up that no server answers asks each of them.
const MAX_DNS_SERVERS: usize = 3;

/// The port of a name server that is given without one (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

impl Reader {
    pub(super) fn dns_servers(&mut self) -> Option<Vec<SocketAddr>> {
        let rule =
            format!("up to {MAX_DNS_SERVERS} addresses, with or without a port, such as 192.0.2.53,[2001:db8::53]:53");
        let parse = |text: &str| {
            let address = text.parse().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, DNS_PORT)));
            address.filter(|address: &SocketAddr| address.port() != 0)
        };
        self.take("egress.dns_servers", "", &rule, |text| {
            list(text).map(parse).collect::<Option<Vec<_>>>().filter(|servers| servers.len() <= MAX_DNS_SERVERS)
        })
    }

    pub(super) fn networks(&mut self, name: &str) -> Option<Vec<IpNet>> {
        let rule = "networks or addresses, separated by commas, such as 10.0.0.0/8";
        self.take(name, "", rule, |text| {
            list(text).map(|part| part.parse().or_else(|_| part.parse::<IpAddr>().map(IpNet::from)).ok()).collect()
        })
    }

    pub(super) fn egress_rules(&mut self) -> Option<EgressRules> {
        let deny_networks = self.networks("egress.deny_networks");
        let port_rule = "port numbers from 1 to 65535, separated by commas, such as 443,8443; empty allows all";
        let allow_ports = self.take("egress.allow_ports", "", port_rule, |text| {
            list(text).map(|part| part.parse().ok().filter(|port| *port > 0)).collect()
        });
        let prefix_rule =
            "IPv6 prefixes of 32, 40, 48, 56, 64 or 96 bits, separated by commas, such as 2001:db8:64::/96";
        let nat64_prefixes =
            self.take("egress.nat64_prefixes", "", prefix_rule, |text| list(text).map(Nat64Prefix::parse).collect());
        Some(EgressRules { deny_networks: deny_networks?, allow_ports: allow_ports?, nat64_prefixes: nat64_prefixes? })
    }
}

/// The parts of a list, which commas separate.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}
