//! Every point, in the order in which a pod's life passes them.

/// A place in the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// What tests know it by: whose step, and which has just been done.
    pub name: &'static str,
    /// Who passes it.
    pub process: Process,
    /// Whether a failure can be told there, or only a kill makes sense.
    pub fails: bool,
}

/// The processes that change the world.
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

        /// All of them.
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
    /// They are on the disk.
    LAYER_SYNCED = "layer.synced", Daemon;
    /// Their directory has its last name.
    LAYER_RENAMED = "layer.renamed", Daemon;
    /// The index knows the layer.
    LAYER_RECORDED = "layer.recorded", Daemon, kill;
    /// The index knows the image.
    IMAGE_RECORDED = "image.recorded", Daemon;
    /// The index does not know the image any more.
    IMAGE_FORGOTTEN = "image.forgotten", Daemon;
    /// The index does not know layers any more.
    LAYERS_FORGOTTEN = "layers.forgotten", Daemon;
    /// A layer lies in the trash.
    LAYER_TRASHED = "layer.trashed", Daemon;
    /// Layers are held for a container.
    IMAGE_LEASED = "image.leased", Daemon;
    /// They are not any more.
    IMAGE_RELEASED = "image.released", Daemon;

    // Any record of a pod or a container.
    /// It is about to be written or deleted.
    RECORD_WRITING = "record.writing", Daemon;
    /// It was.
    RECORD_WRITTEN = "record.written", Daemon, kill;

    // A pod is run.
    /// The record of a pod that is being run was written.
    POD_RECORDED = "pod.recorded", Daemon;
    /// Its bundle was made.
    POD_BUNDLE_MADE = "pod.bundle-made", Daemon;
    /// The socket of its shim is bound, and nobody serves it yet.
    SHIM_BOUND = "shim.bound", Command;
    /// Its shim serves, and the daemon was not told.
    SHIM_FORKED = "shim.forked", Command;
    /// The daemon knows the shim's socket.
    SHIM_STARTED = "shim.started", Daemon;
    /// The shim wrote down what it is going to make.
    SANDBOX_RECORDED = "sandbox.recorded", Shim;
    /// The pod's cgroup was made.
    SANDBOX_CGROUP_MADE = "sandbox.cgroup-made", Shim;
    /// New namespaces were entered by the process that makes them.
    SANDBOX_UNSHARED = "sandbox.unshared", Shim;
    /// The network namespace was pinned.
    SANDBOX_PINNED = "sandbox.pinned", Shim;
    /// The shim has the namespaces.
    SANDBOX_MADE = "sandbox.made", Shim;
    /// The daemon was told so.
    SANDBOX_CREATED = "sandbox.created", Daemon;
    /// The bridge and its rules were laid.
    BRIDGE_LAID = "bridge.laid", Daemon;
    /// The pod's address was written down.
    LEASE_WRITTEN = "lease.written", Daemon;
    /// Its pair of interfaces was made.
    PAIR_MADE = "pair.made", Daemon;
    /// The pod's end has its address.
    PAIR_ADDRESSED = "pair.addressed", Daemon;
    /// Its ports were published.
    PORTS_PUBLISHED = "ports.published", Daemon;
    /// The pod has its network.
    POD_ATTACHED = "pod.attached", Daemon;
    /// Its sandbox was started.
    SANDBOX_STARTED = "sandbox.started", Daemon;
    /// Its files for /etc were written.
    POD_FILES_WRITTEN = "pod.files-written", Daemon;
    /// Its record says that it is ready.
    POD_READY_RECORDED = "pod.ready-recorded", Daemon, kill;

    // A pod that could not be run is undone.
    /// Its network was given back.
    UNDO_DETACHED = "undo.detached", Daemon, kill;
    /// Its shim has ended.
    UNDO_SHIM_ENDED = "undo.shim-ended", Daemon;
    /// Its directory was removed.
    UNDO_DIRECTORY_REMOVED = "undo.directory-removed", Daemon;

    // A container is created.
    /// Its config.json was written.
    BUNDLE_WRITTEN = "bundle.written", Daemon;
    /// The directories of its root file system were made.
    ROOTFS_MADE = "rootfs.made", Daemon;
    /// Its streams and its log are open.
    STREAMS_OPENED = "streams.opened", Shim;
    /// Its cgroup was made.
    CGROUP_MADE = "cgroup.made", Shim;
    /// Its mounts were prepared.
    MOUNTS_PREPARED = "mounts.prepared", Shim;
    /// Its first process was made, and the shim was not told.
    CONTAINER_FORKED = "container.forked", Shim, kill;
    /// The first process is in the container's namespaces.
    CONTAINER_ENTERED = "container.entered", Shim;
    /// The shim watches it.
    CONTAINER_ADOPTED = "container.adopted", Shim, kill;
    /// The daemon was told.
    CONTAINER_CREATED = "container.created", Daemon, kill;
    /// It is on record.
    CONTAINER_RECORDED = "container.recorded", Daemon, kill;

    // It is started, used, and ends.
    /// execve happened, and nobody was told.
    CONTAINER_EXECUTED = "container.executed", Shim, kill;
    /// The daemon was told, and nothing is on record.
    CONTAINER_STARTED = "container.started", Daemon, kill;
    /// Its start is on record.
    START_RECORDED = "start.recorded", Daemon, kill;
    /// The limits were changed in its cgroup.
    LIMITS_SET = "limits.set", Daemon;
    /// The named pipes of a command were made.
    EXEC_PIPES_MADE = "exec.pipes-made", Daemon;
    /// The shim knows the command.
    EXEC_ADDED = "exec.added", Daemon;
    /// The process of a command was made, and nobody watches it.
    EXEC_SPAWNED = "exec.spawned", Shim;
    /// The daemon was told that the command runs.
    EXEC_STARTED = "exec.started", Daemon;
    /// All that was in a container that ended is dead.
    END_KILLED = "end.killed", Shim, kill;
    /// Its log is closed.
    END_LOGGED = "end.logged", Shim, kill;
    /// How it ended is on the disk.
    END_WRITTEN = "end.written", Shim, kill;
    /// Its cgroup was removed.
    END_CGROUP_REMOVED = "end.cgroup-removed", Shim, kill;
    /// Its end was told to who waits.
    END_TOLD = "end.told", Shim, kill;
    /// The daemon knows of the end.
    END_HEARD = "end.heard", Daemon, kill;
    /// It is on record.
    END_RECORDED = "end.recorded", Daemon, kill;
    /// A container was killed by a call, and its end was not awaited.
    CONTAINER_KILLED = "container.killed", Daemon;

    // It is removed.
    /// The shim removed what the kernel has of it.
    TASK_CLEARED = "task.cleared", Shim;
    /// The shim forgot it.
    TASK_DELETED = "task.deleted", Daemon;
    /// Its bundle was removed.
    BUNDLE_REMOVED = "bundle.removed", Daemon;
    /// What it wrote was removed.
    WRITABLE_REMOVED = "writable.removed", Daemon;
    /// Everything of it but the record was removed.
    TRACES_REMOVED = "traces.removed", Daemon;
    /// The record of a pod or a container was deleted.
    ROW_DELETED = "row.deleted", Daemon, kill;

    // A pod is stopped and removed.
    /// The containers of a pod that is being stopped are dead.
    POD_EMPTIED = "pod.emptied", Daemon;
    /// Its ports were withdrawn.
    PORTS_WITHDRAWN = "ports.withdrawn", Daemon;
    /// Its address waits for its interfaces to go.
    LEASE_RETIRED = "lease.retired", Daemon, kill;
    /// Its interfaces are gone.
    PAIR_DELETED = "pair.deleted", Daemon;
    /// Its address is free.
    LEASE_FREED = "lease.freed", Daemon, kill;
    /// Its network was given back.
    POD_DETACHED = "pod.detached", Daemon;
    /// The shim has ended what runs in the pod.
    SANDBOX_EMPTIED = "sandbox.emptied", Shim;
    /// The pin of its network namespace was removed.
    SANDBOX_UNPINNED = "sandbox.unpinned", Shim;
    /// Its namespaces and its cgroup are gone.
    SANDBOX_DESTROYED = "sandbox.destroyed", Shim;
    /// The daemon was told so.
    SANDBOX_STOPPED = "sandbox.stopped", Daemon;
    /// The socket of the shim was removed; it is about to leave.
    SOCKET_REMOVED = "socket.removed", Shim, kill;
    /// The shim has left.
    SHIM_LEFT = "shim.left", Daemon;
    /// The record says that the pod is stopped.
    STOP_RECORDED = "stop.recorded", Daemon;
    /// The containers of a pod that is being removed are gone.
    POD_CLEARED = "pod.cleared", Daemon;
    /// Its directory was removed.
    POD_DIRECTORY_REMOVED = "pod.directory-removed", Daemon;

    // A daemon starts after another.
    /// The records were read.
    RECOVERY_LOADED = "recovery.loaded", Daemon, kill;
    /// The pods were taken up.
    RECOVERY_TAKEN_UP = "recovery.taken-up", Daemon, kill;
    /// What has no record was swept.
    RECOVERY_SWEPT = "recovery.swept", Daemon, kill;
    /// What an earlier daemon left of images was swept.
    IMAGES_SWEPT = "images.swept", Daemon, kill;

    // What a dead shim left is cleaned up.
    /// Its processes are dead and its cgroup was removed.
    DEAD_CGROUP_REMOVED = "dead.cgroup-removed", Command;
    /// The pin of the network namespace was removed.
    DEAD_UNPINNED = "dead.unpinned", Command;
    /// How the container ended was written down.
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
