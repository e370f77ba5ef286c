//! Whether an address is public: the one decision that the SSRF guard rests on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// IPv4 that is not public: the IANA special-purpose registry (RFC 6890 and its updates), multicast (RFC 5771) and
/// the reserved class E (RFC 1112). Entries that the registry calls globally reachable are anycast services, not
/// receivers.
#[expect(clippy::ip_constant, reason = "the table reads as the registry does")]
const SPECIAL_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8),       // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // shared by carriers (RFC 6598)
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link local, cloud metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // IETF protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation
    (Ipv4Addr::new(192, 31, 196, 0), 24), // AS112
    (Ipv4Addr::new(192, 52, 193, 0), 24), // AMT
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private
    (Ipv4Addr::new(192, 175, 48, 0), 24), // AS112
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, limited broadcast
];

/// Global unicast: the only IPv6 space that IANA has given out (RFC 4291, section 2.4). Loopback, mapped
/// (`::ffff:0:0/96`), compatible (`::/96`), NAT64 (`64:ff9b::/96`, `64:ff9b:1::/48`), unique local, link local, site
/// local and multicast all lie outside it.
const GLOBAL_UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What inside global unicast is not public: the IANA special-purpose registry.
const SPECIAL_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // IETF protocol assignments, Teredo, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48), // AS112
    (Ipv6Addr::new(0x3ffe, 0, 0, 0, 0, 0, 0, 0), 16), // the returned 6bone (RFC 3701)
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation (RFC 9637)
];

/// Whether a receiver may live at `address`.
///
/// An IPv6 address that carries an IPv4 one (mapped, compatible, NAT64, 6to4, Teredo) is never public: a translator
/// on the way could deliver it to the address inside, and no receiver is published under such a form. An ISATAP
/// address lies in an ordinary network: there the address inside decides.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !SPECIAL_V4.iter().any(|range| in_v4(v4, *range)),
        IpAddr::V6(v6) => {
            in_v6(v6, GLOBAL_UNICAST)
                && !SPECIAL_V6.iter().any(|range| in_v6(v6, *range))
                && isatap(v6).is_none_or(|v4| is_public(v4.into()))
        }
    }
}

/// The IPv4 address that an IPv6 address carries by a form that everybody knows: mapped, compatible, NAT64, 6to4 or
/// ISATAP.
pub fn embedded_ipv4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bits = address.to_bits();
    let at = |shift: u32| Some(Ipv4Addr::from_bits(u32::try_from(bits >> shift & 0xffff_ffff).expect("32 bits")));
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => at(0),
        [0x2002, ..] => at(80),
        _ => isatap(address),
    }
}

/// The address inside an ISATAP address, in any network: the interface identifier is `0:5efe` and the IPv4 address
/// (RFC 5214, section 6.1). The bits for universal and group are not looked at.
fn isatap(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., high, low, first, last] = address.segments();
    (high & !0x0300 == 0 && low == 0x5efe).then(|| Ipv4Addr::from_bits(u32::from(first) << 16 | u32::from(last)))
}

fn in_v4(address: Ipv4Addr, (network, bits): (Ipv4Addr, u32)) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (32 - bits) == 0
}

fn in_v6(address: Ipv6Addr, (network, bits): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (128 - bits) == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn public(text: &str) -> bool {
        is_public(text.parse().expect(text))
    }

    #[test]
    fn addresses_of_the_open_internet_are_public() {
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "93.184.216.34",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4003::",
            "2001:200::",
            "2001:4860:4860::8888",
            "2003::1",
        ] {
            assert!(public(text), "{text}");
        }
    }

    #[test]
    fn special_addresses_are_not_public() {
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.31.196.1",
            "192.52.193.1",
            "192.88.99.1",
            "192.168.1.1",
            "192.175.48.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "100::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:db8::1",
            "3fff::1",
            "3ffe::1",
            "5f00::1",
            "2620:4f:8000::1",
            "4000::1",
            "1fff:ffff::1",
        ] {
            assert!(!public(text), "{text}");
        }
    }

    #[test]
    fn an_address_inside_another_is_no_way_in() {
        for text in [
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "::10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::808:808",
            "64:ff9b:1::a00:1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        ] {
            assert!(!public(text), "{text}");
        }
    }

    #[test]
    fn the_address_inside_an_isatap_address_decides() {
        for private in ["10.0.0.1", "127.0.0.1", "169.254.169.254", "192.168.1.1"] {
            for network in ["2001:4860::", "2a00:1450:4003:800:"] {
                for identifier in ["0:5efe", "200:5efe", "100:5efe"] {
                    assert!(!public(&format!("{network}{identifier}:{private}")), "{network} {identifier} {private}");
                }
            }
        }
        assert!(public("2001:4860::5efe:8.8.8.8") && public("2001:4860::200:5efe:8.8.8.8"));
        assert!(public("2001:4860::5efd:10.0.0.1") && public("2001:4860::400:5efe:10.0.0.1"));
    }

    proptest! {
        #[test]
        fn whatever_the_standard_library_calls_special_is_not_public(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            if v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_multicast()
                || v4.is_broadcast() || v4.is_documentation() || v4.is_unspecified() {
                prop_assert!(!is_public(IpAddr::V4(v4)));
            }
        }

        #[test]
        fn an_embedded_form_is_never_public(bits in any::<u32>(), low in any::<u64>()) {
            let v4 = Ipv4Addr::from_bits(bits);
            prop_assert!(!is_public(IpAddr::V6(v4.to_ipv6_mapped())));
            prop_assert!(!is_public(IpAddr::V6(v4.to_ipv6_compatible())));
            let six_to_four = 0x2002u128 << 112 | u128::from(bits) << 80 | u128::from(low);
            prop_assert!(!is_public(IpAddr::V6(Ipv6Addr::from_bits(six_to_four))));
            let teredo = 0x2001_0000u128 << 96 | u128::from(low) << 32 | u128::from(bits);
            prop_assert!(!is_public(IpAddr::V6(Ipv6Addr::from_bits(teredo))));
        }
    }
}
