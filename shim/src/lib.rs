//! Berth's shim: one small process per pod that owns its namespaces, cgroups and stdio.

pub mod cgroup;
pub mod init;
pub mod spec;
pub mod sys;
