//! Removes a tree.

use std::{ffi::CStr, fs, io, os::fd::BorrowedFd, path::Path};

use rustix::{
    fs::{AtFlags, unlinkat},
    io::Errno,
};

use super::{Visit, visit};

/// Removes `directory` and everything in it. A symlink or file in its place is removed itself.
///
/// # Errors
///
/// `NotFound` when there is nothing at `directory`; else when an entry cannot be removed, or when a directory on the
/// way was moved meanwhile.
pub fn remove(directory: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(directory)?.is_dir() {
        return fs::remove_file(directory);
    }
    visit(directory, &mut Remover)?;
    fs::remove_dir(directory)
}

struct Remover;

impl Visit for Remover {
    fn entry(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
        match unlinkat(directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => Ok(true),
            Ok(()) | Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn leave_directory(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
        match unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::{
        super::testing::{nest, on_a_small_stack},
        *,
    };

    #[test]
    fn everything_goes_and_what_links_lead_to_stays() {
        let outside = tempfile::tempdir().unwrap();
        let top = tempfile::tempdir().unwrap();
        let tree = top.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        for number in 0..3000 {
            fs::write(tree.join(format!("a/a-name-that-takes-some-room-{number}")), "").unwrap();
        }
        fs::write(outside.path().join("kept"), "").unwrap();
        symlink(outside.path(), tree.join("a/b/link")).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists() && outside.path().join("kept").exists());
        symlink(outside.path(), &tree).unwrap();
        remove(&tree).unwrap();
        assert!(fs::symlink_metadata(&tree).is_err() && outside.path().join("kept").exists());
        assert_eq!(remove(&tree).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_tree_that_is_deeper_than_the_stack_goes_too() {
        let top = tempfile::tempdir_in("/dev/shm").unwrap();
        let tree = top.path().join("tree");
        fs::create_dir(&tree).unwrap();
        nest(&tree);
        on_a_small_stack(|| remove(&tree)).unwrap();
        assert!(!tree.exists());
    }
}
