//! Channels: every message begins with the number of its channel.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use tokio_tungstenite::tungstenite::{Error, Message, error::ProtocolError};

use super::is_disconnect;
use crate::{
    container::RequestedStreams,
    streaming::{
        command::Streams,
        idle::Idle,
        inbox::{BufferBudget, InboxSender, inbox},
        outlet::{Framing, Outlet, Queue, queue},
        protocol::Protocol,
        resize::Sizes,
    },
};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// Followed by the number of a channel that is closed.
const CLOSE: u8 = 255;

/// Encoding of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::streaming) enum Encoding {
    /// As binary messages, the number as a byte.
    Binary,
    /// As text messages, the number as a digit, the content in base64.
    Base64,
}

/// A message from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// Bytes on a channel, which may be none.
    Data(u8, Bytes),
    /// Nothing more comes on a channel.
    Close(u8),
    /// An empty message.
    Nothing,
}

/// A message that breaks the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

impl Encoding {
    /// Parses the content of a message. With `closes`, channels can be closed.
    pub(crate) fn parse(self, mut message: Bytes, closes: bool) -> Result<Sent, Malformed> {
        if message.is_empty() {
            return Ok(Sent::Nothing);
        }
        let first = message.get_u8();
        match self {
            Self::Binary if closes && first == CLOSE => match message[..] {
                [channel] => Ok(Sent::Close(channel)),
                _ => Err(Malformed),
            },
            Self::Binary => Ok(Sent::Data(first, message)),
            Self::Base64 if first.is_ascii_digit() => STANDARD
                .decode(message)
                .map(|bytes| Sent::Data(first - b'0', bytes.into()))
                .map_err(|_| Malformed),
            Self::Base64 => Err(Malformed),
        }
    }

    fn framing(self, channel: u8) -> Framing {
        match self {
            Self::Binary => Framing::Binary(channel),
            Self::Base64 => Framing::Base64(channel),
        }
    }

    /// Builds a message with this content.
    pub(super) fn message(self, content: Bytes) -> Result<Message, Error> {
        Ok(match self {
            Self::Binary => Message::Binary(content),
            Self::Base64 => Message::Text(content.try_into()?),
        })
    }
}

/// Reads the messages of a connection and passes on what they carry.
#[derive(Debug)]
pub(in crate::streaming) struct Reader {
    encoding: Encoding,
    closes: bool,
    stdin: Option<InboxSender>,
    resize: Option<InboxSender>,
    idle: Idle,
}

/// Creates a connection's parts: its reader, the streams that were `wanted`, and the queue of pending output.
pub(in crate::streaming) fn channels(
    wanted: RequestedStreams,
    protocol: Protocol,
    encoding: Encoding,
    idle: Idle,
) -> (Reader, Streams, Queue) {
    let (senders, queue) = queue();
    let budget = BufferBudget::default();
    let (stdin, input) = inbox(&budget);
    let (resize, sizes) = inbox(&budget);
    let outlet = |channel| Outlet::new(encoding.framing(channel), senders.frames.clone());
    let streams = Streams {
        stdin: wanted.stdin.then_some(input),
        stdout: wanted.stdout.then(|| outlet(STDOUT)),
        stderr: (wanted.stderr && !wanted.tty).then(|| outlet(STDERR)),
        resize: wanted.tty.then(|| Sizes::new(sizes)),
        error: outlet(ERROR),
    };
    let closes = protocol.closes_channels();
    (Reader { encoding, closes, stdin: Some(stdin), resize: Some(resize), idle }, streams, queue)
}

impl Reader {
    /// Reads until the client disconnects, which is no error, or breaks the protocol.
    pub(in crate::streaming) async fn run(
        mut self,
        mut messages: impl Stream<Item = Result<Message, Error>> + Unpin,
    ) -> Result<(), Error> {
        while let Some(message) = messages.next().await {
            if !matches!(message, Ok(Message::Pong(_))) {
                self.idle.touch();
            }
            match message {
                Ok(Message::Binary(content)) if self.encoding == Encoding::Binary => {
                    self.take(content).await?
                }
                Ok(Message::Text(content)) if self.encoding == Encoding::Base64 => {
                    self.take(content.into()).await?
                }
                Ok(Message::Ping(_) | Message::Pong(_)) => {}
                Ok(Message::Close(_)) => return Ok(()),
                Ok(_) => return Err(wrong()),
                Err(error) if is_disconnect(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn take(&mut self, content: Bytes) -> Result<(), Error> {
        match self.encoding.parse(content, self.closes).map_err(|Malformed| wrong())? {
            Sent::Data(STDIN, bytes) => put(&self.stdin, bytes).await,
            Sent::Data(RESIZE, bytes) => put(&self.resize, bytes).await,
            Sent::Close(STDIN) => end(&mut self.stdin),
            Sent::Close(RESIZE) => end(&mut self.resize),
            // The other channels lead to the client.
            Sent::Data(..) | Sent::Close(_) | Sent::Nothing => {}
        }
        Ok(())
    }
}

async fn put(sender: &Option<InboxSender>, bytes: Bytes) {
    if let Some(sender) = sender {
        sender.put(bytes).await;
    }
}

fn end(sender: &mut Option<InboxSender>) {
    if let Some(sender) = sender.take() {
        sender.end();
    }
}

fn wrong() -> Error {
    Error::Protocol(ProtocolError::InvalidOpcode(0))
}
