//! Commands whose output is the answer: for probes and `exec` without a terminal.

use crate::container::Container;
use crate::error::Error;
use crate::exec::{kill, spawn};
use crate::exit::Exit;
use crate::init::{ExecProcess, Stdio};
use crate::process::{ChildProcess, KILL_TIMEOUT};
use crate::shim_log::note;
use crate::stdio::{Read, asynchronous, bytes_in_pipe, pipe, read};
use berth_shim_proto::berth_shim::exec_sync_output::What;
use berth_shim_proto::berth_shim::{ExecSyncEnd, ExecSyncOutput};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Maximum bytes of output in one message.
const MAX_CHUNK_BYTES: usize = 32 * 1024;
/// Interval of empty messages from a silent exec: ttrpc tells a stream's handler that the connection is gone only when it sends.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// Used when no timeout is given.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The stream to the caller.
pub type Caller = ttrpc::r#async::ServerStreamSender<ExecSyncOutput>;

/// A process whose output is read here, in a native container or behind a foreign shim.
pub(crate) trait Command: Sync {
    /// How long to wait for more output after the process has ended.
    const OUTPUT_TIMEOUT: Duration = Duration::ZERO;

    /// Waits for the end. May be called again if the future was dropped.
    fn ended(&self) -> impl Future<Output = Exit> + Send;

    /// Kills it, as far as possible.
    fn kill(&self) -> impl Future<Output = ()> + Send;
}

/// Runs `args` in a container and streams the output. Returns once the process has ended by itself, by the timeout in
/// nanoseconds (0 for none), or because the caller disconnected.
pub async fn exec_sync(
    container: &Container,
    args: &[String],
    timeout_ns: i64,
    caller: &Caller,
) -> Result<(), Error> {
    container.must_run("exec in")?;
    if args.is_empty() {
        return Err(Error::Invalid { field: "args", reason: "nothing to run".into() });
    }
    let deadline = deadline(timeout_ns)?;
    let (stdio, outputs) = outputs().map_err(|source| Error::Io {
        doing: "make pipes for",
        id: container.id().to_owned(),
        source,
    })?;
    let spawned = timeout_at(deadline, spawn(container, ExecProcess::Args(args), false, stdio)).await;
    let Ok(spawned) = spawned else {
        return end(caller, &Exit::default(), true).await;
    };
    let spawned = Spawned { process: spawned?.0, container };
    answer(&spawned, outputs, deadline, caller).await
}

/// Deadline of a command, from now. Fails if the timeout is negative; 0 means a year.
pub(crate) fn deadline(timeout_ns: i64) -> Result<Instant, Error> {
    let timeout = u64::try_from(timeout_ns)
        .map_err(|_| Error::Invalid { field: "timeout_ns", reason: "negative".into() })?;
    let timeout = if timeout == 0 { MAX_TIMEOUT } else { Duration::from_nanos(timeout).min(MAX_TIMEOUT) };
    Ok(Instant::now() + timeout)
}

/// Streams the output of a running command, then its exit.
pub(crate) async fn answer<C: Command>(
    command: &C,
    outputs: Outputs,
    deadline: Instant,
    caller: &Caller,
) -> Result<(), Error> {
    Running { command, outputs, caller, exit: None }.finish(deadline).await
}

/// Read ends of stdout and stderr.
pub(crate) type Outputs = [Option<AsyncFd<OwnedFd>>; 2];

/// Makes the pipes of a command: its ends and the shim's.
pub(crate) fn outputs() -> io::Result<(Stdio, Outputs)> {
    let (stdout, stdout_writer) = pipe()?;
    let (stderr, stderr_writer) = pipe()?;
    let stdio = Stdio { stdin: None, stdout: Some(stdout_writer), stderr: Some(stderr_writer) };
    Ok((stdio, [Some(asynchronous(stdout)?), Some(asynchronous(stderr)?)]))
}

/// A command that is a child of the shim.
struct Spawned<'a> {
    process: ChildProcess,
    container: &'a Container,
}

impl Command for Spawned<'_> {
    async fn ended(&self) -> Exit {
        self.process.reap().await
    }

    async fn kill(&self) {
        if let Err(error) = kill(self.container, &self.process) {
            note(format_args!("kill an exec in {}: {error}", self.container.id()));
        }
    }
}

