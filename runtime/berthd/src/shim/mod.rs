//! Berth's side of the shim protocol: starts shims, calls them, and notices when they die.
//!
//! A shim outlives the daemon, which records the address of its socket. The socket tells whether the shim lives: a
//! refused connection means that it is dead, a slow answer does not.

mod client;
mod exec;
mod launch;
#[cfg(test)]
pub(crate) mod testing;

use serde::{Deserialize, Serialize};

pub(crate) use client::KILL_TIMEOUT;
pub use client::{
    ContainerTask, ExecEnd, ExecOutput, Exit, RootfsOverlay, SandboxRequest, Shim, Task, TaskState,
};
pub use exec::{Exec, ExecTask};
pub use launch::{Launcher, cleanup_after, wait_until_started};

/// Address of a shim, and the pid of its pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimAddress {
    /// Path of its unix socket.
    pub socket: String,
    /// Pid of the pod's first process, or of the shim when the pod has none; 0 until the pod was started.
    pub pid: u32,
}
