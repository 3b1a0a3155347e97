//! Repairs that are safe: they touch nothing that is on record and nothing that a live process uses.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use rustix::mount::{UnmountFlags, unmount};

use super::entries;
use crate::{
    error::{During, Result},
    layout::{Layout, remove_directory},
};

/// The repair of a finding.
#[derive(Debug)]
pub(super) enum Remedy {
    /// Removes the directory recursively.
    RemoveDirectory(PathBuf),
    RemoveFile(PathBuf),
    /// Removes a cgroup and the ones below it, all of them without processes.
    RemoveGroup(PathBuf),
    /// Removes a pinned namespace: the mount, and the file under it.
    Unpin(PathBuf),
    Unmount(PathBuf),
    /// Deletes the record of a container that has ended.
    ForgetContainer(String),
}

impl Remedy {
    pub(super) fn apply(self, layout: &Layout) -> Result<()> {
        match self {
            Self::RemoveDirectory(path) => remove_directory(&path),
            Self::RemoveFile(path) => fs::remove_file(&path).during(|| format!("remove {}", path.display())),
            Self::RemoveGroup(path) => remove_group(&path).during(|| format!("remove {}", path.display())),
            Self::Unpin(path) => {
                while unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
                fs::remove_file(&path).during(|| format!("remove {}", path.display()))
            }
            Self::Unmount(path) => {
                let unmounted = unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
                unmounted.map_err(io::Error::from).during(|| format!("unmount {}", path.display()))
            }
            Self::ForgetContainer(id) => forget(&layout.database(), &id),
        }
    }
}

fn remove_group(group: &Path) -> io::Result<()> {
    let mut below = entries(group).into_iter().filter(|(_, path)| path.is_dir());
    below.try_for_each(|(_, path)| remove_group(&path))?;
    fs::remove_dir(group)
}

fn forget(database: &Path, id: &str) -> Result<()> {
    let step = || format!("delete the record of container {id}");
    let connection = Connection::open(database).during(step)?;
    connection.execute("DELETE FROM container WHERE id = ?1", [id]).map(drop).during(step)
}
