//! The files and directories of a cgroup hierarchy.

use super::Error;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

/// How many times, a millisecond apart, a removal is tried while killed processes leave.
const REMOVE_ATTEMPTS: u32 = 200;
/// How many times a parent may vanish before its child is created.
const CREATE_ATTEMPTS: u32 = 8;

/// Writes to a control file in a single write, as the kernel requires. EINTR is a failure: an alarm must be able to end
/// a write that blocks.
pub(super) fn write(directory: &Path, file: &str, value: &str) -> Result<(), Error> {
    let path = directory.join(file);
    let opened = OpenOptions::new().write(true).open(&path);
    let done = opened.and_then(|file| Ok(rustix::io::write(file, value.as_bytes())?));
    done.map(drop).map_err(|source| Error { action: format!("write {value:?} to"), path, source })
}

/// Reads a control file, without the trailing newline.
pub(super) fn read(directory: &Path, file: &str) -> Result<String, Error> {
    let path = directory.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(source) => Err(Error { action: "read".into(), path, source }),
    }
}

/// Reads a number from a control file; `None` for `max` or a missing file.
pub(super) fn number(directory: &Path, file: &str) -> Option<u64> {
    read(directory, file).ok()?.parse().ok()
}

/// A number from the text of a control file of names and numbers; 0 when the name is missing.
pub(super) fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Creates a cgroup with its parents, and calls `made` for each new one, topmost first. One for which `made` fails is removed.
pub(super) fn make(directory: &Path, made: &mut dyn FnMut(&Path) -> Result<(), Error>) -> Result<(), Error> {
    // A parent may be removed with its last child at any moment.
    for _ in 0..CREATE_ATTEMPTS {
        match fs::create_dir(directory) {
            Ok(()) => {
                return made(directory).inspect_err(|_| {
                    let _ = rmdir(directory);
                });
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(create_failed(directory, source)),
        }
        if let Some(parent) = directory.parent() {
            make(parent, made)?;
        }
    }
    Err(create_failed(directory, ErrorKind::NotFound.into()))
}

fn create_failed(directory: &Path, source: std::io::Error) -> Error {
    Error { action: "create".into(), path: directory.into(), source }
}

/// A cgroup and all below it, deepest last.
pub(super) fn below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![directory.to_owned()];
    let mut next = 0;
    while next < found.len() {
        let entries = fs::read_dir(&found[next]).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        found.extend(groups.map(|entry| entry.path()).collect::<Vec<_>>());
        next += 1;
    }
    found
}

/// Pids of the processes in a cgroup and those below it, sorted.
pub(super) fn procs(directory: &Path) -> Result<Vec<u32>, Error> {
    let mut pids = Vec::new();
    for group in below(directory) {
        match read(&group, "cgroup.procs") {
            Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
            Err(error) if lists_none(&error.source) => {}
            Err(error) => return Err(error),
        }
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Whether the cgroup vanished meanwhile (ENODEV), or is a threaded one of v2 (EOPNOTSUPP), whose processes its parent lists.
fn lists_none(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::NotFound
        || matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP))
}

/// Removes a cgroup and those below it; waits up to 200 ms for ending processes to leave.
pub(super) fn remove(directory: &Path) -> Result<(), Error> {
    for _ in 1..REMOVE_ATTEMPTS {
        match remove_now(directory) {
            Err(error) if error.source.kind() == ErrorKind::ResourceBusy => {
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
    remove_now(directory)
}

/// The same without waiting.
pub(super) fn remove_now(directory: &Path) -> Result<(), Error> {
    if rmdir(directory).is_ok() {
        return Ok(());
    }
    below(directory).iter().rev().try_for_each(|group| {
        let failed = |source: std::io::Error| {
            let busy = source.kind() == ErrorKind::ResourceBusy;
            let action = if busy { "remove (processes still in it)" } else { "remove" };
            Error { action: action.into(), path: group.clone(), source }
        };
        rmdir(group).map_err(failed)
    })
}

/// Removes a cgroup without processes and children; one that is in use stays.
pub(super) fn remove_empty(directory: &Path) -> Result<(), Error> {
    match rmdir(directory) {
        Err(error) if matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty) => {
            Ok(())
        }
        Err(source) => Err(Error { action: "remove".into(), path: directory.into(), source }),
        Ok(()) => Ok(()),
    }
}

fn rmdir(directory: &Path) -> std::io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
