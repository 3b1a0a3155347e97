//! Berth's side of the shim protocol: start a shim, ask it, notice that it is gone.
//!
//! A shim outlives the daemon. What is kept of it is the address of its socket; whether it lives is what that
//! socket says: a refused connection is a dead shim, a slow answer is not.

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
pub use launch::{Launcher, cleanup_after, settled};

/// Where a shim answers, and which process it was when it was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimAddress {
    /// Path of its unix socket.
    pub socket: String,
    /// Its process, as it was when the pod was started.
    pub pid: u32,
}
