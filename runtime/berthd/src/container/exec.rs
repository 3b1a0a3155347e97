//! Running a command in a container: with its output as the answer, or with someone at its streams.
//!
//! A command with streams works by plain shim v2, so with any shim. Its directory of named pipes is also the record that
//! it runs: it goes when the command is over and the shim has forgotten it. A daemon that finds one has come after one that
//! was killed, and ends the command, whose output nobody reads any more.

use std::{path::Path, sync::Arc, time::Duration};

use berth_failpoint::failpoint;
use oci_spec::runtime::Process as OciProcess;
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
    session::{Control, Process, Session, Wanted},
};
use crate::{
    error::{During, Error, Kind, Result},
    flights::to_its_end,
    identity,
    runtime::{Shared, names_in},
    shim::{Exec, ExecEnd, ExecOutput, ExecTask, KILL_TIMEOUT, Shim},
    table::Entry,
    watch,
};

/// What an answer holds of both streams together: the rest of the largest message is for its fields.
const MOST_OUTPUT: usize = (16 << 20) - 1024;
/// What is read of the input at once.
const INPUT: usize = 64 << 10;

/// Runs `args` and gathers what they print.
pub(super) async fn exec_sync(
    shared: &Shared,
    entry: &Entry<Container>,
    args: Vec<String>,
    limit: Option<Duration>,
) -> Result<ExecOutput> {
    let container = entry.get();
    check(&container, &args)?;
    // A connection of its own: when the caller goes away it breaks, and by that the shim knows to end the command.
    let shim = shared.shim_of(&container.pod_id).await?;
    match shim.exec_sync(&container.id, args.clone(), limit).await? {
        ExecEnd::Exited(output) => Ok(cut(output)),
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

/// Cuts what was printed to what one answer carries. Neither stream takes from the other's half what that has use for.
fn cut(mut output: ExecOutput) -> ExecOutput {
    let half = MOST_OUTPUT / 2;
    let for_stdout = MOST_OUTPUT - output.stderr.len().min(half);
    output.stdout.truncate(for_stdout);
    output.stderr.truncate(MOST_OUTPUT - output.stdout.len());
    output
}

fn check(container: &Container, args: &[String]) -> Result<()> {
    must_run(container)?;
    match args {
        [] => Err(Error::new(Kind::InvalidArgument, "the command to run is empty")),
        _ => Ok(()),
    }
}

/// Runs `args` for someone at their streams. A caller that goes away half-way leaves nothing: the session ends unseen.
pub(super) async fn exec(
    shared: &Arc<Shared>,
    entry: &Entry<Container>,
    args: Vec<String>,
    wanted: Wanted,
) -> Result<Session> {
    let container = entry.get();
    check(&container, &args)?;
    let shared = Arc::clone(shared);
    to_its_end(async move {
        let process = process_of(&shared.layout.bundle(&container.id), args, wanted.tty)?;
        let id = identity::generate()?;
        let exec = shared.shim_of(&container.pod_id).await?.exec(&container.id, &id);
        let fifos = Fifos::make(fifos::directory(&shared, &container.id).join(id), wanted)?;
        let command = Command { shared, pod: container.pod_id.clone(), exec, fifos };
        match command.start(process, wanted.tty).await {
            Ok(streams) => Ok(command.into_session(streams)),
            Err(error) => {
                command.forget().await;
                Err(error)
            }
        }
    })
    .await
}

/// The container's own process with another command: user, environment, directory, limits are the same.
fn process_of(bundle: &Path, args: Vec<String>, tty: bool) -> Result<Vec<u8>> {
    #[derive(Deserialize)]
    struct Spec {
        process: OciProcess,
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

/// A command on its way from nothing to its end.
struct Command {
    shared: Arc<Shared>,
    /// Id of the pod whose shim runs it.
    pod: String,
    exec: Exec,
    fifos: Fifos,
}

/// Its pipes, with the ends that a session has on its side.
#[derive(Default)]
struct Streams {
    stdin: Option<Input>,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
}

/// What is written goes through a pipe of ours, so that its end is noticed: a shim may hold the named one open itself.
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

    /// From here on it sees to its end by itself.
    fn into_session(mut self, streams: Streams) -> Session {
        let abandoned = CancellationToken::new();
        let wanted = abandoned.clone().drop_guard();
        let (ending, end) = channel(None);
        let exec = self.exec.clone();
        let (stdin, feeding) = streams.stdin.map(|input| input.feed(exec.clone())).unzip();
        tokio::spawn(async move {
            ending.send_replace(Some(self.end(&abandoned).await));
            feeding.inspect(JoinHandle::abort);
            self.forget().await;
        });
        let control = Control(Process::Command { exec, end, _wanted: wanted });
        Session { stdin, stdout: streams.stdout, stderr: streams.stderr, control }
    }

    /// Waits for its end, which comes soon once nobody wants it any more: over a new connection should one break whose shim
    /// still lives, for so does the command.
    async fn end(&mut self, abandoned: &CancellationToken) -> Result<i32> {
        loop {
            let end = tokio::select! {
                end = self.exec.wait() => end,
                () = abandoned.cancelled() => kill(&self.exec).await,
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

    /// One that did not start, or is over, leaves nothing.
    async fn forget(&self) {
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

    /// Passes on what the session writes; its end ends the command's input.
    fn feed(self, exec: Exec) -> (pipe::Sender, JoinHandle<()>) {
        let (mut from, mut fifo) = (BufReader::with_capacity(INPUT, self.ours), self.fifo);
        let feeding = async move {
            // A command that reads no more breaks the pipe, which the session notices by its own.
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

/// Ends the commands of a daemon that was killed: nobody is at their streams any more.
pub(crate) fn end_forsaken(shared: &Arc<Shared>, container: &Container, shim: &Shim) {
    let directory = fifos::directory(shared, &container.id);
    for id in names_in(&directory) {
        let exec = shim.exec(&container.id, &id);
        let (shared, pod) = (Arc::clone(shared), container.pod_id.clone());
        let command = Command { shared, pod, exec, fifos: Fifos::left(directory.join(id)) };
        tokio::spawn(async move {
            match kill(&command.exec).await {
                // Never started, over, or attached to the container.
                Err(error) if !matches!(error.kind(), Kind::FailedPrecondition | Kind::NotFound) => {
                    tracing::warn!(%error, "could not end a command of an earlier daemon");
                }
                _ => {}
            }
            command.forget().await;
        });
    }
}

#[cfg(test)]
mod tests;
