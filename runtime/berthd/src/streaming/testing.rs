//! A small client of SPDY/3.1 for tests, with a compressor of its own.
#![allow(clippy::unwrap_used)]

use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, FlushCompress};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::spdy::DICTIONARY;

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Taken(u32),
    Reset(u32, u32),
    Ping(u32),
    GoAway(u32),
    Data(u32, bool, Bytes),
}

/// A client over any stream of bytes.
pub(super) struct Client<S> {
    pub(super) stream: S,
    compress: Compress,
    input: BytesMut,
    next: u32,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) fn new(stream: S) -> Self {
        let mut compress = Compress::new(Compression::best(), true);
        compress.set_dictionary(&DICTIONARY).unwrap();
        Self { stream, compress, input: BytesMut::new(), next: 1 }
    }

    /// Opens a stream with these header fields and returns its id.
    pub(super) async fn open(&mut self, fields: &[(&str, &str)], fin: bool) -> u32 {
        let id = self.next;
        self.next += 2;
        let block = self.block(fields);
        let mut content = BytesMut::new();
        content.put_u32(id);
        content.put_slice(&[0; 6]);
        content.put_slice(&block);
        self.control(1, fin, &content).await;
        id
    }

    fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        let mut plain = BytesMut::new();
        plain.put_u32(fields.len() as u32);
        for text in fields.iter().flat_map(|(name, value)| [name, value]) {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 1024);
        self.compress.compress_vec(&plain, &mut block, FlushCompress::Sync).unwrap();
        block
    }

    pub(super) async fn control(&mut self, kind: u16, fin: bool, content: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_u16(0x8003);
        frame.put_u16(kind);
        frame.put_u32(content.len() as u32 | u32::from(fin) << 24);
        frame.put_slice(content);
        self.stream.write_all(&frame).await.unwrap();
    }

    pub(super) async fn data(&mut self, id: u32, fin: bool, content: &[u8]) {
        let mut frame = BytesMut::new();
        frame.put_u32(id);
        frame.put_u32(content.len() as u32 | u32::from(fin) << 24);
        frame.put_slice(content);
        self.stream.write_all(&frame).await.unwrap();
    }

    pub(super) async fn reset(&mut self, id: u32) {
        self.control(3, false, &[id.to_be_bytes(), 5u32.to_be_bytes()].concat()).await;
    }

    /// Reads the server's next frame; `None` at the connection's end.
    pub(super) async fn reply(&mut self) -> Option<Reply> {
        while self.input.len() < 8 || self.input.len() < 8 + self.length() {
            if self.stream.read_buf(&mut self.input).await.unwrap() == 0 {
                assert!(self.input.is_empty(), "the last frame is cut off");
                return None;
            }
        }
        let length = self.length();
        let (first, flags) = (self.input.get_u32(), self.input.get_u32() >> 24);
        let mut content = self.input.split_to(length).freeze();
        Some(match first {
            0x8003_0002 => Reply::Taken(content.get_u32()),
            0x8003_0003 => Reply::Reset(content.get_u32(), content.get_u32()),
            0x8003_0006 => Reply::Ping(content.get_u32()),
            0x8003_0007 => Reply::GoAway(content.get_u32()),
            stream if stream >> 31 == 0 => Reply::Data(stream, flags & 1 == 1, content),
            other => unreachable!("a frame {other:x}"),
        })
    }

    fn length(&self) -> usize {
        (u32::from_be_bytes(self.input[4..8].try_into().unwrap()) & 0xff_ffff) as usize
    }

    /// Reads everything on one stream until its end.
    pub(super) async fn read(&mut self, id: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.reply().await {
                Some(Reply::Data(stream, fin, bytes)) if stream == id => {
                    all.extend(bytes);
                    if fin {
                        return all;
                    }
                }
                Some(_) => {}
                None => return all,
            }
        }
    }
}
