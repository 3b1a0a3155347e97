//! Counts the disk usage of a tree as `du -x` does: in blocks, and a file with several links once.

use std::{collections::HashSet, ffi::CStr, io, os::fd::BorrowedFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, FileType, Stat, statat},
    io::Errno,
};

use super::{Visit, visit};

/// Bytes in a unit of `st_blocks`, whatever the file system's block size.
const BLOCK_BYTES: u64 = 512;

/// Disk usage of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Allocated bytes, in whole blocks.
    pub bytes: u64,
    /// Files, directories, symlinks and other inodes, including the topmost directory.
    pub inodes: u64,
}

/// Counts everything from `directory` down that is on the same file system. Symlinks are not followed.
///
/// # Errors
///
/// When `directory` is not a directory, or one on the way was moved or removed meanwhile.
pub fn count(directory: &Path) -> io::Result<Total> {
    let top = statat(CWD, directory, AtFlags::SYMLINK_NOFOLLOW)?;
    let mut counter = UsageCounter { device: top.st_dev, linked: HashSet::new(), total: Total::default() };
    counter.count(&top);
    visit(directory, &mut counter)?;
    Ok(counter.total)
}

struct UsageCounter {
    device: u64,
    /// Inode numbers of files with several links that were counted already.
    linked: HashSet<u64>,
    total: Total,
}

impl Visit for UsageCounter {
    fn entry(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> io::Result<bool> {
        let stat = match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(false),
            stat => stat?,
        };
        if stat.st_dev != self.device {
            return Ok(false);
        }
        self.count(&stat);
        Ok(is_directory(&stat))
    }

    fn leave_directory(&mut self, _: BorrowedFd<'_>, _: &CStr) -> io::Result<()> {
        Ok(())
    }
}

impl UsageCounter {
    fn count(&mut self, stat: &Stat) {
        let again = !is_directory(stat) && stat.st_nlink > 1 && !self.linked.insert(stat.st_ino);
        if !again {
            self.total.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES;
            self.total.inodes += 1;
        }
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_dir()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs as unix};

    use super::{
        super::testing::{DEPTH, nest, on_a_small_stack},
        *,
    };

    /// Returns the numbers that `du` reports.
    fn du(directory: &Path) -> Total {
        let number = |option: &str| {
            let output =
                std::process::Command::new("du").args(["-sx", option]).arg(directory).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        Total { bytes: number("-k") * 1024, inodes: number("--inodes") }
    }

    #[test]
    fn a_tree_takes_what_du_says() {
        let top = tempfile::tempdir().unwrap();
        let at = |name: &str| top.path().join(name);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::create_dir(at("empty")).unwrap();
        fs::write(at("a/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(at("a/file"), at("a/b/same")).unwrap();
        fs::write(at("a/b/c/small"), "x").unwrap();
        fs::File::create(at("sparse")).unwrap().set_len(1 << 40).unwrap();
        unix::symlink("/", at("a/everything")).unwrap();
        for number in 0..2000 {
            fs::write(at(&format!("empty/a-name-that-takes-some-room-{number}")), "").unwrap();
        }
        assert_eq!(count(top.path()).unwrap(), du(top.path()));
    }

    #[test]
    fn a_tree_may_be_deeper_than_a_path_or_the_stack() {
        let top = tempfile::tempdir_in("/dev/shm").unwrap();
        let tree = top.path().join("tree");
        fs::create_dir(&tree).unwrap();
        nest(&tree);
        let total = on_a_small_stack(|| count(&tree)).unwrap();
        assert_eq!(total.inodes, DEPTH as u64 + 1);
        super::super::remove(&tree).unwrap();
    }

    #[test]
    fn what_is_not_there_and_what_is_no_directory_is_an_error() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("file"), "").unwrap();
        unix::symlink("/", top.path().join("link")).unwrap();
        for name in ["absent", "file", "link"] {
            assert!(count(&top.path().join(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_tree_that_changes_all_the_time_ends_the_walk_without_leaving_it() {
        let top = tempfile::tempdir().unwrap();
        let (one, other) = (top.path().join("one"), top.path().join("other"));
        fs::create_dir_all(one.join("x/y")).unwrap();
        fs::create_dir(&other).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    fs::rename(one.join("x"), other.join("x")).unwrap();
                    fs::rename(other.join("x"), one.join("x")).unwrap();
                }
            });
            for _ in 0..2000 {
                if let Ok(total) = count(&one) {
                    assert!((1..=3).contains(&total.inodes), "{total:?}");
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
