//! The sandbox: the namespaces that the pod's containers share.
//!
//! ```text
//!           create              start            stop
//! Absent ------------> Created -------> Ready ----------> Stopped     (or the first process of a shared PID namespace ends)
//!   |                     |                                  ^
//!   |                     +----------------------------------+
//!   +--------------------------------------------------------+   stop
//! ```
//! Without a sandbox, containers use the host's namespaces or those their config.json names: containerd's plain task
//! service. Stopped is final: a pod that runs again gets a new shim.

use crate::cgroup::{Cgroup, Stats};
use crate::error::Error;
use crate::exit::now;
use crate::init::{IdMappings, NSFS, PodNamespaces, PodOptions, remove_cgroup_later};
use crate::process::KILL_TIMEOUT;
use crate::record;
use crate::shim_log::note;
use crate::spec::IdMapping;
use berth_failpoint::failpoint;
use rustix::fs::statfs;
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{fs, io};
use tokio::sync::{OwnedRwLockReadGuard, RwLock, watch};

use berth_shim_proto::berth_shim::{self, SandboxOptions};
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::protobuf::well_known_types::any::Any;

/// Time for killed processes to leave the pod's cgroup. A process that waits in the kernel leaves later.
const CGROUP_EMPTY_TIMEOUT: Duration = Duration::from_secs(1);
/// Type name of the options message.
const OPTIONS_TYPE: &str = "berth.shim.v1.SandboxOptions";

/// State of a sandbox. Times are nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Phase {
    Absent,
    Created,
    Ready { started_at: i64 },
    Stopped { at: i64 },
}

/// The sandbox's state and namespaces.
#[derive(Debug)]
pub struct Sandbox {
    phase: Mutex<Phase>,
    /// Creating a container holds the read lock, stopping takes the write lock: a stop waits for creations under way.
    namespaces: Arc<RwLock<PodNamespaces>>,
    stopped: watch::Sender<bool>,
    cached: Mutex<Cached>,
}

/// Values that can be read while the namespaces are locked.
#[derive(Debug, Default)]
struct Cached {
    init_pid: Option<u32>,
    cgroup: Option<Cgroup>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            phase: Mutex::new(Phase::Absent),
            namespaces: Arc::new(RwLock::new(PodNamespaces::host())),
            stopped: watch::Sender::new(false),
            cached: Mutex::default(),
        }
    }
}

impl Sandbox {
    /// The current state.
    pub fn phase(&self) -> Phase {
        *self.lock()
    }

    /// Host pid of the first process of a shared PID namespace.
    pub fn init_pid(&self) -> Option<u32> {
        self.cached().init_pid
    }

    /// Resource usage of the whole pod. Fails if it has no cgroup of its own.
    pub fn stats(&self, id: &str) -> Result<Stats, Error> {
        let cgroup = self.cached().cgroup.clone();
        let cgroup =
            cgroup.ok_or_else(|| Error::NotFound { what: "cgroup of sandbox", id: id.to_owned() })?;
        cgroup.stats().map_err(|source| Error::Cgroup { doing: "measure", id: id.to_owned(), source })
    }

    /// Creates the namespaces. A record of them is written to `bundle` first, for cleanup.
    pub async fn create(&self, id: &str, bundle: &Path, options: &PodOptions) -> Result<(), Error> {
        let mut namespaces = self.namespaces.write().await;
        if self.phase() != Phase::Absent {
            return Err(Error::AlreadyExists { what: "sandbox", id: id.to_owned() });
        }
        let options = &PodOptions { id: id.to_owned(), ..options.clone() };
        Record::new(options).write(bundle).map_err(|source| Error::Io {
            doing: "keep a record of sandbox",
            id: id.to_owned(),
            source,
        })?;
        failpoint!(SANDBOX_RECORDED)?;
        *namespaces = PodNamespaces::create(options).map_err(|source| Error::Init {
            doing: "create sandbox",
            id: id.to_owned(),
            source,
        })?;
        let named = Some(&options.cgroup_path).filter(|path| !path.is_empty());
        let cgroup = named.map(|path| Cgroup::of_pod(path, id));
        failpoint!(SANDBOX_MADE)?;
        *self.cached() = Cached { init_pid: namespaces.init_pid(), cgroup };
        *self.lock() = Phase::Created;
        Ok(())
    }

