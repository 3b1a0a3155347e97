//! Every failpoint, in the order in which a pod's life passes them.

/// One failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Name in files and reports: the thing, a dot, and the step just done to it.
    pub name: &'static str,
    /// Process that passes the point.
    pub process: Process,
    /// Whether an error can be returned there. If not, only a kill can be armed.
    pub fails: bool,
}

/// The processes that change the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// `berthd`.
    Daemon,
    /// A pod's shim, with all its children up to execve.
    Shim,
    /// A shim's command line: `start` and `delete`.
    Command,
}

macro_rules! points {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $process:ident $(, $kill:ident)?;)*) => {
        $($(#[$doc])* pub const $constant: Point =
            Point { name: $name, process: Process::$process, fails: points!(@fails $($kill)?) };)*

        /// All points.
        pub const POINTS: &[Point] = &[$($constant),*];
    };
    (@fails) => { true };
    (@fails kill) => { false };
}

points! {
    // Images.
    /// An empty directory for a layer was made.
    LAYER_STAGED = "layer.staged", Daemon;
    /// A layer's files were written.
    LAYER_UNPACKED = "layer.unpacked", Daemon;
    /// A layer's files were synced to the disk.
    LAYER_SYNCED = "layer.synced", Daemon;
    /// A layer's directory was renamed to its final name.
    LAYER_RENAMED = "layer.renamed", Daemon;
    /// The layer is in the index.
    LAYER_RECORDED = "layer.recorded", Daemon, kill;
    /// The image is in the index.
    IMAGE_RECORDED = "image.recorded", Daemon;
    /// The image was removed from the index.
    IMAGE_FORGOTTEN = "image.forgotten", Daemon;
    /// A layer was removed from the index; its directory is still in place.
    LAYERS_FORGOTTEN = "layers.forgotten", Daemon;
    /// A layer was moved to the trash.
    LAYER_TRASHED = "layer.trashed", Daemon;
    /// An image's layers are leased for a container.
    IMAGE_LEASED = "image.leased", Daemon;
    /// The lease was released.
    IMAGE_RELEASED = "image.released", Daemon;

    // Any record of a pod or a container.
    /// A record is about to be written or deleted.
    RECORD_WRITING = "record.writing", Daemon;
    /// The record was written or deleted.
    RECORD_WRITTEN = "record.written", Daemon, kill;

    // A pod is run.
    /// The record of a pod in state `Starting` was written.
    POD_RECORDED = "pod.recorded", Daemon;
    /// The pod's bundle was made.
    POD_BUNDLE_MADE = "pod.bundle-made", Daemon;
    /// The socket of the pod's shim is bound, but not served yet.
    SHIM_BOUND = "shim.bound", Command;
    /// The shim serves its socket; the daemon has no answer yet.
    SHIM_FORKED = "shim.forked", Command;
    /// The daemon has the address of the shim's socket.
    SHIM_STARTED = "shim.started", Daemon;
    /// The shim wrote its record of the sandbox that it is going to make.
    SANDBOX_RECORDED = "sandbox.recorded", Shim;
    /// The pod's cgroup was made.
    SANDBOX_CGROUP_MADE = "sandbox.cgroup-made", Shim;
    /// The process that makes the namespaces has entered them.
    SANDBOX_UNSHARED = "sandbox.unshared", Shim;
    /// The new network namespace was pinned, or the given one joined.
    SANDBOX_PINNED = "sandbox.pinned", Shim;
    /// The shim holds descriptors of the namespaces.
    SANDBOX_MADE = "sandbox.made", Shim;
    /// The shim has answered the daemon's request to create the sandbox.
    SANDBOX_CREATED = "sandbox.created", Daemon;
    /// The bridge and its rules were made.
    BRIDGE_LAID = "bridge.laid", Daemon;
    /// The lease of the pod's address was written.
    LEASE_WRITTEN = "lease.written", Daemon;
    /// The pod's veth pair was made.
    PAIR_MADE = "pair.made", Daemon;
    /// The pod's end of the pair has its address.
    PAIR_ADDRESSED = "pair.addressed", Daemon;
    /// The pod's ports were published.
    PORTS_PUBLISHED = "ports.published", Daemon;
    /// The pod is attached to its network.
    POD_ATTACHED = "pod.attached", Daemon;
    /// The sandbox was started.
    SANDBOX_STARTED = "sandbox.started", Daemon;
    /// The pod's files for /etc were written.
    POD_FILES_WRITTEN = "pod.files-written", Daemon;
    /// The pod is recorded as ready.
    POD_READY_RECORDED = "pod.ready-recorded", Daemon, kill;

    // A pod that could not be run is undone.
    /// The pod was detached from its network, or this has failed and is left for later.
    UNDO_DETACHED = "undo.detached", Daemon, kill;
    /// The pod's shim has ended.
    UNDO_SHIM_ENDED = "undo.shim-ended", Daemon;
    /// The pod's directory was removed.
    UNDO_DIRECTORY_REMOVED = "undo.directory-removed", Daemon;

    // A container is created.
    /// The container's config.json was written.
    BUNDLE_WRITTEN = "bundle.written", Daemon;
    /// The directories of the container's rootfs were made.
    ROOTFS_MADE = "rootfs.made", Daemon;
    /// The container's streams and log are open.
    STREAMS_OPENED = "streams.opened", Shim;
    /// The container's cgroup was made.
    CGROUP_MADE = "cgroup.made", Shim;
    /// The container's mounts were prepared.
    MOUNTS_PREPARED = "mounts.prepared", Shim;
    /// The container's first process was forked; the shim does not know its pid yet.
    CONTAINER_FORKED = "container.forked", Shim, kill;
    /// The first process is in the container's namespaces.
    CONTAINER_ENTERED = "container.entered", Shim;
    /// The shim watches the first process.
    CONTAINER_ADOPTED = "container.adopted", Shim, kill;
    /// The shim has answered the daemon's request to create the container.
    CONTAINER_CREATED = "container.created", Daemon, kill;
    /// The container's record was written.
    CONTAINER_RECORDED = "container.recorded", Daemon, kill;

    // A container is started, used, and ends.
    /// execve has succeeded; the shim has not answered yet.
    CONTAINER_EXECUTED = "container.executed", Shim, kill;
    /// The shim has answered that the container runs; its record does not say so yet.
    CONTAINER_STARTED = "container.started", Daemon, kill;
    /// The container's record says that it runs.
    START_RECORDED = "start.recorded", Daemon, kill;
    /// The shim has changed the limits of the container's cgroup.
    LIMITS_SET = "limits.set", Daemon;
    /// The named pipes of an exec were made.
    EXEC_PIPES_MADE = "exec.pipes-made", Daemon;
    /// The exec was added in the shim.
    EXEC_ADDED = "exec.added", Daemon;
    /// The process of an exec was made, but is not watched yet.
    EXEC_SPAWNED = "exec.spawned", Shim;
    /// The shim has answered that the exec runs.
    EXEC_STARTED = "exec.started", Daemon;
    /// SIGKILL was sent to all that is left in the cgroup of an ended container.
    END_KILLED = "end.killed", Shim, kill;
    /// The container's log is closed.
    END_LOGGED = "end.logged", Shim, kill;
    /// The exit record was written; it is synced later, in the background.
    END_WRITTEN = "end.written", Shim, kill;
    /// The container's cgroup was removed, if its processes have ended.
    END_CGROUP_REMOVED = "end.cgroup-removed", Shim, kill;
    /// The shim has published the exit to waiting calls and as an event.
    END_TOLD = "end.told", Shim, kill;
    /// The daemon has learned of the exit.
    END_HEARD = "end.heard", Daemon, kill;
    /// The daemon has recorded the exit.
    END_RECORDED = "end.recorded", Daemon, kill;
    /// A stop call has sent SIGKILL and does not wait for the end yet.
    CONTAINER_KILLED = "container.killed", Daemon;

    // A container is removed.
    /// The shim has removed the container's cgroup, but still has the container in its table.
    TASK_CLEARED = "task.cleared", Shim;
    /// The shim has deleted the container.
    TASK_DELETED = "task.deleted", Daemon;
    /// The container's bundle was removed.
    BUNDLE_REMOVED = "bundle.removed", Daemon;
    /// The container's writable layer was removed.
    WRITABLE_REMOVED = "writable.removed", Daemon;
    /// Everything of the container but its record was removed.
    TRACES_REMOVED = "traces.removed", Daemon;
    /// The record of a pod or a container was deleted.
    ROW_DELETED = "row.deleted", Daemon, kill;

    // A pod is stopped and removed.
    /// The containers of a pod that is being stopped were killed.
    POD_EMPTIED = "pod.emptied", Daemon;
    /// The pod's published ports were withdrawn.
    PORTS_WITHDRAWN = "ports.withdrawn", Daemon;
    /// The lease is retired: the address stays taken until the veth pair is deleted.
    LEASE_RETIRED = "lease.retired", Daemon, kill;
    /// The veth pair was deleted.
    PAIR_DELETED = "pair.deleted", Daemon;
    /// The pod's address is free.
    LEASE_FREED = "lease.freed", Daemon, kill;
    /// The pod was detached from its network.
    POD_DETACHED = "pod.detached", Daemon;
    /// The shim has ended the pod's containers.
    SANDBOX_EMPTIED = "sandbox.emptied", Shim;
    /// The pin of the network namespace was removed.
    SANDBOX_UNPINNED = "sandbox.unpinned", Shim;
    /// The sandbox's namespaces and cgroup are gone.
    SANDBOX_DESTROYED = "sandbox.destroyed", Shim;
    /// The shim has answered the daemon's request to stop the sandbox.
    SANDBOX_STOPPED = "sandbox.stopped", Daemon;
    /// The shim has removed its socket and is about to exit.
    SOCKET_REMOVED = "socket.removed", Shim, kill;
    /// The shim has exited.
    SHIM_LEFT = "shim.left", Daemon;
    /// The pod is recorded as stopped.
    STOP_RECORDED = "stop.recorded", Daemon;
    /// The containers of a pod that is being removed are gone.
    POD_CLEARED = "pod.cleared", Daemon;
    /// The pod's directory was removed.
    POD_DIRECTORY_REMOVED = "pod.directory-removed", Daemon;

    // A daemon starts on the state of an earlier one.
    /// The records were read.
    RECOVERY_LOADED = "recovery.loaded", Daemon, kill;
    /// Network plugins of pods to be undone were ended. Other pods may still be being taken up.
    RECOVERY_TAKEN_UP = "recovery.taken-up", Daemon, kill;
    /// Half-started pods were undone, and resources without a record removed.
    RECOVERY_SWEPT = "recovery.swept", Daemon, kill;
    /// Unused layers and staging directories of the earlier daemon were removed.
    IMAGES_SWEPT = "images.swept", Daemon, kill;

    // `delete` cleans up after a dead shim.
    /// The container's processes were killed and its cgroup was removed.
    DEAD_CGROUP_REMOVED = "dead.cgroup-removed", Command;
    /// The pin of the network namespace was removed.
    DEAD_UNPINNED = "dead.unpinned", Command;
    /// The container's exit record was written.
    DEAD_WRITTEN = "dead.written", Command;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_name_is_used_twice_and_each_can_be_a_file() {
        let names: HashSet<_> = POINTS.iter().map(|point| point.name).collect();
        assert_eq!(names.len(), POINTS.len());
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b".-".contains(&b))));
    }
}
