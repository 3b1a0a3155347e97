//! Paths inside an untrusted root filesystem: every lookup uses openat2 with `RESOLVE_IN_ROOT`, so that no symlink or
//! `..` in an image can lead to the host.

use super::error::At;
use super::{Error, Step};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat,
};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// The kernel's own limit of symlinks in one lookup.
const MAX_LINKS: u32 = 40;
/// More tries than a lookup ever needs, unless a process renames all the time to delay it.
const MAX_TRIES: u32 = 10_000;

/// Type of file to create at the end of a missing path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Create {
    Directory,
    File,
}

/// A root filesystem, by a descriptor of its topmost directory.
#[derive(Debug, Clone, Copy)]
pub(super) struct InRoot<'a>(pub(super) BorrowedFd<'a>);

impl InRoot<'_> {
    /// Opens a path, following symlinks within the root.
    pub(super) fn find(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        self.lookup(path, flags, ResolveFlags::empty())
    }

    /// Opens a path; fails if it contains a symlink.
    pub(super) fn find_without_links(&self, path: &Path) -> Result<OwnedFd, Errno> {
        self.lookup(path, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
    }

    fn lookup(&self, path: &Path, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        resolved(self.0, below_root(path), flags, ResolveFlags::IN_ROOT | more)
    }

    /// [`Self::reach`] for mount targets, with an error that names the path.
    pub(super) fn find_or_create(&self, path: &Path, create: Create) -> Result<OwnedFd, Error> {
        self.reach(path, create).at(Step::Mount, || format!("create {} in the rootfs", path.display()))
    }

    /// Opens a file without following symlinks, and creates it when missing.
    pub(super) fn file_without_links(&self, path: &Path) -> Result<OwnedFd, Errno> {
        match self.find_without_links(path) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        self.reach(path, Create::File)?;
        self.find_without_links(path)
    }

    /// Opens a path with `O_PATH`; creates it, with its parent directories, when missing.
    pub(super) fn reach(&self, path: &Path, create: Create) -> Result<OwnedFd, Errno> {
        self.reach_by(path, create, MAX_LINKS)
    }

    fn reach_by(&self, path: &Path, create: Create, links_left: u32) -> Result<OwnedFd, Errno> {
        match self.find(path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let path = below_root(path);
        let (Some(parent), Some(Component::Normal(name))) = (path.parent(), path.components().next_back())
        else {
            return Err(Errno::NOENT);
        };
        let directory = self.reach_by(parent, Create::Directory, links_left)?;
        match make(directory.as_fd(), Path::new(name), create) {
            Err(Errno::EXIST) => self.follow(directory.as_fd(), parent, Path::new(name), create, links_left),
            Err(error) => Err(error),
            Ok(made) => Ok(made),
        }
    }

    /// `name` exists but cannot be opened: a symlink with a missing target, which is created.
    fn follow(
        &self,
        directory: BorrowedFd<'_>,
        parent: &Path,
        name: &Path,
        create: Create,
        links_left: u32,
    ) -> Result<OwnedFd, Errno> {
        let links_left = links_left.checked_sub(1).ok_or(Errno::LOOP)?;
        let target = readlinkat(directory, name, Vec::new())?;
        let target = PathBuf::from(std::ffi::OsString::from(target.to_string_lossy().into_owned()));
        self.reach_by(&parent.join(target), create, links_left)
    }
}

/// Opens a path below a directory. Fails if a symlink leads outside it, or if a mount covers the way.
pub(super) fn open_at(directory: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    resolved(directory, path, flags, ResolveFlags::BENEATH | ResolveFlags::NO_XDEV)
}

/// Tries again on EAGAIN: a rename or a mount anywhere on the machine may cause it, openat2(2).
fn resolved(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let resolve = resolve | ResolveFlags::NO_MAGICLINKS;
    for _ in 1..MAX_TRIES {
        match openat2(directory, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// Makes a path relative; an empty path or `/` means the root itself.
fn below_root(path: &Path) -> &Path {
    let path = path.strip_prefix("/").unwrap_or(path);
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}

fn make(directory: BorrowedFd<'_>, name: &Path, create: Create) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match create {
        Create::Directory => {
            mkdirat(directory, name, Mode::from_raw_mode(0o755))?;
            openat(directory, name, flags | OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
        }
        Create::File => {
            let new = flags | OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
            drop(openat(directory, name, new, Mode::from_raw_mode(0o644))?);
            openat(directory, name, flags | OFlags::PATH, Mode::empty())
        }
    }
}

/// Whether `fd` is open on a directory.
pub(super) fn is_directory(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

/// Removes a file in a directory, if it is there.
pub(super) fn remove_file(directory: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn in_root(work: impl FnOnce(&Path, InRoot<'_>)) {
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("root");
        fs::create_dir(&root).unwrap();
        let opened = fs::File::open(&root).unwrap();
        work(&root, InRoot(opened.as_fd()));
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 1, "something was made outside");
    }

    #[test]
    fn missing_directories_and_files_are_made() {
        in_root(|root, inside| {
            let made = inside.find_or_create(Path::new("/a/b/c"), Create::Directory).unwrap();
            assert!(is_directory(made.as_fd()).unwrap() && root.join("a/b/c").is_dir());
            inside.find_or_create(Path::new("a/x/file"), Create::File).unwrap();
            assert!(root.join("a/x/file").is_file());
        });
    }

    #[test]
    fn dots_and_links_stay_in_the_root() {
        in_root(|root, inside| {
            symlink("../../../../up", root.join("relative")).unwrap();
            symlink("/elsewhere/target", root.join("absolute")).unwrap();
            inside.find_or_create(Path::new("/../../dots"), Create::Directory).unwrap();
            inside.find_or_create(Path::new("/relative/x"), Create::Directory).unwrap();
            inside.find_or_create(Path::new("/absolute"), Create::File).unwrap();
            assert!(root.join("dots").is_dir() && root.join("up/x").is_dir());
            assert!(root.join("elsewhere/target").is_file() && !Path::new("/elsewhere").exists());
        });
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        in_root(|root, inside| {
            symlink("b", root.join("a")).unwrap();
            symlink("a", root.join("b")).unwrap();
            let error = inside.find_or_create(Path::new("/a/x"), Create::Directory).unwrap_err();
            assert!(error.to_string().contains("Too many levels"), "{error}");
        });
    }

    #[test]
    fn a_file_on_the_way_is_an_error() {
        in_root(|root, inside| {
            fs::write(root.join("file"), "").unwrap();
            let error = inside.find_or_create(Path::new("/file/x"), Create::Directory).unwrap_err();
            assert!(error.to_string().contains("Not a directory"), "{error}");
        });
    }

    #[test]
    fn a_path_without_links_is_asked_for() {
        in_root(|root, inside| {
            fs::create_dir(root.join("real")).unwrap();
            symlink("real", root.join("link")).unwrap();
            assert!(inside.find_without_links(Path::new("/real")).is_ok());
            assert_eq!(inside.find_without_links(Path::new("/link")).unwrap_err(), Errno::LOOP);
        });
    }
}
