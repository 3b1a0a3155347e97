//! The calls to a shim, converted between its types and the daemon's.

use std::{io::ErrorKind, time::Duration};

use berth_shim_proto::{berth_shim as ours, berth_shim_ttrpc::ShimClient};
use containerd_shim_protos::{
    api, sandbox_api, sandbox_async::SandboxClient, shim_async::TaskClient, types::mount::Mount,
};
use protobuf::{Message, well_known_types::any::Any};
use tokio::{net::UnixStream, time::timeout};
use ttrpc::{Code, asynchronous::Client, context, context::Context};

use crate::{
    error::{During, Error, Kind, Result},
    pod::config::Users,
};

/// Time limit of calls that a shim answers from memory or with a few system calls.
pub(super) const QUICK_CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of calls that touch file systems which may be slow or dead.
pub(super) const SLOW_CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// Time limit of making a container, which hangs when a volume does. It is less than kubelet's own limit, so that
/// kubelet gets an error that names the step.
const CREATE_TIMEOUT: Duration = Duration::from_secs(100);
/// How long a killed process may take to end. One that waits for a dead file system never ends.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const SIGKILL: u32 = 9;
const MAX_EXEC_OUTPUT_BYTES: usize = 16 << 20;

/// A connection to one pod's shim.
#[derive(Clone)]
pub struct Shim {
    sandbox: SandboxClient,
    pub(super) task: TaskClient,
    berth: ShimClient,
}

/// Parameters of a pod's sandbox.
#[derive(Clone, Debug)]
pub struct SandboxRequest {
    /// The pod's id.
    pub id: String,
    /// The pod's bundle.
    pub bundle: String,
    /// Where to pin the network namespace; empty on the host's network.
    pub netns: String,
    /// The remaining parameters.
    pub options: ours::SandboxOptions,
}

/// Parameters of a container.
#[derive(Clone, Debug)]
pub struct ContainerTask {
    /// The container's id.
    pub id: String,
    /// Its bundle, with config.json.
    pub bundle: String,
    /// Its root file system.
    pub rootfs: RootfsOverlay,
    /// The process gets a terminal.
    pub terminal: bool,
    /// FIFO for the process's input; empty is /dev/null.
    pub stdin: String,
    /// URI of the output's destination; empty discards it.
    pub output: String,
}

/// The overlay of a root file system.
#[derive(Clone, Debug)]
pub struct RootfsOverlay {
    /// Read-only layers, uppermost first.
    pub lower: Vec<String>,
    /// The writable layer.
    pub upper: String,
    /// overlayfs's work directory, on the same file system as `upper`.
    pub work: String,
    /// Id mapping of the lower layers' owners. The upper layer is not mapped.
    pub users: Option<Users>,
    /// SELinux label of all files in it.
    pub label: Option<String>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, 0 to 255; 128 + signal when a signal ended it.
    pub code: i32,
    /// Nanoseconds since the epoch.
    pub finished_at: i64,
    /// Whether the kernel's OOM killer killed it.
    pub oom_killed: bool,
    /// Why the shim could not run or watch it; empty otherwise.
    pub message: String,
}

/// A container as its shim knows it.
#[derive(Clone, Debug)]
pub struct Task {
    /// The container's id.
    pub id: String,
    /// Pid in the host's PID namespace; 0 once it has ended.
    pub pid: u32,
    /// Time of the start in nanoseconds since the epoch; 0 if it was never started.
    pub started_at: i64,
    /// Where in its life it is.
    pub state: TaskState,
}

/// Where in its life a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskState {
    /// Set up, waiting to be started.
    Created,
    /// Running, or paused.
    Running,
    /// Ended.
    Stopped(Exit),
}

/// Output and exit code of a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutput {
    /// At most 16 MiB.
    pub stdout: Vec<u8>,
    /// At most 16 MiB.
    pub stderr: Vec<u8>,
    /// Exit code, 128 + signal when a signal ended it.
    pub code: i32,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecEnd {
    /// It ended by itself.
    Exited(ExecOutput),
    /// It was killed after its time limit.
    TimedOut,
}

impl Shim {
    /// Connects to the shim that listens on `socket`.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the socket has no listener: the shim is dead. Errors of other kinds say nothing about the
    /// shim.
    pub async fn connect(socket: &str) -> Result<Self> {
        let step = || format!("connect to the shim at {socket}");
        let connection = match UnixStream::connect(socket).await {
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => {
                return Err(Error::caused(Kind::Unavailable, step(), error));
            }
            connected => connected.during(step)?,
        };
        let client = Client::new(connection.into());
        Ok(Self {
            sandbox: SandboxClient::new(client.clone()),
            task: TaskClient::new(client.clone()),
            berth: ShimClient::new(client),
        })
    }

