//! Properties that must hold for any bytes from a client of WebSocket.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use tokio::io::{AsyncReadExt, join, sink};
use tokio_util::io::StreamReader;

use super::{Encoding, channels, open, tunnel};
use crate::{
    container::RequestedStreams,
    streaming::{idle::Idle, inbox::Next, protocol::Protocol, resize, resize::Size},
};

/// Data that the streams of a command get, and whether the client kept to the protocol.
#[derive(Debug, PartialEq)]
struct Taken {
    typed: Vec<u8>,
    sizes: Vec<Size>,
    correct: bool,
}

/// Uses the first byte as the client's protocol and encoding, the second as the size of pieces, and the rest as a
/// connection after its upgrade. What arrives must not depend on the pieces. Needs a tokio runtime.
pub fn websocket(data: &[u8]) {
    let [kind, size, data @ ..] = data else { return };
    let protocol = if kind & 1 == 0 { Protocol::V5 } else { Protocol::V4 };
    let encoding = if kind & 2 == 0 { Encoding::Binary } else { Encoding::Base64 };
    let size = usize::from(*size).max(1);
    assert_eq!(taken(data, data.len().max(1), protocol, encoding), taken(data, size, protocol, encoding));
    assert_eq!(tunnelled(data, data.len().max(1)), tunnelled(data, size));
    let _ = encoding.parse(Bytes::copy_from_slice(data), protocol.closes_channels());
    if let Ok((_, complete)) = resize::parse(data) {
        assert!(complete <= data.len());
    }
}

fn input(data: &[u8], size: usize) -> impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + use<> {
    let pieces: Vec<_> = data.chunks(size).map(Bytes::copy_from_slice).map(Ok::<_, std::io::Error>).collect();
    join(StreamReader::new(stream::iter(pieces)), sink())
}

fn taken(data: &[u8], size: usize, protocol: Protocol, encoding: Encoding) -> Taken {
    let wanted = RequestedStreams { stdin: true, stdout: true, stderr: false, tty: true };
    let idle = Idle::new(Duration::from_secs(3600));
    let (reader, streams, _queue) = channels(wanted, protocol, encoding, idle);
    let (_, messages) = open(input(data, size)).now_or_never().unwrap().split();
    let correct = reader.run(messages).now_or_never().unwrap().is_ok();
    let (mut typed, mut sizes) = (Vec::new(), Vec::new());
    let mut stdin = streams.stdin.unwrap();
    while let Next::Piece(piece) = stdin.next().now_or_never().unwrap() {
        typed.extend_from_slice(&piece.bytes);
    }
    let mut resize = streams.resize.unwrap();
    while let Some(size) = resize.next().now_or_never().unwrap() {
        sizes.push(size);
    }
    Taken { typed, sizes, correct }
}

fn tunnelled(data: &[u8], size: usize) -> (Vec<u8>, bool) {
    let messages = open(input(data, size)).now_or_never().unwrap();
    let mut bytes = Vec::new();
    let correct = tunnel(messages).read_to_end(&mut bytes).now_or_never().unwrap().is_ok();
    (bytes, correct)
}
