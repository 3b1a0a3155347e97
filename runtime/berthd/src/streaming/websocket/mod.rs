//! WebSocket: the streams of a command as channels of one connection, or SPDY's frames as one stream of bytes in it.

mod channel;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;
mod tunnel;

use bytes::Bytes;
use futures::{Sink, SinkExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message, Utf8Bytes,
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};

pub(super) use channel::{Encoding, channels};
pub(super) use tunnel::tunnel;

use super::{
    idle::Idle,
    outlet::{Queue, QueueItem},
};

/// Longest message that is accepted. Clients send 32 KiB at a time.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Bytes that are read at a time.
const READ_BYTES: usize = 64 << 10;

/// Wraps the connection after its upgrade.
pub(super) async fn open<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> WebSocketStream<S> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BYTES)
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
}

/// Sends everything from `queue`, and closes the connection with a close frame.
pub(super) async fn send(
    mut queue: Queue,
    mut output: impl Sink<Message, Error = Error> + Unpin,
    encoding: Encoding,
    idle: Idle,
) -> Result<(), Error> {
    while let Some(due) = queue.next().await {
        match due {
            QueueItem::Bytes(content) => {
                output.feed(encoding.message(content)?).await?;
                idle.touch();
            }
            QueueItem::Heartbeat => output.feed(Message::Ping(Bytes::new())).await?,
        }
        if queue.is_empty() {
            output.flush().await?;
        }
    }
    // Clients take a close frame without a code for a failure.
    let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    output.send(Message::Close(Some(normal))).await
}

/// Whether the error only says that the client closed the connection in order.
fn is_disconnect(error: &Error) -> bool {
    matches!(error, Error::ConnectionClosed | Error::AlreadyClosed)
}