struct Running<'a, C> {
    command: &'a C,
    outputs: Outputs,
    caller: &'a Caller,
    exit: Option<Exit>,
}

impl<C: Command> Running<'_, C> {
    async fn finish(mut self, deadline: Instant) -> Result<(), Error> {
        let result = timeout_at(deadline, self.stream()).await;
        let exit = match self.exit.take() {
            Some(exit) => exit,
            None => self.kill().await,
        };
        match result {
            // The caller has disconnected.
            Ok(Err(_gone)) => Ok(()),
            Ok(Ok(())) => end(self.caller, &exit, false).await,
            Err(_elapsed) => {
                // A caller that has disconnected by now needs no output.
                let _ = self.send_rest().await;
                end(self.caller, &exit, true).await
            }
        }
    }

    async fn kill(&self) -> Exit {
        self.command.kill().await;
        let ended = timeout(KILL_TIMEOUT, self.command.ended()).await;
        ended.unwrap_or_else(|_| Exit::now(137, "it does not die"))
    }

    /// Forwards output until the process has ended and its output is drained.
    async fn stream(&mut self) -> Result<(), ttrpc::Error> {
        // One future for the whole loop: with a foreign shim each call leaves a request behind.
        let ended = self.command.ended();
        tokio::pin!(ended);
        while self.exit.is_none() {
            let [stdout, stderr] = &self.outputs;
            tokio::select! {
                () = readable(stdout) => self.send(0).await.map(drop)?,
                () = readable(stderr) => self.send(1).await.map(drop)?,
                exit = &mut ended => self.exit = Some(exit),
                () = sleep(HEARTBEAT_INTERVAL) => self.caller.send(&ExecSyncOutput::default()).await?,
            }
        }
        if let Ok(sent) = timeout(C::OUTPUT_TIMEOUT, self.send_to_end()).await {
            return sent;
        }
        self.send_rest().await
    }

    /// Forwards everything, until the write ends are closed.
    async fn send_to_end(&mut self) -> Result<(), ttrpc::Error> {
        while self.outputs.iter().any(Option::is_some) {
            let [stdout, stderr] = &self.outputs;
            tokio::select! {
                () = readable(stdout) => self.send(0).await.map(drop)?,
                () = readable(stderr) => self.send(1).await.map(drop)?,
            }
        }
        Ok(())
    }

    /// Forwards what is in the pipes now. No more: a child left behind may print as fast as it is read.
    async fn send_rest(&mut self) -> Result<(), ttrpc::Error> {
        for stream in 0..self.outputs.len() {
            let mut rest = self.outputs[stream].as_ref().map_or(0, bytes_in_pipe);
            while rest > 0 {
                match self.send(stream).await? {
                    0 => break,
                    sent => rest = rest.saturating_sub(sent),
                }
            }
        }
        Ok(())
    }

    /// Sends at most one chunk of a stream. Returns its length in bytes.
    async fn send(&mut self, stream: usize) -> Result<usize, ttrpc::Error> {
        let Some(output) = &self.outputs[stream] else { return Ok(0) };
        let mut bytes = Vec::with_capacity(MAX_CHUNK_BYTES);
        match read(output, &mut bytes) {
            Read::Some => {}
            Read::Nothing => return Ok(0),
            Read::End => {
                self.outputs[stream] = None;
                return Ok(0);
            }
        }
        bytes.shrink_to_fit();
        let length = bytes.len();
        let what = if stream == 0 { What::Stdout(bytes) } else { What::Stderr(bytes) };
        self.caller.send(&ExecSyncOutput { what: Some(what), ..Default::default() }).await?;
        Ok(length)
    }
}

async fn readable(output: &Option<AsyncFd<OwnedFd>>) {
    match output {
        None => std::future::pending().await,
        Some(output) => {
            if let Ok(mut ready) = output.readable().await {
                ready.retain_ready();
            }
        }
    }
}

async fn end(caller: &Caller, exit: &Exit, timed_out: bool) -> Result<(), Error> {
    let end = ExecSyncEnd { code: exit.code, timed_out, ..Default::default() };
    // The caller may have disconnected since the end.
    let _ = caller.send(&ExecSyncOutput { what: Some(What::End(end)), ..Default::default() }).await;
    Ok(())
}
