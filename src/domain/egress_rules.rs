//! What an operator adds to the rules of where requests go: networks and ports to which nothing is sent, and the
//! prefixes by which a NAT64 translator of their own network carries IPv4 addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};

use super::address::{embedded_ipv4, is_public};

/// The operator's rules; the default adds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressRules {
    /// `egress.deny_networks`: nothing is sent there.
    pub deny_networks: Vec<IpNet>,
    /// `egress.allow_ports`: something is sent to these ports only; empty allows all.
    pub allow_ports: Vec<u16>,
    /// `egress.nat64_prefixes`: addresses within them lead to the IPv4 address that they carry.
    pub nat64_prefixes: Vec<Nat64Prefix>,
}

impl EgressRules {
    /// Whether requests may go to this port.
    pub fn allows_port(&self, port: u16) -> bool {
        self.allow_ports.is_empty() || self.allow_ports.contains(&port)
    }

    /// Whether the operator has forbidden this address, or an IPv4 address that it carries.
    pub fn denies(&self, address: IpAddr) -> bool {
        let canonical = address.to_canonical();
        let is_denied = |address: IpAddr| self.deny_networks.iter().any(|network| network.contains(&address));
        is_denied(address) || is_denied(canonical) || self.carried(canonical).into_iter().any(|v4| is_denied(v4.into()))
    }

    /// Whether a receiver may live at `address`: it is public, and so is an IPv4 address that it carries.
    pub fn is_public(&self, address: IpAddr) -> bool {
        is_public(address) && self.carried(address).into_iter().all(|v4| is_public(v4.into()))
    }

    /// The IPv4 addresses to which a translator or a tunnel could deliver what is sent to `address`.
    fn carried(&self, address: IpAddr) -> Vec<Ipv4Addr> {
        let IpAddr::V6(v6) = address else { return Vec::new() };
        let translated = self.nat64_prefixes.iter().filter_map(|prefix| prefix.carried(v6));
        embedded_ipv4(v6).into_iter().chain(translated).collect()
    }
}

/// A prefix of a NAT64 translator, of a length that RFC 6052, section 2.2 allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat64Prefix(Ipv6Net);

impl Nat64Prefix {
    /// Reads `PREFIX/LENGTH` with a length of 32, 40, 48, 56, 64 or 96.
    pub fn parse(text: &str) -> Option<Self> {
        let network: Ipv6Net = text.parse().ok()?;
        [32, 40, 48, 56, 64, 96].contains(&network.prefix_len()).then_some(Self(network.trunc()))
    }

    /// The IPv4 address that an address within the prefix carries: it follows the prefix, and leaves out the bits 64
    /// to 71.
    fn carried(self, address: Ipv6Addr) -> Option<Ipv4Addr> {
        if !self.0.contains(&address) {
            return None;
        }
        let octets = address.octets();
        let first = usize::from(self.0.prefix_len() / 8);
        let mut carried = (first..16).filter(|index| *index != 8).map(|index| octets[index]);
        let mut next = || carried.next().expect("four octets follow a prefix of at most 96 bits");
        Some(Ipv4Addr::new(next(), next(), next(), next()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn rules(deny: &[&str], nat64: &[&str]) -> EgressRules {
        EgressRules {
            deny_networks: deny.iter().map(|text| text.parse().expect(text)).collect(),
            allow_ports: Vec::new(),
            nat64_prefixes: nat64.iter().map(|text| Nat64Prefix::parse(text).expect(text)).collect(),
        }
    }

    /// The table of RFC 6052, section 2.4, with another prefix: that one is for documentation and never public.
    #[test]
    fn a_prefix_of_every_length_carries_its_address_where_the_standard_says() {
        for (prefix, inside) in [
            ("2a00:db8::/32", "2a00:db8:c000:221::"),
            ("2a00:db8:100::/40", "2a00:db8:1c0:2:21::"),
            ("2a00:db8:122::/48", "2a00:db8:122:c000:2:2100::"),
            ("2a00:db8:122:300::/56", "2a00:db8:122:3c0:0:221::"),
            ("2a00:db8:122:344::/64", "2a00:db8:122:344:c0:2:2100::"),
            ("2a00:db8:122:344::/96", "2a00:db8:122:344::c000:221"),
        ] {
            let prefix = Nat64Prefix::parse(prefix).expect(prefix);
            let IpAddr::V6(inside) = address(inside) else { panic!("{inside} is IPv6") };
            assert_eq!(prefix.carried(inside), Some(Ipv4Addr::new(192, 0, 2, 33)), "{prefix:?}");
        }
        for wrong in ["2a00::/33", "2a00::", "10.0.0.0/8", "", "2a00::/128"] {
            assert_eq!(Nat64Prefix::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn behind_a_translator_the_address_inside_decides() {
        let rules = rules(&[], &["2a00:1:2:3::/96"]);
        assert!(rules.is_public(address("2a00:1:2:3::808:808")));
        assert!(rules.is_public(address("2a00:1:2:4::a00:1")), "another network");
        for inside in ["2a00:1:2:3::a00:1", "2a00:1:2:3::7f00:1", "2a00:1:2:3::a9fe:a9fe"] {
            assert!(is_public(address(inside)) && !rules.is_public(address(inside)), "{inside}");
        }
    }

    #[test]
    fn a_network_of_the_operators_is_denied_in_every_form() {
        let rules = rules(&["1.2.3.0/24", "2a00:9::/32"], &["2a00:1:2:3::/96"]);
        for denied in [
            "1.2.3.4",
            "::ffff:1.2.3.4",
            "2a00:9::1",
            "2a00:1:2:3::102:304",
            "2a00::5efe:102:304",
            "64:ff9b::102:304",
            "2002:102:304::1",
        ] {
            assert!(rules.denies(address(denied)), "{denied}");
        }
        for allowed in ["1.2.4.4", "2a00:8::1", "2a00:1:2:3::102:404", "10.0.0.1"] {
            assert!(!rules.denies(address(allowed)), "{allowed}");
        }
        assert!(!EgressRules::default().denies(address("1.2.3.4")));
    }

    #[test]
    fn ports_that_are_not_listed_are_not_allowed_where_a_list_is() {
        let rules = EgressRules { allow_ports: vec![443, 8443], ..EgressRules::default() };
        assert!(rules.allows_port(8443) && !rules.allows_port(22));
        assert!(EgressRules::default().allows_port(22));
    }
}
