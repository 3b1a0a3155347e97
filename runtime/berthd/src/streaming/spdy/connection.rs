//! One SPDY connection: frames in, streams out.

use std::{collections::HashMap, sync::Arc};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

use super::{
    Fault,
    frame::{self, Decoder, Frame, OUR_PING, Reason},
    headers::{EmptyHeaders, Headers, Inflater},
};
use crate::streaming::{
    idle::Idle,
    inbox::{BufferBudget, Inbox, InboxSender, inbox},
    outlet::{Framing, Outlet, Queue, queue},
};

/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;
/// Limit of the streams that a client has not ended. A forwarded connection takes one.
const MAX_OPEN_STREAMS: usize = 4096;
/// How many streams may wait to be accepted or refused before nothing more is read.
const MAX_INCOMING_STREAMS: usize = 32;

/// A stream that the client opened, and that is not accepted or refused yet.
#[derive(Debug)]
pub(in crate::streaming) struct Incoming {
    pub(in crate::streaming) id: u32,
    pub(in crate::streaming) headers: Headers,
    inbox: Inbox,
}

/// A stream that was accepted.
#[derive(Debug)]
pub(in crate::streaming) struct Stream {
    pub(in crate::streaming) inbox: Inbox,
    pub(in crate::streaming) outlet: Outlet,
}

/// Accepts or refuses streams. Once it is closed or dropped, all that come are refused.
#[derive(Debug)]
pub(in crate::streaming) struct Acceptor {
    incoming: mpsc::Receiver<Incoming>,
    frames: mpsc::Sender<Bytes>,
    answers: Answers,
    headers: EmptyHeaders,
    last: u32,
}

/// Reads the connection's frames and passes on what they carry.
#[derive(Debug)]
pub(in crate::streaming) struct Reader<R> {
    input: R,
    decoder: Decoder,
    inflater: Inflater,
    senders: HashMap<u32, InboxSender>,
    last: u32,
    budget: BufferBudget,
    incoming: mpsc::Sender<Incoming>,
    answers: Answers,
    idle: Idle,
}

/// Short frames that must not wait behind others when the client reads slowly.
#[derive(Clone, Debug)]
struct Answers(Arc<mpsc::Sender<Bytes>>);

impl Answers {
    /// Queues an answer, or drops it when the client has left thousands of answers unread.
    fn give(&self, frame: Bytes) {
        let _ = self.0.try_send(frame);
    }
}

/// Creates the parts of a connection: its reader, the acceptor of streams, and the queue of what is to be written.
pub(in crate::streaming) fn connection<R>(input: R, idle: Idle) -> (Reader<R>, Acceptor, Queue) {
    let (senders, queue) = queue();
    let (arrive, arrived) = mpsc::channel(MAX_INCOMING_STREAMS);
    let answers = Answers(Arc::new(senders.answers));
    let reader = Reader {
        input,
        decoder: Decoder::default(),
        inflater: Inflater::default(),
        senders: HashMap::new(),
        last: 0,
        budget: BufferBudget::default(),
        incoming: arrive,
        answers: answers.clone(),
        idle,
    };
    let headers = EmptyHeaders::default();
    (reader, Acceptor { incoming: arrived, frames: senders.frames, answers, headers, last: 0 }, queue)
}

impl Acceptor {
    /// Returns the next stream that the client opens; `None` when the client is gone.
    pub(in crate::streaming) async fn next(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }

    /// Accepts a stream and tells the client, which may send on it from then on.
    pub(in crate::streaming) fn accept(&mut self, incoming: Incoming) -> Stream {
        let Incoming { id, inbox, .. } = incoming;
        self.last = self.last.max(id);
        // The answer goes before the first data of the stream, which clients would otherwise discard.
        self.answers.give(frame::reply(id, &self.headers.block()));
        Stream { inbox, outlet: Outlet::new(Framing::Spdy(id), self.frames.clone()) }
    }

    /// Refuses a stream.
    pub(in crate::streaming) fn refuse(&self, incoming: &Incoming) {
        self.answers.give(frame::reset(incoming.id, Reason::RefusedStream));
    }

    /// Refuses all streams that were not accepted, and all that come.
    pub(in crate::streaming) fn close(&mut self) {
        self.incoming.close();
        while let Ok(incoming) = self.incoming.try_recv() {
            self.refuse(&incoming);
        }
    }

    /// Sends GOAWAY, after all frames sent before.
    pub(in crate::streaming) async fn go_away(self) {
        let _ = self.frames.send(frame::goaway(self.last)).await;
    }
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Reads until the client disconnects, which is no error, or breaks the protocol.
    pub(in crate::streaming) async fn run(mut self) -> Result<(), Fault> {
        let mut input = BytesMut::with_capacity(READ_BYTES);
        loop {
            while let Some(frame) = self.decoder.decode(&mut input)? {
                self.handle(frame).await?;
            }
            input.reserve(if input.is_empty() { READ_BYTES } else { READ_BYTES / 2 });
            if self.input.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), Fault> {
        if frame == Frame::Ping(OUR_PING) {
            return Ok(());
        }
        self.idle.touch();
        match frame {
            Frame::SynStream { stream, fin, headers } => self.open(stream, fin, &headers).await?,
            Frame::Headers { stream, fin, headers } => {
                // Decompressed only to keep the zlib stream in step.
                self.inflater.read(&headers)?;
                self.end(stream, fin);
            }
            Frame::RstStream { stream } => drop(self.senders.remove(&stream)),
            Frame::Ping(id) => self.answers.give(frame::ping(id)),
            Frame::GoAway | Frame::Ignored => {}
            Frame::Data { stream, fin, bytes } => {
                // Data of a stream that was reset was sent before the client knew.
                if let Some(sender) = self.senders.get(&stream) {
                    sender.put(bytes).await;
                }
                self.end(stream, fin);
            }
        }
        Ok(())
    }

    async fn open(&mut self, stream: u32, fin: bool, headers: &[u8]) -> Result<(), Fault> {
        if stream.is_multiple_of(2) || stream <= self.last {
            return Err(Fault::Malformed("a stream whose id is even or not above the one before"));
        }
        self.last = stream;
        let headers = self.inflater.read(headers)?;
        if self.senders.len() >= MAX_OPEN_STREAMS {
            self.senders.retain(|_, sender| !sender.is_closed());
        }
        let (sender, inbox) = inbox(&self.budget);
        let incoming = Incoming { id: stream, headers, inbox };
        if self.senders.len() >= MAX_OPEN_STREAMS || self.incoming.send(incoming).await.is_err() {
            self.answers.give(frame::reset(stream, Reason::RefusedStream));
            return Ok(());
        }
        self.senders.insert(stream, sender);
        self.end(stream, fin);
        Ok(())
    }

    /// Ends the client's direction of a stream, if `fin`.
    fn end(&mut self, stream: u32, fin: bool) {
        if let Some(sender) = fin.then(|| self.senders.remove(&stream)).flatten() {
            sender.end();
        }
    }
}
