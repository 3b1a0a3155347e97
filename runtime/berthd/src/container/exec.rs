//! Running a command in a container: ExecSync, which returns the output, and Exec, which streams it.
//!
//! A streamed command uses only calls of plain shim v2, so it works with any shim. Its directory of FIFOs is also the
//! record that it runs: it is removed when the command has ended and the shim has deleted it. A daemon that finds such
//! a directory at its start kills the command, since the client's connection was lost with the earlier daemon.

use std::{path::Path, sync::Arc, time::Duration};

use berth_failpoint::failpoint;
use oci_spec::runtime::Process;
use serde::Deserialize;
use tokio::{
    io::{BufReader, copy_buf},
    net::unix::pipe,
    sync::watch::channel,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Container,
    fifos::{self, Fifos, both_ends, name_of, reader, writer},
    must_run,
    session::{Control, RequestedStreams, Session, SessionProcess},
};
use crate::{
    error::{During, Error, Kind, Result},
    ids,
    runtime::{Shared, names_in},
    shim::{Exec, ExecEnd, ExecOutput, ExecTask, KILL_TIMEOUT, Shim},
    single_flight::run_to_completion,
    table::Entry,
    watch,
};

/// Most bytes of both streams together in one answer. The rest of the largest message is for its other fields.
const MAX_OUTPUT_BYTES: usize = (16 << 20) - 1024;
/// Size of the buffer for input, in bytes.
const INPUT_BUFFER_BYTES: usize = 64 << 10;

/// Runs `args` and returns their output.
pub(super) async fn exec_sync(
    shared: &Shared,
    entry: &Entry<Container>,
    args: Vec<String>,
    limit: Option<Duration>,
) -> Result<ExecOutput> {
    let container = entry.get();
    check(&container, &args)?;
    // A connection of its own: when the caller disconnects, it closes, and the shim then kills the command.
    let shim = shared.shim_of(&container.pod_id).await?;
    match shim.exec_sync(&container.id, args.clone(), limit).await? {
        ExecEnd::Exited(output) => Ok(truncate_output(output)),
        ExecEnd::TimedOut => Err(Error::new(
            Kind::DeadlineExceeded,
            format!(
                "command {args:?} in container {} was killed after {:?}",
                container.id,
                limit.unwrap_or_default()
            ),
        )),
    }
}

/// Truncates the output to fit one answer. Each stream may use the part of the other's half that the other does not
/// need.
fn truncate_output(mut output: ExecOutput) -> ExecOutput {
    let half = MAX_OUTPUT_BYTES / 2;
    let for_stdout = MAX_OUTPUT_BYTES - output.stderr.len().min(half);
    output.stdout.truncate(for_stdout);
    output.stderr.truncate(MAX_OUTPUT_BYTES - output.stdout.len());
    output
}

fn check(container: &Container, args: &[String]) -> Result<()> {
    must_run(container)?;
    match args {
        [] => Err(Error::new(Kind::InvalidArgument, "the command to run is empty")),
        _ => Ok(()),
    }
}

/// Runs `args` with streams. If the caller disconnects half-way, the session is dropped, which kills the command.
pub(super) async fn exec(
    shared: &Arc<Shared>,
    entry: &Entry<Container>,
    args: Vec<String>,
    wanted: RequestedStreams,
) -> Result<Session> {
    let container = entry.get();
    check(&container, &args)?;
    let shared = Arc::clone(shared);
    run_to_completion(async move {
        let process = process_of(&shared.layout.bundle(&container.id), args, wanted.tty)?;
        let id = ids::generate()?;
        let exec = shared.shim_of(&container.pod_id).await?.exec(&container.id, &id);
        let fifos = Fifos::make(fifos::directory(&shared, &container.id).join(id), wanted)?;
        let command = Command { shared, pod: container.pod_id.clone(), exec, fifos };
        match command.start(process, wanted.tty).await {
            Ok(streams) => Ok(command.into_session(streams)),
            Err(error) => {
                command.delete_exec().await;
                Err(error)
            }
        }
    })
    .await
}

/// Returns the container's own process with other arguments: user, environment, working directory and limits are the
/// same.
fn process_of(bundle: &Path, args: Vec<String>, tty: bool) -> Result<Vec<u8>> {
    #[derive(Deserialize)]
    struct Spec {
        process: Process,
    }
    let path = bundle.join("config.json");
    let json = std::fs::read(&path).during(|| format!("read {}", path.display()))?;
    let Spec { mut process } =
        serde_json::from_slice(&json).during(|| format!("parse {}", path.display()))?;
    let mut env = process.env().clone().unwrap_or_default();
    if tty && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        env.push("TERM=xterm".into());
    }
    process.set_args(Some(args)).set_env(Some(env)).set_terminal(Some(tty)).set_console_size(None);
    serde_json::to_vec(&process).during(|| "encode the process of a command")
}

/// A streamed command, from the making of its FIFOs to its deletion.
struct Command {
    shared: Arc<Shared>,
    /// Id of the pod whose shim runs it.
    pod: String,
    exec: Exec,
    fifos: Fifos,
}

