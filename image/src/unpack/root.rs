//! The directory a layer is unpacked into. Every look-up of a name starts at its descriptor and is confined to it by
//! the kernel (openat2(2) with RESOLVE_IN_ROOT), whatever symlinks the archive has made.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::path_map::PathMap;
use crate::tree;

/// Overlay's mark on a directory that hides the content of the same directory in lower layers.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// The number of symlinks that the kernel itself follows.
const MAX_SYMLINKS: usize = 40;

/// The most bytes for names of directories that an archive only implies: each entry can imply two thousand of them.
const MAX_IMPLIED: usize = if cfg!(test) { 16 << 20 } else { 64 << 20 };

/// Makes a name of the archive relative to the root: drops `/` and `.`, resolves `..`. `None` if it would leave the
/// root. The root itself becomes the empty name.
pub(crate) fn normalized(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => parts.pop().map(drop)?,
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

/// Splits a normalized name into parent and last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// An open directory inside the root.
#[derive(Clone)]
pub(crate) struct Directory {
    pub(crate) fd: Arc<OwnedFd>,
    /// New entries take the directory's group (set-gid bit), not the process's.
    pub(crate) passes_group_on: bool,
}

impl Directory {
    /// Returns a path to `name` for system calls that take no descriptor.
    pub(crate) fn path_of(&self, name: &[u8]) -> PathBuf {
        Path::new("/proc/self/fd").join(self.fd.as_raw_fd().to_string()).join(OsStr::from_bytes(name))
    }

    pub(crate) fn stat(&self, name: &[u8]) -> rustix::io::Result<Stat> {
        fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Opens the directory `name`; a symlink is not followed.
    fn directory(&self, name: &[u8]) -> rustix::io::Result<Directory> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        described(fs::openat(&self.fd, name, flags, Mode::empty())?)
    }

    /// Removes `name`, a directory with its content. A missing name is no error.
    pub(crate) fn remove(&self, name: &[u8]) -> io::Result<()> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => tree::remove(&self.path_of(name)),
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// True for the character device 0:0, by which overlay hides a lower entry.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The root, and the parent directory used last: archives list the files of a directory in a row.
pub(crate) struct Root {
    top: Directory,
    recent: Option<(Vec<u8>, Directory)>,
    /// Directories created for an entry below them that have no entry of their own.
    pub(crate) implied: PathMap<()>,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let top = fs::open(path, flags, Mode::empty())?;
        let implied = PathMap::new("the directories without an entry of their own", MAX_IMPLIED);
        Ok(Root { top: described(top)?, recent: None, implied })
    }

    /// Opens an existing directory; symlinks on the way are followed inside the root.
    pub(crate) fn directory(&self, path: &[u8]) -> rustix::io::Result<Directory> {
        if path.is_empty() {
            return Ok(self.top.clone());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match fs::openat2(&self.top.fd, path, flags, Mode::empty(), inside) {
                // EAGAIN: something on the host was renamed or mounted while the kernel resolved a `..` (openat2(2)).
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return described(opened?),
            }
        }
    }

    /// Opens the directory that contains `path`, creating it and missing directories above it.
    pub(crate) fn parent(&mut self, path: &[u8]) -> io::Result<Directory> {
        let (parent, _) = split(path);
        if let Some((_, directory)) = self.recent.as_ref().filter(|(recent, _)| recent == parent) {
            return Ok(directory.clone());
        }
        let directory = match self.directory(parent) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.imply(parent)?,
            found => found?,
        };
        self.recent = Some((parent.to_vec(), directory.clone()));
        Ok(directory)
    }

    /// Forgets the parent used last; to be called when its path may mean another directory.
    pub(crate) fn forget_recent(&mut self) {
        self.recent = None;
    }

    /// Creates `path` and missing directories above it. The target of a dangling symlink on the way is created first,
    /// which may lead through further symlinks: paths wait in a list, as a recursion would take stack for each.
    fn imply(&mut self, path: &[u8]) -> io::Result<Directory> {
        let (mut next, mut waiting, mut followed) = (path.to_vec(), Vec::new(), 0);
        loop {
            match (self.make(&next)?, followed) {
                (Ok(made), _) => match waiting.pop() {
                    None => return Ok(made),
                    Some(before) => next = before,
                },
                (Err(_), MAX_SYMLINKS) => return Err(Errno::LOOP.into()),
                (Err(target), _) => {
                    followed += 1;
                    waiting.push(std::mem::replace(&mut next, target));
                }
            }
        }
    }

    /// Creates `path` and missing directories above it; the inner error is a path that has to be created first.
    fn make(&mut self, path: &[u8]) -> io::Result<Result<Directory, Vec<u8>>> {
        match self.directory(path) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            found => return Ok(Ok(found?)),
        }
        let mut parent = self.top.clone();
        let slashes = (0..path.len()).filter(|at| path[*at] == b'/');
        for end in slashes.chain([path.len()]) {
            match self.enter(&parent, &path[..end])? {
                Ok(directory) => parent = directory,
                Err(target) => return Ok(Err(target)),
            }
        }
        Ok(Ok(parent))
    }

    /// Opens the last component of `path` in `parent`, creating it if missing, or returns the path to be created first.
    fn enter(&mut self, parent: &Directory, path: &[u8]) -> io::Result<Result<Directory, Vec<u8>>> {
        let name = split(path).1;
        match parent.stat(name) {
            Err(Errno::NOENT) => self.make_implied(parent, path)?,
            Ok(stat) if is_directory(&stat) => {}
            Ok(stat) if is_whiteout(&stat) => {
                parent.remove(name)?;
                self.make_implied(parent, path)?;
                mark_opaque(&parent.directory(name)?.fd)?;
            }
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                return self.follow(parent, path);
            }
            Ok(_) => return Err(Errno::NOTDIR.into()),
            Err(error) => return Err(error.into()),
        }
        Ok(Ok(parent.directory(name)?))
    }

    /// Opens the directory that the symlink `path` leads to. If it does not exist here (a lower layer may have it),
    /// returns its path, to be created first.
    fn follow(&self, parent: &Directory, path: &[u8]) -> io::Result<Result<Directory, Vec<u8>>> {
        let (above, name) = split(path);
        let link = fs::readlinkat(&parent.fd, name, Vec::new())?;
        let target = followed_from(above, link.as_bytes());
        for place in [path, &target] {
            match self.directory(place) {
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                found => return Ok(Ok(found?)),
            }
        }
        Ok(Err(target))
    }

    fn make_implied(&mut self, parent: &Directory, path: &[u8]) -> io::Result<()> {
        fs::mkdirat(&parent.fd, split(path).1, Mode::from_raw_mode(0o755))?;
        self.implied.insert(path, ())
    }
}

