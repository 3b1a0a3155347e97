#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt, stream};
use tokio::io::{AsyncReadExt, duplex};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use super::{
    channel::{Encoding, Malformed, Sent, channels},
    *,
};
use crate::{
    container::RequestedStreams,
    streaming::{idle::Idle, inbox::Next, protocol::Protocol, resize::Size},
};

const ALL: RequestedStreams = RequestedStreams { stdin: true, stdout: true, stderr: true, tty: false };
const TERMINAL: RequestedStreams = RequestedStreams { stdin: true, stdout: true, stderr: false, tty: true };

fn idle() -> Idle {
    Idle::new(Duration::from_secs(3600))
}

#[test]
fn messages_say_which_channel_they_are_for() {
    let binary = |message: &'static [u8], closes| Encoding::Binary.parse(Bytes::from_static(message), closes);
    assert_eq!(binary(b"", true), Ok(Sent::Nothing));
    assert_eq!(binary(b"\0", true), Ok(Sent::Data(0, Bytes::new())));
    assert_eq!(binary(b"\0hello", true), Ok(Sent::Data(0, Bytes::from_static(b"hello"))));
    assert_eq!(binary(b"\xff\0", true), Ok(Sent::Close(0)));
    assert_eq!(binary(b"\xff\0", false), Ok(Sent::Data(255, Bytes::from_static(b"\0"))));
    assert_eq!(binary(b"\xff", true), Err(Malformed));
    assert_eq!(binary(b"\xff\0\0", true), Err(Malformed));
    let base64 = |message: &'static [u8]| Encoding::Base64.parse(Bytes::from_static(message), false);
    assert_eq!(base64(b"0aGVsbG8="), Ok(Sent::Data(0, Bytes::from_static(b"hello"))));
    assert_eq!(base64(b"4"), Ok(Sent::Data(4, Bytes::new())));
    assert_eq!(base64(b"\0aGVsbG8="), Err(Malformed));
    assert_eq!(base64(b"0?"), Err(Malformed));
}

#[tokio::test]
async fn a_client_types_resizes_and_closes_its_input() {
    let (reader, streams, _queue) = channels(TERMINAL, Protocol::V5, Encoding::Binary, idle());
    let sent = [&b"\0typed"[..], b"\x04{\"Width\":80,\"Height\":24}", b"\x01ignored", b"\xff\0", b"\0late"];
    let messages = sent.map(|message| Ok(Message::Binary(Bytes::from_static(message))));
    reader.run(stream::iter(messages)).await.unwrap();
    let mut typed = Vec::new();
    streams.stdin.unwrap().copy(&mut typed).await.unwrap();
    assert_eq!(typed, b"typed");
    assert_eq!(streams.resize.unwrap().next().await, Some(Size { width: 80, height: 24 }));
}

#[tokio::test]
async fn before_version_5_input_ends_with_the_connection_only() {
    let (reader, streams, _queue) = channels(ALL, Protocol::V4, Encoding::Binary, idle());
    let messages = [Ok(Message::Binary(Bytes::from_static(b"\xff\0")))];
    reader.run(stream::iter(messages)).await.unwrap();
    assert!(matches!(streams.stdin.unwrap().next().await, Next::Reset));
    assert!(streams.resize.is_none() && streams.stderr.is_some());
}

#[tokio::test]
async fn a_message_of_the_wrong_kind_ends_the_connection() {
    for (encoding, message) in [
        (Encoding::Binary, Message::text("0aGVsbG8=")),
        (Encoding::Base64, Message::binary(&b"\0hello"[..])),
        (Encoding::Binary, Message::binary(&b"\xff"[..])),
    ] {
        let (reader, _streams, _queue) = channels(ALL, Protocol::V5, encoding, idle());
        assert!(reader.run(stream::iter([Ok(message)])).await.is_err(), "{encoding:?}");
    }
}

#[tokio::test]
async fn output_and_the_outcome_arrive_before_an_orderly_close() {
    let (near, far) = duplex(1 << 10);
    let (reader, streams, queue) = channels(ALL, Protocol::V5, Encoding::Binary, idle());
    let server = async {
        let (output, input) = open(far).await.split();
        let said = async move {
            streams.stdout.unwrap().send(b"out").await.unwrap();
            streams.stderr.unwrap().send(b"err").await.unwrap();
            streams.error.send(b"{}").await.unwrap();
            drop(streams.stdin);
        };
        let (written, (), read) =
            tokio::join!(send(queue, output, Encoding::Binary, idle()), said, reader.run(input));
        written.unwrap();
        read.unwrap();
    };
    let client = async {
        let mut client = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        client.send(Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
        let mut all = Vec::new();
        while let Some(Ok(message)) = client.next().await {
            all.push(message);
        }
        all
    };
    let (all, ()) = tokio::join!(client, server);
    assert!(all.contains(&Message::Pong(Bytes::from_static(b"there?"))), "{all:?}");
    let content: Vec<_> = all.iter().filter(|message| message.is_binary()).cloned().collect();
    let expected = [&b"\x01out"[..], b"\x02err", b"\x03{}"].map(Message::binary);
    assert_eq!(content, expected);
    let Some(Message::Close(Some(close))) = all.last() else { panic!("{all:?}") };
    assert_eq!(close.code, CloseCode::Normal);
}

#[tokio::test]
async fn a_tunnel_is_the_bytes_of_its_binary_messages() {
    let messages = [
        Ok(Message::binary(&b"one "[..])),
        Ok(Message::Ping(Bytes::new())),
        Ok(Message::binary(&b""[..])),
        Ok(Message::binary(&b"two"[..])),
        Ok(Message::Close(None)),
    ];
    let mut all = String::new();
    tunnel(stream::iter(messages)).read_to_string(&mut all).await.unwrap();
    assert_eq!(all, "one two");
    let text = stream::iter([Ok(Message::text("SPDY?"))]);
    assert!(tunnel(text).read_to_string(&mut all).await.is_err());
}
