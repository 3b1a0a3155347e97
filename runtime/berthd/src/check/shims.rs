//! Shims and their sockets.

use std::{collections::BTreeMap, fs, path::Path};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

use super::{Finding, Inventory, entries, remedy::Remedy};
use crate::{pod::PodState, runtime::names_in};

/// The shims that run on this machine, of any daemon, by the `-id` of their command lines.
#[derive(Debug, Default)]
pub(super) struct Shims {
    processes: BTreeMap<String, Shim>,
}

#[derive(Debug)]
struct Shim {
    pid: String,
    bundle: String,
}

impl Shims {
    /// Finds the shims that run now.
    pub(super) fn running() -> Self {
        let pids =
            names_in(Path::new("/proc")).into_iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
        let read = |pid: String| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            let line = String::from_utf8(line).ok()?;
            let words: Vec<&str> = line.split('\0').collect();
            let after = |flag: &str| {
                words.iter().skip_while(|word| **word != flag).nth(1).map(|&word| word.to_owned())
            };
            Some((after("-id")?, Shim { bundle: after("-bundle")?, pid }))
        };
        Self { processes: pids.filter_map(read).collect() }
    }

    /// Whether a shim with exactly this id runs.
    pub(super) fn has(&self, id: &str) -> bool {
        self.processes.contains_key(id)
    }

    /// Whether a shim runs whose id begins with `beginning`.
    pub(super) fn any_begins(&self, beginning: &str) -> bool {
        self.processes.keys().any(|id| id.starts_with(beginning))
    }
}

/// Finds shims without a pod, ready pods whose shim is dead, and sockets that have no listener.
pub(super) fn disagreements(inventory: &Inventory) -> Vec<Finding> {
    let sandboxes = inventory.layout.sandboxes();
    let ours = |shim: &&Shim| Path::new(&shim.bundle).starts_with(&sandboxes);
    let of_no_pod =
        inventory.shims.processes.iter().filter(|(id, shim)| ours(shim) && !inventory.records.has_pod(id));
    let mut findings: Vec<_> = of_no_pod
        .map(|(id, shim)| {
            Finding::new(format!("process {} is the shim of pod {id}, which is not on record", shim.pid))
        })
        .collect();
    for pod in inventory.records.pods.values().filter(|pod| pod.state == PodState::Ready) {
        let socket = pod.shim.as_ref().map(|shim| shim.socket.as_str()).unwrap_or_default();
        if has_no_listener(Path::new(socket)) {
            findings
                .push(Finding::new(format!("pod {} is ready by its record, and its shim is dead", pod.id)));
        }
    }
    let without_listener =
        entries(&inventory.layout.sockets()).into_iter().filter(|(_, path)| has_no_listener(path));
    findings.extend(without_listener.map(|(_, path)| {
        let what = format!("socket without a shim: {}", path.display());
        Finding::repairable(what, Remedy::RemoveFile(path))
    }));
    findings
}

/// Whether the socket has no listener. The connect does not block: a stuck shim whose backlog is full gives EAGAIN, and
/// that is not a dead one.
fn has_no_listener(socket: &Path) -> bool {
    let connected = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let connection = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&connection, &SocketAddrUnix::new(socket)?)
    };
    matches!(connected(), Err(Errno::CONNREFUSED | Errno::NOENT))
}
