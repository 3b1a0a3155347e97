//! The built shim as its callers see it: a command line and ttrpc calls. Needs root.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod attach;
mod bootstrap;
mod containers;
// Shared with the integration tests.
#[path = "../../../tests/src/dead_fs.rs"]
#[allow(dead_code, unreachable_pub)]
mod dead_fs;
mod death;
mod events;
mod exec;
mod exec_streams;
mod fifos;
mod fixture;
mod measure;
mod sandbox;
mod scarcity;
mod streams;
mod stuck;
