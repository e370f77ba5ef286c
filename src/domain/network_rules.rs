//! Networks that requests may go to although they are not public, and networks that nothing is sent to: those of the
//! server, and those that an operator sets for one account.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

/// Most networks in a list of an account: the guard looks at each of them for each address.
pub const MAX_NETWORKS: usize = 64;

/// Exceptions from what the guard decides; the default makes none. What is denied is denied whatever is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NetworkRules {
    /// Receivers may live here.
    pub allow: Vec<IpNet>,
    /// Nothing is sent here.
    pub deny: Vec<IpNet>,
}

impl NetworkRules {
    /// Rules by which nothing is sent anywhere.
    pub fn deny_all() -> Self {
        let all = [IpAddr::from([0; 4]), IpAddr::from([0; 16])];
        let deny = all.map(|address| IpNet::new(address, 0).expect("a prefix of 0 bits is valid"));
        Self { allow: Vec::new(), deny: deny.to_vec() }
    }

    /// Whether an allowed network has this very address.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(&address))
    }

    /// Whether a denied network has this very address.
    pub fn denies(&self, address: IpAddr) -> bool {
        self.deny.iter().any(|network| network.contains(&address))
    }
}

/// A network as the guard compares it: `::ffff:10.0.0.0/104` becomes `10.0.0.0/8`. In the form of IPv6 it would contain
/// no IPv4 address, and deny none.
pub fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(v4), Some(length)) => IpNet::new(v4.into(), length).expect("an IPv6 prefix has at most 128 bits"),
        _ => network,
    }
}

/// What an operator has set for an account beside the server's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountNetworks {
    /// Receivers of the account may live here, unless the server or the account denies it.
    pub allow: Option<NetworkList>,
    /// Nothing of the account is sent here.
    pub deny: Option<NetworkList>,
}

impl AccountNetworks {
    /// The rules for the guard; `None` where there are none.
    pub fn rules(&self) -> Option<Arc<NetworkRules>> {
        let networks = |list: Option<&NetworkList>| list.map(|list| list.0.clone()).unwrap_or_default();
        let rules = NetworkRules { allow: networks(self.allow.as_ref()), deny: networks(self.deny.as_ref()) };
        (rules != NetworkRules::default()).then(|| Arc::new(rules))
    }
}

/// A list of networks of an account, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkList(Vec<IpNet>);

impl NetworkList {
    /// Reads at most [`MAX_NETWORKS`] distinct networks such as `10.0.0.0/8`. An address with bits beyond the length of
    /// its network is refused: whoever wrote it may have meant the address alone.
    pub fn parse(texts: &[impl AsRef<str>]) -> Option<Self> {
        if texts.len() > MAX_NETWORKS {
            return None;
        }
        let mut networks: Vec<IpNet> = Vec::with_capacity(texts.len());
        for text in texts {
            let network: IpNet = text.as_ref().parse().ok()?;
            if network != network.trunc() || networks.contains(&canonical(network)) {
                return None;
            }
            networks.push(canonical(network));
        }
        Some(Self(networks))
    }

    /// The networks as they are shown and stored.
    pub fn strings(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_distinct_networks_without_bits_beyond_their_length() {
        let list = NetworkList::parse(&["10.0.0.0/8", "192.0.2.7/32", "FD00:7::/32"]).expect("a list");
        assert_eq!(list.strings(), ["10.0.0.0/8", "192.0.2.7/32", "fd00:7::/32"]);
        assert_eq!(NetworkList::parse(&list.strings()), Some(list));
        let many: Vec<String> = (0..=MAX_NETWORKS).map(|n| format!("10.{n}.0.0/16")).collect();
        assert!(NetworkList::parse(&many[..MAX_NETWORKS]).is_some() && NetworkList::parse(&many).is_none());
        for wrong in [
            &["10.0.0.0"][..],
            &["10.0.0.1/8"],
            &["10.0.0.0/33"],
            &["fd00:7::1/32"],
            &["10.0.0.0/8", "10.0.0.0/8"],
            &["shop.example"],
            &[" 10.0.0.0/8"],
            &[""],
        ] {
            assert_eq!(NetworkList::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_network_of_ipv4_addresses_in_the_form_of_ipv6_is_one_of_ipv4() {
        for (text, expected) in [
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:192.0.2.7/128", "192.0.2.7/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:0:0/95", "::ffff:0.0.0.0/95"),
            ("::10.0.0.0/104", "::10.0.0.0/104"),
            ("fd00:7::/32", "fd00:7::/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
        ] {
            let network = |text: &str| text.parse::<IpNet>().expect(text);
            assert_eq!(canonical(network(text)), network(expected), "{text}");
        }
        let deny = NetworkList::parse(&["::ffff:1.2.3.0/120"]);
        assert_eq!(deny.as_ref().map(NetworkList::strings), Some(vec!["1.2.3.0/24".to_owned()]));
        let rules = AccountNetworks { allow: None, deny }.rules().expect("rules");
        assert!(rules.denies("1.2.3.4".parse().expect("an address")));
        assert_eq!(NetworkList::parse(&["10.0.0.0/8", "::ffff:10.0.0.0/104"]), None);
    }

    #[test]
    fn lists_that_are_empty_are_no_rules() {
        let list = |texts: &[&str]| NetworkList::parse(texts);
        assert_eq!(AccountNetworks::default().rules(), None);
        assert_eq!(AccountNetworks { allow: list(&[]), deny: list(&[]) }.rules(), None);
        let rules = AccountNetworks { allow: list(&["10.0.0.0/8"]), deny: None }.rules().expect("rules");
        let address = |text: &str| text.parse().expect("an address");
        assert!(rules.allows(address("10.1.2.3")) && !rules.allows(address("11.1.2.3")));
        assert!(!rules.denies(address("10.1.2.3")));
    }
}
