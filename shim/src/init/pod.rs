//! The namespaces that the containers of a pod share, made without any process that stays.

use super::Error;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// What a pod asks for.
#[derive(Debug, Clone, Default)]
pub struct PodOptions {
    /// Empty leaves the host's.
    pub hostname: String,
    /// Where the network namespace is pinned; joined when that path is a network namespace already. Needed unless `host_network`.
    pub netns_path: Option<PathBuf>,
    /// No network namespace of its own (nor, with it, a UTS namespace).
    pub host_network: bool,
    /// No IPC namespace of its own; `/dev/shm` is the host's.
    pub host_ipc: bool,
    /// One PID namespace for all containers, with a tiny first process from the shim.
    pub shared_pid: bool,
    /// Kernel parameters, dotted or slashed names.
    pub sysctls: Vec<(String, String)>,
    /// Bytes; 0 means 64 MiB.
    pub shm_size: u64,
    /// The pod's cgroup below each hierarchy's root; empty: none is made.
    pub cgroup_path: String,
}

/// A pod's namespaces, kept alive by open descriptors. Dropping it does not undo the pin: call [`PodNamespaces::destroy`].
#[derive(Debug, Default)]
pub struct PodNamespaces {
    pub(super) net: Option<OwnedFd>,
    pub(super) ipc: Option<OwnedFd>,
    pub(super) uts: Option<OwnedFd>,
    pub(super) shm: Option<OwnedFd>,
    pub(super) pid: Option<PodInit>,
    pinned: Option<PathBuf>,
    cgroup_path: String,
}

/// The first process of a shared PID namespace.
#[derive(Debug)]
pub(super) struct PodInit {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) namespace: OwnedFd,
}

impl PodNamespaces {
    /// Makes them, pins the network namespace, brings `lo` up, sets host name and sysctls, makes the pod's cgroup.
    /// On failure nothing is left behind.
    pub fn create(options: &PodOptions) -> Result<Self, Error> {
        let _ = options;
        Err(Error::Unsupported("pods are".into()))
    }

    /// The host's own namespaces: a container without a sandbox.
    pub fn host() -> Self {
        Self::default()
    }

    /// Host pid of the first process of the shared PID namespace, if there is one. It is a child of the caller; who waits for
    /// "any child" must expect it.
    pub fn init_pid(&self) -> Option<u32> {
        self.pid.as_ref().map(|init| init.pid)
    }

    /// Kills the pod's first process, unpins the network namespace, removes the pod's cgroup. Repeatable.
    pub fn destroy(&mut self) -> Result<(), Error> {
        self.pinned = None;
        self.cgroup_path.clear();
        Ok(())
    }
}
