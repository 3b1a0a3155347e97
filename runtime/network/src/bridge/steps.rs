//! The blocking steps of the built-in network; each runs on a thread for blocking work.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use berth_failpoint::{failpoint, killpoint};
use rustix::io::Errno;
use serde_json::json;

use super::lease::{Lease, Leases};
use super::link::{Link, Netlink, Pair};
use super::nft::Table;
use super::{host_networks, port, refused};
use crate::config::BridgeConfig;
use crate::netns;
use crate::pod::{Attachment, Interface, PodNetwork};
use crate::{Error, Subnet};

/// The step that fails when the bridge was removed.
pub(super) const NEW_PAIR_STEP: &str = "make the veth pair";
/// How often, and how far apart, a new interface is polled until it passes packets, on kernels before 6.8, where
/// polling does not itself apply the carrier.
const CARRIER_POLL: (u32, Duration) = (200, Duration::from_millis(5));

/// State of the blocking steps.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: BridgeConfig,
    pub(super) subnet: Subnet,
    pub(super) table: Table,
    leases: Mutex<Leases>,
}

impl Core {
    /// Reads the leases in `directory`, drops those whose interface is gone, and settles the subnet.
    pub(super) fn open(config: BridgeConfig, directory: &Path) -> Result<Core, Error> {
        let mut netlink = open(&config.name)?;
        let mut subnet = host_networks::expected_subnet(&config, directory)?;
        let mut leases = Leases::open(directory, subnet)?;
        forget_dead(&mut leases, &mut netlink)?;
        if leases.is_empty() {
            subnet = host_networks::settle_subnet(&config, directory, subnet, &mut netlink)?;
            leases.move_to(subnet);
        }
        Ok(Core { table: Table::of(&config, subnet), subnet, leases: Mutex::new(leases), config })
    }

    /// Opens a netlink socket in the host's network namespace.
    pub(super) fn netlink(&self) -> Result<Netlink, Error> {
        open(&self.config.name)
    }

    pub(super) fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Creates or completes the bridge with its address, IP forwarding and nftables rules. Returns its index.
    pub(super) fn make_bridge(&self) -> Result<u32, Error> {
        let name = &self.config.name;
        let mut netlink = open(name)?;
        let gateway = self.subnet.gateway();
        let is_first = self.leases().is_empty();
        if is_first
            && let Some(overlapping) = host_networks::overlapping(&self.config, self.subnet, &mut netlink)?
        {
            return Err(overlapping);
        }
        if netlink.find(name).map_err(refused("look up", name))?.is_none() {
            let made = netlink.add_bridge(name, mac_of(gateway), self.config.mtu);
            made.map_err(refused("make the bridge", name))?;
        }
        let found = netlink.find(name).and_then(|link| link.ok_or_else(|| Errno::NODEV.into()));
        let bridge = found.map_err(refused("look up", name))?;
        if !bridge.is_bridge {
            let why = "an interface of that name exists and is no bridge";
            return Err(Error::InvalidConfig { key: "network.bridge.name", value: name.clone(), why });
        }
        let addressed = netlink.add_address(bridge.index, gateway, self.subnet.prefix());
        addressed.map_err(refused("give the bridge its address", name))?;
        switch_on("net/ipv4/ip_forward")?;
        switch_on(&format!("net/ipv4/conf/{name}/route_localnet"))?;
        let leases: Vec<Lease> = self.leases().all().cloned().collect();
        self.table.make(&leases)?;
        failpoint!(BRIDGE_LAID)?;
        Ok(bridge.index)
    }

    /// Withdraws all published ports when there are no leases.
    pub(super) fn clear(&self) -> Result<(), Error> {
        // Not in a `match`, which would hold the lock of the leases while nft runs.
        let nobody_holds_any = self.leases().is_empty();
        if nobody_holds_any { self.table.clear() } else { Ok(()) }
    }

    pub(super) fn teardown(&self) -> Result<(), Error> {
        let name = &self.config.name;
        open(name)?.delete(name).map_err(refused("delete the bridge", name))?;
        self.table.remove()
    }

