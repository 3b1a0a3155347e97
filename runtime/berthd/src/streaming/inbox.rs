//! Data from a client on one stream, between the reader of its connection and the consumer of the stream.
//!
//! Neither SPDY as its clients speak it nor WebSocket can tell a client to hold back one stream alone, so data that is
//! not consumed waits here. Its size is limited over all streams of a connection together: one slow consumer delays the
//! other streams only once the whole room is full of its data.

use std::{io, sync::Arc};

use bytes::Bytes;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How many bytes may wait on one connection.
const MAX_BUFFERED_BYTES: usize = 16 << 20;
/// Bytes that a piece takes of the room in addition to its content.
const PIECE_OVERHEAD_BYTES: usize = 256;
/// A piece shorter than this is copied, so that it does not keep the whole block that it was read with.
const COPY_BELOW_BYTES: usize = 16 << 10;

/// The room for data that waits on one connection. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct BufferBudget(Arc<Semaphore>);

/// The reader's end of a stream. Dropping it signals that the client reset the stream.
#[derive(Debug)]
pub(super) struct InboxSender {
    pieces: mpsc::UnboundedSender<Option<Piece>>,
    budget: BufferBudget,
    reset: DropGuard,
}

/// The consumer's end of a stream. Data that comes after it was dropped is discarded.
#[derive(Debug)]
pub(super) struct Inbox {
    pieces: mpsc::UnboundedReceiver<Option<Piece>>,
    reset: CancellationToken,
}

/// Bytes from the client. Their room is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// The next item of a stream.
#[derive(Debug)]
pub(super) enum Next {
    /// Some bytes.
    Piece(Piece),
    /// The client sends no more.
    End,
    /// The client reset the stream, or is gone.
    Reset,
}

/// How the copy of a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    /// Everything has been written.
    All,
    /// The client reset the stream.
    Reset,
}

impl Default for BufferBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_BUFFERED_BYTES)))
    }
}

/// Creates both ends of a stream.
pub(super) fn inbox(budget: &BufferBudget) -> (InboxSender, Inbox) {
    let (pieces, taken) = mpsc::unbounded_channel();
    let reset = CancellationToken::new();
    let sender = InboxSender { pieces, budget: budget.clone(), reset: reset.clone().drop_guard() };
    (sender, Inbox { pieces: taken, reset })
}

impl InboxSender {
    /// Waits until there is room, and passes `bytes` on. Discards them when the consumer is gone.
    pub(super) async fn put(&self, bytes: Bytes) {
        if self.is_closed() || bytes.is_empty() {
            return;
        }
        let cost = (bytes.len() + PIECE_OVERHEAD_BYTES).min(MAX_BUFFERED_BYTES);
        let permit = Arc::clone(&self.budget.0).acquire_many_owned(u32::try_from(cost).unwrap_or(u32::MAX));
        tokio::select! {
            () = self.pieces.closed() => {}
            Ok(permit) = permit => {
                let bytes = if bytes.len() < COPY_BELOW_BYTES { Bytes::copy_from_slice(&bytes) } else { bytes };
                let _ = self.pieces.send(Some(Piece { bytes, _permit: permit }));
            }
            else => {}
        }
    }

    /// Signals that the client sends no more.
    pub(super) fn end(self) {
        let _ = self.pieces.send(None);
        self.reset.disarm();
    }

    /// Whether the consumer is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.pieces.is_closed()
    }
}

impl Inbox {
    /// Returns the next item. Data sent before a reset may come before it.
    pub(super) async fn next(&mut self) -> Next {
        match self.pieces.recv().await {
            Some(Some(piece)) => Next::Piece(piece),
            Some(None) => Next::End,
            None => Next::Reset,
        }
    }

    /// Writes everything to `to`. A reset ends this at once, also while `to` accepts nothing.
    pub(super) async fn copy(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<Copied> {
        let reset = self.reset.clone();
        tokio::select! {
            copied = self.copy_all(to) => copied,
            () = reset.cancelled() => Ok(Copied::Reset),
        }
    }

    async fn copy_all(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<Copied> {
        loop {
            match self.next().await {
                Next::Piece(piece) => to.write_all(&piece.bytes).await?,
                Next::End => return Ok(Copied::All),
                Next::Reset => return Ok(Copied::Reset),
            }
        }
    }
}

#[cfg(test)]
mod tests;
