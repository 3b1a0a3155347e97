//! The built-in network: one bridge, a veth pair per pod, IPv4.
//!
//! ```text
//! attach: lease on disk -> veth pair (one end on the bridge, one in the pod) -> address, route -> ports
//! detach: ports -> lease retired -> | answered | -> veth pair -> address free
//! ```
//! Deleting a veth pair waits for RCU grace periods, ten times as long as everything else; nobody
//! needs to wait with it. What is left over when the daemon is killed is deleted when it starts again.

mod lease;
mod link;
mod nft;
mod port;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use berth_failpoint::{failpoint, killpoint};
use rustix::io::Errno;
use serde_json::json;
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::config::BridgeConfig;
use super::error::Error;
use super::netns;
use super::pod::{Attachment, Interface, PodNetwork};
use lease::{Lease, Leases};
use link::{Link, Netlink, Pair};
use nft::Table;

/// How often, and how long apart, a new interface is asked whether it passes packets, on kernels
/// where asking does not make it so.
const SETTLING: (u32, Duration) = (200, Duration::from_millis(5));

/// After a deletion that failed, for the first time and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The built-in bridge network.
#[derive(Debug)]
pub(super) struct Bridge {
    core: Arc<Core>,
    /// The bridge's interface index once it was made or found. Held for reading while a pod is attached.
    foundation: RwLock<Option<u32>>,
    /// Interfaces being deleted.
    deletions: Mutex<JoinSet<()>>,
    /// Nothing that failed is tried again any more.
    closing: CancellationToken,
}

/// What the blocking steps need.
#[derive(Debug)]
struct Core {
    config: BridgeConfig,
    table: Table,
    leases: Mutex<Leases>,
}

impl Bridge {
    /// Opens the leases below `root`; with pods on record, what they share is checked and repaired.
    pub(super) async fn open(config: BridgeConfig, root: &Path) -> Result<Arc<Bridge>, Error> {
        refuse_unusable(&config)?;
        let directory = root.join("network").join(&config.name);
        let leases = Leases::open(&directory, config.subnet)?;
        let (in_use, leaving) = (!leases.is_empty(), leases.leaving());
        let core = Core { table: Table::of(&config), leases: Mutex::new(leases), config };
        let bridge = Bridge {
            core: Arc::new(core),
            foundation: RwLock::new(None),
            deletions: Mutex::default(),
            closing: CancellationToken::new(),
        };
        let bridge = Arc::new(bridge);
        if in_use {
            drop(bridge.foundation().await?);
        }
        leaving.into_iter().for_each(|interface| bridge.delete_later(interface));
        Ok(bridge)
    }

    pub(super) async fn attach(self: &Arc<Self>, pod: &PodNetwork) -> Result<Attachment, Error> {
        let lease = self.core.leases().get(&pod.id);
        if let Some(lease) = lease {
            if lease.netns == pod.netns && self.check(pod).await.is_ok() {
                return Ok(self.core.attachment(&lease));
            }
            self.detach(&pod.id).await?;
        }
        match self.attach_once(pod).await {
            // The kernel's word for a bridge it does not know: somebody removed it. Make it again, once.
            Err(Error::Kernel { step: NEW_PAIR, source, .. }) if link::is(&source, Errno::INVAL) => {
                *self.foundation.write().await = None;
                self.attach_once(pod).await
            }
            outcome => outcome,
        }
    }

    async fn attach_once(&self, pod: &PodNetwork) -> Result<Attachment, Error> {
        let foundation = self.foundation().await?;
        let (index, pod) = (foundation.unwrap_or_default(), pod.clone());
        self.blocking("attach", move |core| core.attach(&pod, index)).await
    }

    pub(super) async fn detach(self: &Arc<Self>, pod: &str) -> Result<(), Error> {
        let pod = pod.to_owned();
        let leaving = self.blocking("detach", move |core| core.release(&pod)).await?;
        leaving.into_iter().for_each(|interface| self.delete_later(interface));
        Ok(())
    }

