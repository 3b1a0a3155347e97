//! Bytes as the clients' own library (github.com/moby/spdystream v0.5.1) writes them, and a client of ours over them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

use super::{
    connection::connection,
    dictionary::ID,
    frame::{Decoder, Frame, Reason, data_header, goaway, ping, reply, reset},
    headers::{EmptyHeaders, Headers, Inflater},
    *,
};
use crate::{
    container::RequestedStreams,
    streaming::{
        idle::Idle,
        inbox::Next,
        protocol::Protocol,
        testing::{Client, Reply},
    },
};

const SYN_ERROR: &str =
    "80030001000000290000000100000000000078f9e3c6a7c26260606004a7b392a2d4c45c6851c29a0a0a6800000000ffff";
const SYN_STDOUT: &str = "800300010100001900000003000000000000c22ac5565c92925f5a02000000ffff";
const SYN_DATA: &str = "800300010000002f0000000500000000000002a5550c395009940829cc8bc0f9c6c2c0c280818181b30812f999a04cc1680e000000ffff";

fn bytes(hex: &str) -> BytesMut {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn decode(hex: &str) -> Frame {
    let mut input = bytes(hex);
    let frame = Decoder::default().decode(&mut input).unwrap().unwrap();
    assert!(input.is_empty());
    frame
}

#[test]
fn the_dictionary_is_the_one_that_compressed_streams_name() {
    let (a, b) = DICTIONARY.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65521;
        (a, (a + b) % 65521)
    });
    assert_eq!((DICTIONARY.len(), b << 16 | a), (1423, ID));
}

#[test]
fn frames_of_the_clients_library_are_read() {
    assert_eq!(
        decode("000000030100000568656c6c6f"),
        Frame::Data { stream: 3, fin: true, bytes: Bytes::from_static(b"hello") }
    );
    assert_eq!(decode("80030003000000080000000300000005"), Frame::RstStream { stream: 3 });
    assert_eq!(decode("800300060000000400000007"), Frame::Ping(7));
    assert_eq!(decode("80030007000000080000000500000000"), Frame::GoAway);
    assert_eq!(decode("80030009000000080000000300010000"), Frame::Ignored);
    assert_eq!(decode("800300040000000c000000010100000400000064"), Frame::Ignored);
}

#[test]
fn header_blocks_of_one_connection_are_one_compressed_stream() {
    let mut inflater = Inflater::default();
    for (frame, id, ended, fields) in [
        (SYN_ERROR, 1, false, &[("streamtype", "error")][..]),
        (SYN_STDOUT, 3, true, &[("streamtype", "stdout")]),
        (SYN_DATA, 5, false, &[("streamtype", "data"), ("port", "8080"), ("requestid", "7")]),
    ] {
        let Frame::SynStream { stream, fin, headers } = decode(frame) else { panic!("{frame}") };
        assert_eq!((stream, fin), (id, ended));
        let headers = inflater.read(&headers).unwrap();
        for (name, value) in fields {
            assert_eq!(headers.get(name), Some(*value));
        }
        assert_eq!(headers.get("other"), None);
    }
    let Frame::SynStream { headers, .. } = decode(SYN_STDOUT) else { panic!() };
    assert!(Inflater::default().read(&headers).is_err(), "a later block means nothing by itself");
}

#[test]
fn frames_are_written_byte_for_byte() {
    assert_eq!(data_header(3, 5, true), bytes("0000000301000005")[..]);
    assert_eq!(reset(3, Reason::Cancel), bytes("80030003000000080000000300000005"));
    assert_eq!(ping(7), bytes("800300060000000400000007"));
    assert_eq!(goaway(5), bytes("80030007000000080000000500000000"));
    let mut headers = EmptyHeaders::default();
    let first = "800300020000001800000001".to_owned() + "78bbe3c6a7c2" + "000400fbff00000000" + "000000ffff";
    assert_eq!(reply(1, &headers.block()), bytes(&first));
    let next = "800300020000001200000003".to_owned() + "000400fbff00000000" + "000000ffff";
    assert_eq!(reply(3, &headers.block()), bytes(&next));
}

#[test]
fn our_own_header_blocks_can_be_read() {
    let (mut written, mut read) = (EmptyHeaders::default(), Inflater::default());
    for _ in 0..3 {
        assert_eq!(read.read(&written.block()).unwrap(), Headers::default());
    }
}

#[test]
fn frames_come_in_pieces_of_any_size() {
    let data = "000000010100000568656c6c6f";
    let all = bytes(&[SYN_ERROR, data, "800300060000000400000007"].concat());
    for size in 1..all.len() {
        let (mut decoder, mut input, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
        for piece in all.chunks(size) {
            input.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut input).unwrap() {
                frames.push(frame);
            }
        }
        let text: Vec<u8> = frames.iter().flat_map(carried).collect();
        let fins = frames.iter().filter(|frame| matches!(frame, Frame::Data { fin: true, .. })).count();
        assert_eq!((text.as_slice(), fins), (b"hello".as_slice(), 1), "{size}");
        assert!(matches!(frames[0], Frame::SynStream { stream: 1, .. }));
        assert_eq!(frames.last(), Some(&Frame::Ping(7)));
    }
}

