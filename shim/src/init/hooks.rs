//! Hooks: programs that a bundle names to be run at certain moments (OCI runtime specification, POSIX-platform hooks). A
//! failing one fails its operation, except for poststop, after which there is no operation left to fail.
//!
//! ```text
//! stage --forks--> runner, in the host's namespaces: prestart, createRuntime
//!   `--clone--> first process: mounts, waits for the runner, createContainer, pivots ... barrier ... startContainer, execve
//! shim ---forks---> poststart when execve has happened, poststop when the container has ended
//! ```
//! A hook gets the container's state on standard input. Its output is reported when it fails.

mod program;

use super::child;
use super::error::At;
use super::{Error, Step, user};
use crate::spec::{Hook, Spec};
use crate::sys;
use rustix::io::retry_on_intr;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Which hooks remain to be run after the stage has ended.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct LaterHooks {
    /// After execve.
    pub poststart: bool,
    /// After the end.
    pub poststop: bool,
}

/// The container as its hooks see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct HookContext<'a> {
    pub(super) id: &'a str,
    pub(super) bundle: &'a Path,
    pub(super) spec: &'a Spec,
}

impl HookContext<'_> {
    /// Which hooks run later.
    pub(super) fn later_hooks(&self) -> LaterHooks {
        let hooks = &self.spec.hooks;
        LaterHooks { poststart: !hooks.poststart.is_empty(), poststop: !hooks.poststop.is_empty() }
    }

    /// Runs the hooks of one moment, in order, up to the first that fails. `pid` is the first process's, or 0.
    pub(super) fn run(&self, when: &str, hooks: &[Hook], status: &str, pid: u32) -> Result<(), Error> {
        if hooks.is_empty() {
            return Ok(());
        }
        let state = self.state(status, pid);
        hooks.iter().try_for_each(|hook| program::run(when, hook, state.as_bytes()))
    }

    /// The state in JSON, as the specification defines it.
    fn state(&self, status: &str, pid: u32) -> String {
        let mut state = json!({
            "ociVersion": self.spec.oci_version,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
            "annotations": self.spec.annotations,
        });
        if pid != 0 {
            state["pid"] = pid.into();
        }
        state.to_string()
    }
}

/// The process that runs the hooks that belong into the runtime's namespaces: a child of the stage, which waits for its end.
pub(super) struct HookRunner {
    process: OwnedFd,
    /// The near end of a socket pair to the runner, shared by the stage and the container's first process.
    socket: Option<OwnedFd>,
}

impl HookRunner {
    /// Starts it if there are hooks for it. Its result is given to `report`, in the runner.
    pub(super) fn start(
        context: HookContext<'_>,
        report: impl Fn(Result<(), Error>) -> u8,
    ) -> Result<Option<Self>, Error> {
        let hooks = &context.spec.hooks;
        if hooks.prestart.is_empty() && hooks.create_runtime.is_empty() {
            return Ok(None);
        }
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (near, far) = pair.at(Step::Hook, || "make a socket pair".into())?;
        let mut socket = Some(near);
        let pid = sys::clone_child(0, || {
            // Drop the inherited copy of the near end: otherwise the runner would never see end-of-file when the other
            // holders die.
            drop(socket.take());
            report(serve(context, &far))
        });
        let pid = pid.at(Step::Hook, || "make a process for the hooks".into())?;
        Ok(Some(Self { process: child::pidfd_of(pid)?, socket }))
    }

    /// Called in the container's first process once all is mounted: waits until the runner's hooks have run.
    pub(super) fn wait_for_hooks(&self) {
        let Some(socket) = &self.socket else { return };
        let mut go = [0u8];
        let sent = send(socket, b"r", SendFlags::NOSIGNAL);
        let passed =
            sent.is_ok() && retry_on_intr(|| recv(socket, &mut go, RecvFlags::empty())) == Ok((1, 1));
        if !passed {
            // The runner has reported the failure.
            sys::leave(1);
        }
    }

    /// Called in the stage: sends the first process's pid to the runner and waits for its end.
    pub(super) fn run_for(mut self, pid: u32) {
        if let Some(socket) = self.socket.take() {
            // If the runner is gone, it has failed and reported that.
            let _ = send(&socket, &pid.to_ne_bytes(), SendFlags::NOSIGNAL);
        }
        child::wait(self.process.as_fd());
    }
}

/// The whole life of the runner.
fn serve(context: HookContext<'_>, socket: &OwnedFd) -> Result<(), Error> {
    user::die_with_shim()?;
    let Some(pid) = wait_until_ready(socket)? else { return Ok(()) };
    let hooks = &context.spec.hooks;
    context.run("prestart", &hooks.prestart, "creating", pid)?;
    context.run("createRuntime", &hooks.create_runtime, "creating", pid)?;
    send(socket, b"g", SendFlags::NOSIGNAL).map(drop).at(Step::Hook, || "let the container go on".into())
}

/// Waits for the pid from the stage and for the first process to be ready; `None` when both are gone.
fn wait_until_ready(socket: &OwnedFd) -> Result<Option<u32>, Error> {
    let (mut pid, mut ready) = (None, false);
    while pid.is_none() || !ready {
        let mut message = [0u8; 4];
        let got = retry_on_intr(|| recv(socket, &mut message, RecvFlags::empty()));
        match got.at(Step::Hook, || "wait for the container".into())?.1 {
            0 => return Ok(None),
            1 => ready = true,
            _ => pid = Some(u32::from_ne_bytes(message)),
        }
    }
    Ok(pid)
}