    /// Makes the pod's namespaces and cgroup.
    pub async fn create_sandbox(&self, request: SandboxRequest) -> Result<()> {
        let options = Any {
            type_url: "berth.shim.v1.SandboxOptions".into(),
            value: encode(&request.options)?,
            ..Any::default()
        };
        let create = sandbox_api::CreateSandboxRequest {
            sandbox_id: request.id.clone(),
            bundle_path: request.bundle,
            netns_path: request.netns,
            options: Some(options).into(),
            ..Default::default()
        };
        let made = self.sandbox.create_sandbox(within(QUICK_CALL_TIMEOUT), &create).await;
        made.map(drop).map_err(during("create the sandbox", &request.id))
    }

    /// Starts the sandbox. Returns the pid of the process that holds its namespaces.
    pub async fn start_sandbox(&self, id: &str) -> Result<u32> {
        let start = sandbox_api::StartSandboxRequest { sandbox_id: id.into(), ..Default::default() };
        let started = self.sandbox.start_sandbox(within(SLOW_CALL_TIMEOUT), &start).await;
        Ok(started.map_err(during("start the sandbox", id))?.pid)
    }

    /// Returns when the pod's sandbox has ended; fails with `Unavailable` when the shim died.
    pub async fn wait_sandbox(&self, id: &str) -> Result<()> {
        let request = sandbox_api::WaitSandboxRequest { sandbox_id: id.into(), ..Default::default() };
        let ended = self.sandbox.wait_sandbox(Context::default(), &request).await;
        ended.map(drop).map_err(during("wait for the sandbox", id))
    }

