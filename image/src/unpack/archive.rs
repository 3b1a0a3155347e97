//! Reads a tar stream entry by entry. The `tar` crate parses header fields; the framing around them is done here,
//! because its PAX reader splits records at newlines (file capabilities are binary and may contain one) and reads
//! extension headers of any size into memory.

use std::io::{self, BufRead};

use rustix::fs::Timespec;
use tar::{EntryType, Header};

use super::pax::{self, Records};
use super::sparse::{self, Extent};

const BLOCK_BYTES: usize = 512;

/// The most bytes of a PAX header or a GNU long name: the limit of Go's archive/tar, which wrote most layers.
const MAX_EXTENSION_BYTES: u64 = 1 << 20;

/// The most extension headers that may stand before one entry.
const MAX_EXTENSIONS: usize = 16;

/// Type of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Character,
    Block,
    Directory,
    Fifo,
}

/// One member of an archive, with its extension headers applied; global PAX headers are ignored.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timespec,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Length of the unpacked file in bytes.
    pub(crate) size: u64,
    /// Places of the stored bytes in the file: one extent for a plain file.
    pub(crate) extents: Vec<Extent>,
}

/// A tar stream. Bodies are handed out in the pieces of the input, without copying.
pub(crate) struct Archive<R> {
    input: R,
    body: u64,
    padding: u64,
    /// Bytes of extension headers since [`Archive::take_extended`].
    extended: u64,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    pax: Option<Records>,
}

impl<R: BufRead> Archive<R> {
    pub(crate) fn new(input: R) -> Self {
        Archive { input, body: 0, padding: 0, extended: 0 }
    }

