//! Berth as its users see it: every test has a daemon, a registry and a bridge of its own. Run by hack/test as root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

/// Requests that are wrong, and what must still work after them.
mod bad_input;
/// Devices that their vendors describe.
mod cdi;
/// Where control groups are, and whose.
mod cgroups;
mod check;
/// Volumes on file systems that never answer.
mod dead_volumes;
/// The known ways out of a container, taken.
mod escapes;
/// What happens, told to whoever listens.
mod events;
/// A daemon that has run out of something.
mod exhausted;
/// Pods that other shims than Berth's own run.
mod handlers;
/// Pulling, naming, removing.
mod images;
/// Daemons that are killed at any instant, and what they lose.
mod kills;
/// A pod and a container from beginning to end.
mod life;
/// Lists that are answered in parts.
mod lists;
/// What containers print.
mod logs;
/// Addresses, ports, host network.
mod network;
/// Plugins of the Node Resource Interface.
mod nri;
/// Daemons and shims that are killed.
mod restart;
/// What a container's processes may do and see.
mod security;
/// Those at the streams of a process, and what becomes of them when something dies.
mod sessions;
/// What is told to the daemon about the node and its pods, and what is not built.
mod settings;
/// What hangs when a daemon starts.
mod startup;
/// What containers and pods use.
mod stats;
/// exec, attach and port-forward by crictl.
mod streaming;
/// Requests that no client should send, to every call.
mod stuck;
mod surface;
/// Pods whose root is nobody on the host.
mod userns;
/// Bytes that no client should send, to every call.
mod wire;
