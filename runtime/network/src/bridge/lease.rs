//! Address leases: one small file per pod, written before anything is made for the pod.
//!
//! ```text
//! (free) --add--> held: <pod>.json --retire--> leaving/<interface>.json --free--> (free)
//! ```
//! A retired lease belongs to no pod any more, but its address is not handed out until its interface is gone.
//!
//! The files are not synced: power loss destroys the interfaces they describe, too.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::record;
use crate::{Error, PodNetwork, PortMapping, Subnet};

/// The subdirectory of leases whose interface is being deleted.
const RETIRED_DIRECTORY: &str = "leaving";

/// The address, interface and ports of one pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lease {
    pub(super) pod: String,
    pub(super) address: Ipv4Addr,
    pub(super) netns: PathBuf,
    /// The host's end of the veth pair.
    pub(super) interface: String,
    /// Ports published on the host.
    pub(super) ports: Vec<PortMapping>,
    /// Sequence number of the lease, so that after a restart the search for addresses continues where it was.
    number: u64,
}

/// All leases, in memory and on disk.
#[derive(Debug)]
pub(super) struct Leases {
    directory: PathBuf,
    subnet: Subnet,
    by_pod: HashMap<String, Lease>,
    retired: HashMap<String, Lease>,
    taken: HashSet<Ipv4Addr>,
    /// The index at which the next search for an address starts, so that freed addresses are reused late.
    next: u32,
    number: u64,
}

impl Leases {
    /// Reads the leases in `directory`. An unreadable one, as power loss may leave it, is removed.
    pub(super) fn open(directory: &Path, subnet: Subnet) -> Result<Leases, Error> {
        record::make_directory(&directory.join(RETIRED_DIRECTORY))?;
        let mut leases = Leases {
            directory: directory.to_owned(),
            subnet,
            by_pod: HashMap::new(),
            retired: HashMap::new(),
            taken: HashSet::new(),
            next: 0,
            number: 0,
        };
        for lease in read_all(directory)? {
            leases.count(&lease);
            leases.by_pod.insert(lease.pod.clone(), lease);
        }
        for lease in read_all(&directory.join(RETIRED_DIRECTORY))? {
            leases.count(&lease);
            leases.retired.insert(lease.interface.clone(), lease);
        }
        Ok(leases)
    }

    /// Switches to another subnet. Must be called only while there are no leases.
    pub(super) fn move_to(&mut self, subnet: Subnet) {
        if subnet != self.subnet {
            (self.subnet, self.next) = (subnet, 0);
        }
    }

    fn count(&mut self, lease: &Lease) {
        if lease.number >= self.number {
            self.number = lease.number + 1;
            self.next = self.subnet.index(lease.address).map_or(0, |index| index + 1);
        }
        self.taken.insert(lease.address);
    }

    /// Leases an address and host ports to `pod`; on disk when this returns. Fails when one is taken or none left.
    pub(super) fn add(&mut self, pod: &PodNetwork) -> Result<Lease, Error> {
        let ports: Vec<_> =
            pod.port_mappings.iter().filter(|mapping| mapping.host_port > 0).cloned().collect();
        self.refuse_taken(&pod.id, &ports)?;
        let lease = Lease {
            pod: pod.id.clone(),
            address: self.free_address(&pod.id)?,
            netns: pod.netns.clone(),
            interface: interface(&pod.id, self.number),
            ports,
            number: self.number,
        };
        let path = self.path(&pod.id);
        let content = serde_json::to_vec(&lease).map_err(|error| Error::File {
            step: "encode",
            path: path.clone(),
            source: error.into(),
        })?;
        record::write(&path, &content)?;
        self.count(&lease);
        self.by_pod.insert(lease.pod.clone(), lease.clone());
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

    /// Turns the pod's lease into a retired one; its address stays taken until [`Leases::free`].
    pub(super) fn retire(&mut self, pod: &str) -> Result<(), Error> {
        let Some(lease) = self.by_pod.get(pod) else { return Ok(()) };
        let (from, to) = (self.path(pod), self.retired_path(&lease.interface));
        fs::rename(&from, &to).map_err(|source| Error::File { step: "retire", path: from, source })?;
        if let Some(lease) = self.by_pod.remove(pod) {
            self.retired.insert(lease.interface.clone(), lease);
        }
        Ok(())
    }

    /// Frees the address of a retired lease, on disk first.
    pub(super) fn free(&mut self, interface: &str) -> Result<(), Error> {
        record::remove(&self.retired_path(interface))?;
        if let Some(lease) = self.retired.remove(interface) {
            self.taken.remove(&lease.address);
        }
        Ok(())
    }

    /// Drops the lease of a pod whose namespace and interface are gone, with its address and its ports.
    pub(super) fn forget(&mut self, pod: &str) -> Result<(), Error> {
        record::remove(&self.path(pod))?;
        if let Some(lease) = self.by_pod.remove(pod) {
            self.taken.remove(&lease.address);
        }
        Ok(())
    }

    /// Whether there are neither leases nor retired ones.
    pub(super) fn is_empty(&self) -> bool {
        self.by_pod.is_empty() && self.retired.is_empty()
    }

    /// Lists the interfaces of retired leases.
    pub(super) fn retired(&self) -> Vec<String> {
        self.retired.keys().cloned().collect()
    }

    /// Lists the interfaces of retired leases whose pod was in `netns`.
    pub(super) fn retired_in(&self, netns: &Path) -> Vec<String> {
        self.retired
            .values()
            .filter(|lease| lease.netns == netns)
            .map(|lease| lease.interface.clone())
            .collect()
    }

    /// Returns the pod's lease.
    pub(super) fn get(&self, pod: &str) -> Option<Lease> {
        self.by_pod.get(pod).cloned()
    }

    /// Iterates over the leases of pods.
    pub(super) fn all(&self) -> impl Iterator<Item = &Lease> {
        self.by_pod.values()
    }

    fn path(&self, pod: &str) -> PathBuf {
        self.directory.join(format!("{pod}.json"))
    }

    fn retired_path(&self, interface: &str) -> PathBuf {
        self.directory.join(RETIRED_DIRECTORY).join(format!("{interface}.json"))
    }
}

fn read_all(directory: &Path) -> Result<Vec<Lease>, Error> {
    let mut leases = Vec::new();
    for name in record::list(directory)? {
        let path = directory.join(format!("{name}.json"));
        match serde_json::from_slice(&record::read(&path)?.unwrap_or_default()) {
            Ok(lease) => leases.push(lease),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "dropping an unreadable network lease");
                record::remove(&path)?;
            }
        }
    }
    Ok(leases)
}

/// Names the host's end of a pod's veth pair, in at most 15 bytes: the beginning of the pod's id and the lease's
/// number, so that a pod attached anew does not collide with its former interface.
fn interface(pod: &str, number: u64) -> String {
    format!("b{}-{:04x}", &pod[..pod.len().min(8)], number & 0xffff)
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
