//! Address ranges of the node's pods, as kubelet announces them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network in prefix notation, IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// Returns the default route of the same address family.
    pub(super) fn default_route(self) -> &'static str {
        if self.address.is_ipv4() { "0.0.0.0/0" } else { "::/0" }
    }
}

impl FromStr for Cidr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Cidr, Self::Err> {
        const WRONG: &str = "must be a network such as 10.1.0.0/16 or fd00:1::/64";
        let (address, prefix) = text.split_once('/').ok_or(WRONG)?;
        let address: IpAddr = address.parse().map_err(|_| WRONG)?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        match prefix.parse() {
            Ok(prefix) if digits && prefix <= longest => Ok(Cidr { address, prefix }),
            _ => Err(WRONG),
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn networks_of_both_families_are_read() {
        for text in ["10.1.0.0/16", "0.0.0.0/0", "10.1.2.3/32", "fd00:1::/64", "::/0", "fd00::/128"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        assert_eq!("10.1.0.0/16".parse::<Cidr>().unwrap().default_route(), "0.0.0.0/0");
        assert_eq!("fd00::/64".parse::<Cidr>().unwrap().default_route(), "::/0");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in
            ["", "10.1.0.0", "10.1.0.0/33", "fd00::/129", "10.1.0.0/", "10.1.0.0/+8", "10.1/16", "a/8"]
        {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