    /// Kills the pod's processes and removes its namespaces and cgroup.
    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = sandbox_api::StopSandboxRequest { sandbox_id: id.into(), ..Default::default() };
        let stopped = self.sandbox.stop_sandbox(within(SLOW_CALL_TIMEOUT), &request).await;
        stopped.map(drop).map_err(during("stop the sandbox", id))
    }

    /// Asks the shim to exit. A broken connection counts as success.
    pub async fn shutdown(&self, id: &str) -> Result<()> {
        let request = sandbox_api::ShutdownSandboxRequest { sandbox_id: id.into(), ..Default::default() };
        match self.sandbox.shutdown_sandbox(within(QUICK_CALL_TIMEOUT), &request).await {
            Err(error) if kind_of(&error) != Kind::Unavailable => {
                Err(during("shut the shim down", id)(error))
            }
            _ => Ok(()),
        }
    }

    /// Sets a container up, so that it waits to be started. Returns the pid of its first process.
    pub async fn create(&self, container: ContainerTask) -> Result<u32> {
        let request = api::CreateTaskRequest {
            id: container.id.clone(),
            bundle: container.bundle,
            rootfs: vec![container.rootfs.into_mount()],
            terminal: container.terminal,
            stdin: container.stdin,
            stdout: container.output.clone(),
            stderr: container.output,
            ..Default::default()
        };
        let created = self.task.create(within(CREATE_TIMEOUT), &request).await;
        Ok(created.map_err(during("create container", &container.id))?.pid)
    }

    /// Returns the step that the creation of a container is at, as a verb phrase; `None` when the shim does not say.
    pub async fn creation_step(&self, id: &str) -> Option<String> {
        let known =
            self.berth.containers(within(QUICK_CALL_TIMEOUT), &ours::ContainersRequest::new()).await.ok()?;
        let creation = known.creations.into_iter().find(|creation| creation.container_id == id)?;
        Some(creation.step).filter(|step| !step.is_empty())
    }

    /// Starts a created container. Returns the pid of its first process.
    pub async fn start(&self, id: &str) -> Result<u32> {
        let request = api::StartRequest { id: id.into(), ..Default::default() };
        let started = self.task.start(within(SLOW_CALL_TIMEOUT), &request).await;
        Ok(started.map_err(during("start container", id))?.pid)
    }

    /// Sends a signal to a container's first process. Succeeds when it has ended.
    pub async fn signal(&self, id: &str, signal: u32) -> Result<()> {
        let request = api::KillRequest { id: id.into(), signal, ..Default::default() };
        self.send(request, "signal container").await
    }

    /// Kills all processes of a container. Succeeds when it has ended.
    pub async fn kill(&self, id: &str) -> Result<()> {
        let request = api::KillRequest { id: id.into(), signal: SIGKILL, all: true, ..Default::default() };
        self.send(request, "kill container").await
    }

    async fn send(&self, request: api::KillRequest, step: &str) -> Result<()> {
        match self.task.kill(within(QUICK_CALL_TIMEOUT), &request).await {
            Err(error) if kind_of(&error) != Kind::NotFound => Err(during(step, &request.id)(error)),
            _ => Ok(()),
        }
    }

    /// Deletes a container that has ended or was never started.
    pub async fn delete(&self, id: &str) -> Result<()> {
        let request = api::DeleteRequest { id: id.into(), ..Default::default() };
        let deleted = self.task.delete(within(SLOW_CALL_TIMEOUT), &request).await;
        deleted.map(drop).map_err(during("delete container", id))
    }

    /// Kills a container that should not exist, and deletes it.
    ///
    /// # Errors
    ///
    /// `DeadlineExceeded` when it has not ended 10 s after it was killed.
    pub async fn discard(&self, id: &str) -> Result<()> {
        self.kill(id).await?;
        let late =
            |_| Error::new(Kind::DeadlineExceeded, format!("container {id} was killed and has not ended"));
        timeout(KILL_TIMEOUT, self.wait(id)).await.map_err(late)??;
        self.delete(id).await
    }

    /// Changes a running container's limits; `resources` is the OCI runtime spec's LinuxResources in JSON.
    pub async fn update(&self, id: &str, resources: Vec<u8>) -> Result<()> {
        let any = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources".into(),
            value: resources,
            ..Any::default()
        };
        let request =
            api::UpdateTaskRequest { id: id.into(), resources: Some(any).into(), ..Default::default() };
        let updated = self.task.update(within(QUICK_CALL_TIMEOUT), &request).await;
        updated.map(drop).map_err(during("update container", id))
    }

    /// Returns when the container has ended; fails with `Unavailable` when the shim died.
    pub async fn wait(&self, id: &str) -> Result<Exit> {
        let request = ours::WaitContainerRequest { id: id.into(), ..Default::default() };
        let ended = self.berth.wait_container(Context::default(), &request).await;
        ended.map(Exit::from).map_err(during("wait for container", id))
    }

    /// Returns all containers that the shim knows. Has no time limit.
    pub async fn tasks(&self) -> Result<Vec<Task>> {
        let known = self.berth.containers(Context::default(), &ours::ContainersRequest::new()).await;
        let known = known.map_err(during("list the containers of", "its shim"))?;
        Ok(known.containers.into_iter().map(Task::from).collect())
    }

    /// Returns the pid of the first process of the pod's shared PID namespace; `None` without such a namespace.
    pub async fn pod_init(&self) -> Result<Option<u32>> {
        let known = self.berth.containers(within(QUICK_CALL_TIMEOUT), &ours::ContainersRequest::new()).await;
        let pid = known.map_err(during("ask for the first process of", "its pod"))?.pod_init_pid;
        Ok((pid != 0).then_some(pid))
    }

    /// Runs `args` in a running container and returns the output. Without `limit` there is no time limit.
    ///
    /// # Errors
    ///
    /// `DeadlineExceeded` when the shim has not answered 10 s after `limit`.
    pub async fn exec_sync(&self, id: &str, args: Vec<String>, limit: Option<Duration>) -> Result<ExecEnd> {
        let run = self.exec_and_collect(id, args, limit);
        let Some(limit) = limit else { return run.await };
        let silent = |_| {
            let step = format!("run a command in container {id}: the shim does not answer");
            Error::new(Kind::DeadlineExceeded, step)
        };
        timeout(limit.saturating_add(QUICK_CALL_TIMEOUT), run).await.map_err(silent)?
    }

    async fn exec_and_collect(
        &self,
        id: &str,
        args: Vec<String>,
        limit: Option<Duration>,
    ) -> Result<ExecEnd> {
        let request = ours::ExecSyncRequest {
            container_id: id.into(),
            args,
            timeout_ns: limit.map_or(0, |limit| i64::try_from(limit.as_nanos()).unwrap_or(i64::MAX)),
            ..Default::default()
        };
        let failed = during("run a command in container", id);
        let mut stream = self.berth.exec_sync(Context::default(), &request).await.map_err(&failed)?;
        let mut output = ExecOutput::default();
        while let Some(message) = stream.recv().await.map_err(&failed)? {
            match message.what {
                Some(ours::exec_sync_output::What::Stdout(bytes)) => append(&mut output.stdout, &bytes),
                Some(ours::exec_sync_output::What::Stderr(bytes)) => append(&mut output.stderr, &bytes),
                Some(ours::exec_sync_output::What::End(end)) if end.timed_out => {
                    return Ok(ExecEnd::TimedOut);
                }
                Some(ours::exec_sync_output::What::End(end)) => {
                    output.code = i32::try_from(end.code).unwrap_or(i32::MAX);
                    return Ok(ExecEnd::Exited(output));
                }
                _ => {}
            }
        }
        Err(Error::new(
            Kind::Internal,
            format!("run a command in container {id}: the shim did not say how it ended"),
        ))
    }

    /// Has the shim copy the container's output from now on to FIFOs whose reading ends are open; an empty path copies
    /// nothing. Output that does not fit into a FIFO is lost for its reader.
    ///
    /// # Errors
    ///
    /// `FailedPrecondition` when the container does not run.
    pub async fn attach(&self, id: &str, stdout: String, stderr: String) -> Result<()> {
        let request = ours::AttachRequest { id: id.into(), stdout, stderr, ..Default::default() };
        let attached = self.berth.attach(within(QUICK_CALL_TIMEOUT), &request).await;
        attached.map(drop).map_err(during("attach to container", id))
    }

    /// Continues the log in a new file of the same name.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = ours::ReopenLogRequest { id: id.into(), ..Default::default() };
        let reopened = self.berth.reopen_log(within(QUICK_CALL_TIMEOUT), &request).await;
        reopened.map(drop).map_err(during("reopen the log of container", id))
    }
}