    /// Deletes the interface of a retired lease, and the bridge after the last one if so configured.
    fn delete_later(self: &Arc<Self>, interface: String) {
        let bridge = self.clone();
        let mut deletions = self.deletions.lock().unwrap_or_else(PoisonError::into_inner);
        while deletions.try_join_next().is_some() {}
        deletions.spawn(async move {
            let mut pause = FIRST_PAUSE;
            while let Err(error) = bridge.delete(&interface).await {
                let error = error.chain();
                tracing::warn!(
                    interface,
                    error,
                    "left over on the built-in network; tried again in {pause:?}"
                );
                tokio::select! {
                    () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    // The next daemon goes on.
                    () = bridge.closing.cancelled() => return,
                }
            }
        });
    }

    async fn delete(&self, interface: &str) -> Result<(), Error> {
        let name = interface.to_owned();
        self.blocking("delete", move |core| core.delete(&name)).await?;
        match self.core.config.remove_when_empty {
            true => self.remove_if_empty().await,
            false => Ok(()),
        }
    }

    pub(super) async fn check(&self, pod: &PodNetwork) -> Result<(), Error> {
        let pod = pod.clone();
        self.blocking("check", move |core| core.check(&pod)).await
    }

    pub(super) async fn retain(self: &Arc<Self>, live: &HashSet<String>) -> Result<(), Error> {
        let gone: Vec<String> = {
            let leases = self.core.leases();
            leases.all().map(|lease| lease.pod.clone()).filter(|pod| !live.contains(pod)).collect()
        };
        let mut outcome = Ok(());
        for pod in gone {
            outcome = outcome.and(self.detach(&pod).await);
        }
        outcome
    }

    pub(super) async fn close(&self) {
        self.closing.cancel();
        let deletions = std::mem::take(&mut *self.deletions.lock().unwrap_or_else(PoisonError::into_inner));
        deletions.join_all().await;
    }

    pub(super) async fn teardown(&self) -> Result<(), Error> {
        self.close().await;
        self.remove_if_empty().await
    }

    async fn remove_if_empty(&self) -> Result<(), Error> {
        let mut foundation = self.foundation.write().await;
        if self.core.leases().is_empty() {
            *foundation = None;
            self.blocking("teardown", Core::teardown).await?;
        }
        Ok(())
    }

    pub(super) fn describe(&self) -> serde_json::Value {
        let leases = self.core.leases().all().count();
        json!({ "provider": "bridge", "config": self.core.config, "leases": leases })
    }

    /// The bridge and what pods share with it, made at first use.
    async fn foundation(&self) -> Result<RwLockReadGuard<'_, Option<u32>>, Error> {
        let foundation = self.foundation.read().await;
        if foundation.is_some() {
            return Ok(foundation);
        }
        drop(foundation);
        let mut foundation = self.foundation.write().await;
        if foundation.is_none() {
            *foundation = Some(self.blocking("make the bridge", Core::lay).await?);
        }
        Ok(foundation.downgrade())
    }

    async fn blocking<T: Send + 'static>(
        &self,
        step: &'static str,
        work: impl FnOnce(&Core) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let core = self.core.clone();
        tokio::task::spawn_blocking(move || work(&core)).await.unwrap_or(Err(Error::Lost { step }))
    }
}

const NEW_PAIR: &str = "make the veth pair";

impl Core {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the bridge with its address, forwarding and rules, or completes what is there.
    fn lay(&self) -> Result<u32, Error> {
        let name = &self.config.name;
        let mut netlink = open(name)?;
        let gateway = self.config.subnet.gateway();
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
        let addressed = netlink.add_address(bridge.index, gateway, self.config.subnet.prefix());
        addressed.map_err(refused("give the bridge its address", name))?;
        switch_on("net/ipv4/ip_forward")?;
        switch_on(&format!("net/ipv4/conf/{name}/route_localnet"))?;
        let leases: Vec<Lease> = self.leases().all().cloned().collect();
        self.table.make(&leases)?;
        failpoint!(BRIDGE_LAID)?;
        Ok(bridge.index)
    }

