//! Sealed copies of programs: even a process that gets hold of a running one cannot change it.
//!
//! A container can reach the file of a process that runs in it: by `/proc/PID/exe`, or through a script with
//! `/proc/self/exe` as its interpreter. If that were the host's file, the container could overwrite it and be the host's
//! root at the next start (CVE-2019-5736), or make it setuid at once. So a program that enters containers is started
//! from a copy on a tmpfs of its own, whose superblock is read-only, not only its mount, and which is attached nowhere.
//! A process can reach only this copy from there. The copy takes the memory of one file, however often it is started.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::{File, metadata};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, StatVfsMountFlags, fstatfs, fstatvfs, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, fsconfig_create, fsconfig_reconfigure,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, fspick,
};

/// Magic number of tmpfs.
const TMPFS: u64 = 0x0102_1994;
/// Much longer than a child needs from fork to execve.
const READ_ONLY_TIMEOUT: Duration = Duration::from_secs(1);
const READ_ONLY_RETRY_INTERVAL: Duration = Duration::from_millis(1);

/// Why a program could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}", program.display())]
pub struct Error {
    step: &'static str,
    program: PathBuf,
    source: io::Error,
}

/// A sealed copy, executable while this value lives. Processes started from it continue when it is dropped.
#[derive(Debug)]
pub struct Sealed {
    mount: OwnedFd,
    name: OsString,
    original: FileIdentity,
}

/// Identity of a file's content, as far as known without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Sealed {
    /// Copies `program`; only root can execute the copy.
    pub fn copy_of(program: &Path) -> Result<Self, Error> {
        let failed = |step| move |source| Error { step, program: program.to_owned(), source };
        let mut original = File::open(program).map_err(failed("open"))?;
        let identity = FileIdentity::of(&original).map_err(failed("look at"))?;
        let name = program.file_name().unwrap_or(OsStr::new("program")).to_owned();
        let mount = filled(&name, &mut original).map_err(failed("make a copy that nobody can change of"))?;
        Ok(Self { mount, name, original: identity })
    }

    /// Path of the copy, for this process and its children to execute.
    pub fn path(&self) -> PathBuf {
        // By pid and not by `self`: the interpreter of a script opens the path after execve.
        let directory = format!("/proc/{}/fd/{}", std::process::id(), self.mount.as_raw_fd());
        Path::new(&directory).join(&self.name)
    }

    /// Whether `program` is still the file that was copied.
    pub fn is_of(&self, program: &Path) -> bool {
        metadata(program).is_ok_and(|found| FileIdentity::from(&found) == self.original)
    }
}

/// Whether this file, a running program's, is on a sealed copy's read-only tmpfs.
pub fn is_sealed(file: impl AsFd) -> io::Result<bool> {
    let unwritable = fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    Ok(unwritable && fstatfs(&file)?.f_type as u64 == TMPFS)
}

/// Makes a read-only tmpfs with a copy of `original` as its only file.
fn filled(name: &OsStr, original: &mut File) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "0700")?;
    // Huge pages, so that many pages are mapped at a time, as from a disk. Optional: not every kernel has them for tmpfs.
    let _ = fsconfig_set_string(&context, "huge", "within_size");
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    write(mount.as_fd(), name, original)?;
    make_read_only(mount.as_fd())?;
    Ok(mount)
}

/// Makes the superblock read-only, which no mount flag can override.
fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        let context = fspick(mount, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
        fsconfig_set_flag(&context, "ro")?;
        match fsconfig_reconfigure(&context) {
            // EBUSY: a child that another thread has just forked holds the file open for writing until its execve. A
            // context that failed cannot be used again.
            Err(Errno::BUSY) if begun.elapsed() < READ_ONLY_TIMEOUT => sleep(READ_ONLY_RETRY_INTERVAL),
            other => return Ok(other?),
        }
    }
}

fn write(directory: BorrowedFd<'_>, name: &OsStr, original: &mut File) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let mut copy = File::from(openat(directory, name, flags, Mode::RUSR | Mode::XUSR)?);
    let found = original.metadata()?;
    copy.set_len(found.len())?;
    io::copy(original, &mut copy)?;
    copy.set_modified(found.modified()?)
}

impl FileIdentity {
    fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }
}

impl From<&std::fs::Metadata> for FileIdentity {
    fn from(found: &std::fs::Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests;
