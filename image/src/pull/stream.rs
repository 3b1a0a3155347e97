//! One pass from a blob's bytes to an unpacked layer, on two threads: the first hashes and inflates what arrives, the
//! second hashes and unpacks what comes out. Each waits for the other through a bounded channel, so that memory stays
//! small and a slow disk slows the download.

use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use tokio::sync::mpsc;

use super::LayerError;
use crate::digest::{Digest, Hasher};
use crate::manifest::{Compression, LayerBlob};
use crate::registry::Bytes;
use crate::unpack::{self, Limits, Unpacked};

/// Size in bytes of the pieces in which inflated data is handed over.
const PIECE_BYTES: usize = 128 * 1024;

/// The most pieces that may wait.
const MAX_QUEUED_PIECES: usize = 8;

/// Bytes of a blob still read after unpacking failed, to tell a damaged blob from an archive that cannot be unpacked.
const MAX_BYTES_AFTER_FAILURE: u64 = 16 << 20;

/// Unpacks the blob that `chunks` delivers into the directory `into`. Fails unless size, digest and diff id match.
pub(crate) fn unpack(
    chunks: mpsc::Receiver<Bytes>,
    blob: &LayerBlob,
    diff_id: &Digest,
    into: &Path,
    limits: Limits,
) -> Result<Unpacked, LayerError> {
    let (pieces, inflated) = sync_channel(MAX_QUEUED_PIECES);
    let (emptied, spare) = channel();
    let mut hasher = diff_id.hasher();
    thread::scope(|scope| {
        let inflate = || CompressedStream::new(chunks, blob).inflate(blob, &PieceChannels { pieces, spare });
        let inflating = thread::Builder::new()
            .name("inflate".to_owned())
            .spawn_scoped(scope, inflate)
            .map_err(LayerError::Thread)?;
        let plain = PlainStream { pieces: inflated, emptied, piece: Vec::new(), at: 0, hasher: &mut hasher };
        let unpacked = unpack::unpack(plain, into, limits).map_err(LayerError::Unpack);
        inflating.join().unwrap_or(Err(LayerError::Lost))?;
        unpacked
    })
    .and_then(|unpacked| {
        let found = hasher.finish();
        if found == *diff_id {
            return Ok(unpacked);
        }
        Err(LayerError::DiffId { expected: diff_id.clone(), found })
    })
}

/// Channel for inflated pieces, and the one for emptied buffers coming back.
struct PieceChannels {
    pieces: SyncSender<Vec<u8>>,
    spare: Receiver<Vec<u8>>,
}

/// The blob as it arrives, hashed on the way.
struct CompressedStream {
    chunks: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    hasher: Hasher,
    length: u64,
}

impl CompressedStream {
    fn new(chunks: mpsc::Receiver<Bytes>, blob: &LayerBlob) -> Self {
        CompressedStream { chunks, chunk: Bytes::new(), hasher: blob.digest.hasher(), length: 0 }
    }

    fn inflate(mut self, blob: &LayerBlob, channels: &PieceChannels) -> Result<(), LayerError> {
        let inflated = self.inflate_all(blob.compression, channels);
        let length = self.length;
        match (inflated, self.finish(length + MAX_BYTES_AFTER_FAILURE)) {
            (_, Some((length, found))) if length != blob.size || found != blob.digest => {
                Err(LayerError::Digest { expected: blob.digest.clone(), size: blob.size, found, length })
            }
            (inflated, _) => inflated,
        }
    }

    fn inflate_all(&mut self, expected: Compression, channels: &PieceChannels) -> Result<(), LayerError> {
        let mut plain = self.decoder(expected)?;
        loop {
            let mut piece = channels.spare.try_recv().unwrap_or_default();
            piece.resize(PIECE_BYTES, 0);
            let length = fill(&mut plain, &mut piece).map_err(LayerError::Inflate)?;
            piece.truncate(length);
            // Sending fails if unpacking has failed; the unpacker reports why.
            if length == 0 || channels.pieces.send(piece).is_err() {
                return Ok(());
            }
        }
    }

    /// Chooses the decoder by magic number. Content without one is refused unless the media type says it is plain.
    fn decoder(&mut self, expected: Compression) -> Result<Box<dyn Read + '_>, LayerError> {
        let start = self.start().map_err(LayerError::Inflate)?;
        Ok(match (start, expected) {
            ([0x1f, 0x8b, ..], _) => Box::new(flate2::bufread::MultiGzDecoder::new(self)),
            ([0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18], _) => {
                Box::new(zstd::stream::read::Decoder::with_buffer(self).map_err(LayerError::Inflate)?)
            }
            (_, Compression::None) => Box::new(self),
            (_, Compression::Gzip) => return Err(LayerError::NotCompressed("gzip")),
            (_, Compression::Zstd) => return Err(LayerError::NotCompressed("zstd")),
        })
    }

    /// Returns the first four bytes without consuming them; zeros if there are fewer.
    fn start(&mut self) -> io::Result<[u8; 4]> {
        while self.chunk.len() < 4 {
            let Some(next) = self.receive() else {
                break;
            };
            self.chunk = [self.chunk.as_ref(), next.as_ref()].concat().into();
        }
        let mut start = [0; 4];
        let length = self.chunk.len().min(4);
        start[..length].copy_from_slice(&self.chunk[..length]);
        Ok(start)
    }

    fn receive(&mut self) -> Option<Bytes> {
        let next = self.chunks.blocking_recv()?;
        self.hasher.update(&next);
        self.length += next.len() as u64;
        Some(next)
    }

    /// Reads to the end; returns length and digest of the whole blob, `None` if it is longer than `limit` bytes.
    fn finish(mut self, limit: u64) -> Option<(u64, Digest)> {
        while self.length <= limit {
            if self.receive().is_none() {
                return Some((self.length, self.hasher.finish()));
            }
        }
        None
    }
}

impl BufRead for CompressedStream {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            match self.receive() {
                Some(next) => self.chunk = next,
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk = self.chunk.split_off(amount);
    }
}

impl Read for CompressedStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, into)
    }
}

/// The inflated tar stream, hashed on the way.
struct PlainStream<'a> {
    pieces: Receiver<Vec<u8>>,
    emptied: Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    hasher: &'a mut Hasher,
}

impl BufRead for PlainStream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len()
            && let Ok(next) = self.pieces.recv()
        {
            self.hasher.update(&next);
            // Fails if the inflating thread has ended.
            let _ = self.emptied.send(std::mem::replace(&mut self.piece, next));
            self.at = 0;
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at += amount;
    }
}

impl Read for PlainStream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, into)
    }
}

fn read_buffered(from: &mut impl BufRead, into: &mut [u8]) -> io::Result<usize> {
    let available = from.fill_buf()?;
    let length = available.len().min(into.len());
    into[..length].copy_from_slice(&available[..length]);
    from.consume(length);
    Ok(length)
}

fn fill(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match from.read(&mut into[filled..])? {
            0 => break,
            length => filled += length,
        }
    }
    Ok(filled)
}