    /// Marks it as running. Returns since when. Repeatable.
    pub fn start(&self, id: &str) -> Result<i64, Error> {
        let mut phase = self.lock();
        match *phase {
            Phase::Created => {
                let started_at = now();
                *phase = Phase::Ready { started_at };
                Ok(started_at)
            }
            Phase::Ready { started_at } => Ok(started_at),
            Phase::Absent => Err(Error::NotFound { what: "sandbox", id: id.to_owned() }),
            Phase::Stopped { .. } => Err(stopped("start sandbox", id)),
        }
    }

    /// Locks the namespaces for creating a container; a stop waits for the guard. Fails once stopped.
    pub async fn enter(&self, id: &str) -> Result<OwnedRwLockReadGuard<PodNamespaces>, Error> {
        let namespaces = Arc::clone(&self.namespaces).read_owned().await;
        match self.phase() {
            Phase::Stopped { .. } => Err(stopped("create a container in sandbox", id)),
            _ => Ok(namespaces),
        }
    }

    /// Refuses further containers; returns when creations under way are done.
    pub async fn close(&self) {
        let _namespaces = self.namespaces.write().await;
        let mut phase = self.lock();
        if !matches!(*phase, Phase::Stopped { .. }) {
            *phase = Phase::Stopped { at: now() };
        }
    }

    /// Undoes the namespaces, once no container is left. Repeatable.
    pub async fn destroy(&self, id: &str) -> Result<(), Error> {
        let mut namespaces = self.namespaces.write().await;
        namespaces.end_init(KILL_TIMEOUT).await;
        let cgroup = self.cached().cgroup.clone();
        if let Some(cgroup) = cgroup
            && let Err(error) = cgroup.kill_and_remove(CGROUP_EMPTY_TIMEOUT).await
        {
            note(format_args!("the cgroup of sandbox {id} is removed later: {error}"));
            namespaces.release_cgroup();
            remove_cgroup_later(cgroup, format!("sandbox {id}"));
        }
        namespaces.destroy().map_err(|source| Error::Init {
            doing: "stop sandbox",
            id: id.to_owned(),
            source,
        })?;
        failpoint!(SANDBOX_DESTROYED)?;
        *self.cached() = Cached::default();
        self.announce_end();
        Ok(())
    }

    /// Announces the end to waiters.
    pub fn announce_end(&self) {
        self.stopped.send_replace(true);
    }

    /// Waits until it is stopped or its first process has ended. Returns when that was.
    pub async fn wait(&self) -> i64 {
        // The sender lives as long as self.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
        match self.phase() {
            Phase::Stopped { at } => at,
            _ => now(),
        }
    }

    fn cached(&self) -> MutexGuard<'_, Cached> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn stopped(doing: &'static str, id: &str) -> Error {
    Error::Precondition { doing, id: id.to_owned(), state: "stopped" }
}

/// Resources to clean up should the shim die; kept in the bundle.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    netns_path: Option<PathBuf>,
    /// Path below each hierarchy's root; empty for none.
    pub cgroup_path: String,
}

impl Record {
    const FILE_NAME: &str = "sandbox.json";

    /// The record of a sandbox to be created. A network namespace that is already pinned is left to its creator.
    pub fn new(options: &PodOptions) -> Self {
        let is_namespace = |path: &PathBuf| statfs(path).is_ok_and(|fs| fs.f_type == NSFS);
        let netns_path = options.netns_path.clone();
        let netns_path = netns_path.filter(|path| !options.host_network && !is_namespace(path));
        Self { netns_path, cgroup_path: options.cgroup_path.clone() }
    }

    /// Writes it into the bundle.
    pub fn write(&self, bundle: &Path) -> io::Result<()> {
        record::write(&bundle.join(Self::FILE_NAME), self)
    }

    /// Reads it from a bundle; `None` if no sandbox was created there.
    pub fn read(bundle: &Path) -> io::Result<Option<Self>> {
        record::read(&bundle.join(Self::FILE_NAME))
    }

