//! An IPv4 subnet that has room for a gateway and at least one pod.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network in prefix notation, such as `10.88.0.0/16`; between /8 and /30.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    base: u32,
    prefix: u8,
}

impl Subnet {
    /// Returns the network of `prefix` bits that contains `address`; the prefix is clamped to 8..=30.
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Subnet {
        let prefix = prefix.clamp(8, 30);
        Subnet { base: u32::from(address) & mask(prefix), prefix }
    }

    /// Returns the prefix length in bits.
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Returns the first address, which is the bridge's own.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 1)
    }

    /// Returns how many pods fit: all addresses but those of the network, the gateway and the broadcast.
    pub fn capacity(self) -> u32 {
        !mask(self.prefix) - 2
    }

    /// Returns the address of pod number `index`, counted from zero and wrapping at the capacity.
    pub fn pod(self, index: u32) -> Ipv4Addr {
        Ipv4Addr::from(self.base + 2 + index % self.capacity())
    }

    /// Whether the subnet overlaps with the network `address`/`prefix`.
    pub fn overlaps(self, address: Ipv4Addr, prefix: u8) -> bool {
        let shorter = self.prefix.min(prefix);
        // Prefix 0 overlaps with everything, and `mask(0)` would overflow its shift.
        shorter == 0 || (self.base ^ u32::from(address)) & mask(shorter) == 0
    }

    /// Returns the number of the pod with `address`; none if no pod can have it.
    pub fn index(self, address: Ipv4Addr) -> Option<u32> {
        let index = u32::from(address).checked_sub(self.base + 2)?;
        (index < self.capacity()).then_some(index)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX << (32 - u32::from(prefix))
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = InvalidSubnet;
    fn try_from(text: String) -> Result<Self, InvalidSubnet> {
        text.parse()
    }
}

impl FromStr for Subnet {
    type Err = InvalidSubnet;

    fn from_str(text: &str) -> Result<Self, InvalidSubnet> {
        let invalid = |why| InvalidSubnet { text: text.to_owned(), why };
        let (address, prefix) = text.split_once('/').ok_or_else(|| invalid("it has no /prefix"))?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid("it is no IPv4 address"))?;
        let prefix: u8 = prefix.parse().map_err(|_| invalid("the prefix is no number"))?;
        if !(8..=30).contains(&prefix) {
            return Err(invalid("the prefix is not between 8 and 30"));
        }
        let subnet = Subnet::containing(address, prefix);
        match subnet.base == u32::from(address) {
            true => Ok(subnet),
            false => Err(invalid("it has bits set beyond the prefix")),
        }
    }
}

/// Text that is not a usable IPv4 subnet, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("subnet {text:?}: {why}")]
pub struct InvalidSubnet {
    text: String,
    why: &'static str,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_subnet_counts_its_pods_after_the_gateway() {
        let subnet: Subnet = "10.1.2.0/29".parse().unwrap();
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 1, 2, 1));
        assert_eq!(subnet.capacity(), 5);
        assert_eq!(subnet.pod(0), Ipv4Addr::new(10, 1, 2, 2));
        assert_eq!(subnet.pod(4), Ipv4Addr::new(10, 1, 2, 6));
        assert_eq!(subnet.pod(5), subnet.pod(0));
        assert_eq!(subnet.to_string(), "10.1.2.0/29");
    }

    #[test]
    fn only_addresses_a_pod_can_have_have_a_number() {
        let subnet: Subnet = "10.1.2.0/29".parse().unwrap();
        assert_eq!(subnet.index(Ipv4Addr::new(10, 1, 2, 6)), Some(4));
        for outside in ["10.1.2.0", "10.1.2.1", "10.1.2.7", "10.1.3.2", "0.0.0.0"] {
            assert_eq!(subnet.index(outside.parse().unwrap()), None, "{outside}");
        }
    }

    #[test]
    fn networks_overlap_when_one_is_in_the_other() {
        let subnet: Subnet = "10.88.0.0/16".parse().unwrap();
        for (address, prefix) in
            [("10.88.0.1", 16), ("10.88.7.1", 24), ("10.88.255.255", 32), ("10.0.0.0", 8), ("0.0.0.0", 0)]
        {
            assert!(subnet.overlaps(address.parse().unwrap(), prefix), "{address}/{prefix}");
        }
        for (address, prefix) in [("10.89.0.0", 16), ("10.87.255.255", 32), ("192.168.0.0", 16)] {
            assert!(!subnet.overlaps(address.parse().unwrap(), prefix), "{address}/{prefix}");
        }
    }

    #[test]
    fn what_is_no_subnet_is_refused_with_the_reason() {
        let cases = [
            ("10.0.0.0", "no /prefix"),
            ("fd00::/64", "no IPv4"),
            ("10.0.0.0/x", "no number"),
            ("10.0.0.0/31", "between 8 and 30"),
            ("0.0.0.0/0", "between 8 and 30"),
            ("10.0.0.1/24", "beyond the prefix"),
        ];
        for (text, reason) in cases {
            let error = text.parse::<Subnet>().unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(text), "{error}");
        }
    }
}