fn carried(frame: &Frame) -> Vec<u8> {
    match frame {
        Frame::Data { bytes, .. } => bytes.to_vec(),
        _ => Vec::new(),
    }
}

#[test]
fn malformed_frames_are_refused() {
    for (wrong, why) in [
        ("80020006000000040000000700", "version"),
        ("800300010000000900000001000000000000", "too short"),
        ("80030003000000040000000100000005", "too short"),
        ("8003000100ffffff00000001", "too long"),
        ("8003000b0000000400000001", "no known type"),
        ("80030002000000040000000100", "never opened"),
    ] {
        let error = Decoder::default().decode(&mut bytes(wrong)).unwrap_err();
        assert!(error.to_string().contains(why), "{wrong}: {error}");
    }
}

#[test]
fn malformed_header_blocks_are_refused() {
    for (wrong, why) in [
        ("", "cut off"),
        ("00000001", "cut off"),
        ("0000000100000001", "cut off"),
        ("00000001ffffffff61", "cut off"),
        ("000000010000000161000000ff", "cut off"),
        ("00000001000000016100000001ff", "no text"),
        ("0000000000", "more than"),
    ] {
        let error = Headers::parse(&bytes(wrong)).unwrap_err();
        assert!(error.to_string().contains(why), "{wrong}: {error}");
    }
}

#[test]
fn a_block_that_grows_without_end_is_refused() {
    let mut compress = flate2::Compress::new(flate2::Compression::best(), true);
    compress.set_dictionary(&DICTIONARY).unwrap();
    let mut block = Vec::with_capacity(1 << 20);
    compress.compress_vec(&vec![0; 10 << 20], &mut block, flate2::FlushCompress::Sync).unwrap();
    assert!(block.len() < 64 << 10, "it fits into a frame");
    let error = Inflater::default().read(&block).unwrap_err();
    assert!(error.to_string().contains("too many"), "{error}");
}

/// Bytes that look random and are the same every time.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn noise_never_does_more_than_fail() {
    for seed in 0..20_000 {
        let mut input: BytesMut = noise(seed, 64).into_iter().collect();
        if seed % 2 == 0 {
            input[..4].copy_from_slice(&[0x80, 3, 0, (seed % 10) as u8]);
            input[4..8].copy_from_slice(&[0, 0, 0, (seed % 60) as u8]);
        }
        let mut decoder = Decoder::default();
        while let Ok(Some(frame)) = decoder.decode(&mut input) {
            if let Frame::SynStream { headers, .. } = frame {
                let _ = Inflater::default().read(&headers);
            }
        }
        let _ = Headers::parse(&noise(seed, 40));
    }
}

#[tokio::test]
async fn frames_with_bits_that_flipped_end_the_connection_at_most() {
    let good = bytes(&[SYN_ERROR, SYN_STDOUT, SYN_DATA, "000000050000000568656c6c6f"].concat());
    for flipped in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[flipped / 8] ^= 1 << (flipped % 8);
        let (reader, _acceptor, _queue) = connection(&bad[..], Idle::new(Duration::from_secs(1)));
        let _ = reader.run().await;
    }
}

/// Returns a client of a connection whose reader and writer run in the background.
fn connected() -> (Client<DuplexStream>, Acceptor) {
    let (near, far) = duplex(64 << 10);
    let (input, output) = tokio::io::split(far);
    let idle = Idle::new(Duration::from_secs(3600));
    let (reader, acceptor, queue) = connection(input, idle.clone());
    tokio::spawn(async move { tokio::join!(reader.run(), queue.write_to(output, idle)) });
    (Client::new(near), acceptor)
}

#[tokio::test]
async fn streams_are_taken_carry_bytes_both_ways_and_end_one_by_one() {
    let (mut client, mut acceptor) = connected();
    let id = client.open(&[("streamtype", "data")], false).await;
    let incoming = acceptor.next().await.unwrap();
    assert_eq!((incoming.id, incoming.headers.get("streamtype")), (id, Some("data")));
    let mut stream = acceptor.accept(incoming);
    assert_eq!(client.reply().await, Some(Reply::Taken(id)));
    client.data(id, true, b"up").await;
    let mut up = Vec::new();
    stream.inbox.copy(&mut up).await.unwrap();
    assert_eq!(up, b"up");
    stream.outlet.send(b"down").await.unwrap();
    stream.outlet.finish().await.unwrap();
    assert_eq!(client.read(id).await, b"down");
    drop(stream);
    acceptor.go_away().await;
    assert_eq!((client.reply().await, client.reply().await), (Some(Reply::GoAway(id)), None));
}

