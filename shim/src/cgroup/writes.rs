//! Control files that are written one after the other, all of them or none.

use super::Error;
use super::files::{read, write};
use std::path::{Path, PathBuf};

/// The files written so far, with what was in them before.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// None are kept for a new group: one that cannot be filled is removed.
    before: Option<Vec<(PathBuf, String, String)>>,
}

impl Writes {
    /// To a new group.
    pub(super) fn for_good() -> Self {
        Self { before: None }
    }

    /// To a group that lives on when one of them fails.
    pub(super) fn until_put_back() -> Self {
        Self { before: Some(Vec::new()) }
    }

    /// As [`write`]; what is written to files that cannot be read, the device controller's, stays.
    pub(super) fn write(&mut self, directory: &Path, file: &str, value: &str) -> Result<(), Error> {
        let before = self.before.is_some().then(|| read(directory, file).ok()).flatten();
        write(directory, file, value)?;
        if let Some((all, before)) = self.before.as_mut().zip(before) {
            all.push((directory.to_owned(), file.to_owned(), before));
        }
        Ok(())
    }

    /// Writes what was there before, the last one first, so that every step is one that was allowed.
    ///
    /// # Errors
    ///
    /// The first one that cannot be put back; the others are all the same.
    pub(super) fn put_back(self) -> Result<(), Error> {
        let before = self.before.unwrap_or_default();
        let back = before.iter().rev().map(|(directory, file, value)| write(directory, file, written(value)));
        back.fold(Ok(()), Result::and)
    }
}

/// What to write to have a file say `read`: `memory.oom_control` of v1 tells more than can be set, the setting first. Writing
/// nothing at all would leave a file as it is.
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
        let mut writes = Writes::until_put_back();
        writes.write(group.path(), "cpuset.cpus", "0").unwrap();
        writes.put_back().unwrap();
        assert_eq!(fs::read(group.path().join("cpuset.cpus")).unwrap(), b"\n");
    }
}
