//! Additional processes in a container, by the calls of containerd's shim v2 that every shim serves.
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

use super::client::{QUICK_CALL_TIMEOUT, SIGKILL, SLOW_CALL_TIMEOUT, Shim, during, within};
use crate::error::Result;

/// Time limit of a delete: a foreign shim waits until the command's remaining output has been read.
const DELETE_TIMEOUT: Duration = Duration::from_secs(30);

/// An additional process in a container, known to the shim or about to be added. Clones refer to the same process.
#[derive(Clone)]
pub struct Exec {
    shim: Shim,
    container: String,
    id: String,
}

/// Parameters of an additional process.
#[derive(Clone, Debug, Default)]
pub struct ExecTask {
    /// The process gets a terminal.
    pub terminal: bool,
    /// FIFO for its input; empty is /dev/null.
    pub stdin: String,
    /// FIFO for its output; empty is /dev/null.
    pub stdout: String,
    /// FIFO for its errors; empty is /dev/null, or `stdout` with a terminal.
    pub stderr: String,
    /// The OCI runtime specification's Process in JSON.
    pub process: Vec<u8>,
}

impl Shim {
    /// Returns the process `id` in `container`, whether the shim knows it or not.
    pub fn exec(&self, container: &str, id: &str) -> Exec {
        Exec { shim: self.clone(), container: container.into(), id: id.into() }
    }

    /// Sets the size of the terminal of a container's first process; does nothing without a terminal.
    pub async fn resize(&self, container: &str, width: u16, height: u16) -> Result<()> {
        resize(self, container, "", width, height).await
    }
}

impl Exec {
    /// Returns the same process over another connection to its shim.
    pub fn over(&self, shim: Shim) -> Self {
        Self { shim, ..self.clone() }
    }

    /// Adds the process to the shim.
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
        let added = self.shim.task.exec(within(QUICK_CALL_TIMEOUT), &request).await;
        added.map(drop).map_err(during("add a command to container", &self.container))
    }

    /// Starts the process. The shim has opened its FIFOs when this returns.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when there is no such command.
    pub async fn start(&self) -> Result<()> {
        let request =
            api::StartRequest { id: self.container.clone(), exec_id: self.id.clone(), ..Default::default() };
        let started = self.shim.task.start(within(SLOW_CALL_TIMEOUT), &request).await;
        started.map(drop).map_err(during("run a command in container", &self.container))
    }

    /// Returns the exit code once the process has ended, 128 + signal when a signal ended it. Fails with `Unavailable`
    /// when the shim died.
    pub async fn wait(&self) -> Result<i32> {
        let request =
            api::WaitRequest { id: self.container.clone(), exec_id: self.id.clone(), ..Default::default() };
        let ended = self.shim.task.wait(Context::default(), &request).await;
        let ended = ended.map_err(during("wait for a command in container", &self.container))?;
        Ok(i32::try_from(ended.exit_status).unwrap_or(i32::MAX))
    }

    /// Kills the process; Berth's own shim kills its descendants too.
    pub async fn kill(&self) -> Result<()> {
        let request = api::KillRequest {
            id: self.container.clone(),
            exec_id: self.id.clone(),
            signal: SIGKILL,
            all: true,
            ..Default::default()
        };
        let killed = self.shim.task.kill(within(QUICK_CALL_TIMEOUT), &request).await;
        killed.map(drop).map_err(during("end a command in container", &self.container))
    }

    /// Closes its input after everything that was written has been passed on.
    pub async fn close_stdin(&self) -> Result<()> {
        let request = api::CloseIORequest {
            id: self.container.clone(),
            exec_id: self.id.clone(),
            stdin: true,
            ..Default::default()
        };
        let closed = self.shim.task.close_io(within(QUICK_CALL_TIMEOUT), &request).await;
        closed.map(drop).map_err(during("end the input of a command in container", &self.container))
    }

    /// Sets the size of its terminal.
    pub async fn resize(&self, width: u16, height: u16) -> Result<()> {
        resize(&self.shim, &self.container, &self.id, width, height).await
    }

    /// Deletes the process in the shim. It must have ended, or not have been started.
    pub async fn delete(&self) -> Result<()> {
        let request =
            api::DeleteRequest { id: self.container.clone(), exec_id: self.id.clone(), ..Default::default() };
        let deleted = self.shim.task.delete(within(DELETE_TIMEOUT), &request).await;
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
    let resized = shim.task.resize_pty(within(QUICK_CALL_TIMEOUT), &request).await;
    resized.map(drop).map_err(during("resize the terminal of", container))
}
