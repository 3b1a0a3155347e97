//! A process whose output is the answer: what probes and `exec` without a terminal use.

use crate::container::Container;
use crate::descendants::kill_with_descendants;
use crate::error::Error;
use crate::exec::spawn;
use crate::exit::Exit;
use crate::init::{ExecProcess, Stdio};
use crate::process::Process;
use crate::shim_log::note;
use crate::stdio::{Read, asynchronous, pipe, read};
use berth_shim_proto::berth_shim::exec_sync_output::What;
use berth_shim_proto::berth_shim::{ExecSyncEnd, ExecSyncOutput};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

/// What one message carries at most.
const CHUNK: usize = 32 * 1024;
/// A silent exec asks this often whether its caller is still there, with a message that holds nothing: ttrpc tells a
/// handler of a stream nothing about a connection that is gone until it sends.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// For a process that has been killed.
const DEATH_PATIENCE: Duration = Duration::from_secs(10);
/// No timeout asked for.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Where the messages go.
pub type Caller = ttrpc::r#async::ServerStreamSender<ExecSyncOutput>;

/// Runs `args` in a container and streams what it prints. Returns once it has ended, by itself, by the
/// timeout (0 is none) or because the caller went away.
pub async fn exec_sync(
    container: &Container,
    args: &[String],
    timeout: Duration,
    caller: &Caller,
) -> Result<(), Error> {
    container.must_run("exec in")?;
    if args.is_empty() {
        return Err(Error::Invalid { field: "args", reason: "nothing to run".into() });
    }
    let deadline = Instant::now() + if timeout.is_zero() { FOREVER } else { timeout.min(FOREVER) };
    let (stdio, outputs) = outputs().map_err(|source| Error::Io {
        doing: "make pipes for",
        id: container.id().to_owned(),
        source,
    })?;
    let spawned = timeout_at(deadline, spawn(container, ExecProcess::Args(args), false, stdio)).await;
    let Ok(spawned) = spawned else {
        return end(caller, &Exit::default(), true).await;
    };
    let running = Running { process: spawned?.0, container, outputs, caller, exit: None };
    running.finish(deadline).await
}

type Outputs = [Option<AsyncFd<OwnedFd>>; 2];

fn outputs() -> io::Result<(Stdio, Outputs)> {
    let (stdout, stdout_writer) = pipe()?;
    let (stderr, stderr_writer) = pipe()?;
    let stdio = Stdio { stdin: None, stdout: Some(stdout_writer), stderr: Some(stderr_writer) };
    Ok((stdio, [Some(asynchronous(stdout)?), Some(asynchronous(stderr)?)]))
}

struct Running<'a> {
    process: Process,
    container: &'a Container,
    outputs: Outputs,
    caller: &'a Caller,
    exit: Option<Exit>,
}

impl Running<'_> {
    async fn finish(mut self, deadline: Instant) -> Result<(), Error> {
        let result = timeout_at(deadline, self.stream()).await;
        if self.exit.is_none() {
            self.kill().await;
        }
        self.container.surroundings().orphans.reaped(self.process.pid());
        let exit = self.exit.clone().unwrap_or_default();
        match result {
            // Nobody is left to be told.
            Ok(Err(_gone)) => Ok(()),
            Ok(Ok(())) => end(self.caller, &exit, false).await,
            Err(_elapsed) => {
                // A caller that is gone by now needs no output either.
                let _ = self.send_rest().await;
                end(self.caller, &exit, true).await
            }
        }
    }

    /// Passes output on until the process has ended and nothing of what it printed is left.
    async fn stream(&mut self) -> Result<(), ttrpc::Error> {
        while self.exit.is_none() {
            let [stdout, stderr] = &self.outputs;
            tokio::select! {
                () = readable(stdout) => self.send(0).await.map(drop)?,
                () = readable(stderr) => self.send(1).await.map(drop)?,
                exit = self.process.ended() => self.exit = Some(exit),
                () = sleep(HEARTBEAT) => self.caller.send(&ExecSyncOutput::default()).await?,
            }
        }
        self.send_rest().await
    }

    /// What is in the pipes; a child that was left behind may go on printing, which is not waited for.
    async fn send_rest(&mut self) -> Result<(), ttrpc::Error> {
        for stream in 0..self.outputs.len() {
            while self.send(stream).await? == Read::Some {}
        }
        Ok(())
    }

    /// Sends what one stream holds.
    async fn send(&mut self, stream: usize) -> Result<Read, ttrpc::Error> {
        let Some(output) = &self.outputs[stream] else {
            return Ok(Read::End);
        };
        let mut bytes = Vec::with_capacity(CHUNK);
        let read = read(output, &mut bytes);
        match read {
            Read::Some => {
                bytes.shrink_to_fit();
                let what = if stream == 0 { What::Stdout(bytes) } else { What::Stderr(bytes) };
                self.caller.send(&ExecSyncOutput { what: Some(what), ..Default::default() }).await?;
            }
            Read::End => self.outputs[stream] = None,
            Read::Nothing => {}
        }
        Ok(read)
    }

    async fn kill(&mut self) {
        let candidates = || self.container.pids().unwrap_or_default();
        if let Err(error) = kill_with_descendants(self.process.pid(), candidates) {
            note(format_args!("kill an exec in {}: {error}", self.container.id()));
        }
        let ended = timeout_at(Instant::now() + DEATH_PATIENCE, self.process.ended()).await;
        self.exit = Some(ended.unwrap_or_else(|_| Exit::now(137, "it does not die")));
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
    // A caller that went away after the end has nothing to lose.
    let _ = caller.send(&ExecSyncOutput { what: Some(What::End(end)), ..Default::default() }).await;
    Ok(())
}
