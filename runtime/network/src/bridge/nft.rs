//! nftables rules of the built-in network, as scripts for `nft`.
//!
//! ```text
//! prerouting raw    guard      the bridge may not reach the host's 127.0.0.0/8
//! prerouting dstnat arriving   published ports, for packets from outside and from pods
//! output     dstnat sending    published ports, for the host's own packets
//! postrouting srcnat returning masquerade: to the outside, and where the answer must come back through the host
//! ```
//! Each script begins by declaring the whole table, which is idempotent: a table that was flushed comes back with the
//! next published port.

use std::net::{IpAddr, Ipv4Addr};

use super::lease::Lease;
use super::program;
use crate::config::BridgeConfig;
use crate::{Error, PortMapping, Subnet};

/// The table of one bridge.
#[derive(Debug, Clone)]
pub(super) struct Table {
    bridge: String,
    subnet: String,
    masquerade: bool,
}

impl Table {
    pub(super) fn of(config: &BridgeConfig, subnet: Subnet) -> Table {
        let (bridge, subnet) = (config.name.clone(), subnet.to_string());
        Table { bridge, subnet, masquerade: config.masquerade }
    }

    /// Creates or restores the table with exactly the ports of `leases`. Does nothing when there is neither masquerade
    /// nor a port.
    pub(super) fn make(&self, leases: &[Lease]) -> Result<(), Error> {
        let elements: String = leases.iter().map(|lease| self.elements("add", lease)).collect();
        match self.masquerade || !elements.is_empty() {
            true => run("make the table", &(self.script() + &self.flush() + &elements)),
            false => Ok(()),
        }
    }

    /// Withdraws every published port, if the table exists.
    pub(super) fn clear(&self) -> Result<(), Error> {
        match program::run("look for the table", &["nft", "list", "tables", "ip"], "")? {
            tables if tables.lines().any(|line| line == format!("table ip {}", self.name())) => {
                run("take back all ports", &(self.script() + &self.flush()))
            }
            _ => Ok(()),
        }
    }

    fn flush(&self) -> String {
        let table = self.name();
        format!("flush map ip {table} published\nflush map ip {table} published_on\n")
    }

    /// Removes the table with everything in it; an absent one is not an error.
    pub(super) fn remove(&self) -> Result<(), Error> {
        let name = self.name();
        run("remove the table", &format!("add table ip {name}\ndelete table ip {name}\n"))
    }

    /// Publishes the lease's ports.
    pub(super) fn publish(&self, lease: &Lease) -> Result<(), Error> {
        run("publish ports", &(self.script() + &self.elements("add", lease)))
    }

    /// Withdraws the lease's ports, published or not.
    pub(super) fn withdraw(&self, lease: &Lease) -> Result<(), Error> {
        // Deleting an absent element fails the script, adding a present one does not.
        let script = self.script() + &self.elements("add", lease) + &self.elements("delete", lease);
        run("withdraw ports", &script)
    }

    pub(super) fn name(&self) -> String {
        format!("berth-{}", self.bridge)
    }

    fn elements(&self, verb: &str, lease: &Lease) -> String {
        lease.ports.iter().map(|mapping| self.element(verb, mapping, lease.address)).collect()
    }

    fn element(&self, verb: &str, mapping: &PortMapping, pod: Ipv4Addr) -> String {
        let (protocol, port) = (mapping.protocol, mapping.host_port);
        let (map, key) = match mapping.host_ip {
            Some(IpAddr::V4(ip)) if !ip.is_unspecified() => {
                ("published_on", format!("{ip} . {protocol} . {port}"))
            }
            _ => ("published", format!("{protocol} . {port}")),
        };
        let value = match verb {
            "add" => format!(" : {pod} . {}", mapping.container_port),
            _ => String::new(),
        };
        format!("{verb} element ip {} {map} {{ {key}{value} }}\n", self.name())
    }

    fn script(&self) -> String {
        let (table, bridge, subnet) = (self.name(), &self.bridge, &self.subnet);
        let masquerade = match self.masquerade {
            true => format!(
                "add rule ip {table} returning ip saddr {subnet} ip daddr != {{ {subnet}, 224.0.0.0/4 }} oifname != \"{bridge}\" masquerade\n"
            ),
            false => String::new(),
        };
        format!(
            r#"add table ip {table}
add map ip {table} published {{ type inet_proto . inet_service : ipv4_addr . inet_service ; }}
add map ip {table} published_on {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service ; }}
add chain ip {table} guard {{ type filter hook prerouting priority -300 ; }}
add chain ip {table} arriving {{ type nat hook prerouting priority -100 ; }}
add chain ip {table} sending {{ type nat hook output priority -100 ; }}
add chain ip {table} returning {{ type nat hook postrouting priority 100 ; }}
flush chain ip {table} guard
flush chain ip {table} arriving
flush chain ip {table} sending
flush chain ip {table} returning
add rule ip {table} guard iifname "{bridge}" ip daddr 127.0.0.0/8 drop
add rule ip {table} arriving dnat ip to ip daddr . meta l4proto . th dport map @published_on
add rule ip {table} arriving fib daddr type local dnat ip to meta l4proto . th dport map @published
add rule ip {table} sending dnat ip to ip daddr . meta l4proto . th dport map @published_on
add rule ip {table} sending fib daddr type local dnat ip to meta l4proto . th dport map @published
add rule ip {table} returning ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
add rule ip {table} returning ip saddr {subnet} ip daddr {subnet} ct status dnat masquerade
{masquerade}"#
        )
    }
}

/// Runs one script as one transaction.
fn run(purpose: &'static str, script: &str) -> Result<(), Error> {
    program::run(purpose, &["nft", "-f", "-"], script).map(drop)
}
