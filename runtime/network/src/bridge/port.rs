//! Whether a port of the host is free to be published.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use crate::{Error, PodNetwork, PortMapping, Protocol};

/// Refuses ports that a process of the host listens on, since publishing would silently cut it off.
pub(super) fn refuse_used(pod: &PodNetwork) -> Result<(), Error> {
    for mapping in pod.port_mappings.iter().filter(|mapping| mapping.host_port > 0) {
        if let Some(IpAddr::V6(ip)) = mapping.host_ip.filter(|ip| !ip.is_unspecified()) {
            let why = "the built-in network publishes ports on IPv4 addresses only";
            return Err(Error::InvalidPod { field: "port_mappings", value: ip.to_string(), why });
        }
        if is_used(mapping) {
            return Err(Error::PortTaken {
                pod: pod.id.clone(),
                mapping: mapping.to_string(),
                holder: "a process of the host".into(),
            });
        }
    }
    Ok(())
}

fn is_used(mapping: &PortMapping) -> bool {
    let ip = mapping.host_ip.filter(IpAddr::is_ipv4).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let address = (ip, mapping.host_port);
    let bound = match mapping.protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
        Protocol::Sctp => Ok(()),
    };
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}
