//! Where things lie on disk.
//!
//! ```text
//! <root>/                      survives a reboot
//!   state.db                   records of pods and containers
//!   images/                    the image store
//!   containers/<id>/{upper,work}   what a container writes
//! <state>/                     gone with a reboot, as the processes are
//!   berth.sock                 the CRI socket, unless configured elsewhere
//!   s/                         sockets of the shims
//!   sandboxes/<id>/            bundle of a pod: resolv.conf, hosts, hostname
//!   containers/<id>/           bundle of a container: config.json, exit.json
//! ```

use std::path::{Path, PathBuf};

use berth_image::tree;

use crate::{
    error::{During, Result},
    identity,
};

/// The directories of one daemon.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    state: PathBuf,
    netns: PathBuf,
}

impl Layout {
    /// The directories of a daemon that may not run, whether they exist or not.
    pub(crate) fn of(root: &Path, state: &Path, netns: &Path) -> Self {
        Self { root: root.into(), state: state.into(), netns: netns.into() }
    }

    /// Makes the directories that everything else lies in; they are root's alone.
    pub fn create(root: &Path, state: &Path, netns: &Path) -> Result<Self> {
        let layout = Self::of(root, state, netns);
        for directory in [
            layout.root.join("containers"),
            layout.state.join("s"),
            layout.state.join("sandboxes"),
            layout.state.join("containers"),
            layout.netns.clone(),
        ] {
            std::fs::create_dir_all(&directory).during(|| format!("create {}", directory.display()))?;
        }
        Ok(layout)
    }

    /// The database of pods and containers.
    pub fn database(&self) -> PathBuf {
        self.root.join("state.db")
    }

    /// What shims are told as the daemon's address: they put their sockets into `s/` beside it.
    pub fn address(&self) -> PathBuf {
        self.state.join("berth.sock")
    }

    /// Sockets of the shims.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.state.join("s")
    }

    /// Bundles of all pods.
    pub fn sandboxes(&self) -> PathBuf {
        self.state.join("sandboxes")
    }

    /// Bundle of one pod.
    pub fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    /// Bundles of all containers.
    pub fn bundles(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// Bundle of one container.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.bundles().join(id)
    }

    /// Writable layers of all containers.
    pub fn writables(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Writable layer of one container: `upper` and `work` of its overlay.
    pub fn writable(&self, id: &str) -> PathBuf {
        self.writables().join(id)
    }

    /// Where a pod's network namespace is pinned.
    pub fn netns(&self, id: &str) -> PathBuf {
        self.netns.join(format!("berth-{}", identity::short(id)))
    }
}

/// Removes a directory with all that is in it; fine when it is gone.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    match tree::remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).during(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
