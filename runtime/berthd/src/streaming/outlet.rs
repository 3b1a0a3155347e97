//! What goes to a client on one stream or channel, and the queue in which it waits to be written.

use std::{io, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::{idle::Idle, spdy::frame};

/// Most that is read and sent at a time: what a pipe holds.
const CHUNK: usize = 64 << 10;
/// With less space than this a new buffer is taken.
const SMALLEST: usize = 8 << 10;
/// How many chunks wait to be written on one connection.
const QUEUE: usize = 8;
/// How often the client is asked whether it is still there, which is as often as clients ask. One that vanished is else
/// not noticed while nothing is written and nothing can be read for lack of room.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// How many answers to the client wait to be written. A client that reads none of them gets no more.
const ANSWERS: usize = 8 << 10;

/// One stream or channel to the client. Clones write to the same.
#[derive(Clone, Debug)]
pub(super) struct Outlet {
    framing: Framing,
    queue: mpsc::Sender<Bytes>,
}

/// How the bytes of an outlet become what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// Data frames of the SPDY stream with this id.
    Spdy(u32),
    /// WebSocket messages that begin with the channel's number.
    Binary(u8),
    /// The same in text: the number as a digit, the rest in base64.
    Base64(u8),
}

/// The sending ends of a connection's queue.
#[derive(Debug)]
pub(super) struct Senders {
    /// Waits when the client reads slowly.
    pub(super) frames: mpsc::Sender<Bytes>,
    /// For answers of the connection itself: never waits, goes before all frames that come after.
    pub(super) answers: mpsc::Sender<Bytes>,
}

/// All that waits to be written to one client, each element a SPDY frame or the content of a WebSocket message.
#[derive(Debug)]
pub(super) struct Queue {
    frames: mpsc::Receiver<Bytes>,
    answers: mpsc::Receiver<Bytes>,
    heartbeat: Interval,
}

/// What is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// These bytes.
    Bytes(Bytes),
    /// The transport's question whether the client is still there.
    Heartbeat,
}

/// A new queue, which ends when all senders of frames are gone.
pub(super) fn queue() -> (Senders, Queue) {
    let (frames, frames_out) = mpsc::channel(QUEUE);
    let (answers, answers_out) = mpsc::channel(ANSWERS);
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    (Senders { frames, answers }, Queue { frames: frames_out, answers: answers_out, heartbeat })
}

impl Queue {
    /// What is to be written next; `None` when nothing will be any more.
    pub(super) async fn next(&mut self) -> Option<Due> {
        tokio::select! {
            biased;
            Some(answer) = self.answers.recv() => Some(Due::Bytes(answer)),
            _ = self.heartbeat.tick() => Some(Due::Heartbeat),
            frame = self.frames.recv() => frame.map(Due::Bytes),
        }
    }

    /// Whether nothing waits, so that what was written should not wait for more.
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty() && self.frames.is_empty()
    }

    /// Writes all to a connection of SPDY frames, and ends its direction to the client.
    pub(super) async fn write_to(
        mut self,
        mut output: impl AsyncWrite + Unpin,
        idle: Idle,
    ) -> io::Result<()> {
        while let Some(due) = self.next().await {
            match due {
                Due::Bytes(bytes) => {
                    output.write_all(&bytes).await?;
                    idle.touch();
                }
                Due::Heartbeat => output.write_all(&frame::ping(frame::OUR_PING)).await?,
            }
            if self.is_empty() {
                output.flush().await?;
            }
        }
        output.shutdown().await
    }
}

impl Framing {
    /// Bytes before the content.
    fn room(self) -> usize {
        match self {
            Self::Spdy(_) => frame::HEADER,
            Self::Binary(_) => 1,
            Self::Base64(_) => 0,
        }
    }

    /// What is written for `content`, which has room before it.
    fn seal(self, mut content: BytesMut) -> Bytes {
        match self {
            Self::Spdy(stream) => {
                let header = frame::data_header(stream, content.len() - frame::HEADER, false);
                content[..frame::HEADER].copy_from_slice(&header);
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

    /// Sends all that can be read from `from` until its end. Waits for a client that reads slowly.
    ///
    /// # Errors
    ///
    /// What `from` failed with, or `BrokenPipe` when the client is gone.
    pub(super) async fn pump(&self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        let room = self.framing.room();
        let mut buffer = BytesMut::new();
        loop {
            if buffer.capacity() < room + SMALLEST {
                buffer.reserve(room + CHUNK);
            }
            buffer.put_bytes(0, room);
            if from.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            self.enqueue(self.framing.seal(buffer.split())).await?;
        }
    }

    /// Sends these bytes, which may be none.
    pub(super) async fn send(&self, content: &[u8]) -> io::Result<()> {
        let room = self.framing.room();
        let mut buffer = BytesMut::with_capacity(room + content.len());
        buffer.put_bytes(0, room);
        buffer.put_slice(content);
        self.enqueue(self.framing.seal(buffer)).await
    }

    /// Tells the client that nothing more comes. WebSocket channels have no way to say so but the connection's end.
    pub(super) async fn finish(&self) -> io::Result<()> {
        match self.framing {
            Framing::Spdy(stream) => {
                self.enqueue(Bytes::copy_from_slice(&frame::data_header(stream, 0, true))).await
            }
            Framing::Binary(_) | Framing::Base64(_) => Ok(()),
        }
    }

    /// Tells the client that the stream broke off.
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
