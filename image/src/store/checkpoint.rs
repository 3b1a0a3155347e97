//! Brings what the index's log holds into the index itself, on a thread of its own: that waits for the disk, and whoever
//! creates a container waits for those who change the index.

use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use rusqlite::Connection;

/// After so many changes: the log has some megabytes then.
pub(super) const EVERY: u32 = 500;

pub(super) struct Checkpoints {
    changes: u32,
    due: SyncSender<()>,
}

impl Checkpoints {
    /// For the index at `path`; none when there are no threads to be had.
    pub(super) fn start(path: &Path) -> Option<Self> {
        let (due, wakeups) = sync_channel(1);
        let path = path.to_owned();
        let run = move || wakeups.into_iter().for_each(|()| checkpoint(&path));
        thread::Builder::new().name("image-index".to_owned()).spawn(run).ok()?;
        Some(Self { changes: 0, due })
    }

    pub(super) fn changed(&mut self) {
        self.changes = self.changes.wrapping_add(1);
        if self.changes.is_multiple_of(EVERY) {
            // Full when one is under way, and nobody there when the thread died: SQLite does it itself in the end.
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
