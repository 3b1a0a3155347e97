//! Finds the networks that the host has already, and chooses a subnet for pods that does not overlap with them.
//!
//! A configured subnet is used or refused. Without one, the subnet chosen before stays as long as pods have addresses
//! of it or no other network uses it.

use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rtnetlink::packet_core::NLM_F_DUMP;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::link::Netlink;
use super::refused;
use crate::config::BridgeConfig;
use crate::record;
use crate::{Error, Subnet};

/// Name of the file with the chosen subnet, in the directory of leases but without their extension.
const CHOSEN_SUBNET_FILE: &str = "subnet";
/// The first candidate: the subnet that Berth has always used.
const FIRST_CANDIDATE: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 88, 0, 0), 16);

/// A network that the host is in, or has a route to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostNetwork {
    address: Ipv4Addr,
    prefix: u8,
    /// The interface's index.
    interface: u32,
    /// The network is reached through a gateway.
    distant: bool,
}

impl HostNetwork {
    fn is_in(&self, subnet: Subnet) -> bool {
        subnet.overlaps(self.address, self.prefix)
    }

    /// Whether it conflicts with a configured subnet. A subnet inside a wider network behind a gateway does not: its
    /// route is more specific.
    fn conflicts_with(&self, subnet: Subnet) -> bool {
        self.is_in(subnet) && !(self.distant && self.prefix < subnet.prefix())
    }
}

impl Netlink {
    /// Lists the IPv4 networks of all interfaces except the loopback and the one with the index `own`.
    pub(super) fn host_networks(&mut self, own: Option<u32>) -> io::Result<Vec<HostNetwork>> {
        let addresses = RouteNetlinkMessage::GetAddress(AddressMessageBuilder::<Ipv4Addr>::new().build());
        let routes = RouteNetlinkMessage::GetRoute(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let mut answers = self.ask(&[(addresses, NLM_F_DUMP)])?;
        answers.extend(self.ask(&[(routes, NLM_F_DUMP)])?);
        let host_networks = answers.into_iter().filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => of_address(&message),
            RouteNetlinkMessage::NewRoute(message) => of_route(&message),
            _ => None,
        });
        Ok(host_networks.filter(|one| Some(one.interface) != own && !one.address.is_loopback()).collect())
    }
}

fn of_address(message: &AddressMessage) -> Option<HostNetwork> {
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(std::net::IpAddr::V4(address)) => Some(*address),
        _ => None,
    })?;
    let (prefix, interface) = (message.header.prefix_len, message.header.index);
    Some(HostNetwork { address, prefix, interface, distant: false })
}

/// Returns the network of a unicast route in the main table. A default route covers every network and claims none.
fn of_route(message: &RouteMessage) -> Option<HostNetwork> {
    let (header, mut interface, mut destination, mut distant) = (&message.header, 0, None, false);
    if header.table != RouteHeader::RT_TABLE_MAIN || header.kind != RouteType::Unicast {
        return None;
    }
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = Some(*address),
            RouteAttribute::Oif(index) => interface = *index,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) | RouteAttribute::MultiPath(_) => {
                distant = true
            }
            _ => {}
        }
    }
    let (address, prefix) = (destination?, header.destination_prefix_length);
    (prefix > 0).then_some(HostNetwork { address, prefix, interface, distant })
}

/// Returns the subnet as far as it is known without looking at the host: configured, remembered or the first candidate.
pub(super) fn expected_subnet(config: &BridgeConfig, directory: &Path) -> Result<Subnet, Error> {
    if let Some(subnet) = config.subnet {
        return Ok(subnet);
    }
    let remembered = record::read(&chosen_path(directory))?;
    let remembered = remembered.and_then(|text| String::from_utf8(text).ok()?.trim().parse().ok());
    Ok(remembered.unwrap_or(Subnet::containing(FIRST_CANDIDATE.0, FIRST_CANDIDATE.1)))
}

/// Settles the subnet while no pod is attached: `expected`, or another free one when none is configured.
pub(super) fn settle_subnet(
    config: &BridgeConfig,
    directory: &Path,
    expected: Subnet,
    netlink: &mut Netlink,
) -> Result<Subnet, Error> {
    let host_networks = other_networks(config, netlink)?;
    let Some(subnet) = choose(config, expected, &host_networks) else {
        return Err(match config.subnet {
            Some(subnet) => overlap(subnet, &host_networks, netlink)?.unwrap_or_else(no_subnet),
            None => no_subnet(),
        });
    };
    let (path, text) = (chosen_path(directory), subnet.to_string());
    // Skipped when unchanged: the disk may be full.
    if config.subnet.is_none() && record::read(&path)?.as_deref() != Some(text.as_bytes()) {
        record::write(&path, text.as_bytes())?;
    }
    if subnet != expected {
        tracing::info!(%expected, %subnet, "another network has the pods' usual subnet: chose a free one");
        remove_former_address(config, expected, netlink)?;
    }
    Ok(subnet)
}

