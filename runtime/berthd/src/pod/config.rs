//! What a pod is asked to be: parsed once at the border, never changed afterwards (resources apart), kept in the state as it is.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::container::config::Resources;
use berth_network::{Dns, PortMapping};

/// Who the pod is to its caller. The four together name one pod: running the same metadata twice gives the same pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodMetadata {
    /// Name of the pod within its namespace.
    pub name: String,
    /// Unique over time; the caller's, not ours.
    pub uid: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// How many sandboxes the caller made for this pod before.
    pub attempt: u32,
}

/// Everything that is known of a pod before it runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodConfig {
    /// Who the pod is.
    pub metadata: PodMetadata,
    /// Name of the runtime handler; empty is the default one.
    pub handler: String,
    /// Host name inside the pod; empty gives the node's name when on the host's network.
    pub hostname: String,
    /// Directory that the log paths of its containers are relative to; `None` when nothing is logged.
    pub log_directory: Option<PathBuf>,
    /// What its containers find in /etc/resolv.conf; `None` gives them the host's.
    pub dns: Option<Dns>,
    /// Ports of the pod that the host answers.
    pub ports: Vec<PortMapping>,
    /// For filters.
    pub labels: BTreeMap<String, String>,
    /// For whoever reads them; never interpreted here except by the network's bandwidth.
    pub annotations: BTreeMap<String, String>,
    /// cgroup below which the pod lives, as `/a/b` or as systemd's `a-b.slice`; `None` puts it below Berth's own.
    pub cgroup_parent: Option<String>,
    /// Sysctls of the pod's namespaces.
    pub sysctls: BTreeMap<String, String>,
    /// Which namespaces its containers have of their own.
    pub namespaces: Namespaces,
    /// Whether it may hold privileged containers.
    pub privileged: bool,
    /// What the pod itself takes besides its containers, as last told. The caller limits the pod's cgroup, not we.
    #[serde(default)]
    pub overhead: Resources,
    /// What its containers may take together, as last told. The caller limits the pod's cgroup, not we.
    #[serde(default)]
    pub resources: Resources,
}

/// Which namespaces are the pod's and which the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// The host's network instead of one of its own.
    pub host_network: bool,
    /// The host's System V IPC and POSIX queues, and its /dev/shm.
    pub host_ipc: bool,
    /// PID namespace of the pod's containers, unless a container asks otherwise.
    pub pid: PidMode,
    /// A user namespace of the pod's own, which its other namespaces belong to; `None` is the host's.
    pub users: Option<Users>,
}

/// Which ids of the host stand for the users and groups of a pod, or for the owners of a mount's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Users {
    /// Users.
    pub uids: IdRange,
    /// Groups.
    pub gids: IdRange,
}

impl Users {
    /// Options of an overlay that show the owners in its lower layers so.
    pub(crate) fn overlay_options(self) -> [String; 2] {
        let option = |name, ids: IdRange| format!("{name}=0:{}:{}", ids.host, ids.length);
        [option("uidmap", self.uids), option("gidmap", self.gids)]
    }
}

/// Ids of the host that stand for those from 0 on. Never empty, and without the highest number, which means "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    host: u32,
    length: u32,
}

impl IdRange {
    /// `length` ids from `host` on; `None` when there are not so many, or none is wanted.
    pub fn new(host: u32, length: u32) -> Option<Self> {
        host.checked_add(length).filter(|_| length > 0)?;
        Some(Self { host, length })
    }

    /// The id that stands for 0.
    pub fn host(self) -> u32 {
        self.host
    }

    /// How many.
    pub fn length(self) -> u32 {
        self.length
    }
}

/// Where a container's PID namespace comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PidMode {
    /// One shared by the containers of the pod.
    Pod,
    /// One of its own.
    #[default]
    Container,
    /// The host's.
    Node,
    /// That of the container with this id, in the same pod.
    Target(String),
}
