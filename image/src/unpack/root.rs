//! The directory a layer is unpacked into, and how names of the archive are resolved in it: every look-up starts at its
//! descriptor and is confined to it by the kernel (openat2 with RESOLVE_IN_ROOT), whatever symlinks the archive made.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Overlay's mark of a directory that hides what lower layers have in it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";

/// As many as the kernel follows.
const MAX_SYMLINKS: usize = 40;

/// Makes a name of the archive relative to its root: `/` and `.` vanish, `..` takes back, and one that would leave the
/// root is refused (`None`). The root itself is empty.
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

/// Parent and last component of a normalized name.
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
    /// New entries take the directory's group (set-gid), not ours.
    pub(crate) passes_group_on: bool,
}

impl Directory {
    /// A path to `name` for the calls that have no form with a descriptor.
    pub(crate) fn path_of(&self, name: &[u8]) -> PathBuf {
        Path::new("/proc/self/fd").join(self.fd.as_raw_fd().to_string()).join(OsStr::from_bytes(name))
    }

    pub(crate) fn stat(&self, name: &[u8]) -> rustix::io::Result<Stat> {
        fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Removes `name`, a directory with all that is in it. Nothing there is no error.
    pub(crate) fn remove(&self, name: &[u8]) -> io::Result<()> {
        match fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => std::fs::remove_dir_all(self.path_of(name)),
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// True of the character device 0:0, by which overlay hides a lower entry.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

pub(crate) fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// The root, with the directory used last: archives name the files of a directory in a row.
pub(crate) struct Root {
    top: Directory,
    recent: Option<(Vec<u8>, Directory)>,
    /// Directories made because something in them was named, not they themselves.
    pub(crate) implied: BTreeSet<Vec<u8>>,
}

impl Root {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let top = fs::open(path, flags, Mode::empty())?;
        Ok(Root { top: described(top)?, recent: None, implied: BTreeSet::new() })
    }

    /// Opens an existing directory; symlinks on the way are followed inside the root.
    pub(crate) fn directory(&self, path: &[u8]) -> rustix::io::Result<Directory> {
        if path.is_empty() {
            return Ok(self.top.clone());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        described(fs::openat2(&self.top.fd, path, flags, Mode::empty(), inside)?)
    }

    /// Opens the directory that holds `path`, making it and those above it where they lack.
    pub(crate) fn parent(&mut self, path: &[u8]) -> io::Result<Directory> {
        let (parent, _) = split(path);
        if let Some((_, directory)) = self.recent.as_ref().filter(|(recent, _)| recent == parent) {
            return Ok(directory.clone());
        }
        let directory = match self.directory(parent) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.imply(parent, 0)?,
            found => found?,
        };
        self.recent = Some((parent.to_vec(), directory.clone()));
        Ok(directory)
    }

    /// To be called when a name may have come to mean another directory.
    pub(crate) fn forget_recent(&mut self) {
        self.recent = None;
    }

    fn imply(&mut self, path: &[u8], followed: usize) -> io::Result<Directory> {
        match self.directory(path) {
            Err(Errno::NOENT | Errno::NOTDIR) if !path.is_empty() => {}
            found => return Ok(found?),
        }
        let (above, name) = split(path);
        let parent = self.imply(above, followed)?;
        match parent.stat(name) {
            Err(Errno::NOENT) => self.make_implied(&parent, path)?,
            Ok(stat) if is_whiteout(&stat) => {
                parent.remove(name)?;
                self.make_implied(&parent, path)?;
                mark_opaque(&self.directory(path)?.fd)?;
            }
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                return self.imply_target(&parent, path, followed);
            }
            Ok(_) => return Err(Errno::NOTDIR.into()),
            Err(error) => return Err(error.into()),
        }
        Ok(self.directory(path)?)
    }

    fn make_implied(&mut self, parent: &Directory, path: &[u8]) -> io::Result<()> {
        fs::mkdirat(&parent.fd, split(path).1, Mode::from_raw_mode(0o755))?;
        self.implied.insert(path.to_vec());
        Ok(())
    }

    /// `path` is a symlink to what does not exist in this layer (a lower one may have it).
    fn imply_target(&mut self, parent: &Directory, path: &[u8], followed: usize) -> io::Result<Directory> {
        if followed == MAX_SYMLINKS {
            return Err(Errno::LOOP.into());
        }
        let (above, name) = split(path);
        let link = fs::readlinkat(&parent.fd, name, Vec::new())?;
        self.imply(&followed_from(above, link.as_bytes()), followed + 1)
    }
}

/// Where a symlink in directory `at` leads, never above the root.
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