/// Returns the path that a symlink in directory `at` leads to, never above the root.
fn followed_from(at: &[u8], link: &[u8]) -> Vec<u8> {
    let start = if link.starts_with(b"/") { &[][..] } else { at };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in start.split(|byte| *byte == b'/').chain(link.split(|byte| *byte == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

fn described(fd: OwnedFd) -> rustix::io::Result<Directory> {
    let mode = Mode::from_raw_mode(fs::fstat(&fd)?.st_mode);
    Ok(Directory { fd: Arc::new(fd), passes_group_on: mode.contains(Mode::SGID) })
}

pub(crate) fn mark_opaque(directory: &OwnedFd) -> io::Result<()> {
    Ok(fs::fsetxattr(directory, OPAQUE, b"y", fs::XattrFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_relative_to_the_root_and_may_not_leave_it() {
        for (name, clean) in
            [("a/b", "a/b"), ("./a//b/", "a/b"), ("/etc/passwd", "etc/passwd"), ("a/../b", "b"), ("./", "")]
        {
            assert_eq!(normalized(name.as_bytes()).as_deref(), Some(clean.as_bytes()), "{name}");
        }
        for name in ["..", "../a", "a/../../b", "/../x"] {
            assert_eq!(normalized(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn a_symlink_leads_nowhere_above_the_root() {
        assert_eq!(followed_from(b"a/b", b"../../../../etc"), b"etc");
        assert_eq!(followed_from(b"a/b", b"/run"), b"run");
        assert_eq!(followed_from(b"var", b"../run/x"), b"run/x");
    }
}
