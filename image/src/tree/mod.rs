//! Walks a directory tree that a container or an image has filled, and that may be hostile.
//!
//! At any depth the walk takes at most two descriptors and constant stack. A recursion would take both for each level,
//! so that deeply nested directories would crash the daemon. Symlinks are not followed. The way back up is `..`,
//! accepted only if it has the device and inode of the directory the walk came from, since the tree may change
//! meanwhile.

mod count;
mod label;
mod remove;

use std::{
    ffi::{CStr, CString},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, RawDir, fstat, openat},
    io::Errno,
    path::Arg,
};

pub use count::{Total, count};
pub use label::label;
pub use remove::remove;

/// Bytes for directory entries; limits how many one getdents64(2) returns.
const ENTRY_BUFFER_BYTES: usize = 32 << 10;

/// The actions of a walk.
trait Visit {
    /// Called for each entry; returns whether it is a directory to go into.
    fn entry(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> io::Result<bool>;

    /// Called for a directory that was gone into, once everything below it has been visited.
    fn leave_directory(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()>;
}

/// Visits everything below `top`, but not `top` itself.
///
/// # Errors
///
/// Those of the visitor, and when a directory on the way was moved or removed meanwhile.
fn visit(top: &Path, visitor: &mut impl Visit) -> io::Result<()> {
    let current = open(CWD, top)?;
    let here = Level::of(&current, CString::default())?;
    let buffer = vec![MaybeUninit::uninit(); ENTRY_BUFFER_BYTES];
    let mut walk = TreeWalk { current, here, above: Vec::new(), buffer };
    walk.visit_entries(visitor)?;
    while walk.step(visitor)? {}
    Ok(())
}

struct TreeWalk {
    current: OwnedFd,
    here: Level,
    /// From the top to the parent of the current directory.
    above: Vec<Level>,
    buffer: Vec<MaybeUninit<u8>>,
}

/// A directory on the way.
struct Level {
    name: CString,
    identity: (u64, u64),
    /// Directories in it that were not visited yet.
    below: Vec<CString>,
}

impl Level {
    fn of(directory: &OwnedFd, name: CString) -> io::Result<Self> {
        let stat = fstat(directory)?;
        Ok(Self { name, identity: (stat.st_dev, stat.st_ino), below: Vec::new() })
    }
}

impl TreeWalk {
    /// Goes down into the next directory, or up; false at the end.
    fn step(&mut self, visitor: &mut impl Visit) -> io::Result<bool> {
        match self.here.below.pop() {
            Some(name) => self.enter(name, visitor).map(|()| true),
            None => self.leave(visitor),
        }
    }

    fn enter(&mut self, name: CString, visitor: &mut impl Visit) -> io::Result<()> {
        let directory = match open(&self.current, name.as_c_str()) {
            // Removed meanwhile, or replaced by something else.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            opened => opened?,
        };
        let level = Level::of(&directory, name)?;
        self.above.push(std::mem::replace(&mut self.here, level));
        self.current = directory;
        self.visit_entries(visitor)
    }

    fn leave(&mut self, visitor: &mut impl Visit) -> io::Result<bool> {
        let Some(level) = self.above.pop() else { return Ok(false) };
        let parent = open(&self.current, c"..")?;
        if Level::of(&parent, CString::default())?.identity != level.identity {
            return Err(io::Error::other("a directory was moved on the way"));
        }
        visitor.leave_directory(parent.as_fd(), &self.here.name)?;
        (self.current, self.here) = (parent, level);
        Ok(true)
    }

    /// Shows the visitor the entries of the current directory.
    fn visit_entries(&mut self, visitor: &mut impl Visit) -> io::Result<()> {
        let mut entries = RawDir::new(&self.current, &mut self.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name != c"." && name != c".." && visitor.entry(self.current.as_fd(), name)? {
                self.here.below.push(name.to_owned());
            }
        }
        Ok(())
    }
}

fn open(parent: impl AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

#[cfg(test)]
pub(crate) mod testing {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Deeper than a recursion fits on the stack of [`on_a_small_stack`].
    pub(crate) const DEPTH: usize = 3000;

    pub(crate) fn on_a_small_stack<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, work);
            thread.unwrap().join().unwrap()
        })
    }

    /// Creates [`DEPTH`] directories, one in the other, below `top`.
    pub(crate) fn nest(top: &Path) {
        let mut here = open(CWD, top).unwrap();
        for _ in 0..DEPTH {
            rustix::fs::mkdirat(&here, c"down", Mode::RWXU).unwrap();
            here = open(&here, c"down").unwrap();
        }
    }
}
