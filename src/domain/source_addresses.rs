//! The addresses of this machine that connections to receivers come from, as the setting `egress.source_address` names
//! them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// At most one address of each family. Of a family without one, the system chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceAddresses {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl SourceAddresses {
    /// `None` where two addresses are of one family, or where one is no address of a machine.
    pub fn new(addresses: impl IntoIterator<Item = IpAddr>) -> Option<Self> {
        let mut sources = Self::default();
        for address in addresses {
            let is_first = match address.to_canonical() {
                IpAddr::V4(v4) => sources.v4.replace(v4).is_none(),
                IpAddr::V6(v6) => sources.v6.replace(v6).is_none(),
            };
            if !is_first || address.is_unspecified() || address.is_multicast() {
                return None;
            }
        }
        Some(sources)
    }

    /// What a connection to this address comes from.
    pub fn of(self, destination: IpAddr) -> Option<IpAddr> {
        match destination {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            // The socket has the other family's form.
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => self.v4.map(|v4| v4.to_ipv6_mapped().into()),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }

    /// All of them.
    pub fn all(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(texts: &[&str]) -> Option<SourceAddresses> {
        SourceAddresses::new(texts.iter().map(|text| text.parse().expect("an address")))
    }

    #[test]
    fn a_connection_comes_from_the_address_of_its_family() {
        let both = sources(&["2001:db8::7", "192.0.2.7"]).expect("both");
        let of = |sources: SourceAddresses, text: &str| {
            sources.of(text.parse().expect("an address")).map(|address| address.to_string())
        };
        assert_eq!(of(both, "198.51.100.1"), Some("192.0.2.7".into()));
        assert_eq!(of(both, "2001:db8::1"), Some("2001:db8::7".into()));
        assert_eq!(of(both, "::ffff:198.51.100.1"), Some("::ffff:192.0.2.7".into()));
        let v4 = sources(&["192.0.2.7"]).expect("one");
        assert_eq!((of(v4, "198.51.100.1"), of(v4, "2001:db8::1")), (Some("192.0.2.7".into()), None));
        assert_eq!(of(SourceAddresses::default(), "198.51.100.1"), None);
        assert_eq!(both.all().count(), 2);
    }

    #[test]
    fn a_family_has_one_address_which_is_that_of_a_machine() {
        for wrong in [
            &["192.0.2.7", "192.0.2.8"][..],
            &["2001:db8::7", "2001:db8::8"],
            &["192.0.2.7", "::ffff:192.0.2.8"],
            &["0.0.0.0"],
            &["::"],
            &["224.0.0.1"],
        ] {
            assert_eq!(sources(wrong), None, "{wrong:?}");
        }
        assert_eq!(sources(&[]), Some(SourceAddresses::default()));
    }
}