    pub(super) fn attach(&self, pod: &PodNetwork, bridge: u32) -> Result<Attachment, Error> {
        let netns = open_netns(&pod.netns)?;
        port::refuse_used(pod)?;
        // The namespace may still hold its former eth0, which must be deleted first.
        let retired = self.leases().retired_in(&pod.netns);
        retired.iter().try_for_each(|interface| self.delete(interface))?;
        let lease = self.leases().add(pod)?;
        match self.connect(&lease, &netns, bridge).and_then(|()| self.limit(pod, &lease, &netns)) {
            Ok(()) => Ok(self.attachment(&lease)),
            Err(attach) => match self.release(&pod.id).and_then(|_| self.delete(&lease.interface)) {
                Ok(()) => Err(attach),
                Err(undo) => Err(Error::Undo { attach: Box::new(attach), undo: Box::new(undo) }),
            },
        }
    }

    fn connect(&self, lease: &Lease, netns: &File, bridge: u32) -> Result<(), Error> {
        let mut host = open(&lease.interface)?;
        let (host_end, mtu) = (lease.interface.as_str(), self.config.mtu);
        let pair = Pair { host_end, bridge, netns, mac: mac_of(lease.address), mtu };
        failpoint!(LEASE_WRITTEN)?;
        host.add_pair(&pair).map_err(refused(NEW_PAIR_STEP, host_end))?;
        failpoint!(PAIR_MADE)?;
        let (subnet, address) = (self.subnet, lease.address);
        netns::inside(netns, || Netlink::open()?.set_up_pod(address, subnet.prefix(), subnet.gateway()))
            .map_err(refused("set up eth0 in", lease.netns.display()))?;
        failpoint!(PAIR_ADDRESSED)?;
        let link = settle(&mut host, host_end).map_err(refused("wait for the carrier of", host_end))?;
        // The bridge gets a carrier with its first port; until then it drops what the host sends.
        let bridge = &self.config.name;
        settle(&mut host, bridge).map_err(refused("wait for the carrier of", bridge))?;
        if lease.ports.is_empty() {
            return Ok(());
        }
        host.reflect(link.index).map_err(refused("set hairpin mode of", host_end))?;
        self.table.publish(lease)?;
        Ok(failpoint!(PORTS_PUBLISHED)?)
    }

    /// Limits the traffic at both ends of the pair: the host's sends towards the pod, the pod's out of it.
    fn limit(&self, pod: &PodNetwork, lease: &Lease, netns: &File) -> Result<(), Error> {
        let Some(limits) = pod.bandwidth()? else { return Ok(()) };
        let limit = |name: &str, rate: u64| {
            let mut netlink = Netlink::open()?;
            let end = netlink.find(name)?.ok_or(Errno::NODEV)?;
            netlink.limit(end.index, rate)
        };
        let failed = || refused("limit the traffic of", &lease.interface);
        if let Some(rate) = limits.ingress {
            limit(&lease.interface, rate).map_err(failed())?;
        }
        if let Some(rate) = limits.egress {
            netns::inside(netns, || limit("eth0", rate)).map_err(failed())?;
        }
        Ok(())
    }

    /// Withdraws the pod's ports and retires its lease. Returns the interface that is to be deleted.
    pub(super) fn release(&self, pod: &str) -> Result<Option<String>, Error> {
        let Some(lease) = self.leases().get(pod) else { return Ok(None) };
        if !lease.ports.is_empty() {
            self.table.withdraw(&lease)?;
            failpoint!(PORTS_WITHDRAWN)?;
        }
        self.leases().retire(pod)?;
        killpoint!(LEASE_RETIRED);
        Ok(Some(lease.interface))
    }

    /// Deletes the interface of a retired lease and frees its address.
    pub(super) fn delete(&self, interface: &str) -> Result<(), Error> {
        open(interface)?.delete(interface).map_err(refused("delete the veth pair", interface))?;
        failpoint!(PAIR_DELETED)?;
        self.leases().free(interface)?;
        killpoint!(LEASE_FREED);
        Ok(())
    }

