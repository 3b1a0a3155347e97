//! How a process ended, and the exit record, which outlives the shim.

use crate::record;
use rustix::fs::statfs;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::sleep;

/// `f_type` of tmpfs, statfs(2).
const TMPFS: i64 = 0x0102_1994;

/// Name of the exit record in a container's bundle.
pub const FILE_NAME: &str = "exit.json";
/// Maximum size of a record: one block of common file systems, one page of tmpfs.
const MAX_RECORD_BYTES: usize = 4096;
/// Delay before a record on a disk is synced. Most records are removed with their container sooner, and no caller
/// should wait for a slow disk.
const SYNC_DELAY: Duration = Duration::from_secs(1);
/// Stack of the thread that syncs.
const SYNC_STACK_BYTES: usize = 64 * 1024;

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exit {
    /// 0 to 255; 128 + signal when a signal ended it.
    pub code: u32,
    /// Nanoseconds since the Unix epoch.
    pub finished_at: i64,
    /// The kernel's OOM killer killed a process of the container.
    pub oom_killed: bool,
    /// Why the shim could not run or watch the process; otherwise empty.
    pub message: String,
}

impl Exit {
    /// A process that ended just now.
    pub fn now(code: u32, message: impl Into<String>) -> Self {
        Self { code, finished_at: now(), oom_killed: false, message: message.into() }
    }

    /// Writes the record into the bundle by rename, so that readers see all of it or none. Not synced: see [`sync_later`].
    pub fn write(&self, bundle: &Path) -> io::Result<()> {
        record::write(&bundle.join(FILE_NAME), &self.shortened_to_fit()?)
    }

    /// Shortens the message until the record fits into [`MAX_RECORD_BYTES`].
    fn shortened_to_fit(&self) -> io::Result<Self> {
        let mut exit = self.clone();
        while serde_json::to_vec(&exit)?.len() > MAX_RECORD_BYTES {
            exit.message.truncate(exit.message.floor_char_boundary(exit.message.len() / 2));
        }
        Ok(exit)
    }

    /// Reads the record of a bundle; `None` while its container has not ended.
    pub fn read(bundle: &Path) -> io::Result<Option<Self>> {
        record::read(&bundle.join(FILE_NAME))
    }
}

/// Disk space reserved for the record of a container being created, so that its end can be recorded on a full disk.
/// Freed when dropped.
#[derive(Debug)]
pub struct RecordSpace {
    path: PathBuf,
    kept: bool,
}

impl RecordSpace {
    /// Reserves the space, and removes the record of an earlier container in the same bundle.
    pub fn reserve(bundle: &Path) -> io::Result<Self> {
        let path = bundle.join(FILE_NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        record::reserve(&path, MAX_RECORD_BYTES as u64)?;
        Ok(Self { path, kept: false })
    }

    /// Keeps the space for the container's end.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for RecordSpace {
    fn drop(&mut self) {
        if !self.kept {
            record::release_space(&self.path);
        }
    }
}

/// Syncs a record that was just written, after a delay and in a thread of its own because a disk may take seconds. Does
/// nothing on tmpfs.
pub async fn sync_later(bundle: PathBuf) {
    sleep(SYNC_DELAY).await;
    let on_disk = statfs(&bundle).is_ok_and(|fs| fs.f_type != TMPFS);
    if on_disk {
        let builder = std::thread::Builder::new().name("settle".into()).stack_size(SYNC_STACK_BYTES);
        // Without a thread the record is as durable as any file the kernel writes back later.
        drop(builder.spawn(move || sync(&bundle)));
    }
}

fn sync(bundle: &Path) {
    // A record that is gone by now needs no sync.
    let _ = File::open(bundle.join(FILE_NAME)).and_then(|record| record.sync_data());
    let _ = File::open(bundle).and_then(|directory| directory.sync_all());
}

/// Nanoseconds since the Unix epoch.
pub fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    #[test]
    fn a_record_is_read_back_as_written_and_leaves_no_staging_file() {
        let bundle = tempfile::tempdir().unwrap();
        assert_eq!(Exit::read(bundle.path()).unwrap(), None);
        let exit = Exit { code: 137, finished_at: 5, oom_killed: true, message: "why".into() };
        exit.write(bundle.path()).unwrap();
        assert_eq!(Exit::read(bundle.path()).unwrap(), Some(exit));
        assert_eq!(fs::read_dir(bundle.path()).unwrap().count(), 1);
    }

    /// A tmpfs of `pages` pages, unmounted when dropped.
    struct SmallTmpfs(tempfile::TempDir);

    impl SmallTmpfs {
        fn new(pages: u32) -> Self {
            assert!(
                rustix::process::geteuid().is_root(),
                "needs root: sudo -E cargo test -p berth-shim root_"
            );
            let directory = tempfile::tempdir().unwrap();
            let options = std::ffi::CString::new(format!("size={}", pages * 4096)).unwrap();
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("small", directory.path(), "tmpfs", flags, Some(options.as_c_str()))
                .unwrap();
            Self(directory)
        }

        fn fill(&self) {
            let full = fs::write(self.0.path().join("filler"), vec![1; 64 * 4096]).unwrap_err();
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        }
    }

    impl Drop for SmallTmpfs {
        fn drop(&mut self) {
            rustix::mount::unmount(self.0.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }

    #[test]
    fn root_an_end_is_recorded_on_a_full_disk() {
        let disk = SmallTmpfs::new(4);
        let bundle = disk.0.path();
        RecordSpace::reserve(bundle).unwrap().keep();
        disk.fill();
        let long = Exit { code: 1, message: "\u{1}ü".repeat(MAX_RECORD_BYTES), ..Exit::default() };
        long.write(bundle).unwrap();
        let read = Exit::read(bundle).unwrap().unwrap();
        assert!(read.code == 1 && read.message.len() > 100, "{read:?}");
        assert!(fs::metadata(bundle.join(FILE_NAME)).unwrap().len() <= MAX_RECORD_BYTES as u64);
    }

    #[test]
    fn root_without_room_nothing_is_promised_and_nothing_is_left() {
        let disk = SmallTmpfs::new(4);
        disk.fill();
        assert_eq!(RecordSpace::reserve(disk.0.path()).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read_dir(disk.0.path()).unwrap().count(), 1);
    }

    #[test]
    fn room_that_is_not_kept_is_given_back() {
        let bundle = tempfile::tempdir().unwrap();
        Exit::now(3, "of a former one").write(bundle.path()).unwrap();
        drop(RecordSpace::reserve(bundle.path()).unwrap());
        assert_eq!(fs::read_dir(bundle.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_record_is_an_error_and_not_a_success() {
        let bundle = tempfile::tempdir().unwrap();
        fs::write(bundle.path().join(FILE_NAME), b"{\"code\":").unwrap();
        assert!(Exit::read(bundle.path()).is_err());
    }
}
