//! Hashes passwords in a bounded pool, so that deliveries keep the processor: few at once, few that wait, and a share
//! for each network.
//!
//! Before a sign-in there is no account to share by. The address of the client is all that is known.

use std::net::IpAddr;

use ipnet::IpNet;

use super::device::NUMBER_BYTES;
use super::error::{ApiError, Code};
use super::slots::{Slot, Slots};
use crate::permits::{Permit, Permits};

/// Passwords that are hashed at once. Each takes 19 MiB and about 20 ms of a core, which deliveries would use.
const AT_ONCE: usize = 2;

/// Passwords that wait to be hashed. Beyond that a sign-in is answered 503.
const WAITING: usize = 32;

/// Permits in all.
const PERMITS: usize = AT_ONCE + WAITING;

/// Further permits for known devices, one for each device: many networks together can take all the others.
const PERMITS_OF_DEVICES: usize = 4;

/// Permits of one line (an IPv4 address, an IPv6 /64): enough for an office whose people sign in together.
const OF_LINE: usize = 8;

/// Prefixes of the networks that one customer has at most, in bits: what registries give to a site (RFC 6177), and the
/// smallest IPv4 network that is routed by itself.
const SITE: (u8, u8) = (24, 48);

/// The same for one line.
const LINE: (u8, u8) = (32, 64);

/// The pool in which passwords are hashed.
pub(super) struct HashingPool {
    /// Passwords that are hashed now, by site: with two at once, one site has one.
    running: Permits<Option<IpNet>>,
    /// Passwords that are hashed or wait, by site.
    sites: Permits<Option<IpNet>>,
    lines: Slots<Option<IpNet>>,
    known: Slots<[u8; NUMBER_BYTES]>,
}

/// A permit to have a password hashed, or to wait for it. It is returned when it is dropped.
pub(super) struct HashingPermit {
    site: Option<IpNet>,
    _permits: ClientPermits,
}

enum ClientPermits {
    OfNetwork { _line: Slot<Option<IpNet>>, _site: Permit<Option<IpNet>> },
    OfDevice { _device: Slot<[u8; NUMBER_BYTES]> },
}

impl Default for HashingPool {
    fn default() -> Self {
        Self {
            running: Permits::new(AT_ONCE),
            sites: Permits::new(PERMITS),
            lines: Slots::default(),
            known: Slots::default(),
        }
    }
}

impl HashingPool {
    /// A permit for a client at this address.
    pub fn permit(&self, from: Option<IpAddr>) -> Result<HashingPermit, ApiError> {
        let refused = || ApiError::busy("too many passwords of your network are being checked");
        let line = self.lines.take(network(from, LINE), (PERMITS, OF_LINE)).ok_or_else(refused)?;
        let site = site(from);
        let of_site = self.sites.try_take(site).ok_or_else(refused)?;
        Ok(HashingPermit { site, _permits: ClientPermits::OfNetwork { _line: line, _site: of_site } })
    }

    /// A permit for a known device.
    pub fn permit_of_device(&self, from: Option<IpAddr>, device: [u8; NUMBER_BYTES]) -> Option<HashingPermit> {
        let of_device = self.known.take(device, (PERMITS_OF_DEVICES, 1))?;
        Some(HashingPermit { site: site(from), _permits: ClientPermits::OfDevice { _device: of_device } })
    }

    /// Runs `work` on a blocking thread, with a permit for a client at this address.
    pub async fn run<T: Send + 'static>(
        &self,
        from: Option<IpAddr>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        self.run_in(self.permit(from)?, work).await
    }

    /// Runs `work` on a blocking thread, with this permit.
    pub async fn run_in<T: Send + 'static>(
        &self,
        permit: HashingPermit,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let running = self.running.take(permit.site).await;
        let worked = tokio::task::spawn_blocking(move || {
            let worked = work();
            drop(running);
            worked
        });
        let worked = worked.await.map_err(|_| Code::InternalError.into());
        drop(permit);
        worked
    }
}

/// The network of an address that one customer has at most.
pub fn site(address: Option<IpAddr>) -> Option<IpNet> {
    network(address, SITE)
}

/// The network of an address, by the length of its prefix in IPv4 and in IPv6.
fn network(address: Option<IpAddr>, (ipv4, ipv6): (u8, u8)) -> Option<IpNet> {
    let address = address?.to_canonical();
    let prefix = if address.is_ipv4() { ipv4 } else { ipv6 };
    Some(IpNet::new(address, prefix).expect("a prefix is no longer than its address").trunc())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn addresses_share_what_their_networks_have() {
        for (address, line, site) in [
            ("192.0.2.77", "192.0.2.77/32", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.77/32", "192.0.2.0/24"),
            ("2001:db8:7:9::1", "2001:db8:7:9::/64", "2001:db8:7::/48"),
        ] {
            let of = |prefixes| network(address.parse().ok(), prefixes).map(|network| network.to_string());
            assert_eq!((of(LINE).as_deref(), of(SITE).as_deref()), (Some(line), Some(site)));
        }
    }

    #[tokio::test]
    async fn one_line_and_one_site_leave_places_for_others() {
        let (hashing, (release, gate)) = (Arc::new(HashingPool::default()), std::sync::mpsc::channel::<()>());
        let gate = Arc::new(std::sync::Mutex::new(gate));
        let begin = |address: String| {
            let (hashing, gate) = (hashing.clone(), gate.clone());
            tokio::spawn(async move {
                let wait = move || drop(gate.lock().map(|gate| gate.recv()));
                hashing.run(address.parse().ok(), wait).await.is_ok()
            })
        };
        let mut all: Vec<_> = (0..20).map(|n| begin(format!("2001:db8:7:7::{n:x}"))).collect();
        all.extend((0..40).map(|n| begin(format!("2001:db8:7:{n:x}00::1"))));
        let mut refused = 0;
        while refused < 60 - PERMITS / 2 {
            tokio::task::yield_now().await;
            refused = all.iter().filter(|one| one.is_finished()).count();
        }
        let device = [7; NUMBER_BYTES];
        let known = hashing.permit_of_device(None, device);
        assert!(known.is_some() && hashing.permit_of_device(None, device).is_none(), "a known device has one place");
        let other = begin("192.0.2.1".into());
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!other.is_finished(), "it has a place");
        drop(release);
        let mut hashed = 0;
        for one in all {
            hashed += usize::from(one.await.expect("no panic"));
        }
        assert_eq!(hashed, PERMITS / 2, "half of the places, whatever the number of lines");
        assert!(other.await.expect("no panic"));
    }
}
