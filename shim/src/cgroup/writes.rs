//! Writes to several control files, all of them or none.

use super::Error;
use super::files::{read, write};
use std::path::{Path, PathBuf};

/// The writes so far, with the previous values.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// `None` for a new cgroup, which is removed if a write fails.
    before: Option<Vec<(PathBuf, String, String)>>,
}

impl Writes {
    /// For a new cgroup: nothing is kept.
    pub(super) fn permanent() -> Self {
        Self { before: None }
    }

    /// For a live cgroup, which must be restored if a write fails.
    pub(super) fn reversible() -> Self {
        Self { before: Some(Vec::new()) }
    }

    /// Like [`write`]. Files that cannot be read, those of the device controller, are not restored.
    pub(super) fn write(&mut self, directory: &Path, file: &str, value: &str) -> Result<(), Error> {
        let before = self.before.is_some().then(|| read(directory, file).ok()).flatten();
        write(directory, file, value)?;
        if let Some((all, before)) = self.before.as_mut().zip(before) {
            all.push((directory.to_owned(), file.to_owned(), before));
        }
        Ok(())
    }

    /// Restores the previous values, last write first, so that every intermediate state is one the kernel accepted before.
    ///
    /// # Errors
    ///
    /// The first file that cannot be restored; the others are restored all the same.
    pub(super) fn roll_back(self) -> Result<(), Error> {
        let before = self.before.unwrap_or_default();
        let back = before.iter().rev().map(|(directory, file, value)| write(directory, file, written(value)));
        back.fold(Ok(()), Result::and)
    }
}

/// The value to write so that a file reads `read` again. v1's `memory.oom_control` shows more than can be set, its
/// setting first. An empty write would not change a file, hence the newline.
fn written(read: &str) -> &str {
    if read.is_empty() {
        return "\n";
    }
    match read.split_once('\n') {
        Some((first, _)) => first.strip_prefix("oom_kill_disable ").unwrap_or(read),
        None => read,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;

    #[test]
    fn what_was_empty_is_written_too_when_it_is_put_back() {
        let group = tempfile::tempdir().unwrap();
        fs::write(group.path().join("cpuset.cpus"), "").unwrap();
        let mut writes = Writes::reversible();
        writes.write(group.path(), "cpuset.cpus", "0").unwrap();
        writes.roll_back().unwrap();
        assert_eq!(fs::read(group.path().join("cpuset.cpus")).unwrap(), b"\n");
    }
}
