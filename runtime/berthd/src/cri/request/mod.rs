//! Conversion from requests to the daemon's types. Everything that is invalid by the request alone is refused here, so
//! that the code behind this border can rely on its input.

mod cdi;
mod checkpoint;
mod container;
mod field;
mod image;
mod namespace;
mod network;
mod pod;
mod resources;
mod security;
mod streaming;
mod sysctl;
#[cfg(test)]
mod tests;

use std::time::Duration;

use berth_cri::v1;

pub(crate) use checkpoint::{checkpoint_container, checkpoint_pod, restore_pod};
pub(crate) use container::create_container;
pub(super) use field::known;
pub(crate) use image::{image, pull};
pub(crate) use network::pod_ranges;
pub(crate) use pod::run_pod_sandbox;
pub(crate) use resources::{pod_resources, update};
pub(crate) use streaming::{attach, exec, port_forward};

use crate::error::Result;

/// An id, or the beginning of one.
pub(crate) fn id(field: &str, id: String) -> Result<String> {
    field::name(field, id)
}

/// Returns the time that a container has to end after its stop signal.
pub(crate) fn grace(seconds: i64) -> Result<Duration> {
    field::seconds("timeout", seconds)
}

/// Returns container, command and time limit; a limit of 0 is none.
pub(crate) fn exec_sync(request: v1::ExecSyncRequest) -> Result<(String, Vec<String>, Option<Duration>)> {
    let id = id("container_id", request.container_id)?;
    field::check(!request.cmd.is_empty(), "cmd", (), "must not be empty")?;
    let command = field::each("cmd", request.cmd, field::argument)?;
    let limit = field::seconds("timeout", request.timeout)?;
    Ok((id, command, Some(limit).filter(|limit| !limit.is_zero())))
}
