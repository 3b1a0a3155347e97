//! Conversion from the daemon's types to the CRI's.

mod container;
mod daemon;
mod image;
mod pod;
mod resources;
mod stats;
#[cfg(test)]
mod tests;

pub(super) use container::{container, container_status, state as container_state};
pub(super) use daemon::{features, handlers, runtime_config, runtime_status, version};
pub(super) use image::image;
pub(super) use pod::{pod_sandbox, pod_sandbox_status, state as pod_state};
pub(super) use stats::{container_stats, filesystem, pod_stats};
