//! Small files that are replaced atomically: written to a temporary file and renamed into place. They are not synced; a
//! caller that needs one to survive power loss must sync it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::Error;

/// Replaces the file at `path` by rename; readers see the old or the new content, never a part.
pub(super) fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    let staged = staged(path);
    let written = fs::write(&staged, content).and_then(|()| fs::rename(&staged, path));
    written.map_err(|source| failed("write", path, source))
}

/// Returns the temporary path of a record until the rename; `list` skips it.
fn staged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

/// Reads the record at `path`; none when the file does not exist.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    absent_is_none(fs::read(path)).map_err(|source| failed("read", path, source))
}

/// Removes the record at `path`; an absent file is not an error.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    absent_is_none(fs::remove_file(path)).map_err(|source| failed("remove", path, source))?;
    Ok(())
}

/// Creates `directory` with its parents.
pub(super) fn make_directory(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(|source| failed("create directory", directory, source))
}

/// Lists the records in `directory` by name without `.json`, sorted. An absent directory is empty.
pub(super) fn list(directory: &Path) -> Result<Vec<String>, Error> {
    let unreadable = |source| failed("list", directory, source);
    let mut names = Vec::new();
    for entry in absent_is_none(fs::read_dir(directory)).map_err(unreadable)?.into_iter().flatten() {
        let name = entry.map_err(unreadable)?.file_name();
        names.extend(name.to_str().and_then(|name| name.strip_suffix(".json")).map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn failed(step: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { step, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_record_is_replaced_as_a_whole_and_half_written_ones_are_not_listed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pod.json");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        fs::write(directory.path().join("other.json.tmp"), b"ha").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(list(directory.path()).unwrap(), ["pod"]);
    }

    #[test]
    fn what_is_absent_reads_as_none_and_removes_without_complaint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pod.json");
        assert_eq!(read(&path).unwrap(), None);
        remove(&path).unwrap();
        assert!(list(&directory.path().join("absent")).unwrap().is_empty());
    }

    #[test]
    fn a_path_that_cannot_be_used_is_named() {
        let error = write(Path::new("/proc/no/such/place.json"), b"").unwrap_err();
        assert!(error.to_string().contains("/proc/no/such/place.json"), "{error}");
    }
}
