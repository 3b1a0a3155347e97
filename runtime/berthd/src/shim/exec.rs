//! One more process in a container, by the calls of containerd's shim v2 that every shim serves.
//!
//! ```text
//!        add            start                ends              delete
//! (none) ---> Added ------------> Running ---------> Stopped ---------> (none)
//!               |  delete (could not be started)
//!               +------------------------------------------------------> (none)
//! ```

use std::time::Duration;

use containerd_shim_protos::api;
use protobuf::well_known_types::any::Any;
use ttrpc::context::Context;

use super::client::{QUICK, SIGKILL, SLOW, Shim, during, within};
use crate::error::Result;

/// A foreign shim waits here for readers of what the command left in its pipes.
const DELETE: Duration = Duration::from_secs(30);

/// A process in a container that a shim knows, or is about to. Clones mean the same one.
#[derive(Clone)]
pub struct Exec {
    shim: Shim,
    container: String,
    id: String,
}

/// What a shim is asked to run beside a container's first process.
#[derive(Clone, Debug, Default)]
pub struct ExecTask {
    /// It gets a terminal.
    pub terminal: bool,
    /// FIFO it reads from; empty is /dev/null.
    pub stdin: String,
    /// FIFO it writes to; empty is /dev/null.
    pub stdout: String,
    /// FIFO for its errors; empty is /dev/null, or with a terminal `stdout`.
    pub stderr: String,
    /// The OCI runtime spec's Process in JSON.
    pub process: Vec<u8>,
}

impl Shim {
    /// The process `id` in `container`, known to the shim or not.
    pub fn exec(&self, container: &str, id: &str) -> Exec {
        Exec { shim: self.clone(), container: container.into(), id: id.into() }
    }

    /// Sets the size of the terminal of a container's first process; nothing happens when it has none.
    pub async fn resize(&self, container: &str, width: u16, height: u16) -> Result<()> {
        resize(self, container, "", width, height).await
    }
}

impl Exec {
    /// The same process, asked after over another connection to its shim.
    pub fn over(&self, shim: Shim) -> Self {
        Self { shim, ..self.clone() }
    }

    /// Tells the shim of it.
    pub async fn add(&self, task: ExecTask) -> Result<()> {
        let process = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: task.process,
            ..Any::default()
        };
        let request = api::ExecProcessRequest {
            id: self.container.clone(),
            exec_id: self.id.clone(),
            terminal: task.terminal,
            stdin: task.stdin,
            stdout: task.stdout,
            stderr: task.stderr,
            spec: Some(process).into(),
            ..Default::default()
        };
        let added = self.shim.task.exec(within(QUICK), &request).await;
        added.map(drop).map_err(during("add a command to container", &self.container))
    }

    /// Runs it. The shim has opened its FIFOs when this returns.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when there is no such command.
    pub async fn start(&self) -> Result<()> {
        let request =
            api::StartRequest { id: self.container.clone(), exec_id: self.id.clone(), ..Default::default() };
        let started = self.shim.task.start(within(SLOW), &request).await;
        started.map(drop).map_err(during("run a command in container", &self.container))
    }

    /// Returns its exit code once it has ended, 128 + signal when a signal ended it; fails with `Unavailable`
    /// when the shim died.
    pub async fn wait(&self) -> Result<i32> {
        let request =
            api::WaitRequest { id: self.container.clone(), exec_id: self.id.clone(), ..Default::default() };
        let ended = self.shim.task.wait(Context::default(), &request).await;
        let ended = ended.map_err(during("wait for a command in container", &self.container))?;
        Ok(i32::try_from(ended.exit_status).unwrap_or(i32::MAX))
    }

    /// Kills it, and in our own shim what it started.
    pub async fn kill(&self) -> Result<()> {
        let request = api::KillRequest {
            id: self.container.clone(),
            exec_id: self.id.clone(),
            signal: SIGKILL,
            all: true,
            ..Default::default()
        };
        let killed = self.shim.task.kill(within(QUICK), &request).await;
        killed.map(drop).map_err(during("end a command in container", &self.container))
    }

    /// Ends its input once everything that was written to it has been passed on.
    pub async fn close_stdin(&self) -> Result<()> {
        let request = api::CloseIORequest {
            id: self.container.clone(),
            exec_id: self.id.clone(),
            stdin: true,
            ..Default::default()
        };
        let closed = self.shim.task.close_io(within(QUICK), &request).await;
        closed.map(drop).map_err(during("end the input of a command in container", &self.container))
    }

    /// Sets the size of its terminal.
    pub async fn resize(&self, width: u16, height: u16) -> Result<()> {
        resize(&self.shim, &self.container, &self.id, width, height).await
    }

    /// Makes the shim forget it, once it has ended or when it was not started.
    pub async fn delete(&self) -> Result<()> {
        let request =
            api::DeleteRequest { id: self.container.clone(), exec_id: self.id.clone(), ..Default::default() };
        let deleted = self.shim.task.delete(within(DELETE), &request).await;
        deleted.map(drop).map_err(during("forget a command in container", &self.container))
    }
}

async fn resize(shim: &Shim, container: &str, exec: &str, width: u16, height: u16) -> Result<()> {
    let request = api::ResizePtyRequest {
        id: container.into(),
        exec_id: exec.into(),
        width: width.into(),
        height: height.into(),
        ..Default::default()
    };
    let resized = shim.task.resize_pty(within(QUICK), &request).await;
    resized.map(drop).map_err(during("resize the terminal of", container))
}
