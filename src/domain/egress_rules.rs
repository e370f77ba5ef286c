//! What an operator adds to the rules of where requests go: networks, ports, and the prefixes by which a NAT64
//! translator of their own network carries IPv4 addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use super::address::{embedded_ipv4, is_public};
use super::network_rules::NetworkRules;
use super::url::Environment;

/// The operator's rules; the default adds nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EgressRules {
    /// `egress.allow_networks` and `egress.deny_networks`.
    pub networks: NetworkRules,
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

    /// Whether requests of an account with these rules may go to this address, which must be public in production, or
    /// in a network that the operator allows. The same rules apply to an IPv4 address that the address carries.
    pub fn admits(&self, address: IpAddr, environment: Environment, account: Option<&NetworkRules>) -> bool {
        let (canonical, carried) = (address.to_canonical(), self.carried(address));
        let inside = || carried.iter().copied().map(IpAddr::V4);
        let denies = |address: IpAddr| self.networks.denies(address) || account.is_some_and(|own| own.denies(address));
        let allows = |address: IpAddr| self.networks.allows(address) || account.is_some_and(|own| own.allows(address));
        if [address, canonical].into_iter().chain(inside()).any(denies) {
            return false;
        }
        let passes = |address: IpAddr| is_public(address) || allows(address);
        environment == Environment::Development || (passes(address) || allows(canonical)) && inside().all(passes)
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

    fn rules(allow: &[&str], deny: &[&str], nat64: &[&str]) -> EgressRules {
        let networks = |texts: &[&str]| texts.iter().map(|text| text.parse().expect(text)).collect();
        EgressRules {
            networks: NetworkRules { allow: networks(allow), deny: networks(deny) },
            allow_ports: Vec::new(),
            nat64_prefixes: nat64.iter().map(|text| Nat64Prefix::parse(text).expect(text)).collect(),
        }
    }

    fn admits(rules: &EgressRules, text: &str) -> bool {
        rules.admits(address(text), Environment::Production, None)
    }

    fn admits_in_development(rules: &EgressRules, text: &str) -> bool {
        rules.admits(address(text), Environment::Development, None)
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
        let rules = rules(&[], &[], &["2a00:1:2:3::/96"]);
        assert!(admits(&rules, "2a00:1:2:3::808:808"));
        assert!(admits(&rules, "2a00:1:2:4::a00:1"), "another network");
        for inside in ["2a00:1:2:3::a00:1", "2a00:1:2:3::7f00:1", "2a00:1:2:3::a9fe:a9fe"] {
            assert!(is_public(address(inside)) && !admits(&rules, inside), "{inside}");
        }
    }

    #[test]
    fn a_network_of_the_operators_is_denied_in_every_form_and_in_development_too() {
        let rules = rules(&["1.2.3.0/25", "2a00:9::/48"], &["1.2.3.0/24", "2a00:9::/32"], &["2a00:1:2:3::/96"]);
        for denied in [
            "1.2.3.4",
            "::ffff:1.2.3.4",
            "2a00:9::1",
            "2a00:1:2:3::102:304",
            "2a00::5efe:102:304",
            "64:ff9b::102:304",
            "2002:102:304::1",
        ] {
            assert!(!admits_in_development(&rules, denied) && !admits(&rules, denied), "{denied}");
        }
        for allowed in ["1.2.4.4", "2a00:8::1", "2a00:1:2:3::102:404"] {
            assert!(admits(&rules, allowed), "{allowed}");
        }
        assert!(admits_in_development(&rules, "10.0.0.1") && !admits(&rules, "10.0.0.1"));
        assert!(admits(&EgressRules::default(), "1.2.3.4"));
    }

    #[test]
    fn a_network_that_the_operator_allows_need_not_be_public_but_what_an_address_carries_must_be_allowed_too() {
        let rules = rules(&["10.1.0.0/16", "fd00:7::/32", "64:ff9b::/96"], &["10.1.9.0/24"], &[]);
        for allowed in ["10.1.2.3", "::ffff:10.1.2.3", "fd00:7::1", "64:ff9b::808:808", "64:ff9b::a01:203", "8.8.8.8"] {
            assert!(admits(&rules, allowed), "{allowed}");
        }
        for refused in [
            "10.2.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "fd00:8::1",
            // Denied.
            "10.1.9.1",
            "::ffff:10.1.9.1",
            "64:ff9b::a01:901",
            // Carries what is not allowed.
            "64:ff9b::a02:1",
            "64:ff9b::7f00:1",
            // Lies in no allowed network itself.
            "2002:a01:203::1",
            "2a00::5efe:10.1.2.3",
        ] {
            assert!(!admits(&rules, refused), "{refused}");
        }
    }

    #[test]
    fn an_accounts_own_rules_add_to_the_servers_and_no_denial_is_overridden() {
        let server = rules(&["10.1.0.0/16"], &["10.2.9.0/24"], &[]);
        let own = rules(&["10.2.0.0/16", "10.3.0.0/16"], &["10.1.9.0/24", "10.3.9.0/24", "1.2.3.0/24"], &[]).networks;
        let admits =
            |text: &str, own: Option<&NetworkRules>| server.admits(address(text), Environment::Production, own);
        for (text, without, with) in [
            ("10.1.0.1", true, true),
            ("10.2.0.1", false, true),
            ("10.4.0.1", false, false),
            ("8.8.8.8", true, true),
            // Denied by the server, by the account, and by both sides of one list.
            ("10.2.9.1", false, false),
            ("10.1.9.1", true, false),
            ("10.3.9.1", false, false),
            ("1.2.3.4", true, false),
            ("::ffff:1.2.3.4", false, false),
        ] {
            assert_eq!((admits(text, None), admits(text, Some(&own))), (without, with), "{text}");
        }
        assert!(!server.admits(address("1.2.3.4"), Environment::Development, Some(&own)));
    }

    #[test]
    fn ports_that_are_not_listed_are_not_allowed_where_a_list_is() {
        let rules = EgressRules { allow_ports: vec![443, 8443], ..EgressRules::default() };
        assert!(rules.allows_port(8443) && !rules.allows_port(22));
        assert!(EgressRules::default().allows_port(22));
    }
}