    /// Returns the next member, `None` at the end of the archive. Skips the unread rest of the one before.
    pub(crate) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut extensions = Extensions::default();
        for _ in 0..=MAX_EXTENSIONS {
            self.skip(self.body + self.padding)?;
            let Some(header) = self.header()? else {
                return extensions.must_be_empty().map(|()| None);
            };
            match header.entry_type() {
                EntryType::XHeader => extensions.pax = Some(Records::parse(&self.extension()?)?),
                EntryType::XGlobalHeader => self.extension().map(drop)?,
                EntryType::GNULongName => extensions.path = Some(self.long_name()?),
                EntryType::GNULongLink => extensions.target = Some(self.long_name()?),
                kind => return self.entry(&header, kind, extensions).map(Some),
            }
        }
        Err(malformed("more than 16 extension headers in a row"))
    }

    /// Returns the bytes of extension headers since the last call.
    pub(crate) fn take_extended(&mut self) -> u64 {
        std::mem::take(&mut self.extended)
    }

    /// Hands the next `length` bytes of the current body to `sink`, piece by piece.
    pub(crate) fn body(
        &mut self,
        mut length: u64,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        if length > self.body {
            return Err(malformed("an extent lies beyond the entry's data"));
        }
        self.body -= length;
        while length > 0 {
            let piece = self.input.fill_buf()?;
            let take = piece.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            if take == 0 {
                return Err(truncated());
            }
            sink(&piece[..take])?;
            self.input.consume(take);
            length -= take as u64;
        }
        Ok(())
    }

    /// Skips some of the data after the archive and returns how many bytes; 0 at the end of the stream.
    pub(crate) fn pass_over(&mut self) -> io::Result<u64> {
        let length = self.input.fill_buf()?.len();
        self.input.consume(length);
        Ok(length as u64)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        self.body = length;
        self.padding = 0;
        self.body(length, |_| Ok(()))
    }

    fn header(&mut self) -> io::Result<Option<Header>> {
        if self.input.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let mut header = Header::new_old();
        self.read_block(header.as_mut_bytes())?;
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        verify_checksum(&header)?;
        self.frame(number(&header.as_old().size, header.entry_size())?)?;
        Ok(Some(header))
    }

    fn read_block(&mut self, block: &mut [u8; BLOCK_BYTES]) -> io::Result<()> {
        self.input
            .read_exact(block)
            .map_err(|error| if error.kind() == io::ErrorKind::UnexpectedEof { truncated() } else { error })
    }

    fn frame(&mut self, size: u64) -> io::Result<()> {
        let padded = size
            .checked_next_multiple_of(BLOCK_BYTES as u64)
            .filter(|padded| i64::try_from(*padded).is_ok())
            .ok_or_else(|| malformed("an entry's size does not fit a file"))?;
        self.body = size;
        self.padding = padded - size;
        Ok(())
    }

    fn extension(&mut self) -> io::Result<Vec<u8>> {
        if self.body > MAX_EXTENSION_BYTES {
            return Err(malformed("an extension header is larger than 1 MiB"));
        }
        self.extended += self.body;
        let mut bytes = Vec::with_capacity(self.body as usize);
        self.body(self.body, |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    fn long_name(&mut self) -> io::Result<Vec<u8>> {
        let mut name = self.extension()?;
        let end = name.iter().position(|byte| *byte == 0);
        name.truncate(end.unwrap_or(name.len()));
        Ok(name)
    }

    fn entry(&mut self, header: &Header, kind: EntryType, extensions: Extensions) -> io::Result<Entry> {
        let pax = extensions.pax.unwrap_or_default();
        if let Some(size) = pax.number("size")? {
            self.frame(size)?;
        }
        let path = extensions.path.unwrap_or_else(|| pax.path(header));
        let kind = kind_of(kind, &path)?;
        if kind != Kind::File {
            // As in Go's reader, only files have data: a hard link's header may state the size of its target.
            self.frame(0)?;
        }
        let (size, extents) = self.extents(header, &pax)?;
        Ok(Entry {
            kind,
            path,
            size,
            extents,
            target: extensions.target.unwrap_or_else(|| pax.target(header)),
            mode: number(&header.as_old().mode, header.mode().map(u64::from))? as u32 & 0o7777,
            uid: owner(pax.number("uid")?, &header.as_old().uid, header.uid())?,
            gid: owner(pax.number("gid")?, &header.as_old().gid, header.gid())?,
            mtime: match pax.get("mtime") {
                Some(text) => pax::timestamp(text)?,
                None => seconds(number(&header.as_old().mtime, header.mtime())?),
            },
            device: device(header, kind)?,
            xattrs: pax.xattrs(),
        })
    }

    fn extents(&mut self, header: &Header, pax: &Records) -> io::Result<(u64, Vec<Extent>)> {
        if header.entry_type() == EntryType::GNUSparse {
            return self.gnu_extents(header);
        }
        if pax.get("GNU.sparse.major") == Some(b"1") {
            let real = pax.require("GNU.sparse.realsize")?;
            let extents = self.leading_map()?;
            return sparse::checked(extents, self.body, real);
        }
        if let Some(extents) = sparse::from_records(pax)? {
            let real = pax.require("GNU.sparse.size")?;
            return sparse::checked(extents, self.body, real);
        }
        let whole = Extent { offset: 0, length: self.body };
        Ok((self.body, vec![whole]))
    }

    /// The old GNU form: four extents in the header, more in blocks between it and the data.
    fn gnu_extents(&mut self, header: &Header) -> io::Result<(u64, Vec<Extent>)> {
        let gnu = header.as_gnu().ok_or_else(|| malformed("a sparse entry without a GNU header"))?;
        let mut extents = Vec::new();
        sparse::collect(&gnu.sparse, &mut extents)?;
        let mut more = gnu.is_extended();
        while more {
            let mut block = tar::GnuExtSparseHeader::new();
            self.read_block(block.as_mut_bytes())?;
            sparse::collect(block.sparse(), &mut extents)?;
            more = block.is_extended();
        }
        sparse::checked(extents, self.body, gnu.real_size()?)
    }

    /// PAX format 1.0: the map is decimal lines at the start of the data, padded to whole blocks.
    fn leading_map(&mut self) -> io::Result<Vec<Extent>> {
        let mut map = sparse::Map::default();
        while !map.is_complete() {
            let mut block = [0; BLOCK_BYTES];
            let mut filled = 0;
            self.body(BLOCK_BYTES as u64, |piece| {
                block[filled..filled + piece.len()].copy_from_slice(piece);
                filled += piece.len();
                Ok(())
            })?;
            map.feed(&block)?;
        }
        Ok(map.into_extents())
    }
}

impl Extensions {
    fn must_be_empty(&self) -> io::Result<()> {
        if self.path.is_some() || self.target.is_some() || self.pax.is_some() {
            return Err(malformed("an extension header without an entry"));
        }
        Ok(())
    }
}

fn kind_of(kind: EntryType, path: &[u8]) -> io::Result<Kind> {
    Ok(match kind {
        EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
        EntryType::Link => Kind::HardLink,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Char => Kind::Character,
        EntryType::Block => Kind::Block,
        EntryType::Directory => Kind::Directory,
        EntryType::Fifo => Kind::Fifo,
        other => {
            return Err(malformed(&format!("an entry of unknown type {:?}", char::from(other.as_byte()))));
        }
    })
}

fn device(header: &Header, kind: Kind) -> io::Result<(u32, u32)> {
    if !matches!(kind, Kind::Character | Kind::Block) {
        return Ok((0, 0));
    }
    let major = header.device_major()?.unwrap_or(0);
    Ok((major, header.device_minor()?.unwrap_or(0)))
}

fn owner(extended: Option<u64>, field: &[u8], parsed: io::Result<u64>) -> io::Result<u32> {
    let id = match extended {
        Some(id) => id,
        None => number(field, parsed)?,
    };
    u32::try_from(id).map_err(|_| malformed(&format!("owner {id} does not fit 32 bits")))
}

/// Reads a number field. An empty field counts as zero: old writers leave some empty.
fn number(field: &[u8], parsed: io::Result<u64>) -> io::Result<u64> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    parsed
}

fn seconds(since_epoch: u64) -> Timespec {
    Timespec { tv_sec: since_epoch as i64, tv_nsec: 0 }
}

fn verify_checksum(header: &Header) -> io::Result<()> {
    let bytes = header.as_bytes();
    let fields = bytes[..148].iter().chain(&bytes[156..]);
    let sum = fields.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ');
    if header.cksum()? != sum {
        return Err(malformed("a header's checksum is wrong"));
    }
    Ok(())
}

pub(crate) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a tar archive: {what}"))
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends inside an entry")
}
