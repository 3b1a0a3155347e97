//! Integration tests. Every test has a daemon, a registry and a bridge of its own. Run by hack/test as root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

/// Wrong requests, and the calls after them.
mod bad_input;
/// CDI devices.
mod cdi;
/// Where cgroups are, and which ones belong to the caller.
mod cgroups;
mod check;
/// Volumes on file systems that never answer.
mod dead_volumes;
/// Known container escapes.
mod escapes;
/// Container events, streamed to clients.
mod events;
/// A daemon that has run out of descriptors or disk space.
mod exhausted;
/// Pods of other handlers, run by another shim than Berth's.
mod handlers;
/// Pull, names and removal of images, and their layers in containers.
mod images;
/// Daemons that are killed while they run a pod, or that lose their records.
mod kills;
/// The life of a pod and a container.
mod life;
/// Lists, whole and streamed in parts.
mod lists;
/// Container logs.
mod logs;
/// Addresses, ports, traffic limits, host network.
mod network;
/// Plugins of the Node Resource Interface.
mod nri;
/// Killed daemons, shims and first processes.
mod restart;
/// Rights of a container's processes, and what they see.
mod security;
/// Exec and attach sessions when a client, the daemon or the container dies.
mod sessions;
/// Settings of the node and of pods, changed limits, and checkpoints, which Berth refuses.
mod settings;
/// Start of a daemon while plugins and shims hang.
mod startup;
/// Statistics and metrics of containers and pods.
mod stats;
/// exec, attach and port-forward by crictl.
mod streaming;
mod stuck;
/// Ids, filters and labels that no client should send, to every call.
mod surface;
/// Pods with a user namespace.
mod userns;
/// Messages that no client should send, to every call.
mod wire;
