//! Programs that nobody can change, whoever gets hold of a running one.
//!
//! Whatever runs in a container may show it the file it was started from: by `/proc/PID/exe`, or as the interpreter
//! `/proc/self/exe` of a script. Were that the host's file, the container could write to it and would be the host's root with
//! the next start (CVE-2019-5736), or make it setuid at once. So a program that enters containers is started from a copy on a
//! file system of its own: a tmpfs that is read-only as a whole, and not only where it is mounted, and that is attached nowhere. What a
//! process can reach from there is this copy and nothing else; it takes the memory of one file, however often it is started.

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
/// Far longer than a child needs from fork to execve.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// Why a program could not be copied.
#[derive(Debug, thiserror::Error)]
#[error("{step} {}", program.display())]
pub struct Error {
    step: &'static str,
    program: PathBuf,
    source: io::Error,
}

/// A copy to start a program from, for as long as it is held. What was started from it goes on when it is dropped.
#[derive(Debug)]
pub struct Sealed {
    mount: OwnedFd,
    name: OsString,
    of: Identity,
}

/// Which bytes a file had, as far as can be told without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Sealed {
    /// Copies `program`, for root alone to execute.
    pub fn copy_of(program: &Path) -> Result<Self, Error> {
        let failed = |step| move |source| Error { step, program: program.to_owned(), source };
        let mut original = File::open(program).map_err(failed("open"))?;
        let of = Identity::of(&original).map_err(failed("look at"))?;
        let name = program.file_name().unwrap_or(OsStr::new("program")).to_owned();
        let mount = filled(&name, &mut original).map_err(failed("make a copy that nobody can change of"))?;
        Ok(Self { mount, name, of })
    }

    /// Where the copy can be executed, by this process and its children.
    pub fn path(&self) -> PathBuf {
        // By number and not as `self`: the interpreter of a script opens it after execve.
        let directory = format!("/proc/{}/fd/{}", std::process::id(), self.mount.as_raw_fd());
        Path::new(&directory).join(&self.name)
    }

    /// Whether `program` is still the file that was copied.
    pub fn is_of(&self, program: &Path) -> bool {
        metadata(program).is_ok_and(|found| Identity::from(&found) == self.of)
    }
}

/// Whether this is the file of a program that was started from such a copy.
pub fn is_sealed(file: impl AsFd) -> io::Result<bool> {
    let unwritable = fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::RDONLY);
    Ok(unwritable && fstatfs(&file)?.f_type as u64 == TMPFS)
}

/// A file system with `original` in it as its only file, read-only.
fn filled(name: &OsStr, original: &mut File) -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "0700")?;
    // Pages of a shim are mapped many at a time, as from a disk. A kernel without large pages in memory does without.
    let _ = fsconfig_set_string(&context, "huge", "within_size");
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    write(mount.as_fd(), name, original)?;
    make_read_only(mount.as_fd())?;
    Ok(mount)
}

/// The file system itself, which no flag of a mount overrules.
fn make_read_only(mount: BorrowedFd<'_>) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        let context = fspick(mount, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
        fsconfig_set_flag(&context, "ro")?;
        match fsconfig_reconfigure(&context) {
            // A child that another thread has just made has the file open for writing until its execve. After a failure a
            // context is good for nothing more.
            Err(Errno::BUSY) if begun.elapsed() < PATIENCE => sleep(PAUSE),
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

impl Identity {
    fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }
}

impl From<&std::fs::Metadata> for Identity {
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
