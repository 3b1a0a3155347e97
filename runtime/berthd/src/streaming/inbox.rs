//! What a client sends on one stream, between the reader of its connection and whoever takes it.
//!
//! Neither SPDY as its clients speak it nor WebSocket can tell a client to hold back one stream alone, so that what
//! is not taken waits here. How much waits is limited over all streams of a connection together: one slow taker
//! delays the others only once all of the room is full of what it has not taken.

use std::{io, sync::Arc};

use bytes::Bytes;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How many bytes may wait on one connection.
const ROOM: usize = 16 << 20;
/// What a piece takes of the room beside its bytes.
const OVERHEAD: usize = 256;
/// A piece shorter than this is copied: it must not hold on to the whole block that it was read with.
const SHORT: usize = 16 << 10;

/// The room for what waits on one connection. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

/// The end of a stream that the connection's reader holds. Dropping it tells that the client reset the stream.
#[derive(Debug)]
pub(super) struct Feed {
    pieces: mpsc::UnboundedSender<Option<Piece>>,
    room: Room,
    reset: DropGuard,
}

/// The end of a stream that its taker holds. What comes after it was dropped is thrown away.
#[derive(Debug)]
pub(super) struct Inbox {
    pieces: mpsc::UnboundedReceiver<Option<Piece>>,
    reset: CancellationToken,
}

/// Bytes that the client sent. Their room is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    _room: OwnedSemaphorePermit,
}

/// What comes next on a stream.
#[derive(Debug)]
pub(super) enum Next {
    /// Some bytes.
    Piece(Piece),
    /// The client sends no more.
    End,
    /// The client wants no more of the stream, or is gone.
    Reset,
}

/// How the copy of a stream to somewhere else came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    /// Everything has been written.
    All,
    /// The client reset the stream.
    Reset,
}

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }
}

/// Both ends of a new stream.
pub(super) fn inbox(room: &Room) -> (Feed, Inbox) {
    let (pieces, taken) = mpsc::unbounded_channel();
    let reset = CancellationToken::new();
    let feed = Feed { pieces, room: room.clone(), reset: reset.clone().drop_guard() };
    (feed, Inbox { pieces: taken, reset })
}

impl Feed {
    /// Waits until there is room, and hands `bytes` over. Fine when nobody takes them.
    pub(super) async fn put(&self, bytes: Bytes) {
        if self.unwanted() || bytes.is_empty() {
            return;
        }
        let cost = (bytes.len() + OVERHEAD).min(ROOM);
        let room = Arc::clone(&self.room.0).acquire_many_owned(u32::try_from(cost).unwrap_or(u32::MAX));
        tokio::select! {
            () = self.pieces.closed() => {}
            Ok(room) = room => {
                let bytes = if bytes.len() < SHORT { Bytes::copy_from_slice(&bytes) } else { bytes };
                let _ = self.pieces.send(Some(Piece { bytes, _room: room }));
            }
            else => {}
        }
    }

    /// The client sends no more.
    pub(super) fn end(self) {
        let _ = self.pieces.send(None);
        self.reset.disarm();
    }

    /// Whether nobody takes anything any more.
    pub(super) fn unwanted(&self) -> bool {
        self.pieces.is_closed()
    }
}

impl Inbox {
    /// What was sent before a reset may come before it.
    pub(super) async fn next(&mut self) -> Next {
        match self.pieces.recv().await {
            Some(Some(piece)) => Next::Piece(piece),
            Some(None) => Next::End,
            None => Next::Reset,
        }
    }

    /// Writes all that comes to `to`. A reset is heeded at once, also while `to` takes nothing.
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
