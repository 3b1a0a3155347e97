//! Sets an extended attribute on everything in a tree.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, FileType, XattrFlags, lsetxattr, statat},
    io::Errno,
};

use super::{Visit, visit};

/// Sets the attribute on `top` and everything below it, on symlinks themselves and not their targets. A file system
/// without such attributes is no error.
///
/// # Errors
///
/// When the attribute may not be set, or when a directory on the way was moved or removed meanwhile.
pub fn label(top: &Path, attribute: &str, value: &[u8]) -> io::Result<()> {
    set(top, attribute, value)?;
    match top.symlink_metadata()?.is_dir() {
        true => visit(top, &mut Labeller { attribute, value }),
        false => Ok(()),
    }
}

struct Labeller<'a> {
    attribute: &'a str,
    value: &'a [u8],
}

impl Visit for Labeller<'_> {
    fn entry(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
        // Through the descriptor of the open directory: a name swapped for a symlink cannot lead out of the tree.
        let directory_path = format!("/proc/self/fd/{}/", directory.as_raw_fd());
        let path = [directory_path.as_bytes(), name.to_bytes()].concat();
        let labelled = set(path.as_slice(), self.attribute, self.value);
        match labelled.and_then(|()| Ok(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            found => Ok(FileType::from_raw_mode(found?.st_mode).is_dir()),
        }
    }

    fn leave_directory(&mut self, _: BorrowedFd<'_>, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}

fn set(path: impl rustix::path::Arg, attribute: &str, value: &[u8]) -> io::Result<()> {
    match lsetxattr(path, attribute, value, XattrFlags::empty()) {
        Ok(()) | Err(Errno::NOTSUP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{
        fs,
        os::unix::fs::symlink,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use rustix::fs::lgetxattr;

    use super::{
        super::testing::{nest, on_a_small_stack},
        *,
    };

    const ATTRIBUTE: &str = "security.berth-test";

    fn has_label(path: &Path) -> bool {
        lgetxattr(path, ATTRIBUTE, &mut [0; 8][..]).is_ok()
    }

    #[test]
    fn root_everything_is_labelled_and_what_links_lead_to_is_not() {
        let (tree, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(tree.path().join("a")).unwrap();
        fs::write(tree.path().join("a/file"), "").unwrap();
        symlink(outside.path(), tree.path().join("link")).unwrap();
        fs::write(outside.path().join("kept"), "").unwrap();
        label(tree.path(), ATTRIBUTE, b"x").unwrap();
        for name in ["", "a", "a/file", "link"] {
            assert!(has_label(&tree.path().join(name)), "{name}");
        }
        assert!(!has_label(outside.path()) && !has_label(&outside.path().join("kept")));
        label(&outside.path().join("kept"), ATTRIBUTE, b"x").unwrap();
        assert!(has_label(&outside.path().join("kept")) && !has_label(outside.path()));
    }

    #[test]
    fn root_a_directory_that_becomes_a_link_on_the_way_leads_nowhere() {
        let (tree, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| tree.path().join(name);
        fs::create_dir(at("x")).unwrap();
        symlink(outside.path(), at("y")).unwrap();
        let kept = outside.path().join("kept");
        fs::write(&kept, "").unwrap();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for (from, to) in [("x", "z"), ("y", "x"), ("x", "y"), ("z", "x")] {
                        fs::rename(at(from), at(to)).unwrap();
                    }
                }
            });
            for _ in 0..2000 {
                let _ = label(tree.path(), ATTRIBUTE, b"x");
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert!(!has_label(&kept) && !has_label(outside.path()));
    }

    #[test]
    fn root_a_tree_may_be_deeper_than_the_stack() {
        let top = tempfile::tempdir_in("/dev/shm").unwrap();
        let tree = top.path().join("tree");
        fs::create_dir(&tree).unwrap();
        nest(&tree);
        on_a_small_stack(|| label(&tree, ATTRIBUTE, b"x")).unwrap();
        assert!(has_label(&tree.join("down/down")));
        super::super::remove(&tree).unwrap();
    }
}
