//! Networks that requests may go to although they are not public, and networks that nothing is sent to.

use std::net::IpAddr;

use ipnet::IpNet;

/// Exceptions from what the guard decides; the default makes none. What is denied is denied whatever is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkRules {
    /// Receivers may live here.
    pub allow: Vec<IpNet>,
    /// Nothing is sent here.
    pub deny: Vec<IpNet>,
}

impl NetworkRules {
    /// Whether an allowed network has this very address.
    pub fn allows(&self, address: IpAddr) -> bool {
        self.allow.iter().any(|network| network.contains(&address))
    }

    /// Whether a denied network has this very address.
    pub fn denies(&self, address: IpAddr) -> bool {
        self.deny.iter().any(|network| network.contains(&address))
    }
}