/// Finds another network that uses addresses of `subnet` while pods have some of it.
pub(super) fn overlapping(
    config: &BridgeConfig,
    subnet: Subnet,
    netlink: &mut Netlink,
) -> Result<Option<Error>, Error> {
    overlap(subnet, &other_networks(config, netlink)?, netlink)
}

fn other_networks(config: &BridgeConfig, netlink: &mut Netlink) -> Result<Vec<HostNetwork>, Error> {
    let own = netlink.find(&config.name).map_err(refused("look up", &config.name))?;
    let host_networks = netlink.host_networks(own.map(|link| link.index));
    host_networks.map_err(refused("list the networks of the host beside", &config.name))
}

fn overlap(
    subnet: Subnet,
    host_networks: &[HostNetwork],
    netlink: &mut Netlink,
) -> Result<Option<Error>, Error> {
    let Some(one) = host_networks.iter().find(|one| one.conflicts_with(subnet)) else { return Ok(None) };
    // An interface that was just deleted has no name any more.
    let interface = netlink.name(one.interface).unwrap_or_else(|_| one.interface.to_string());
    let network = format!("{}/{}", one.address, one.prefix);
    Ok(Some(Error::Overlap { subnet: subnet.to_string(), network, interface }))
}

fn choose(config: &BridgeConfig, expected: Subnet, host_networks: &[HostNetwork]) -> Option<Subnet> {
    match config.subnet {
        Some(subnet) => (!host_networks.iter().any(|one| one.conflicts_with(subnet))).then_some(subnet),
        None => std::iter::once(expected)
            .chain(candidates())
            .find(|subnet| !host_networks.iter().any(|one| one.is_in(*subnet))),
    }
}

/// Private networks that neither Podman, Docker, Kubernetes nor home routers take by default.
fn candidates() -> impl Iterator<Item = Subnet> {
    let of_ten = (200..=231).map(|second| (10, second));
    let others = (24..=30).map(|second| (172, second));
    let networks = of_ten.chain(others).map(|(a, b)| (Ipv4Addr::new(a, b, 0, 0), 16));
    [FIRST_CANDIDATE].into_iter().chain(networks).map(|(address, prefix)| Subnet::containing(address, prefix))
}

fn no_subnet() -> Error {
    let all: Vec<_> = candidates().collect();
    let ends = [all.first(), all.last()].map(|end| end.map(Subnet::to_string).unwrap_or_default());
    Error::NoSubnet { tried: ends.join(" ... ") }
}

/// Removes from the bridge its address in a former subnet.
fn remove_former_address(config: &BridgeConfig, subnet: Subnet, netlink: &mut Netlink) -> Result<(), Error> {
    let name = &config.name;
    let Some(bridge) = netlink.find(name).map_err(refused("look up", name))? else { return Ok(()) };
    let removed = netlink.remove_address(bridge.index, subnet.gateway(), subnet.prefix());
    removed.map_err(refused("take the former address of", name))
}

fn chosen_path(directory: &Path) -> PathBuf {
    directory.join(CHOSEN_SUBNET_FILE)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn host_network(network: &str, distant: bool) -> HostNetwork {
        let (address, prefix) = network.split_once('/').unwrap();
        HostNetwork {
            address: address.parse().unwrap(),
            prefix: prefix.parse().unwrap(),
            interface: 7,
            distant,
        }
    }

    fn chosen(configured: &str, host_networks: &[HostNetwork]) -> Option<String> {
        let config = BridgeConfig { subnet: configured.parse().ok(), ..BridgeConfig::default() };
        let expected = config.subnet.unwrap_or("10.88.0.0/16".parse().unwrap());
        choose(&config, expected, host_networks).map(|subnet| subnet.to_string())
    }

    #[test]
    fn a_subnet_that_is_not_configured_keeps_clear_of_everything() {
        assert_eq!(chosen("", &[]).as_deref(), Some("10.88.0.0/16"));
        let podman = host_network("10.88.0.1/16", false);
        assert_eq!(chosen("", std::slice::from_ref(&podman)).as_deref(), Some("10.200.0.0/16"));
        let company = host_network("10.0.0.0/8", true);
        assert_eq!(chosen("", &[podman, company]).as_deref(), Some("172.24.0.0/16"));
        let all = [host_network("10.0.0.0/8", true), host_network("172.16.0.0/12", true)];
        assert_eq!(chosen("", &all), None);
    }

    #[test]
    fn a_configured_subnet_is_taken_or_refused_and_may_be_a_part_of_what_is_far_away() {
        let subnet = "10.88.0.0/16";
        for wrong in [
            host_network("10.88.0.1/16", false),
            host_network("10.0.0.0/8", false),
            host_network("10.88.4.0/24", true),
        ] {
            assert_eq!(chosen(subnet, std::slice::from_ref(&wrong)), None, "{wrong:?}");
        }
        assert_eq!(chosen(subnet, &[host_network("10.0.0.0/8", true)]).as_deref(), Some(subnet));
        assert_eq!(chosen(subnet, &[host_network("10.89.0.0/16", false)]).as_deref(), Some(subnet));
    }
}
