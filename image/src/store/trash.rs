//! Removal of directory trees: they vanish at once by a rename, and are deleted by a thread of the store's own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use super::{entries, failed};
use crate::error::Error;
use crate::tree;

pub(crate) struct Trash {
    directory: PathBuf,
    named: AtomicU64,
    /// To the deleting thread, which ends with the store.
    doomed: Option<Sender<PathBuf>>,
}

impl Trash {
    pub(crate) fn new(directory: PathBuf) -> Self {
        let (doomed, paths) = channel::<PathBuf>();
        let delete = move || {
            for path in paths {
                // What cannot be deleted stays in the trash for the next start.
                let _ = tree::remove(&path);
            }
        };
        let spawned = std::thread::Builder::new().name("image-trash".to_owned()).spawn(delete);
        Trash { directory, named: AtomicU64::new(0), doomed: spawned.ok().map(|_| doomed) }
    }

    /// Takes `path` out of sight and deletes it soon. Nothing there is no error.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), Error> {
        loop {
            let number = self.named.fetch_add(1, Ordering::Relaxed);
            let doomed = self.directory.join(number.to_string());
            if doomed.symlink_metadata().is_ok() {
                continue;
            }
            return match std::fs::rename(path, &doomed) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(failed("discard", path)(error)),
                Ok(()) => self.delete(doomed),
            };
        }
    }

    /// Deletes what earlier runs left.
    pub(crate) fn empty(&self) -> Result<(), Error> {
        entries(&self.directory)?.into_iter().try_for_each(|path| self.delete(path))
    }

    fn delete(&self, doomed: PathBuf) -> Result<(), Error> {
        match &self.doomed {
            Some(thread) => {
                // Fails only when the thread died; then the next start deletes it.
                let _ = thread.send(doomed);
                Ok(())
            }
            None => tree::remove(&doomed).map_err(failed("delete", &doomed)),
        }
    }
}
