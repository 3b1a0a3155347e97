//! Connects a client with the standard streams of a process, over any transport.

use std::{future, io};

use tokio::net::unix::pipe;
use tracing::debug;

use super::{
    Command, inbox::Inbox, outcome::Outcome, outlet::Outlet, protocol::Protocol, resize::Sizes,
    session::SessionContext,
};
use crate::{
    container::{Containers, Control, Session},
    error::Result,
};

/// The client's streams; `None` for those that it did not ask for.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: Option<Inbox>,
    pub(super) stdout: Option<Outlet>,
    pub(super) stderr: Option<Outlet>,
    /// Sizes of the client's terminal.
    pub(super) resize: Option<Sizes>,
    /// Stream on which the client is told the outcome.
    pub(super) error: Outlet,
}

impl Streams {
    /// Sends an empty message, from which old clients of WebSocket know that the connection is there.
    pub(super) async fn send_first_message(&self) {
        let first = self.stdout.as_ref().or(self.stderr.as_ref()).unwrap_or(&self.error);
        let _ = first.send(b"").await;
    }
}

/// Joins the client's streams with those of the process until that or the daemon ends, and tells the client the
/// outcome. A command that still runs ends when this does.
pub(super) async fn serve(command: Command, context: &SessionContext, streams: Streams, protocol: Protocol) {
    let error = streams.error.clone();
    let attached = command.args.is_none();
    let outcome = tokio::select! {
        ended = run(command, &context.containers, streams) => match ended {
            Ok(code) => Outcome::Exited(if attached { 0 } else { code }),
            Err(error) => Outcome::Failed(error.to_string()),
        },
        // Clients of SPDY would take the end of the connection alone for success.
        () = context.stopping.cancelled() => Outcome::Failed("the container runtime stops".into()),
    };
    debug!(?outcome, "a session ended");
    if let Err(error) = send_outcome(&error, &outcome.encode(protocol)).await {
        debug!(%error, "a client left before it was told how its session ended");
    }
}

async fn send_outcome(error: &Outlet, outcome: &[u8]) -> io::Result<()> {
    if !outcome.is_empty() {
        error.send(outcome).await?;
    }
    error.finish().await
}

async fn run(command: Command, containers: &Containers, streams: Streams) -> Result<i32> {
    let Command { container, args, wanted } = command;
    let session = match args {
        Some(args) => containers.exec(&container, args, wanted).await?,
        None => containers.attach(&container, wanted).await?,
    };
    join(session, streams).await
}

/// Copies all output, then returns the exit code. Input and sizes are served only as long as there is a process.
async fn join(session: Session, streams: Streams) -> Result<i32> {
    let Session { stdin, stdout, stderr, control } = session;
    let ended = async {
        tokio::join!(output(stdout, streams.stdout), output(stderr, streams.stderr));
        control.ended().await
    };
    let meanwhile = async {
        tokio::join!(input(stdin, streams.stdin), sizes(&control, streams.resize));
        future::pending().await
    };
    tokio::select! {
        code = ended => code,
        code = meanwhile => code,
    }
}

/// Copies from the process to the client until the end, of which the client is told.
async fn output(from: Option<pipe::Receiver>, to: Option<Outlet>) {
    let (Some(mut from), Some(to)) = (from, to) else { return };
    if let Err(error) = to.pump(&mut from).await {
        debug!(%error, "output of a session broke off");
    }
    let _ = to.finish().await;
}

/// Copies from the client to the process, and closes the process's input when the client's ends. A process that reads
/// no more input (EPIPE) does not end the session.
async fn input(to: Option<pipe::Sender>, from: Option<Inbox>) {
    let (Some(mut to), Some(mut from)) = (to, from) else { return };
    if let Err(error) = from.copy(&mut to).await {
        debug!(%error, "a process reads no more input");
    }
}

async fn sizes(control: &Control, from: Option<Sizes>) {
    let Some(mut from) = from else { return };
    while let Some(size) = from.next().await {
        if let Err(error) = control.resize(size.width, size.height).await {
            debug!(%error, "a terminal was not resized");
        }
    }
}
