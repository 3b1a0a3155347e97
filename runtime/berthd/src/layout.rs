//! Paths on disk. Everything is accessible to root only: files of a container have the owners and setuid bits that its
//! root set, and its specification may hold secrets.
//!
//! ```text
//! <root>/                      survives a reboot
//!   state.db                   records of pods and containers
//!   images/                    the image store
//!   containers/<id>/{upper,work}   writable layer of a container
//! <state>/                     cleared by a reboot; anyone may pass through, to the socket
//!   berth.sock                 the CRI socket, unless configured elsewhere
//!   s/                         sockets of the shims
//!   sandboxes/<id>/            bundle of a pod: resolv.conf, hosts, hostname, pod.json
//!   containers/<id>/           bundle of a container: config.json, exit.json, container.json
//! ```

use std::{
    fs::{self, DirBuilder, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use berth_image::tree;

use crate::{
    error::{During, Result},
    ids,
};

/// Mode of a directory that only root may enter.
const PRIVATE_DIRECTORY_MODE: u32 = 0o700;
/// Mode of a directory that everyone may pass through and only root may list.
const TRAVERSABLE_DIRECTORY_MODE: u32 = 0o711;
/// Mode of a file that only root may read.
const PRIVATE_FILE_MODE: u32 = 0o600;

/// The paths of one daemon.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
    state: PathBuf,
    netns: PathBuf,
}

impl Layout {
    /// Returns the paths without making any directory.
    pub(crate) fn of(root: &Path, state: &Path, netns: &Path) -> Self {
        Self { root: root.into(), state: state.into(), netns: netns.into() }
    }

    /// Makes the parent directories, and corrects the modes of those that an earlier daemon made. The directory of
    /// pinned network namespaces is shared with other programs, and keeps its mode.
    pub fn create(root: &Path, state: &Path, netns: &Path) -> Result<Self> {
        let layout = Self::of(root, state, netns);
        make(root, PRIVATE_DIRECTORY_MODE)?;
        make(state, TRAVERSABLE_DIRECTORY_MODE)?;
        make_private(&state.join("s"))?;
        for parent in [layout.writable_layers(), layout.sandboxes(), layout.bundles()] {
            make_private(&parent)?;
            restrict_modes_below(&parent)?;
        }
        fs::create_dir_all(netns).during(|| format!("create {}", netns.display()))?;
        Ok(layout)
    }

    /// Returns the path of the database of pods and containers.
    pub fn database(&self) -> PathBuf {
        self.root.join("state.db")
    }

    /// Returns the daemon's address as shims take it: they put their sockets into `s/` beside it.
    pub fn address(&self) -> PathBuf {
        self.state.join("berth.sock")
    }

    /// Returns the directory of the shims' sockets.
    pub(crate) fn sockets(&self) -> PathBuf {
        self.state.join("s")
    }

    /// Returns the directory of all pods' bundles.
    pub fn sandboxes(&self) -> PathBuf {
        self.state.join("sandboxes")
    }

    /// Returns the bundle of one pod.
    pub fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes().join(id)
    }

    /// Returns the path of the copy of a pod's record, from which a lost record is restored.
    pub fn pod_copy(&self, id: &str) -> PathBuf {
        self.sandbox(id).join("pod.json")
    }

    /// Returns the directory of all containers' bundles.
    pub fn bundles(&self) -> PathBuf {
        self.state.join("containers")
    }

    /// Returns the bundle of one container.
    pub fn bundle(&self, id: &str) -> PathBuf {
        self.bundles().join(id)
    }

    /// Returns the path of the copy of a container's record, from which a lost record is restored.
    pub fn container_copy(&self, id: &str) -> PathBuf {
        self.bundle(id).join("container.json")
    }

    /// Returns the directory of all writable layers.
    pub fn writable_layers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// Returns the writable layer of one container: `upper` and `work` of its overlay.
    pub fn writable(&self, id: &str) -> PathBuf {
        self.writable_layers().join(id)
    }

    /// Returns the path at which a pod's network namespace is pinned.
    pub fn netns(&self, id: &str) -> PathBuf {
        self.netns.join(format!("berth-{}", ids::short(id)))
    }
}

