//! The daemon of Berth: pods, containers, their life cycle, and the RPCs for them.

#![deny(unsafe_code)]

pub mod apparmor;
mod blocking;
pub mod cdi;
pub mod check;
mod clock;
pub mod config;
pub mod container;
pub mod cri;
pub mod error;
pub mod events;
pub mod handlers;
mod ids;
mod layout;
pub mod nri;
pub mod pod;
mod recover;
pub mod runtime;
pub mod server;
mod shim;
mod single_flight;
pub mod spec;
mod state;
pub mod stats;
pub mod streaming;
#[allow(unsafe_code)]
pub mod sys;
mod table;
mod watch;

/// Entry points for tests/fuzz: each takes arbitrary bytes, and panics when an invariant is broken.
#[cfg(feature = "fuzz")]
pub mod fuzz {
    pub use crate::{
        cri::fuzz::{Daemon, container_spec},
        spec::seccomp::fuzz::seccomp,
        streaming::{spdy::fuzz::spdy, websocket::fuzz::websocket},
    };
}
