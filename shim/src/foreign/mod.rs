//! Pods of a foreign shim: one that speaks containerd's shim v2 (runc's own, Kata, gVisor, wasm) but not Berth's additions.
//!
//! ```text
//! berthd --Berth's calls--> this process --shim v2--> foreign shim --> sandbox task, containers
//!                              '- log files, exit.json, attached readers, network namespace
//! ```
//! The process in between gives any shim the properties that Berth relies on: output is logged without the daemon,
//! exits are on disk before they are announced, readers can attach, and a restarted daemon asks here. It is the same
//! binary as for Berth's own pods; the file `handler.json` in the pod's bundle selects this mode.
//!
//! The pod is an ordinary task, made as containerd makes it, so that a shim that knows Kubernetes pods recognises it: a
//! sandbox that does nothing ([`pause`]) in the pod's network namespace, whose other namespaces all containers share.
//! If a foreign shim dies or its sandbox ends, its containers end with it, and this process too.

mod bundle;
mod cleanup;
mod client;
mod container;
mod exec_sync;
mod handler;
mod launch;
mod pause;
mod pod;
mod serve;
mod service;

pub(crate) use client::code;

pub use cleanup::clean_up;
pub use handler::Handler;
pub use pause::pause;
pub use serve::serve;
