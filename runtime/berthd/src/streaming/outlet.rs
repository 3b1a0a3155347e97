//! Output to a client on one stream or channel, and the queue in which it waits to be written.

use std::{io, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::{idle::Idle, spdy::frame};

/// Most bytes that are read and sent at a time: the capacity of a pipe.
const MAX_CHUNK_BYTES: usize = 64 << 10;
/// A buffer with less space than this is replaced.
const MIN_FREE_BYTES: usize = 8 << 10;
/// How many chunks may wait to be written on one connection.
const MAX_QUEUED_CHUNKS: usize = 8;
/// Interval of the pings to a client, the same as that of clients. Without them a client that vanished is not noticed
/// while nothing is written and nothing can be read for lack of room.
const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How many answers to the client may wait to be written. A client that reads none of them gets no more.
const MAX_QUEUED_ANSWERS: usize = 8 << 10;

/// One stream or channel to the client. Clones write to the same one.
#[derive(Clone, Debug)]
pub(super) struct Outlet {
    framing: Framing,
    queue: mpsc::Sender<Bytes>,
}

/// How the bytes of an outlet are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Data frames of the SPDY stream with this id.
    Spdy(u32),
    /// WebSocket messages that begin with the channel's number.
    Binary(u8),
    /// The same as text: the number as a digit, the rest in base64.
    Base64(u8),
}

/// The sending ends of a connection's queue.
#[derive(Debug)]
pub(super) struct Senders {
    /// For data: sending waits when the client reads slowly.
    pub(super) frames: mpsc::Sender<Bytes>,
    /// For answers of the connection itself: sending never waits, and they go before all frames in the queue.
    pub(super) answers: mpsc::Sender<Bytes>,
}

/// Everything that waits to be written to one client: SPDY frames, or the content of WebSocket messages.
#[derive(Debug)]
pub(super) struct Queue {
    frames: mpsc::Receiver<Bytes>,
    answers: mpsc::Receiver<Bytes>,
    heartbeat: Interval,
}

/// The next thing to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum QueueItem {
    /// These bytes.
    Bytes(Bytes),
    /// A ping of the transport.
    Heartbeat,
}

/// Creates a queue, which ends when all senders of frames are gone.
pub(super) fn queue() -> (Senders, Queue) {
    let (frames, frames_out) = mpsc::channel(MAX_QUEUED_CHUNKS);
    let (answers, answers_out) = mpsc::channel(MAX_QUEUED_ANSWERS);
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT_INTERVAL, HEARTBEAT_INTERVAL);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    (Senders { frames, answers }, Queue { frames: frames_out, answers: answers_out, heartbeat })
}

impl Queue {
    /// Returns the next thing to be written; `None` at the end of the queue.
    pub(super) async fn next(&mut self) -> Option<QueueItem> {
        tokio::select! {
            biased;
            Some(answer) = self.answers.recv() => Some(QueueItem::Bytes(answer)),
            _ = self.heartbeat.tick() => Some(QueueItem::Heartbeat),
            frame = self.frames.recv() => frame.map(QueueItem::Bytes),
        }
    }

    /// Whether the queue is empty, so that what was written should be flushed.
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.frames.is_empty()
    }

    /// Writes everything to a connection of SPDY frames, then shuts down its write direction.
    pub(super) async fn write_to(
        mut self,
        mut output: impl AsyncWrite + Unpin,
        idle: Idle,
    ) -> io::Result<()> {
        while let Some(due) = self.next().await {
            match due {
                QueueItem::Bytes(bytes) => {
                    output.write_all(&bytes).await?;
                    idle.touch();
                }
                QueueItem::Heartbeat => output.write_all(&frame::ping(frame::OUR_PING)).await?,
            }
            if self.is_empty() {
                output.flush().await?;
            }
        }
        output.shutdown().await
    }
}

impl Framing {
    /// Returns the number of bytes before the content.
    fn room(self) -> usize {
        match self {
            Self::Spdy(_) => frame::HEADER_BYTES,
            Self::Binary(_) => 1,
            Self::Base64(_) => 0,
        }
    }

    /// Frames `content`, which has room before it.
    fn seal(self, mut content: BytesMut) -> Bytes {
        match self {
            Self::Spdy(stream) => {
                let header = frame::data_header(stream, content.len() - frame::HEADER_BYTES, false);
                content[..frame::HEADER_BYTES].copy_from_slice(&header);
                content.freeze()
            }
            Self::Binary(channel) => {
                content[0] = channel;
                content.freeze()
            }
            Self::Base64(channel) => format!("{channel}{}", STANDARD.encode(content)).into(),
        }
    }
}

impl Outlet {
    pub(super) fn new(framing: Framing, queue: mpsc::Sender<Bytes>) -> Self {
        Self { framing, queue }
    }

    /// Sends everything from `from` until its end. Waits for a client that reads slowly.
    ///
    /// # Errors
    ///
    /// The error of `from`, or `BrokenPipe` when the client is gone.
    pub(super) async fn pump(&self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let room = self.framing.room();
        let mut buffer = BytesMut::new();
        loop {
            if buffer.capacity() < room + MIN_FREE_BYTES {
                buffer.reserve(room + MAX_CHUNK_BYTES);
            }
            buffer.put_bytes(0, room);
            if from.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            self.enqueue(self.framing.seal(buffer.split())).await?;
        }
    }

    /// Sends `content`, which may be empty.
    pub(super) async fn send(&self, content: &[u8]) -> io::Result<()> {
        let room = self.framing.room();
        let mut buffer = BytesMut::with_capacity(room + content.len());
        buffer.put_bytes(0, room);
        buffer.put_slice(content);
        self.enqueue(self.framing.seal(buffer)).await
    }

    /// Tells the client that nothing more comes. On WebSocket channels only the end of the connection says so.
    pub(super) async fn finish(&self) -> io::Result<()> {
        match self.framing {
            Framing::Spdy(stream) => {
                self.enqueue(Bytes::copy_from_slice(&frame::data_header(stream, 0, true))).await
            }
            Framing::Binary(_) | Framing::Base64(_) => Ok(()),
        }
    }

    /// Tells the client that the stream broke off; WebSocket channels cannot say so.
    pub(super) async fn reset(&self) -> io::Result<()> {
        match self.framing {
            Framing::Spdy(stream) => self.enqueue(frame::reset(stream, frame::Reason::Cancel)).await,
            Framing::Binary(_) | Framing::Base64(_) => Ok(()),
        }
    }

    async fn enqueue(&self, frame: Bytes) -> io::Result<()> {
        self.queue.send(frame).await.map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests;
