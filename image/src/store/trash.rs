//! Removal of directory trees: they vanish at once by a rename, and are deleted by a thread of the store's own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use super::{entries, failed};
use crate::error::Error;
use crate::tree;

/// What the deleting thread finds.
enum Doomed {
    Tree(PathBuf),
    /// Dropped when all before it is done.
    Mark(Sender<()>),
}

pub(crate) struct Trash {
    directory: PathBuf,
    named: AtomicU64,
    /// To the deleting thread, which ends with the store.
    doomed: Option<Sender<Doomed>>,
}

impl Trash {
    pub(crate) fn new(directory: PathBuf) -> Self {
        let (doomed, all) = channel::<Doomed>();
        let delete = move || {
            for doomed in all {
                match doomed {
                    // What cannot be deleted stays in the trash for the next start.
                    Doomed::Tree(path) => drop(tree::remove(&path)),
                    Doomed::Mark(reached) => drop(reached),
                }
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

    /// Waits until all that was discarded before is deleted.
    pub(crate) fn wait(&self) {
        let (reached, waiting) = channel();
        if self.doomed.as_ref().is_some_and(|thread| thread.send(Doomed::Mark(reached)).is_ok()) {
            // Nothing is ever sent: it ends when the mark is dropped.
            let _ = waiting.recv();
        }
    }

    fn delete(&self, doomed: PathBuf) -> Result<(), Error> {
        match &self.doomed {
            Some(thread) => {
                // Fails only when the thread died; then the next start deletes it.
                let _ = thread.send(Doomed::Tree(doomed));
                Ok(())
            }
            None => tree::remove(&doomed).map_err(failed("delete", &doomed)),
        }
    }
}
