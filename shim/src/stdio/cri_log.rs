//! A container's log file in CRI's format: `<RFC3339Nano> stdout|stderr F|P <bytes>`, one record per line.
//!
//! Both streams of a container share one file. Every write contains complete records only, so records of the two
//! streams never mix and rotation never splits one. A line is written when its newline arrives. Until then up to
//! `max_line` bytes are kept; more become a partial record (`P`). A last line without newline is a partial record, too,
//! because readers add a newline to a full one (`F`).
//!
//! A full disk must not block the container: records that cannot be written are counted and dropped, and later ones are
//! tried again. The count goes to shim.log when writing works again.

use super::timestamp::{LENGTH, Timestamp};
use crate::shim_log::note;
use memchr::{memchr, memchr_iter, memrchr};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Records are batched up to this size before they are written.
const MAX_BATCH_BYTES: usize = 64 * 1024;
/// Length of ` stdout F `, after the timestamp.
const TAG_LENGTH: usize = 10;

thread_local! {
    /// Buffer shared by all logs: empty after each call.
    static BATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One of a container's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// An open log. Appending may block on the disk, never on readers.
#[derive(Debug)]
pub struct CriLog {
    path: PathBuf,
    max_line: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: File,
    clock: Timestamp,
    unended: [Vec<u8>; 2],
    dropped: u64,
}

impl CriLog {
    /// Opens the file for appending and creates it if missing. Fails if its directory is missing or the path has a symlink.
    pub fn open(path: &Path, max_line: usize) -> io::Result<Self> {
        let state =
            State { file: open(path)?, clock: Timestamp::default(), unended: Default::default(), dropped: 0 };
        Ok(Self { path: path.to_owned(), max_line, state: Mutex::new(state) })
    }

    /// Opens the path again, after a rotation. On failure the old file stays in use.
    pub fn reopen(&self) -> io::Result<()> {
        let file = open(&self.path)?;
        self.state().file = file;
        Ok(())
    }

    /// Appends output of a stream, in pieces of any size.
    pub fn append(&self, stream: Stream, bytes: &[u8]) {
        BATCH.with_borrow_mut(|batch| self.state().append(batch, self, stream, bytes));
    }

    /// Writes the rest of the stream's last line.
    pub fn end(&self, stream: Stream) {
        BATCH.with_borrow_mut(|batch| self.state().end(batch, self, stream));
    }

    /// The path it was opened by; rotation may have renamed the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, batch: &mut Vec<u8>, log: &CriLog, stream: Stream, bytes: &[u8]) {
        let mut prefix = prefix(&mut self.clock, stream);
        let mut rest = bytes;
        while !rest.is_empty() {
            let unended = &mut self.unended[stream as usize];
            let (tag, line, after) = match next_piece(rest, log.max_line - unended.len()) {
                Piece::Line(line, after) => (b'F', line, after),
                Piece::Part(part, after) => (b'P', part, after),
                Piece::Unended => {
                    unended.extend_from_slice(rest);
                    break;
                }
            };
            prefix[LENGTH + TAG_LENGTH - 2] = tag;
            record(batch, &prefix, unended, line);
            rest = after;
            if batch.len() >= MAX_BATCH_BYTES {
                self.write(batch, log);
            }
        }
        self.write(batch, log);
    }

    fn end(&mut self, batch: &mut Vec<u8>, log: &CriLog, stream: Stream) {
        let mut unended = std::mem::take(&mut self.unended[stream as usize]);
        if !unended.is_empty() {
            let mut prefix = prefix(&mut self.clock, stream);
            prefix[LENGTH + TAG_LENGTH - 2] = b'P';
            record(batch, &prefix, &mut unended, &[]);
            self.write(batch, log);
        }
    }

    /// Writes the batch; records that cannot be written are dropped.
    fn write(&mut self, batch: &mut Vec<u8>, log: &CriLog) {
        if batch.is_empty() {
            return;
        }
        let (written, failure) = write_some(&mut self.file, batch);
        match failure {
            Some(error) => self.drop_after(batch, written, &error, &log.path),
            None if self.dropped > 0 => {
                note(format_args!(
                    "{}: writing again, {} log lines were dropped",
                    log.path.display(),
                    self.dropped
                ));
                self.dropped = 0;
            }
            None => {}
        }
        batch.clear();
    }

    fn drop_after(&mut self, batch: &[u8], written: usize, error: &io::Error, path: &Path) {
        if self.dropped == 0 {
            note(format_args!(
                "{}: write: {error}; log lines are dropped until it works again",
                path.display()
            ));
        }
        let whole = memrchr(b'\n', &batch[..written]).map_or(0, |end| end + 1);
        self.dropped += memchr_iter(b'\n', &batch[whole..]).count() as u64;
        if let Err(error) = shorten(&self.file, (written - whole) as u64) {
            note(format_args!("{}: cut off half a record: {error}", path.display()));
        }
    }
}

/// Frees the shared buffer; the next line allocates it again.
pub(super) fn release() {
    BATCH.take();
}

/// The first piece of some output.
enum Piece<'a> {
    /// A line without its newline, and the rest.
    Line(&'a [u8], &'a [u8]),
    /// A full record of a line that goes on, and the rest.
    Part(&'a [u8], &'a [u8]),
    /// The beginning of a line, which fits so far.
    Unended,
}

fn next_piece(bytes: &[u8], room: usize) -> Piece<'_> {
    let reach = bytes.len().min(room + 1);
    match memchr(b'\n', &bytes[..reach]) {
        Some(end) => Piece::Line(&bytes[..end], &bytes[end + 1..]),
        None if bytes.len() > room => Piece::Part(&bytes[..room], &bytes[room..]),
        None => Piece::Unended,
    }
}

fn prefix(clock: &mut Timestamp, stream: Stream) -> [u8; LENGTH + TAG_LENGTH] {
    let mut prefix = [0; LENGTH + TAG_LENGTH];
    prefix[..LENGTH].copy_from_slice(clock.now());
    prefix[LENGTH..].copy_from_slice(match stream {
        Stream::Stdout => b" stdout F ",
        Stream::Stderr => b" stderr F ",
    });
    prefix
}

fn record(batch: &mut Vec<u8>, prefix: &[u8], unended: &mut Vec<u8>, line: &[u8]) {
    batch.extend_from_slice(prefix);
    batch.extend_from_slice(unended);
    batch.extend_from_slice(line);
    batch.push(b'\n');
    if !unended.is_empty() {
        *unended = Vec::new();
    }
}

/// Writes as much as possible; returns the number of bytes, and the error that stopped it.
fn write_some(file: &mut File, mut bytes: &[u8]) -> (usize, Option<io::Error>) {
    let all = bytes.len();
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return (all - bytes.len(), Some(io::ErrorKind::WriteZero.into())),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (all - bytes.len(), Some(error)),
        }
    }
    (all, None)
}

/// Truncates the last bytes of a file.
fn shorten(file: &File, by: u64) -> io::Result<()> {
    if by == 0 {
        return Ok(());
    }
    file.set_len(file.metadata()?.len().saturating_sub(by))
}

/// Opens with O_NONBLOCK: a FIFO in the file's place must not block. And without symlinks: a container that sees its
/// logs in a volume could otherwise have its output appended to any file of the host.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(openat2(CWD, path, flags, Mode::from_raw_mode(0o640), ResolveFlags::NO_SYMLINKS)?.into())
}

#[cfg(test)]
mod tests;
