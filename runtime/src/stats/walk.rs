//! Counting what a directory tree takes on disk, as `du -x` does: blocks, and a file with several names once.
//!
//! The tree belongs to a container, which may change it meanwhile and means no good: no link is followed, and one
//! descriptor is enough however deep it goes. The way back up is `..`, taken only when it leads where the way down began.

use std::{collections::HashSet, ffi::CString, io, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, fstat, openat, statat},
    io::Errno,
    path::Arg,
};

/// For the entries of a directory; how many come with one call depends on it.
const BUFFER: usize = 32 << 10;
/// `st_blocks` counts in these, whatever the file system's blocks are.
const BLOCK: u64 = 512;

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Total {
    pub(super) bytes: u64,
    /// Files, directories, links and the like, the topmost directory too.
    pub(super) inodes: u64,
}

/// Counts everything from `directory` down that is on its file system.
///
/// # Errors
///
/// When the directory, or one on the way, was moved or removed meanwhile.
pub(super) fn walk(directory: &Path) -> io::Result<Total> {
    let top = open(CWD, directory)?;
    let stat = fstat(&top)?;
    let mut walk = Walk {
        here: Level { inode: stat.st_ino, below: Vec::new() },
        current: top,
        above: Vec::new(),
        tally: Tally { device: stat.st_dev, linked: HashSet::new(), total: Total::default() },
        buffer: vec![MaybeUninit::uninit(); BUFFER],
    };
    walk.tally.count(&stat);
    walk.list()?;
    while walk.step()? {}
    Ok(walk.tally.total)
}

struct Walk {
    current: OwnedFd,
    here: Level,
    /// From the top to the parent of the current one.
    above: Vec<Level>,
    tally: Tally,
    buffer: Vec<MaybeUninit<u8>>,
}

struct Level {
    inode: u64,
    /// Directories in it that were not visited yet.
    below: Vec<CString>,
}

struct Tally {
    device: u64,
    /// Files of several names that were counted.
    linked: HashSet<u64>,
    total: Total,
}

impl Walk {
    /// Goes down into the next directory, or up; false at the end.
    fn step(&mut self) -> io::Result<bool> {
        match self.here.below.pop() {
            Some(name) => self.enter(&name).map(|()| true),
            None => self.leave(),
        }
    }

    fn enter(&mut self, name: &CString) -> io::Result<()> {
        let directory = match open(&self.current, name.as_c_str()) {
            // Removed meanwhile, or something else has its name now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            opened => opened?,
        };
        let stat = fstat(&directory)?;
        if stat.st_dev != self.tally.device {
            return Ok(());
        }
        let here = Level { inode: stat.st_ino, below: Vec::new() };
        self.above.push(std::mem::replace(&mut self.here, here));
        self.current = directory;
        self.list()
    }

    fn leave(&mut self) -> io::Result<bool> {
        let Some(level) = self.above.pop() else { return Ok(false) };
        let parent = open(&self.current, c"..")?;
        let found = fstat(&parent)?;
        if (found.st_dev, found.st_ino) != (self.tally.device, level.inode) {
            return Err(io::Error::other("a directory was moved while it was counted"));
        }
        (self.current, self.here) = (parent, level);
        Ok(true)
    }

    /// Counts the entries of the current directory and notes the directories among them.
    fn list(&mut self) -> io::Result<()> {
        let mut entries = RawDir::new(&self.current, &mut self.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match statat(&self.current, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            self.tally.count(&stat);
            if is_directory(&stat) {
                self.here.below.push(name.to_owned());
            }
        }
        Ok(())
    }
}

impl Tally {
    fn count(&mut self, stat: &Stat) {
        let again = !is_directory(stat) && stat.st_nlink > 1 && !self.linked.insert(stat.st_ino);
        if again || stat.st_dev != self.device {
            return;
        }
        self.total.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
        self.total.inodes += 1;
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode).is_dir()
}

fn open(parent: impl std::os::fd::AsFd, name: impl Arg) -> Result<OwnedFd, Errno> {
    openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::{fs, os::unix::fs as unix};

    use super::*;

    /// What `du` says: kibibytes, and inodes.
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
        assert_eq!(walk(top.path()).unwrap(), du(top.path()));
    }

    #[test]
    fn a_tree_may_be_deeper_than_a_path_or_the_number_of_descriptors() {
        let top = tempfile::tempdir().unwrap();
        let mut here = open(CWD, top.path()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, c"down", Mode::RWXU).unwrap();
            here = open(&here, c"down").unwrap();
        }
        assert_eq!(walk(top.path()).unwrap().inodes, 3001);
    }

    #[test]
    fn what_is_not_there_and_what_is_no_directory_is_an_error() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("file"), "").unwrap();
        unix::symlink("/", top.path().join("link")).unwrap();
        for name in ["absent", "file", "link"] {
            assert!(walk(&top.path().join(name)).is_err(), "{name}");
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
                if let Ok(total) = walk(&one) {
                    assert!((1..=3).contains(&total.inodes), "{total:?}");
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
}
