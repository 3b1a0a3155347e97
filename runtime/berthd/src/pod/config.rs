//! A pod's configuration: parsed once at the border, never changed afterwards except for resources, and recorded as it
//! is.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::container::config::Resources;
use berth_network::{Dns, PortMapping};

/// The caller's identity for a pod. The four fields together name one pod: running the same metadata twice gives the
/// same pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodMetadata {
    /// Name of the pod within its namespace.
    pub name: String,
    /// Unique over time; assigned by the caller.
    pub uid: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// How many sandboxes the caller made for this pod before.
    pub attempt: u32,
}

/// A pod's configuration as the caller asked for it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodConfig {
    /// The pod's identity.
    pub metadata: PodMetadata,
    /// Name of the runtime handler; empty for the default one.
    pub handler: String,
    /// Host name inside the pod; empty takes the node's.
    pub hostname: String,
    /// Directory that the log paths of its containers are relative to; `None` when nothing is logged.
    pub log_directory: Option<PathBuf>,
    /// Contents of /etc/resolv.conf in its containers; `None` takes the host's.
    pub dns: Option<Dns>,
    /// Ports of the pod that the host forwards.
    pub ports: Vec<PortMapping>,
    /// Matched by filters.
    pub labels: BTreeMap<String, String>,
    /// Stored and returned. The network reads bandwidth limits from them, and handlers may pass some on to their shims.
    pub annotations: BTreeMap<String, String>,
    /// cgroup below which the pod lives, as `/a/b` or as systemd's `a-b.slice`; `None` puts it below Berth's own.
    pub cgroup_parent: Option<String>,
    /// Sysctls of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Namespaces that its containers have of their own.
    pub namespaces: Namespaces,
    /// Whether it may hold privileged containers.
    pub privileged: bool,
    /// Resources that the pod itself takes besides its containers, as last sent. The caller limits the pod's cgroup,
    /// not the daemon.
    #[serde(default)]
    pub overhead: Resources,
    /// Resources that its containers may take together, as last sent. The caller limits the pod's cgroup, not the
    /// daemon.
    #[serde(default)]
    pub resources: Resources,
}

/// Which namespaces are the pod's and which are the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// The pod uses the host's network namespace.
    pub host_network: bool,
    /// The pod uses the host's System V IPC, POSIX message queues, and /dev/shm.
    pub host_ipc: bool,
    /// PID namespace of the pod's containers, unless a container asks otherwise.
    pub pid: PidMode,
    /// Id mappings of the pod's user namespace, which owns its other namespaces; `None` is the host's.
    pub users: Option<Users>,
}

/// Host ids for the users and groups of a pod, or for the owners of a mount's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// Users.
    pub uids: IdRange,
    /// Groups.
    pub gids: IdRange,
}

impl Users {
    /// Returns the overlay mount options that map the owners of files in its lower layers.
    pub(crate) fn overlay_options(self) -> [String; 2] {
        let option = |name, ids: IdRange| format!("{name}=0:{}:{}", ids.host, ids.length);
        [option("uidmap", self.uids), option("gidmap", self.gids)]
    }
}

/// Host ids that container ids from 0 on map to. Never empty, and without 4294967295, which is no valid id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    host: u32,
    length: u32,
}

impl IdRange {
    /// Returns the range of `length` ids from `host` on; `None` when it is empty or exceeds the valid ids.
    pub fn new(host: u32, length: u32) -> Option<Self> {
        host.checked_add(length).filter(|_| length > 0)?;
        Some(Self { host, length })
    }

    /// Returns the host id of container id 0.
    pub fn host(self) -> u32 {
        self.host
    }

    /// Returns the number of ids.
    pub fn length(self) -> u32 {
        self.length
    }
}

/// Source of a container's PID namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PidMode {
    /// A namespace that the containers of the pod share.
    Pod,
    /// A namespace of the container's own.
    #[default]
    Container,
    /// The host's.
    Node,
    /// The namespace of the container with this id, in the same pod.
    Target(String),
}