    fn teardown(&self) -> Result<(), Error> {
        let name = &self.config.name;
        open(name)?.delete(name).map_err(refused("delete the bridge", name))?;
        self.table.remove()
    }

    fn attach(&self, pod: &PodNetwork, bridge: u32) -> Result<Attachment, Error> {
        let netns = open_netns(&pod.netns)?;
        port::refuse_used(pod)?;
        // The namespace may still hold the eth0 it had before: then this has to wait for its end.
        let leaving = self.leases().leaving_in(&pod.netns);
        leaving.iter().try_for_each(|interface| self.delete(interface))?;
        let lease = self.leases().add(pod)?;
        match self.connect(&lease, &netns, bridge) {
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
        host.add_pair(&pair).map_err(refused(NEW_PAIR, host_end))?;
        failpoint!(PAIR_MADE)?;
        let (subnet, address) = (self.config.subnet, lease.address);
        netns::inside(netns, || Netlink::open()?.set_up_pod(address, subnet.prefix(), subnet.gateway()))
            .map_err(refused("set up eth0 in", lease.netns.display()))?;
        failpoint!(PAIR_ADDRESSED)?;
        let link = settle(&mut host, host_end).map_err(refused("wait for the carrier of", host_end))?;
        // With its first port the bridge gets a carrier itself; until then it drops what the host sends.
        let bridge = &self.config.name;
        settle(&mut host, bridge).map_err(refused("wait for the carrier of", bridge))?;
        if lease.ports.is_empty() {
            return Ok(());
        }
        host.reflect(link.index).map_err(refused("set hairpin mode of", host_end))?;
        self.table.publish(lease)?;
        Ok(failpoint!(PORTS_PUBLISHED)?)
    }

    /// Takes back what the pod holds; the interface that is to be deleted for it.
    fn release(&self, pod: &str) -> Result<Option<String>, Error> {
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
    fn delete(&self, interface: &str) -> Result<(), Error> {
        open(interface)?.delete(interface).map_err(refused("delete the veth pair", interface))?;
        failpoint!(PAIR_DELETED)?;
        self.leases().free(interface)?;
        killpoint!(LEASE_FREED);
        Ok(())
    }

    fn check(&self, pod: &PodNetwork) -> Result<(), Error> {
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

    fn attachment(&self, lease: &Lease) -> Attachment {
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
                interface(&self.config.name, Some(mac_of(self.config.subnet.gateway())), None),
            ],
            record: json!(lease),
        }
    }
}

/// Waits until the interface passes packets, so that the pod's first one is not lost.
fn settle(netlink: &mut Netlink, name: &str) -> io::Result<Link> {
    let (tries, pause) = SETTLING;
    for _ in 0..tries {
        match netlink.find(name)? {
            Some(link) if link.is_up => return Ok(link),
            Some(_) => thread::sleep(pause),
            None => return Err(Errno::NODEV.into()),
        }
    }
    Err(Errno::TIMEDOUT.into())
}

/// The hardware address that goes with an address: a pod that gets a used address is then known
/// to neighbours that still remember the one before.
fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x0a, 0x58, a, b, c, d]
}

fn refuse_unusable(config: &BridgeConfig) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
    let name = &config.name;
    match (1..=15).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('-') {
        true => Ok(()),
        false => Err(Error::InvalidConfig {
            key: "network.bridge.name",
            value: name.clone(),
            why: "must be 1 to 15 of A-Z a-z 0-9 - _ and not start with a dash",
        }),
    }
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

fn refused(step: &'static str, object: impl ToString) -> impl FnOnce(io::Error) -> Error {
    let object = object.to_string();
    move |source| Error::Kernel { step, object, source }
}

/// Sets a kernel switch of this network namespace to 1, if it is not.
fn switch_on(name: &str) -> Result<(), Error> {
    let path = Path::new("/proc/sys").join(name);
    if fs::read(&path).is_ok_and(|value| value.trim_ascii() == b"1") {
        return Ok(());
    }
    fs::write(&path, "1").map_err(|source| Error::File { step: "switch on", path, source })
}