    /// Removes the pin of the network namespace, if any.
    pub fn unpin(&self) -> io::Result<()> {
        let Some(path) = &self.netns_path else {
            return Ok(());
        };
        while unmount(path, UnmountFlags::DETACH).is_ok() {}
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Parses the options of a CreateSandbox request. The network namespace is pinned at `netns_path`; empty means the host's.
pub fn options(any: Option<&Any>, netns_path: &str) -> Result<PodOptions, Error> {
    let asked = read_options(any)?;
    let netns_path = Some(netns_path).filter(|path| !path.is_empty()).map(Into::into);
    Ok(PodOptions {
        id: String::new(),
        hostname: asked.hostname,
        host_network: asked.host_network || netns_path.is_none(),
        netns_path,
        host_ipc: asked.host_ipc,
        shared_pid: asked.shared_pid,
        sysctls: sorted(asked.sysctls),
        shm_size: u64::try_from(asked.shm_size).map_err(|_| invalid("shm_size is negative"))?,
        cgroup_path: asked.cgroup_path,
        users: users(&asked.uid_mappings, &asked.gid_mappings)?,
        create_mount_sources: asked.create_mount_sources,
    })
}

fn users(
    uids: &[berth_shim::IdMapping],
    gids: &[berth_shim::IdMapping],
) -> Result<Option<IdMappings>, Error> {
    if uids.is_empty() != gids.is_empty() {
        return Err(invalid("uid_mappings and gid_mappings go together"));
    }
    let range = |asked: &berth_shim::IdMapping| IdMapping {
        container_id: asked.container_id,
        host_id: asked.host_id,
        size: asked.length,
    };
    let mappings =
        IdMappings { uids: uids.iter().map(range).collect(), gids: gids.iter().map(range).collect() };
    Ok((!mappings.is_empty()).then_some(mappings))
}

/// Parses the options message; absent means defaults.
pub(crate) fn read_options(any: Option<&Any>) -> Result<SandboxOptions, Error> {
    let Some(any) = any else { return Ok(SandboxOptions::default()) };
    let name = any.type_url.rsplit('/').next().unwrap_or_default();
    if name != OPTIONS_TYPE {
        return Err(invalid(&format!("{name:?} is not understood, only {OPTIONS_TYPE}")));
    }
    SandboxOptions::parse_from_bytes(&any.value).map_err(|error| invalid(&error.to_string()))
}

fn sorted(sysctls: HashMap<String, String>) -> Vec<(String, String)> {
    let mut sysctls: Vec<_> = sysctls.into_iter().collect();
    sysctls.sort();
    sysctls
}

fn invalid(reason: &str) -> Error {
    Error::Invalid { field: "options", reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn any(type_url: &str, options: &SandboxOptions) -> Any {
        Any { type_url: type_url.into(), value: options.write_to_bytes().unwrap(), ..Default::default() }
    }

    #[test]
    fn options_are_read_with_or_without_a_host_before_their_name() {
        let asked = SandboxOptions { hostname: "h".into(), shm_size: 4096, ..Default::default() };
        for url in [OPTIONS_TYPE.to_owned(), format!("type.googleapis.com/{OPTIONS_TYPE}")] {
            let read = options(Some(&any(&url, &asked)), "/run/netns/n").unwrap();
            assert_eq!((read.hostname.as_str(), read.shm_size, read.host_network), ("h", 4096, false));
            assert_eq!(read.netns_path.unwrap().to_str(), Some("/run/netns/n"));
        }
    }

    #[test]
    fn no_pin_means_the_hosts_network() {
        let read = options(None, "").unwrap();
        assert!(read.host_network && read.netns_path.is_none());
    }

    #[test]
    fn foreign_or_senseless_options_are_refused() {
        let negative = SandboxOptions { shm_size: -1, ..Default::default() };
        for any in [
            any("runtime.v1.PodSandboxConfig", &SandboxOptions::default()),
            any(OPTIONS_TYPE, &negative),
            Any { type_url: OPTIONS_TYPE.into(), value: vec![0xff], ..Default::default() },
        ] {
            assert_eq!(options(Some(&any), "").unwrap_err().code(), ttrpc::Code::INVALID_ARGUMENT);
        }
    }

    #[tokio::test]
    async fn a_sandbox_goes_one_way() {
        let sandbox = Sandbox::default();
        assert_eq!(sandbox.start("s").unwrap_err().code(), ttrpc::Code::NOT_FOUND);
        *sandbox.lock() = Phase::Created;
        let started = sandbox.start("s").unwrap();
        assert_eq!(sandbox.start("s").unwrap(), started);
        let again = sandbox.create("s", Path::new("/nowhere"), &PodOptions::default()).await;
        assert_eq!(again.unwrap_err().code(), ttrpc::Code::ALREADY_EXISTS);
        sandbox.close().await;
        sandbox.destroy("s").await.unwrap();
        sandbox.destroy("s").await.unwrap();
        assert_eq!(sandbox.start("s").unwrap_err().code(), ttrpc::Code::FAILED_PRECONDITION);
        assert_eq!(sandbox.enter("s").await.unwrap_err().code(), ttrpc::Code::FAILED_PRECONDITION);
        let Phase::Stopped { at } = sandbox.phase() else { unreachable!() };
        assert_eq!(sandbox.wait().await, at);
    }
}
