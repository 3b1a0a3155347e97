//! Berth's shim: one small process per pod that owns its namespaces, cgroups and stdio.

#![deny(unsafe_code)]

pub mod cgroup;
pub mod init;
mod seccomp;
pub mod spec;
#[allow(unsafe_code)]
pub mod sys;

pub mod bootstrap;
pub mod foreign;
pub mod service;

pub mod container;
mod container_map;
mod creations;
pub mod exec;
pub mod exec_sync;
pub mod pod;
pub mod sandbox;

pub mod descendants;
mod descriptors;
pub mod error;
pub mod events;
pub mod exit;
pub mod orphans;
pub mod process;
mod record;
pub mod shim_log;
pub mod stdio;

/// Entry points for tests/fuzz: each takes arbitrary bytes and panics when an invariant is violated.
#[cfg(feature = "fuzz")]
pub mod fuzz {
    pub use crate::seccomp::program::fuzz::seccomp;
}
