//! Header fields of streams. Blocks are compressed; each direction of a connection is one zlib stream.

use bytes::Buf;
use flate2::{Decompress, FlushDecompress};

use super::{
    Fault,
    dictionary::{DICTIONARY, ID},
};

/// Longest block after decompression; clients of Kubernetes send a hundred bytes.
const MAX_BLOCK_BYTES: usize = 64 << 10;

/// The header fields of one frame, with names in lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(String, String)>);

impl Headers {
    /// Returns the first value of the field `name`, which is given in lower case.
    pub(in crate::streaming) fn get(&self, name: &str) -> Option<&str> {
        let (_, values) = self.0.iter().find(|(known, _)| known == name)?;
        values.split('\0').next()
    }

    /// Parses a block after decompression: a count, then names and values, each after its length.
    pub(crate) fn parse(mut block: &[u8]) -> Result<Self, Fault> {
        let count = block.try_get_u32().map_err(|_| CUT_OFF)?;
        let mut fields = Vec::new();
        for _ in 0..count {
            fields.push((text(&mut block)?.to_ascii_lowercase(), text(&mut block)?));
        }
        if !block.is_empty() {
            return Err(Fault::Malformed("more than the header fields in their block"));
        }
        Ok(Self(fields))
    }
}

const CUT_OFF: Fault = Fault::Malformed("header fields that are cut off");

fn text(block: &mut &[u8]) -> Result<String, Fault> {
    let length = block.try_get_u32().map_err(|_| CUT_OFF)?;
    let (text, rest) = block.split_at_checked(length as usize).ok_or(CUT_OFF)?;
    *block = rest;
    String::from_utf8(text.to_vec()).map_err(|_| Fault::Malformed("a header field that is no text"))
}

/// Decompresses the blocks of one connection, all of which it must be given, in order.
#[derive(Debug)]
pub(crate) struct Inflater(Decompress);

impl Default for Inflater {
    fn default() -> Self {
        Self(Decompress::new(true))
    }
}

impl Inflater {
    /// Reads the header fields in the next block.
    pub(crate) fn read(&mut self, block: &[u8]) -> Result<Headers, Fault> {
        Headers::parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, Fault> {
        let mut text = Vec::with_capacity(1024);
        loop {
            let before = (self.0.total_in(), text.len());
            let result = self.0.decompress_vec(block, &mut text, FlushDecompress::Sync);
            let taken = self.0.total_in() - before.0;
            block = block.get(taken as usize..).unwrap_or_default();
            match result {
                Err(error) if error.needs_dictionary() == Some(ID) => {
                    self.0.set_dictionary(&DICTIONARY).map_err(|_| DAMAGED)?;
                }
                Err(_) => return Err(DAMAGED),
                Ok(_) if text.len() > MAX_BLOCK_BYTES => {
                    return Err(Fault::Malformed("too many header fields"));
                }
                Ok(_) if text.len() == text.capacity() => text.reserve(text.len()),
                Ok(_) if block.is_empty() => return Ok(text),
                Ok(_) if (self.0.total_in(), text.len()) == before => return Err(DAMAGED),
                Ok(_) => {}
            }
        }
    }
}

const DAMAGED: Fault = Fault::Malformed("header fields that cannot be decompressed");

/// Writes the blocks of answers, which have no header fields.
///
/// A block is four zeros, so a compressor with its quarter of a megabyte per connection would save nothing. The blocks
/// are a zlib stream all the same, of stored (uncompressed) parts.
#[derive(Debug, Default)]
pub(super) struct EmptyHeaders {
    begun: bool,
}

/// Beginning of a zlib stream with a dictionary.
const BEGINNING: [u8; 6] = {
    let [a, b, c, d] = ID.to_be_bytes();
    [0x78, 0xbb, a, b, c, d]
};
/// A stored part of four zeros (no header fields), and an empty one, which makes a reader output all before it.
const NONE: [u8; 14] = [0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

impl EmptyHeaders {
    /// Returns the next block.
    pub(super) fn block(&mut self) -> Vec<u8> {
        let beginning = if self.begun { &[][..] } else { &BEGINNING };
        self.begun = true;
        [beginning, &NONE].concat()
    }
}
