//! Additional readers of a stream beside its log.
//!
//! Each reader has a FIFO and gets output as it is printed. Output that does not fit into the FIFO at that moment is
//! lost to this reader only: neither the process nor other readers wait, and the log is complete.

use crate::sys::watched_for_errors;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

/// The readers of one stream; `None` once it has ended.
#[derive(Debug)]
pub(super) struct AttachedReaders(Mutex<Option<Vec<Reader>>>);

#[derive(Debug)]
struct Reader {
    fifo: Arc<AsyncFd<OwnedFd>>,
    removal: JoinHandle<()>,
}

impl AttachedReaders {
    /// No readers yet.
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(Vec::new()))))
    }

    /// Adds a reader, at the other end of `fifo`. If the stream has ended the FIFO is closed.
    pub(super) fn add(self: &Arc<Self>, fifo: OwnedFd) -> io::Result<()> {
        if let Some(readers) = &mut *self.readers() {
            let fifo = Arc::new(watched_for_errors(fifo)?);
            let removal = tokio::spawn(remove_when_closed(Arc::downgrade(self), Arc::clone(&fifo)));
            readers.push(Reader { fifo, removal });
        }
        Ok(())
    }

    /// Writes to each FIFO as much as fits.
    pub(super) fn write(&self, bytes: &[u8]) {
        for reader in self.readers().iter().flatten() {
            // EAGAIN or EPIPE: full, or the reader has left, which `remove_when_closed` handles.
            let _ = rustix::io::write(&reader.fifo, bytes);
        }
    }

    /// Closes the FIFOs at the end of the stream.
    pub(super) fn close(&self) {
        self.readers().take();
    }

    fn readers(&self) -> MutexGuard<'_, Option<Vec<Reader>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.removal.abort();
    }
}

/// Removes the reader once it leaves: poll(2) then reports POLLERR on the write end.
async fn remove_when_closed(attached: Weak<AttachedReaders>, fifo: Arc<AsyncFd<OwnedFd>>) {
    while let Ok(mut ready) = fifo.ready(Interest::ERROR).await {
        if ready.ready().is_error() {
            break;
        }
        ready.clear_ready();
    }
    let Some(attached) = attached.upgrade() else { return };
    if let Some(readers) = &mut *attached.readers() {
        readers.retain(|reader| !Arc::ptr_eq(&reader.fifo, &fifo));
    }
}