impl RootfsOverlay {
    fn into_mount(self) -> Mount {
        let mut options = vec![
            format!("lowerdir={}", self.lower.join(":")),
            format!("upperdir={}", self.upper),
            format!("workdir={}", self.work),
        ];
        options.extend(self.users.into_iter().flat_map(Users::overlay_options));
        // Quoted, because a label may contain commas.
        options.extend(self.label.map(|label| format!("context=\"{label}\"")));
        Mount { type_: "overlay".into(), source: "overlay".into(), options, ..Default::default() }
    }
}

impl From<ours::Exit> for Exit {
    fn from(exit: ours::Exit) -> Self {
        Self {
            code: i32::try_from(exit.code).unwrap_or(i32::MAX),
            finished_at: exit.finished_at,
            oom_killed: exit.oom_killed,
            message: exit.message,
        }
    }
}

impl From<ours::Container> for Task {
    fn from(container: ours::Container) -> Self {
        let state = match container.state.enum_value_or_default() {
            ours::container::State::CREATED => TaskState::Created,
            ours::container::State::RUNNING | ours::container::State::PAUSED => TaskState::Running,
            ours::container::State::STOPPED => {
                TaskState::Stopped(container.exit.into_option().unwrap_or_default().into())
            }
        };
        Self { id: container.id, pid: container.pid, started_at: container.started_at, state }
    }
}

/// Appends up to the limit. The excess is read and dropped, so that the process does not block on its output.
fn append(buffer: &mut Vec<u8>, bytes: &[u8]) {
    let room = MAX_EXEC_OUTPUT_BYTES - buffer.len();
    buffer.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

pub(super) fn within(limit: Duration) -> Context {
    context::with_duration(limit)
}

fn encode(message: &impl Message) -> Result<Vec<u8>> {
    let encoded = message.write_to_bytes();
    encoded.map_err(|error| Error::caused(Kind::Internal, "encode a message to the shim", error))
}

/// Returns a function that turns a shim's error into one that names the step and its object.
pub(super) fn during(step: &str, id: &str) -> impl Fn(ttrpc::Error) -> Error {
    let step = format!("{step} {id}");
    move |error| match &error {
        ttrpc::Error::RpcStatus(status) if status.code() != Code::UNKNOWN || !status.message.is_empty() => {
            Error::new(kind_of(&error), format!("{step}: {}", status.message))
        }
        _ => Error::caused(kind_of(&error), step.clone(), error),
    }
}

fn kind_of(error: &ttrpc::Error) -> Kind {
    let status = match error {
        ttrpc::Error::RpcStatus(status) => status,
        // ttrpc has no variant for a deadline. A slow shim must not be taken for a dead one.
        ttrpc::Error::Others(text) if text.contains("deadline elapsed") => return Kind::DeadlineExceeded,
        // All other errors mean that the connection is broken.
        _ => return Kind::Unavailable,
    };
    match status.code() {
        Code::INVALID_ARGUMENT | Code::OUT_OF_RANGE => Kind::InvalidArgument,
        Code::NOT_FOUND => Kind::NotFound,
        Code::ALREADY_EXISTS => Kind::AlreadyExists,
        Code::FAILED_PRECONDITION => Kind::FailedPrecondition,
        Code::PERMISSION_DENIED => Kind::PermissionDenied,
        Code::RESOURCE_EXHAUSTED => Kind::ResourceExhausted,
        Code::DEADLINE_EXCEEDED => Kind::DeadlineExceeded,
        Code::UNAVAILABLE => Kind::Unavailable,
        Code::UNIMPLEMENTED => Kind::Unimplemented,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests;
