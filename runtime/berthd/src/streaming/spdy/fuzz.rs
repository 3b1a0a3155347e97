//! Properties that must hold for any bytes from a client of SPDY.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, stream};
use tokio_util::io::StreamReader;

use super::{
    connection::{Acceptor, connection},
    frame::{Decoder, Frame},
    headers::{Headers, Inflater},
};
use crate::streaming::{idle::Idle, inbox::Next};

/// The headers and bytes of one stream, and whether its client ended it in order.
type Arrived = (Headers, Vec<u8>, bool);

/// Uses the first byte as the size of pieces, and the rest as a connection. Its frames must not depend on the pieces,
/// and its streams must carry what the frames say. Needs a tokio runtime.
pub fn spdy(data: &[u8]) {
    let Some((&size, data)) = data.split_first() else { return };
    let pieces = || data.chunks(usize::from(size).max(1));
    let frames = frames([data].into_iter());
    assert_eq!(frames, self::frames(pieces()));
    assert_eq!(arrived(pieces()), meant(frames));
    let _ = Headers::parse(data);
}

/// Decodes the frames, and merges those with data of one stream in a row; the last may be an error.
fn frames<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Result<Frame, String>> {
    let (mut decoder, mut input, mut frames) = (Decoder::default(), BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        while let Some(frame) = decoder.decode(&mut input).transpose() {
            let failed = frame.is_err();
            join(&mut frames, frame.map_err(|fault| fault.to_string()));
            if failed {
                return frames;
            }
        }
    }
    frames
}

fn join(frames: &mut Vec<Result<Frame, String>>, next: Result<Frame, String>) {
    match (frames.last_mut(), &next) {
        (
            Some(Ok(Frame::Data { stream, fin: fin @ false, bytes })),
            Ok(Frame::Data { stream: same, fin: last, bytes: more }),
        ) if stream == same => {
            *bytes = [&bytes[..], more].concat().into();
            *fin = *last;
        }
        _ => frames.push(next),
    }
}

/// Derives from the frames the streams that they open and the bytes sent on each.
fn meant(frames: Vec<Result<Frame, String>>) -> BTreeMap<u32, Arrived> {
    let mut inflater = Inflater::default();
    let mut streams = BTreeMap::new();
    let mut open = Vec::new();
    for frame in frames.into_iter().map_while(Result::ok) {
        match frame {
            Frame::SynStream { stream, fin, headers } => {
                let follows =
                    stream % 2 == 1 && streams.last_key_value().is_none_or(|(&last, _)| last < stream);
                let Some(headers) = follows.then(|| inflater.read(&headers).ok()).flatten() else { break };
                streams.insert(stream, (headers, Vec::new(), fin));
                open.extend((!fin).then_some(stream));
            }
            Frame::Headers { stream, fin, headers } => {
                if inflater.read(&headers).is_err() {
                    break;
                }
                end(&mut streams, &mut open, stream, fin);
            }
            Frame::RstStream { stream } => open.retain(|one| *one != stream),
            Frame::Data { stream, fin, bytes } => {
                if let Some((_, arrived, _)) = streams.get_mut(&stream).filter(|_| open.contains(&stream)) {
                    arrived.extend_from_slice(&bytes);
                }
                end(&mut streams, &mut open, stream, fin);
            }
            Frame::Ping(_) | Frame::GoAway | Frame::Ignored => {}
        }
    }
    streams
}

fn end(streams: &mut BTreeMap<u32, Arrived>, open: &mut Vec<u32>, stream: u32, fin: bool) {
    let Some(at) = open.iter().position(|one| fin && *one == stream) else { return };
    open.swap_remove(at);
    streams.entry(stream).and_modify(|(_, _, ended)| *ended = true);
}

/// Runs a connection over the pieces and returns its streams. The input must be too short to fill a queue.
fn arrived<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> BTreeMap<u32, Arrived> {
    let pieces = pieces.map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece)));
    let input = StreamReader::new(stream::iter(pieces));
    let (reader, mut acceptor, _queue) = connection(input, Idle::new(Duration::from_secs(3600)));
    let _ = reader.run().now_or_never().unwrap();
    std::iter::from_fn(|| next(&mut acceptor)).collect()
}

fn next(acceptor: &mut Acceptor) -> Option<(u32, Arrived)> {
    let incoming = acceptor.next().now_or_never().unwrap()?;
    let (id, headers) = (incoming.id, incoming.headers.clone());
    let mut inbox = acceptor.accept(incoming).inbox;
    let mut bytes = Vec::new();
    loop {
        match inbox.next().now_or_never().unwrap() {
            Next::Piece(piece) => bytes.extend_from_slice(&piece.bytes),
            Next::End => return Some((id, (headers, bytes, true))),
            Next::Reset => return Some((id, (headers, bytes, false))),
        }
    }
}