#[tokio::test]
async fn pings_of_the_client_come_back_and_resets_are_told() {
    let (mut client, mut acceptor) = connected();
    client.control(6, false, &frame::OUR_PING.to_be_bytes()).await;
    client.control(6, false, &9u32.to_be_bytes()).await;
    assert_eq!(client.reply().await, Some(Reply::Ping(9)));
    let id = client.open(&[], false).await;
    let incoming = acceptor.next().await.unwrap();
    let mut stream = acceptor.accept(incoming);
    client.reset(id).await;
    assert!(matches!(stream.inbox.next().await, Next::Reset));
    assert_eq!(client.reply().await, Some(Reply::Taken(id)));
    stream.outlet.reset().await.unwrap();
    assert_eq!(client.reply().await, Some(Reply::Reset(id, 5)));
}

#[tokio::test]
async fn streams_that_nobody_takes_are_refused() {
    let (mut client, mut acceptor) = connected();
    let id = client.open(&[], false).await;
    let incoming = acceptor.next().await.unwrap();
    acceptor.refuse(&incoming);
    assert_eq!(client.reply().await, Some(Reply::Reset(id, 3)));
    let kept = client.open(&[], false).await;
    let incoming = acceptor.next().await.unwrap();
    let _stream = acceptor.accept(incoming);
    assert_eq!(client.reply().await, Some(Reply::Taken(kept)));
    drop(acceptor);
    let late = client.open(&[], false).await;
    assert_eq!(client.reply().await, Some(Reply::Reset(late, 3)));
}

#[tokio::test]
async fn an_id_that_was_used_ends_the_connection() {
    let (near, far) = duplex(1 << 10);
    let (reader, _acceptor, _queue) = connection(far, Idle::new(Duration::from_secs(1)));
    let mut client = Client::new(near);
    client.open(&[], false).await;
    client.control(1, false, &[&1u32.to_be_bytes()[..], &[0; 6]].concat()).await;
    assert!(matches!(reader.run().await, Err(Fault::Malformed(_))));
}

#[tokio::test]
async fn many_streams_that_were_dropped_here_do_not_use_up_those_that_may_be_open() {
    let (mut client, mut acceptor) = connected();
    for _ in 0..5000 {
        let id = client.open(&[], false).await;
        let incoming = acceptor.next().await.unwrap();
        drop(acceptor.accept(incoming));
        assert_eq!(client.reply().await, Some(Reply::Taken(id)));
    }
}

#[tokio::test]
async fn a_command_waits_for_the_streams_that_it_was_asked_for() {
    let (mut client, mut acceptor) = connected();
    let wanted = RequestedStreams { stdin: true, stdout: true, stderr: false, tty: true };
    let opened = async {
        for kind in ["resize", "stdout", "nonsense", "stdout", "error", "stdin"] {
            client.open(&[("streamtype", kind)], false).await;
        }
        let mut replies = Vec::new();
        for _ in 0..6 {
            replies.push(client.reply().await.unwrap());
        }
        replies
    };
    let (streams, replies) = tokio::join!(collect(&mut acceptor, wanted, Protocol::V4), opened);
    let streams = streams.unwrap();
    assert!(streams.stdin.is_some() && streams.stdout.is_some() && streams.resize.is_some());
    assert!(streams.stderr.is_none());
    assert_eq!(replies[2..4], [Reply::Reset(5, 3), Reply::Reset(7, 3)]);
}

#[tokio::test]
async fn a_command_that_has_its_streams_takes_no_others() {
    let (mut client, mut acceptor) = connected();
    client.open(&[("streamtype", "error")], false).await;
    let _streams = collect(&mut acceptor, RequestedStreams::default(), Protocol::V4).await.unwrap();
    assert_eq!(client.reply().await, Some(Reply::Taken(1)));
    for _ in 0..100 {
        let id = client.open(&[("streamtype", "error")], true).await;
        let reply = tokio::time::timeout(Duration::from_secs(10), client.reply()).await;
        assert_eq!(reply.unwrap(), Some(Reply::Reset(id, 3)));
    }
}

#[tokio::test]
async fn a_client_that_opens_streams_without_end_is_not_read_while_none_is_taken() {
    const MANY: usize = 10_000;
    let (mut client, mut acceptor) = connected();
    let opened = async {
        for _ in 0..MANY {
            client.open(&[("streamtype", "data")], true).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(2), opened).await.is_err(), "all were read");
    assert!(acceptor.next().await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_command_does_not_wait_for_ever() {
    let (mut client, mut acceptor) = connected();
    client.open(&[("streamtype", "error")], false).await;
    let wanted = RequestedStreams { stdout: true, ..RequestedStreams::default() };
    assert!(collect(&mut acceptor, wanted, Protocol::V4).await.is_none());
}

#[tokio::test]
async fn the_connection_ends_with_the_client() {
    let (mut near, far) = duplex(1 << 10);
    let (reader, mut acceptor, _queue) = connection(far, Idle::new(Duration::from_secs(1)));
    near.write_all(&bytes(SYN_ERROR)).await.unwrap();
    drop(near);
    reader.run().await.unwrap();
    assert!(acceptor.next().await.is_some());
    assert!(acceptor.next().await.is_none());
}
