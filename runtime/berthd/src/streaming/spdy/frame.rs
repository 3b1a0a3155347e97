//! Decodes and encodes frames. The only state is a data frame that is not complete yet.
//!
//! ```text
//!  control  1 | version 15 | type 16 | flags 8 | length 24 | ...      data  0 | stream 31 | flags 8 | length 24 | ...
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::Fault;

/// Length of every frame's header.
pub(in crate::streaming) const HEADER_BYTES: usize = 8;
/// Longest control frame that is accepted. Clients send a few header fields.
const MAX_CONTROL_FRAME_BYTES: usize = 64 << 10;
const VERSION: u16 = 3;
const FIN_FLAG: u8 = 1;
/// Mask of a stream's id.
const STREAM_ID_MASK: u32 = 0x7fff_ffff;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// A frame from a client, or a part of one that carries data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The client opens a stream. With `fin` it sends nothing on it.
    SynStream { stream: u32, fin: bool, headers: Bytes },
    /// More header fields of a stream.
    Headers { stream: u32, fin: bool, headers: Bytes },
    /// The client resets a stream.
    RstStream { stream: u32 },
    /// To be echoed.
    Ping(u32),
    /// The client opens no more streams.
    GoAway,
    /// WINDOW_UPDATE and SETTINGS, which mean nothing without flow control.
    Ignored,
    /// Bytes on a stream; with `fin` the last ones.
    Data { stream: u32, fin: bool, bytes: Bytes },
}

/// Why a stream is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::streaming) enum Reason {
    /// Refused before anything was done.
    RefusedStream = 3,
    /// Not wanted any more.
    Cancel = 5,
}

/// Decodes frames from the bytes of a connection.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    data: Option<Remaining>,
}

/// The rest of a data frame.
#[derive(Debug)]
struct Remaining {
    stream: u32,
    fin: bool,
    length: usize,
}

impl Decoder {
    /// Takes the next frame from `input`; `None` when it is not complete yet. Data is returned as it comes, so that a
    /// long frame need not be buffered.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Frame>, Fault> {
        if let Some(remaining) = self.data.take() {
            return Ok(self.data_from(remaining, input));
        }
        let Some((header, _)) = input.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let (mut first, mut second) = (&header[..4], &header[4..]);
        let (first, second) = (first.get_u32(), second.get_u32());
        let [flags, ..] = second.to_be_bytes();
        let length = (second & 0x00ff_ffff) as usize;
        if first & !STREAM_ID_MASK == 0 {
            input.advance(HEADER_BYTES);
            let remaining = Remaining { stream: first, fin: flags & FIN_FLAG != 0, length };
            return Ok(self.data_from(remaining, input));
        }
        control_from(first, flags, length, input)
    }

    fn data_from(&mut self, remaining: Remaining, input: &mut BytesMut) -> Option<Frame> {
        let Remaining { stream, fin, length } = remaining;
        let bytes = input.split_to(length.min(input.len())).freeze();
        let left = length - bytes.len();
        if left > 0 {
            self.data = Some(Remaining { stream, fin, length: left });
            return (!bytes.is_empty()).then_some(Frame::Data { stream, fin: false, bytes });
        }
        Some(Frame::Data { stream, fin, bytes })
    }
}

fn control_from(first: u32, flags: u8, length: usize, input: &mut BytesMut) -> Result<Option<Frame>, Fault> {
    if (first >> 16) as u16 & 0x7fff != VERSION {
        return Err(Fault::Malformed("a control frame of another version"));
    }
    if length > MAX_CONTROL_FRAME_BYTES {
        return Err(Fault::Malformed("a control frame that is too long"));
    }
    if input.len() < HEADER_BYTES + length {
        return Ok(None);
    }
    input.advance(HEADER_BYTES);
    parse_control(first as u16, flags & FIN_FLAG != 0, input.split_to(length).freeze()).map(Some)
}

/// Parses a control frame.
fn parse_control(kind: u16, fin: bool, mut content: Bytes) -> Result<Frame, Fault> {
    let smallest = match kind {
        SYN_STREAM => 10,
        SYN_REPLY | HEADERS | PING | SETTINGS => 4,
        RST_STREAM | GOAWAY | WINDOW_UPDATE => 8,
        _ => return Err(Fault::Malformed("a control frame of no known type")),
    };
    if content.len() < smallest {
        return Err(Fault::Malformed("a control frame that is too short"));
    }
    let id = content.get_u32();
    let stream = id & STREAM_ID_MASK;
    Ok(match kind {
        SYN_STREAM => {
            // The associated stream, the priority, and a slot for certificates.
            content.advance(6);
            Frame::SynStream { stream, fin, headers: content }
        }
        HEADERS => Frame::Headers { stream, fin, headers: content },
        SYN_REPLY => return Err(Fault::Malformed("an answer to a stream that was never opened")),
        RST_STREAM => Frame::RstStream { stream },
        PING => Frame::Ping(id),
        GOAWAY => Frame::GoAway,
        _ => Frame::Ignored,
    })
}

/// Builds the header of `length` bytes of data; with `fin` they are the last of a stream.
pub(in crate::streaming) fn data_header(stream: u32, length: usize, fin: bool) -> [u8; HEADER_BYTES] {
    let length = length as u32 & 0x00ff_ffff;
    let second = length | u32::from(fin) << 24;
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&stream.to_be_bytes());
    header[4..].copy_from_slice(&second.to_be_bytes());
    header
}

/// Builds the answer that accepts a stream (SYN_REPLY); `headers` is a compressed block.
pub(super) fn reply(stream: u32, headers: &[u8]) -> Bytes {
    control(SYN_REPLY, &[&stream.to_be_bytes(), headers])
}

/// Builds a frame that ends a stream in both directions (RST_STREAM).
pub(in crate::streaming) fn reset(stream: u32, reason: Reason) -> Bytes {
    control(RST_STREAM, &[&stream.to_be_bytes(), &(reason as u32).to_be_bytes()])
}

/// Id of our own pings. Clients use odd ids for theirs, and echo even ones.
pub(in crate::streaming) const OUR_PING: u32 = 2;

/// Builds a PING: ours, or the echo of a client's.
pub(in crate::streaming) fn ping(id: u32) -> Bytes {
    control(PING, &[&id.to_be_bytes()])
}

/// Builds a GOAWAY: no stream is accepted any more, and `last` is the last one that was.
pub(in crate::streaming) fn goaway(last: u32) -> Bytes {
    control(GOAWAY, &[&last.to_be_bytes(), &[0; 4]])
}

fn control(kind: u16, content: &[&[u8]]) -> Bytes {
    let length: usize = content.iter().map(|part| part.len()).sum();
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + length);
    frame.put_u16(0x8000 | VERSION);
    frame.put_u16(kind);
    frame.put_u32(length as u32);
    content.iter().for_each(|part| frame.put_slice(part));
    frame.freeze()
}
