//! Pods of another shim: what speaks containerd's shim v2 (runc's own, Kata, gVisor, wasm) and none of what Berth adds.
//!
//! ```text
//! berthd --Berth's calls--> this process --shim v2--> foreign shim --> sandbox task, containers
//!                              '- log files, exit.json, attached readers, network namespace
//! ```
//! The process between them makes of any shim what Berth expects of one: output is logged without the daemon, ends are
//! on disk before they are told, readers attach, and a daemon that comes back asks here. It is the same binary as for Berth's
//! own pods; the file `handler.json` in the pod's bundle is what makes it serve this way.
//!
//! The pod is an ordinary task, made as containerd makes it, so that a shim that knows Kubernetes pods knows this one: a
//! sandbox that does nothing ([`pause`]) in the pod's network namespace, whose other namespaces are those of all containers.
//! A foreign shim that dies, or loses its sandbox, takes its containers with it, and this process too.

mod bundle;
mod cleanup;
mod client;
mod exec_sync;
mod guest;
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