    pub(super) fn check(&self, pod: &PodNetwork) -> Result<(), Error> {
        let drift = |what: String| Error::Drift { pod: pod.id.clone(), what };
        let lease = self.leases().get(&pod.id).ok_or_else(|| drift("it has no lease".into()))?;
        let interface = &lease.interface;
        let mut host = open(interface)?;
        let look_up = refused("look up", interface);
        let bridge = host.find(&self.config.name).map_err(refused("look up", &self.config.name))?;
        let link = host.find(interface).map_err(look_up)?;
        let link = link.ok_or_else(|| drift(format!("interface {interface} is gone")))?;
        if link.bridge.is_none() || link.bridge != bridge.map(|bridge| bridge.index) {
            return Err(drift(format!("interface {interface} is not on {}", self.config.name)));
        }
        let addresses = netns::inside(&open_netns(&lease.netns)?, || {
            let mut pod = Netlink::open()?;
            match pod.find("eth0")? {
                Some(eth0) => pod.addresses(eth0.index),
                None => Ok(vec![]),
            }
        });
        let addresses = addresses.map_err(refused("look into", lease.netns.display()))?;
        match addresses.contains(&lease.address) {
            true => Ok(()),
            false => Err(drift(format!("eth0 has {addresses:?} instead of {}", lease.address))),
        }
    }

    pub(super) fn attachment(&self, lease: &Lease) -> Attachment {
        let interface = |name: &str, mac: Option<[u8; 6]>, sandbox: Option<PathBuf>| Interface {
            name: name.to_owned(),
            mac: mac.map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":")),
            sandbox,
        };
        Attachment {
            ips: vec![IpAddr::V4(lease.address)],
            interfaces: vec![
                interface("eth0", Some(mac_of(lease.address)), Some(lease.netns.clone())),
                interface(&lease.interface, None, None),
                interface(&self.config.name, Some(mac_of(self.subnet.gateway())), None),
            ],
            record: json!(lease),
        }
    }
}

/// Drops leases whose namespace and interface are gone, as after a reboot, and so frees their addresses and ports.
fn forget_dead(leases: &mut Leases, netlink: &mut Netlink) -> Result<(), Error> {
    let mut is_gone = |interface: &str| {
        let found = netlink.find(interface).map_err(refused("look up", interface));
        found.map(|link| link.is_none())
    };
    let unpinned: Vec<Lease> =
        leases.all().filter(|lease| !netns::is_pinned(&lease.netns)).cloned().collect();
    for lease in unpinned {
        if is_gone(&lease.interface)? {
            tracing::info!(pod = lease.pod, address = %lease.address, "nothing is left of a pod on the network");
            leases.forget(&lease.pod)?;
        }
    }
    for interface in leases.retired() {
        if is_gone(&interface)? {
            leases.free(&interface)?;
        }
    }
    Ok(())
}

/// Waits until the interface passes packets, so that the pod's first packet is not lost.
fn settle(netlink: &mut Netlink, name: &str) -> io::Result<Link> {
    let (tries, pause) = CARRIER_POLL;
    for _ in 0..tries {
        match netlink.find(name)? {
            Some(link) if link.is_up => return Ok(link),
            Some(_) => thread::sleep(pause),
            None => return Err(Errno::NODEV.into()),
        }
    }
    Err(Errno::TIMEDOUT.into())
}

/// Derives the hardware address from an IP address, so that a pod that reuses an address matches the ARP entries that
/// neighbours still have.
fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

fn open_netns(path: &Path) -> Result<File, Error> {
    if !netns::is_pinned(path) {
        let (step, source) = ("open the network namespace", Errno::NOENT.into());
        return Err(Error::File { step, path: path.to_owned(), source });
    }
    File::open(path).map_err(|source| Error::File {
        step: "open the network namespace",
        path: path.to_owned(),
        source,
    })
}

fn open(interface: &str) -> Result<Netlink, Error> {
    Netlink::open().map_err(refused("open a netlink socket for", interface))
}

/// Sets a sysctl of this network namespace to 1, unless it is 1 already.
fn switch_on(name: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    if fs::read(&path).is_ok_and(|value| value.trim_ascii() == b"1") {
        return Ok(());
    }
    fs::write(&path, "1").map_err(|source| Error::File { step: "switch on", path, source })
}
