//! Checkpoints the index's write-ahead log on a thread of its own: a checkpoint waits for the disk, and creating a
//! container waits for changes of the index.

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rusqlite::Connection;

/// Changes between two checkpoints; the log has grown by some megabytes by then.
pub(super) const CHANGES_PER_CHECKPOINT: u32 = 500;

pub(super) struct Checkpoints {
    changes: u32,
    due: SyncSender<()>,
}

impl Checkpoints {
    /// Starts the thread for the index at `path`; `None` if no thread can be created.
    pub(super) fn start(path: &Path) -> Option<Self> {
        let (due, wakeups) = sync_channel(1);
        let path = path.to_owned();
        let run = move || wakeups.into_iter().for_each(|()| checkpoint(&path));
        thread::Builder::new().name("image-index".to_owned()).spawn(run).ok()?;
        Some(Self { changes: 0, due })
    }

    pub(super) fn changed(&mut self) {
        self.changes = self.changes.wrapping_add(1);
        if self.changes.is_multiple_of(CHANGES_PER_CHECKPOINT) {
            // Fails if a checkpoint is queued already, or if the thread died: then SQLite's autocheckpoint remains.
            let _ = self.due.try_send(());
        }
    }
}

fn checkpoint(path: &Path) {
    let done =
        Connection::open(path).and_then(|db| db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())));
    if let Err(error) = done {
        tracing::warn!(%error, "cannot checkpoint the image index");
    }
}
