//! `containerd.task.v3.Task`: containers and execs.

use super::{run_to_completion, unless_closed};
use crate::container::{Container, Identity, Phase, StdioConfig};
use crate::error::Error;
use crate::events::timestamp;
use crate::exec::{self, Exec};
use crate::exit::Exit;
use crate::init::RootfsMount;
use crate::pod::{NewContainer, Pod};
use crate::spec::Resources;
use async_trait::async_trait;
use containerd_shim_protos::api::*;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::shim_async::{Task, create_task};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use ttrpc::r#async::{Service, TtrpcContext};

struct TaskService(Arc<Pod>);

pub(super) fn service(pod: &Arc<Pod>) -> HashMap<String, Service> {
    create_task(Arc::new(TaskService(Arc::clone(pod))))
}

/// Target of a request: a container's first process, or an exec.
enum Target {
    Container(Arc<Container>),
    Exec(Arc<Container>, Arc<Exec>),
}

impl TaskService {
    fn target(&self, id: &str, exec_id: &str) -> Result<Target, Error> {
        let container = self.0.container(id)?;
        if exec_id.is_empty() {
            return Ok(Target::Container(container));
        }
        let exec = container.exec(exec_id)?;
        Ok(Target::Exec(container, exec))
    }
}

#[async_trait]
impl Task for TaskService {
    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        Ok(match self.target(&request.id, &request.exec_id)? {
            Target::Container(container) => container_state(&container),
            Target::Exec(container, exec) => exec_state(&container, &exec),
        })
    }

    async fn create(
        &self,
        context: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        if !request.checkpoint.is_empty() {
            return Err(Error::Unsupported("starting from a checkpoint").into());
        }
        let (pod, limit) = (Arc::clone(&self.0), super::limit(context));
        let pid = run_to_completion(async move {
            let container = pod.create(new_container(&request), limit).await?;
            pod.context().events.created(&request, container.pid());
            Ok(container.pid())
        })
        .await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let target = self.target(&request.id, &request.exec_id)?;
        let pod = Arc::clone(&self.0);
        let pid = run_to_completion(async move {
            let events = &pod.context().events;
            match target {
                Target::Container(container) => {
                    let pid = container.start().await?;
                    events.started(container.id(), pid);
                    Ok(pid)
                }
                Target::Exec(container, exec) => {
                    let pid = exec.start(&container).await?;
                    events.exec_started(container.id(), exec.id(), pid);
                    Ok(pid)
                }
            }
        })
        .await?;
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        let target = self.target(&request.id, &request.exec_id)?;
        let pod = Arc::clone(&self.0);
        let (pid, exit) = run_to_completion(async move {
            match target {
                Target::Container(container) => {
                    let (container, exit) = pod.delete(container.id()).await?;
                    pod.context().events.deleted(container.id(), container.pid(), &exit);
                    Ok((container.pid(), exit))
                }
                // There is a delete event for containers only.
                Target::Exec(container, exec) => delete_exec(&container, &exec),
            }
        })
        .await?;
        let exited_at = MessageField::some(timestamp(exit.finished_at));
        Ok(DeleteResponse { pid, exit_status: exit.code, exited_at, ..Default::default() })
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        let pids = self.0.container(&request.id)?.pids()?;
        let processes = pids.into_iter().map(|pid| ProcessInfo { pid, ..Default::default() }).collect();
        Ok(PidsResponse { processes, ..Default::default() })
    }

    async fn pause(&self, _: &TtrpcContext, request: PauseRequest) -> ttrpc::Result<Empty> {
        let container = self.0.container(&request.id)?;
        run_to_completion(async move {
            container.pause().await?;
            container.context().events.paused(container.id());
            Ok(Empty::default())
        })
        .await
    }

    async fn resume(&self, _: &TtrpcContext, request: ResumeRequest) -> ttrpc::Result<Empty> {
        let container = self.0.container(&request.id)?;
        run_to_completion(async move {
            container.resume().await?;
            container.context().events.resumed(container.id());
            Ok(Empty::default())
        })
        .await
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(Error::Unsupported("checkpoint").into())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        let signal = signal_number(request.signal)?;
        match self.target(&request.id, &request.exec_id)? {
            Target::Container(container) => container.kill(signal, request.all)?,
            Target::Exec(container, exec) => exec.kill(&container, signal, request.all)?,
        }
        Ok(Empty::default())
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let container = self.0.container(&request.id)?;
        container.must_run("exec in")?;
        if request.exec_id.is_empty() {
            return Err(Error::Invalid { field: "exec_id", reason: "empty".into() }.into());
        }
        let stdio_config = StdioConfig {
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
            terminal: request.terminal,
        };
        let spec = request.spec.into_option().unwrap_or_default().value;
        container.add_exec(Exec::new(request.exec_id.clone(), stdio_config, spec)?)?;
        self.0.context().events.exec_added(&request.id, &request.exec_id);
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let (width, height) = (cells("width", request.width)?, cells("height", request.height)?);
        match self.target(&request.id, &request.exec_id)? {
            Target::Container(container) => container.resize(width, height)?,
            Target::Exec(_, exec) => exec.resize(width, height)?,
        }
        Ok(Empty::default())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let target = self.target(&request.id, &request.exec_id)?;
        match target {
            _ if !request.stdin => {}
            Target::Container(container) => container.close_stdin(),
            Target::Exec(_, exec) => exec.close_stdin(),
        }
        Ok(Empty::default())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let container = self.0.container(&request.id)?;
        let json = request.resources.into_option().unwrap_or_default().value;
        let resources: Resources = serde_json::from_slice(&json)
            .map_err(|error| Error::Invalid { field: "resources", reason: error.to_string() })?;
        if let Some(member) = resources.unsupported() {
            return Err(Error::Unsupported(member).into());
        }
        run_to_completion(async move { container.update(&resources).await }).await?;
        Ok(Empty::default())
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let exit = match self.target(&request.id, &request.exec_id)? {
            Target::Container(container) => unless_closed(self.0.closed(), container.wait()).await?,
            Target::Exec(_, exec) => unless_closed(self.0.closed(), exec.wait()).await?,
        };
        let exited_at = MessageField::some(timestamp(exit.finished_at));
        Ok(WaitResponse { exit_status: exit.code, exited_at, ..Default::default() })
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let container = self.0.container(&request.id)?;
        let stats = container.cgroup().stats().map_err(|source| Error::Cgroup {
            doing: "measure",
            id: request.id,
            source,
        })?;
        Ok(StatsResponse { stats: MessageField::some(super::stats::pack(&stats)), ..Default::default() })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        let task_pid = self.0.container(&request.id).map_or(0, |container| container.pid());
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(ConnectResponse { shim_pid: std::process::id(), task_pid, version, ..Default::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: ShutdownRequest) -> ttrpc::Result<Empty> {
        // containerd calls this after each container; only the last call counts. A sandbox is shut down by its own call.
        if self.0.is_empty() {
            self.0.close();
        }
        Ok(Empty::default())
    }
}

fn new_container(request: &CreateTaskRequest) -> NewContainer {
    let rootfs = request.rootfs.iter().map(|mount| RootfsMount {
        kind: mount.type_.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: mount.options.clone(),
    });
    let stdio_config = StdioConfig {
        stdin: request.stdin.clone(),
        stdout: request.stdout.clone(),
        stderr: request.stderr.clone(),
        terminal: request.terminal,
    };
    let bundle = PathBuf::from(&request.bundle);
    NewContainer {
        identity: Identity { id: request.id.clone(), bundle, stdio_config },
        rootfs: rootfs.collect(),
    }
}

fn delete_exec(container: &Container, exec: &Exec) -> Result<(u32, Exit), Error> {
    let ended = match exec.phase() {
        exec::Phase::Stopped { pid, exit } => (pid, exit),
        exec::Phase::Added => (0, Exit::now(0, "")),
        exec::Phase::Running { .. } => {
            return Err(Error::Precondition { doing: "delete", id: exec.id().to_owned(), state: "running" });
        }
    };
    container.remove_exec(exec.id());
    Ok(ended)
}

fn container_state(container: &Container) -> StateResponse {
    let identity = container.identity();
    let (status, exit) = match container.phase() {
        Phase::Created => (Status::CREATED, None),
        Phase::Running => (Status::RUNNING, None),
        Phase::Paused => (Status::PAUSED, None),
        Phase::Stopped(exit) => (Status::STOPPED, Some(exit)),
    };
    StateResponse {
        id: identity.id.clone(),
        bundle: identity.bundle.display().to_string(),
        ..state(&identity.stdio_config, container.pid(), status, exit)
    }
}

fn exec_state(container: &Container, exec: &Exec) -> StateResponse {
    let (status, pid, exit) = match exec.phase() {
        exec::Phase::Added => (Status::CREATED, 0, None),
        exec::Phase::Running { pid } => (Status::RUNNING, pid, None),
        exec::Phase::Stopped { pid, exit } => (Status::STOPPED, pid, Some(exit)),
    };
    StateResponse {
        id: container.id().to_owned(),
        exec_id: exec.id().to_owned(),
        ..state(exec.stdio_config(), pid, status, exit)
    }
}

fn state(stdio_config: &StdioConfig, pid: u32, status: Status, exit: Option<Exit>) -> StateResponse {
    let mut response = StateResponse {
        pid,
        status: status.into(),
        stdin: stdio_config.stdin.clone(),
        stdout: stdio_config.stdout.clone(),
        stderr: stdio_config.stderr.clone(),
        terminal: stdio_config.terminal,
        ..Default::default()
    };
    if let Some(exit) = exit {
        response.exit_status = exit.code;
        response.exited_at = MessageField::some(timestamp(exit.finished_at));
    }
    response
}

/// Checks that a signal is 1 to 64.
fn signal_number(signal: u32) -> Result<i32, Error> {
    match i32::try_from(signal) {
        Ok(signal @ 1..=64) => Ok(signal),
        _ => Err(Error::Invalid { field: "signal", reason: format!("{signal} is none") }),
    }
}

fn cells(field: &'static str, value: u32) -> Result<u16, Error> {
    u16::try_from(value).map_err(|_| Error::Invalid { field, reason: format!("{value} is too large") })
}
