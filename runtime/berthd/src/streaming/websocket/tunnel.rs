//! SPDY in WebSocket: its frames as one stream of bytes, cut into binary messages anywhere.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt, future};
use tokio::io::AsyncRead;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::StreamReader;

use super::is_disconnect;

/// Returns the bytes in `messages`.
pub(in crate::streaming) fn tunnel(
    messages: impl Stream<Item = Result<Message, Error>> + Unpin,
) -> impl AsyncRead + Unpin {
    let bytes = messages
        .take_while(|message| {
            let closed = matches!(message, Ok(Message::Close(_)))
                || matches!(message, Err(error) if is_disconnect(error));
            future::ready(!closed)
        })
        .filter_map(|message| future::ready(content(message).transpose()));
    StreamReader::new(bytes)
}

fn content(message: Result<Message, Error>) -> io::Result<Option<Bytes>> {
    match message.map_err(io::Error::other)? {
        Message::Binary(bytes) => Ok(Some(bytes)),
        Message::Ping(_) | Message::Pong(_) => Ok(None),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is not binary in a tunnel")),
    }
}
