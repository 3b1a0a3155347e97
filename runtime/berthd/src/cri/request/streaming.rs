//! Exec, Attach and PortForward.

use berth_cri::v1;

use super::{field, id};
use crate::{container::RequestedStreams, error::Result, streaming::Command};

/// Returns the command to run, and which of its streams are wanted.
pub(crate) fn exec(request: v1::ExecRequest) -> Result<Command> {
    let container = id("container_id", request.container_id)?;
    field::check(!request.cmd.is_empty(), "cmd", (), "must not be empty")?;
    let args = Some(field::each("cmd", request.cmd, field::argument)?);
    let wanted = wanted(request.stdin, request.stdout, request.stderr, request.tty)?;
    Ok(Command { container, args, wanted })
}

/// Returns the container, and which of its streams are wanted.
pub(crate) fn attach(request: v1::AttachRequest) -> Result<Command> {
    let container = id("container_id", request.container_id)?;
    let wanted = wanted(request.stdin, request.stdout, request.stderr, request.tty)?;
    Ok(Command { container, args: None, wanted })
}

/// Returns the pod's id. Clients name ports later, connection by connection; the request's ports are only for the first
/// WebSocket protocol, which is not supported.
pub(crate) fn port_forward(request: v1::PortForwardRequest) -> Result<String> {
    id("pod_sandbox_id", request.pod_sandbox_id)
}

fn wanted(stdin: bool, stdout: bool, stderr: bool, tty: bool) -> Result<RequestedStreams> {
    field::check(!(tty && stderr), "stderr", stderr, "a terminal has no output for errors of its own")?;
    field::check(stdin || stdout || stderr, "stdout", stdout, "one of stdin, stdout and stderr must be set")?;
    Ok(RequestedStreams { stdin, stdout, stderr, tty })
}
