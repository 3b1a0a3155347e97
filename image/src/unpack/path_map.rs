//! Values kept by path while a layer is unpacked. The archive decides number and length of the paths, so their bytes
//! are limited. Sorted, so that everything below a directory lies together and can be moved cheaply.

use std::collections::{BTreeMap, btree_map};
use std::io;

/// Bytes counted for a value beside its path.
const OVERHEAD: usize = 64;

/// Values by path.
pub(crate) struct PathMap<T> {
    values: BTreeMap<Vec<u8>, T>,
    bytes: usize,
    limit: usize,
    /// Owner of the names, for the error.
    what: &'static str,
}

impl<T> PathMap<T> {
    /// Makes an empty map for the names of `what`, which may take about `limit` bytes of memory.
    pub(crate) fn new(what: &'static str, limit: usize) -> Self {
        PathMap { values: BTreeMap::new(), bytes: 0, limit, what }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(crate) fn iter(&self) -> btree_map::Iter<'_, Vec<u8>, T> {
        self.values.iter()
    }

    /// Sets the value of `path`. Fails with `FileTooLarge` if the names exceed the limit.
    pub(crate) fn insert(&mut self, path: &[u8], value: T) -> io::Result<()> {
        self.insert_with(path, 0, value)
    }

    /// Like [`PathMap::insert`], for a value with `bytes` of its own. These stay counted even if the value is removed.
    pub(crate) fn insert_with(&mut self, path: &[u8], bytes: usize, value: T) -> io::Result<()> {
        self.bytes += bytes;
        if self.values.insert(path.to_vec(), value).is_none() {
            self.bytes += path.len() + OVERHEAD;
        }
        match self.bytes <= self.limit {
            true => Ok(()),
            false => {
                let text = format!("{} have names of more bytes than {}", self.what, self.limit);
                Err(io::Error::new(io::ErrorKind::FileTooLarge, text))
            }
        }
    }

    pub(crate) fn remove(&mut self, path: &[u8]) {
        if self.values.remove(path).is_some() {
            self.bytes -= path.len() + OVERHEAD;
        }
    }

    /// Moves all values below directory `from` to the same names below `to`. Returns their number.
    pub(crate) fn rename(&mut self, from: &[u8], to: &[u8]) -> io::Result<usize> {
        let moved = take_below(&mut self.values, from);
        let count = moved.len();
        for (path, value) in moved {
            self.bytes -= path.len() + OVERHEAD;
            self.insert(&[to, &path[from.len()..]].concat(), value)?;
        }
        Ok(count)
    }
}

impl<T> IntoIterator for PathMap<T> {
    type Item = (Vec<u8>, T);
    type IntoIter = btree_map::IntoIter<Vec<u8>, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.values.into_iter()
    }
}

/// Removes everything below the directory `path` from `values` and returns it.
pub(crate) fn take_below<T>(values: &mut BTreeMap<Vec<u8>, T>, path: &[u8]) -> BTreeMap<Vec<u8>, T> {
    let (first, end) = ([path, b"/"].concat(), [path, b"0"].concat());
    let keys: Vec<_> = values.range(first..end).map(|(key, _)| key.clone()).collect();
    keys.into_iter().filter_map(|key| values.remove_entry(&key)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(paths: &[&str]) -> PathMap<()> {
        let mut names = PathMap::new("tests", 1000);
        for path in paths {
            names.insert(path.as_bytes(), ()).unwrap();
        }
        names
    }

    fn listed(names: &PathMap<()>) -> Vec<&str> {
        names.iter().map(|(path, ())| str::from_utf8(path).unwrap()).collect()
    }

    #[test]
    fn what_is_below_a_directory_is_renamed_and_nothing_else() {
        let mut names = names(&["lib", "lib/a", "lib/a/b", "lib-x", "lib0", "lib.d/a", "usr/lib/b"]);
        assert_eq!(names.rename(b"lib", b"usr/lib").unwrap(), 2);
        let expected = ["lib", "lib-x", "lib.d/a", "lib0", "usr/lib/a", "usr/lib/a/b", "usr/lib/b"];
        assert_eq!(listed(&names), expected);
    }

    #[test]
    fn names_are_limited_together_and_those_removed_do_not_count() {
        let mut names = names(&[]);
        for round in 0..100 {
            names.insert(format!("{round}").as_bytes(), ()).unwrap();
            names.remove(format!("{round}").as_bytes());
        }
        let error = names.insert(&[b'x'; 1000], ()).unwrap_err();
        assert_eq!(error.to_string(), "tests have names of more bytes than 1000");
    }
}
