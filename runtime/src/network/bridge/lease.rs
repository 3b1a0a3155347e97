//! Who has which address: one small file per pod, written before anything is made for the pod.
//!
//! The files need not survive power loss: the interfaces they speak of do not either.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::network::record::{self, Survives};
use crate::network::{Error, PodNetwork, PortMapping, Subnet};

/// What a pod holds of the built-in network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) pod: String,
    pub(super) address: Ipv4Addr,
    pub(super) netns: PathBuf,
    /// The host's end of the veth pair.
    pub(super) interface: String,
    /// Ports published on the host.
    pub(super) ports: Vec<PortMapping>,
    /// Leases are numbered in order, so that after a restart addresses go on where they were.
    number: u64,
}

/// All leases, in memory and on disk.
#[derive(Debug)]
pub(super) struct Leases {
    directory: PathBuf,
    subnet: Subnet,
    by_pod: HashMap<String, Lease>,
    taken: HashSet<Ipv4Addr>,
    /// The index the next search for a free address starts at: freed addresses rest until it comes round.
    next: u32,
    number: u64,
}

impl Leases {
    /// Reads the leases in `directory`. One that power loss left unreadable is dropped.
    pub(super) fn open(directory: &Path, subnet: Subnet) -> Result<Leases, Error> {
        record::make_directory(directory)?;
        let mut leases = Leases {
            directory: directory.to_owned(),
            subnet,
            by_pod: HashMap::new(),
            taken: HashSet::new(),
            next: 0,
            number: 0,
        };
        for pod in record::list(directory)? {
            let content = record::read(&leases.path(&pod))?.unwrap_or_default();
            match serde_json::from_slice::<Lease>(&content) {
                Ok(lease) => leases.keep(lease),
                Err(error) => {
                    tracing::warn!(pod, %error, "dropping an unreadable network lease");
                    record::remove(&leases.path(&pod))?;
                }
            }
        }
        Ok(leases)
    }

    fn keep(&mut self, lease: Lease) {
        if lease.number >= self.number {
            self.number = lease.number + 1;
            self.next = self.subnet.index(lease.address).map_or(0, |index| index + 1);
        }
        self.taken.insert(lease.address);
        self.by_pod.insert(lease.pod.clone(), lease);
    }

    /// Gives `pod` an address and its ports; on disk when this returns.
    pub(super) fn add(&mut self, pod: &PodNetwork, interface: String) -> Result<Lease, Error> {
        let ports: Vec<_> =
            pod.port_mappings.iter().filter(|mapping| mapping.host_port > 0).cloned().collect();
        self.refuse_taken(&pod.id, &ports)?;
        let lease = Lease {
            pod: pod.id.clone(),
            address: self.free_address(&pod.id)?,
            netns: pod.netns.clone(),
            interface,
            ports,
            number: self.number,
        };
        let path = self.path(&pod.id);
        let content = serde_json::to_vec(&lease).map_err(|error| Error::File {
            step: "encode",
            path: path.clone(),
            source: error.into(),
        })?;
        record::write(&path, &content, Survives::Kill)?;
        self.keep(lease.clone());
        Ok(lease)
    }

    fn free_address(&self, pod: &str) -> Result<Ipv4Addr, Error> {
        let capacity = self.subnet.capacity();
        let candidates = (0..capacity).map(|offset| self.subnet.pod(self.next.wrapping_add(offset)));
        let free = candidates.into_iter().find(|address| !self.taken.contains(address));
        free.ok_or_else(|| Error::Exhausted {
            subnet: self.subnet.to_string(),
            capacity,
            pod: pod.to_owned(),
        })
    }

    fn refuse_taken(&self, pod: &str, ports: &[PortMapping]) -> Result<(), Error> {
        for mapping in ports {
            for lease in self.by_pod.values() {
                if lease.ports.iter().any(|other| other.conflicts(mapping)) {
                    let (pod, mapping) = (pod.to_owned(), mapping.to_string());
                    return Err(Error::PortTaken { pod, mapping, holder: format!("pod {}", lease.pod) });
                }
            }
        }
        Ok(())
    }

    /// Takes the pod's lease back, on disk first.
    pub(super) fn remove(&mut self, pod: &str) -> Result<(), Error> {
        record::remove(&self.path(pod))?;
        if let Some(lease) = self.by_pod.remove(pod) {
            self.taken.remove(&lease.address);
        }
        Ok(())
    }

    /// The pod's lease.
    pub(super) fn get(&self, pod: &str) -> Option<Lease> {
        self.by_pod.get(pod).cloned()
    }

    /// Every lease.
    pub(super) fn all(&self) -> impl Iterator<Item = &Lease> {
        self.by_pod.values()
    }

    fn path(&self, pod: &str) -> PathBuf {
        self.directory.join(format!("{pod}.json"))
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
