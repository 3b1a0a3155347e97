//! Those who read a stream beside its log, for as long as they like.
//!
//! Each has a FIFO and gets what is printed from now on, as it is printed. What does not fit into a FIFO at that moment is
//! lost to its reader alone: neither the process nor the other readers wait, and the log has everything.

use crate::sys::watched_for_errors;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

/// The readers of one stream; `None` once it has ended.
#[derive(Debug)]
pub(super) struct Attached(Mutex<Option<Vec<Reader>>>);

#[derive(Debug)]
struct Reader {
    fifo: Arc<AsyncFd<OwnedFd>>,
    leaving: JoinHandle<()>,
}

impl Attached {
    /// To a stream that begins.
    pub(super) fn nobody() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Some(Vec::new()))))
    }

    /// One more, at the other end of `fifo`. To a stream that has ended it comes too late: its FIFO is closed.
    pub(super) fn join(self: &Arc<Self>, fifo: OwnedFd) -> io::Result<()> {
        if let Some(readers) = &mut *self.readers() {
            let fifo = Arc::new(watched_for_errors(fifo)?);
            let leaving = tokio::spawn(until_it_leaves(Arc::downgrade(self), Arc::clone(&fifo)));
            readers.push(Reader { fifo, leaving });
        }
        Ok(())
    }

    /// Gives each as much as it has room for.
    pub(super) fn pass(&self, bytes: &[u8]) {
        for reader in self.readers().iter().flatten() {
            // Full, or left: it is told of the latter elsewhere.
            let _ = rustix::io::write(&reader.fifo, bytes);
        }
    }

    /// Closes the FIFOs: the stream has ended.
    pub(super) fn end(&self) {
        self.readers().take();
    }

    fn readers(&self) -> MutexGuard<'_, Option<Vec<Reader>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.leaving.abort();
    }
}

/// The kernel reports a pipe without readers as an error of the writing end.
async fn until_it_leaves(attached: Weak<Attached>, fifo: Arc<AsyncFd<OwnedFd>>) {
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