/// The daemon's ends of the FIFOs.
#[derive(Default)]
struct Streams {
    stdin: Option<Input>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

/// The session writes to a pipe of the daemon's, whose end of file is noticed and passed on. A shim may hold the FIFO
/// open itself, so closing the FIFO would not end the input.
struct Input {
    session: pipe::Sender,
    ours: pipe::Receiver,
    fifo: pipe::Sender,
}

impl Command {
    async fn start(&self, process: Vec<u8>, terminal: bool) -> Result<Streams> {
        let (stdin, stdout, stderr) = (self.fifos.stdin(), self.fifos.stdout(), self.fifos.stderr());
        let read_later = stdin.as_deref().map(both_ends).transpose()?;
        let streams = Streams {
            stdin: stdin.as_deref().map(Input::open).transpose()?,
            stdout: stdout.as_deref().map(reader).transpose()?,
            stderr: stderr.as_deref().map(reader).transpose()?,
        };
        let (stdin, stdout, stderr) = (name_of(stdin), name_of(stdout), name_of(stderr));
        failpoint!(EXEC_PIPES_MADE)?;
        self.exec.add(ExecTask { terminal, stdin, stdout, stderr, process }).await?;
        failpoint!(EXEC_ADDED)?;
        self.exec.start().await?;
        failpoint!(EXEC_STARTED)?;
        drop(read_later);
        Ok(streams)
    }

    /// Hands the streams to a session. A task waits for the command's end, then deletes it.
    fn into_session(mut self, streams: Streams) -> Session {
        let session_dropped = CancellationToken::new();
        let wanted = session_dropped.clone().drop_guard();
        let (ending, end) = channel(None);
        let exec = self.exec.clone();
        let (stdin, feeding) = streams.stdin.map(|input| input.feed(exec.clone())).unzip();
        tokio::spawn(async move {
            ending.send_replace(Some(self.end(&session_dropped).await));
            feeding.inspect(JoinHandle::abort);
            self.delete_exec().await;
        });
        let control = Control(SessionProcess::Command { exec, end, _wanted: wanted });
        Session { stdin, stdout: streams.stdout, stderr: streams.stderr, control }
    }

    /// Waits for the command's end. When the session is dropped, kills it. When the connection breaks while the shim
    /// still lives, reconnects, because the command lives too.
    async fn end(&mut self, session_dropped: &CancellationToken) -> Result<i32> {
        loop {
            let end = tokio::select! {
                end = self.exec.wait() => end,
                () = session_dropped.cancelled() => kill(&self.exec).await,
            };
            match end {
                Err(error) if error.kind() == Kind::Unavailable => {
                    let shim = watch::reconnect(&self.shared, &self.pod).await?;
                    self.exec = self.exec.over(shim);
                }
                end => return end,
            }
        }
    }

    /// Deletes the command in the shim and removes its FIFOs; also for a command that did not start.
    async fn delete_exec(&self) {
        match self.exec.delete().await {
            Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => {
                tracing::warn!(%error, "a command is left in its shim");
            }
            _ => self.fifos.remove(),
        }
    }
}

impl Input {
    fn open(fifo: &Path) -> Result<Self> {
        let (session, ours) = pipe::pipe().during(|| "make a pipe for the input of a command")?;
        Ok(Self { session, ours, fifo: writer(fifo)? })
    }

    /// Copies what the session writes to the FIFO. End of file ends the command's input.
    fn feed(self, exec: Exec) -> (pipe::Sender, JoinHandle<()>) {
        let (mut from, mut fifo) = (BufReader::with_capacity(INPUT_BUFFER_BYTES, self.ours), self.fifo);
        let feeding = async move {
            // A command that closed its input breaks the pipe (EPIPE); the session notices that through its own pipe.
            let _ = copy_buf(&mut from, &mut fifo).await;
            drop((from, fifo));
            match exec.close_stdin().await {
                Err(error) if !matches!(error.kind(), Kind::NotFound | Kind::Unavailable) => {
                    tracing::warn!(%error, "the input of a command stays open");
                }
                _ => {}
            }
        };
        (self.session, tokio::spawn(feeding))
    }
}

async fn kill(exec: &Exec) -> Result<i32> {
    match exec.kill().await {
        Err(error) if error.kind() != Kind::NotFound => return Err(error),
        _ => {}
    }
    let late = |_| Error::new(Kind::DeadlineExceeded, "a command was killed 10 s ago and has not ended");
    timeout(KILL_TIMEOUT, exec.wait()).await.map_err(late)?
}

/// Kills the commands of an earlier daemon, whose clients are disconnected.
pub(crate) fn end_orphaned_execs(shared: &Arc<Shared>, container: &Container, shim: &Shim) {
    let directory = fifos::directory(shared, &container.id);
    for id in names_in(&directory) {
        let exec = shim.exec(&container.id, &id);
        let (shared, pod) = (Arc::clone(shared), container.pod_id.clone());
        let command = Command { shared, pod, exec, fifos: Fifos::existing(directory.join(id)) };
        tokio::spawn(async move {
            match kill(&command.exec).await {
                // Never started, already ended, or a directory of an attach session.
                Err(error) if !matches!(error.kind(), Kind::FailedPrecondition | Kind::NotFound) => {
                    tracing::warn!(%error, "could not end a command of an earlier daemon");
                }
                _ => {}
            }
            command.delete_exec().await;
        });
    }
}

#[cfg(test)]
mod tests;
