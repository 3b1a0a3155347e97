//! Removal of directory trees: a rename takes them out of sight at once, a thread of the store deletes them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};

use super::{entries, failed};
use crate::error::Error;
use crate::tree;

/// Work for the deleting thread.
enum TrashJob {
    Tree(PathBuf),
    /// Dropped, which wakes the waiter, once everything queued before is deleted.
    Mark(Sender<()>),
}

pub(crate) struct Trash {
    directory: PathBuf,
    named: AtomicU64,
    /// Queue of the deleting thread, which ends when this is dropped. `None` if no thread could be started.
    queue: Option<Sender<TrashJob>>,
}

impl Trash {
    pub(crate) fn new(directory: PathBuf) -> Self {
        let (queue, jobs) = channel::<TrashJob>();
        let delete = move || {
            for job in jobs {
                match job {
                    // A tree that cannot be deleted stays in the trash until the next start.
                    TrashJob::Tree(path) => drop(tree::remove(&path)),
                    TrashJob::Mark(reached) => drop(reached),
                }
            }
        };
        let spawned = std::thread::Builder::new().name("image-trash".to_owned()).spawn(delete);
        Trash { directory, named: AtomicU64::new(0), queue: spawned.ok().map(|_| queue) }
    }

    /// Renames `path` into the trash and queues its deletion. A missing path is no error.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), Error> {
        loop {
            let number = self.named.fetch_add(1, Ordering::Relaxed);
            let path_in_trash = self.directory.join(number.to_string());
            if path_in_trash.symlink_metadata().is_ok() {
                continue;
            }
            return match std::fs::rename(path, &path_in_trash) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(failed("discard", path)(error)),
                Ok(()) => self.delete(path_in_trash),
            };
        }
    }

    /// Deletes what earlier runs left in the trash.
    pub(crate) fn empty(&self) -> Result<(), Error> {
        entries(&self.directory)?.into_iter().try_for_each(|path| self.delete(path))
    }

    /// Waits until everything discarded before is deleted.
    pub(crate) fn wait(&self) {
        let (reached, waiting) = channel();
        if self.queue.as_ref().is_some_and(|thread| thread.send(TrashJob::Mark(reached)).is_ok()) {
            // Nothing is ever sent: recv returns when the mark is dropped.
            let _ = waiting.recv();
        }
    }

    fn delete(&self, path_in_trash: PathBuf) -> Result<(), Error> {
        match &self.queue {
            Some(thread) => {
                // Fails only if the thread died; the next start then deletes the tree.
                let _ = thread.send(TrashJob::Tree(path_in_trash));
                Ok(())
            }
            None => tree::remove(&path_in_trash).map_err(failed("delete", &path_in_trash)),
        }
    }
}