/// Makes a directory, and missing parents, accessible to root only; corrects the mode of an existing directory.
pub(crate) fn make_private(path: &Path) -> Result<()> {
    make(path, PRIVATE_DIRECTORY_MODE)
}

fn make(path: &Path, mode: u32) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.and_then(|()| set_mode(path, mode)).during(|| format!("make {} root's alone", path.display()))
}

/// Sets the mode of each subdirectory. The mode of `parent` is not enough: a subdirectory may be bind mounted or open
/// elsewhere.
fn restrict_modes_below(parent: &Path) -> Result<()> {
    let mend = || {
        for entry in fs::read_dir(parent)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                set_mode(&entry.path(), PRIVATE_DIRECTORY_MODE)?;
            }
        }
        Ok::<_, io::Error>(())
    };
    mend().during(|| format!("make what is in {} root's alone", parent.display()))
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Writes a file with mode 0600. An existing file is overwritten in place, not atomically, and keeps its mode.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let open =
        || OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE_FILE_MODE).open(path);
    open().and_then(|mut file| file.write_all(content)).during(|| format!("write {}", path.display()))
}

/// Makes an empty file with mode 0600, or corrects the mode of an existing one.
pub(crate) fn touch_private(path: &Path) -> Result<()> {
    let touch = || OpenOptions::new().append(true).create(true).mode(PRIVATE_FILE_MODE).open(path);
    touch()
        .and_then(|_| set_mode(path, PRIVATE_FILE_MODE))
        .during(|| format!("make {} root's alone", path.display()))
}

/// Removes a directory recursively; succeeds when it does not exist.
pub(crate) fn remove_directory(path: &Path) -> Result<()> {
    match tree::remove(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).during(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn layout(base: &Path) -> Layout {
        Layout::create(&base.join("root"), &base.join("run"), &base.join("netns")).unwrap()
    }

    #[test]
    fn everything_is_roots_alone_and_the_way_to_the_socket_is_open() {
        let base = tempfile::tempdir().unwrap();
        let layout = layout(base.path());
        for private in [&layout.root, &layout.writable_layers(), &layout.bundles(), &layout.sandboxes()] {
            assert_eq!(mode(private), 0o700, "{}", private.display());
        }
        assert_eq!((mode(&layout.state), mode(&layout.state.join("s"))), (0o711, 0o700));
    }

    #[test]
    fn what_an_earlier_daemon_left_open_is_closed() {
        let base = tempfile::tempdir().unwrap();
        let places = ["root/containers/c", "run/containers/c", "run/sandboxes/p", "run/s"];
        for place in places.map(|place| base.path().join(place)) {
            fs::create_dir_all(&place).unwrap();
        }
        let upper = base.path().join("root/containers/c/upper");
        fs::create_dir(&upper).unwrap();
        for open in ["root", "run", "root/containers", "root/containers/c", "run/containers/c", "run/s"] {
            set_mode(&base.path().join(open), 0o755).unwrap();
        }
        layout(base.path());
        for place in places.iter().chain(&["root", "root/containers"]) {
            assert_eq!(mode(&base.path().join(place)), 0o700, "{place}");
        }
        assert_eq!(mode(&base.path().join("run")), 0o711);
        assert_eq!(mode(&upper), 0o755, "it is the container's root directory");
    }

    #[test]
    fn files_are_roots_alone_from_the_beginning_or_from_now_on() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("file");
        write_private(&path, b"secret").unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"secret".to_vec()));
        set_mode(&path, 0o644).unwrap();
        touch_private(&path).unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o600, b"secret".to_vec()));
    }
}
