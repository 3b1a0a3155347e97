//! Output of a process to a log, a FIFO or a file: one task per stream.

use super::attached::AttachedReaders;
use super::cri_log::{self, CriLog, Stream};
use super::{READER_TIMEOUT, ReaderPolicy, fifo};
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Default capacity of a pipe.
const PIPE_CAPACITY_BYTES: usize = 64 * 1024;
/// Size of the buffer of each stream that goes to a FIFO.
const FIFO_BUFFER_BYTES: usize = 16 * 1024;

/// At least as much as a pipe or a terminal can hold when its process ends.
const MAX_PIPE_BYTES: usize = 2 * PIPE_CAPACITY_BYTES;

thread_local! {
    /// Read buffer shared by all streams: filled and emptied without an await in between.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Destination of output.
#[derive(Debug)]
pub(super) enum Sink {
    /// Read and dropped; a full terminal would block the process.
    Discard,
    Log(Arc<CriLog>, Stream),
    File(OwnedFd),
    Fifo(AsyncFd<OwnedFd>, ReaderPolicy),
}

/// The task that reads one stream.
#[derive(Debug)]
pub(super) struct OutputPump {
    task: JoinHandle<()>,
    ending: watch::Sender<bool>,
    /// Time for the reader to take the last bytes.
    reader_timeout: Duration,
    attached: Arc<AttachedReaders>,
}

impl OutputPump {
    pub(super) fn start(source: Arc<AsyncFd<OwnedFd>>, sink: Sink) -> Self {
        let (ending, ended) = watch::channel(false);
        let attached = AttachedReaders::new();
        let reader_timeout = match sink {
            // No limit: such a reader reads on or leaves, and leaving is an error that is noticed.
            Sink::Fifo(_, ReaderPolicy::BreakPipe) => Duration::MAX,
            _ => READER_TIMEOUT,
        };
        let task = tokio::spawn(pump(source, sink, ended, Arc::clone(&attached)));
        Self { task, ending, reader_timeout, attached }
    }

    /// Adds a reader, at the other end of `fifo`.
    pub(super) fn attach(&self, fifo: OwnedFd) -> io::Result<()> {
        self.attached.add(fifo)
    }

    /// Waits at most `time_limit` for the stream's end; then reads only what is in it.
    pub(super) async fn finish(&mut self, time_limit: Duration) {
        if timeout(time_limit, &mut self.task).await.is_err() {
            self.ending.send_replace(true);
            if timeout(self.reader_timeout, &mut self.task).await.is_err() {
                self.task.abort();
            }
        }
    }
}

impl Drop for OutputPump {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pump(
    source: Arc<AsyncFd<OwnedFd>>,
    sink: Sink,
    ending: watch::Receiver<bool>,
    attached: Arc<AttachedReaders>,
) {
    match sink {
        Sink::Fifo(fifo, readers) => {
            into_fifo(&source, &fifo, ending, &attached).await;
            if readers == ReaderPolicy::Block {
                // An error changes nothing: the FIFO is closed in any case.
                let _ = fifo::close_writer(fifo).await;
            }
        }
        Sink::Discard => drain(&source, ending, |bytes| attached.write(bytes)).await,
        Sink::File(file) => {
            let mut file = File::from(file);
            let take = |bytes: &[u8]| {
                // A full disk must not block the process. Missing output cannot be marked in a plain file.
                drop(file.write_all(bytes));
                attached.write(bytes);
            };
            drain(&source, ending, take).await;
        }
        Sink::Log(log, stream) => {
            let take = |bytes: &[u8]| {
                log.append(stream, bytes);
                attached.write(bytes);
            };
            drain(&source, ending, take).await;
            log.end(stream);
        }
    }
    attached.close();
    READ_BUFFER.take();
    cri_log::release();
}

/// Passes everything to `take` until the stream ends or, once `ending` is set, until it is empty.
async fn drain(
    source: &AsyncFd<OwnedFd>,
    mut ending: watch::Receiver<bool>,
    mut take: impl FnMut(&[u8]) + Send,
) {
    // A short read means that a pipe is empty; a terminal may hold more.
    let is_pipe = fstat(source).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    while let Some(waited) = ready(source, &mut ending).await {
        let read = READ_BUFFER.with_borrow_mut(|scratch| {
            scratch.reserve(PIPE_CAPACITY_BYTES);
            let read = read(source, scratch);
            if read == Read::Some {
                take(scratch);
                if is_pipe && scratch.len() < scratch.capacity() && waited == Ready::Stream {
                    await_next_event(source);
                    return Read::Nothing;
                }
            }
            read
        });
        match read {
            Read::Some => tokio::task::yield_now().await,
            Read::End => return,
            Read::Nothing if waited == Ready::Ending => return,
            Read::Nothing => {}
        }
    }
}

async fn into_fifo(
    source: &AsyncFd<OwnedFd>,
    fifo: &AsyncFd<OwnedFd>,
    mut ending: watch::Receiver<bool>,
    attached: &AttachedReaders,
) {
    let mut buffer = Vec::with_capacity(FIFO_BUFFER_BYTES);
    let mut rest = MAX_PIPE_BYTES;
    while let Some(waited) = ready(source, &mut ending).await {
        match read(source, &mut buffer) {
            // Another process that holds the pipe prints as fast as it is read.
            Read::Some if rest == 0 => return,
            Read::Some => {
                if waited == Ready::Ending {
                    rest = rest.saturating_sub(buffer.len());
                }
                attached.write(&buffer);
                if write_all(fifo, &buffer).await.is_err() {
                    return;
                }
            }
            Read::Nothing if waited == Ready::Stream => {}
            _ => return,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ready {
    Stream,
    Ending,
}

async fn ready(source: &AsyncFd<OwnedFd>, ending: &mut watch::Receiver<bool>) -> Option<Ready> {
    if *ending.borrow() {
        return Some(Ready::Ending);
    }
    tokio::select! {
        ready = source.readable() => {
            ready.ok()?.retain_ready();
            Some(Ready::Stream)
        }
        changed = ending.changed() => changed.ok().map(|()| Ready::Ending),
    }
}

/// Result of a non-blocking read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Bytes, now in the buffer.
    Some,
    /// No bytes at the moment.
    Nothing,
    /// The other end is closed, or an error.
    End,
}

/// Reads up to the capacity of the buffer, which is emptied first. Does not wait for a readiness event.
pub fn read(source: &AsyncFd<OwnedFd>, buffer: &mut Vec<u8>) -> Read {
    buffer.clear();
    loop {
        match rustix::io::read(source, spare_capacity(buffer)) {
            Ok(0) => return Read::End,
            Ok(_) => return Read::Some,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                await_next_event(source);
                return Read::Nothing;
            }
            // EIO: the other end of a terminal is closed.
            Err(_) => return Read::End,
        }
    }
}

/// Bytes in a pipe.
pub fn bytes_in_pipe(source: &AsyncFd<OwnedFd>) -> usize {
    rustix::io::ioctl_fionread(source).map_or(0, |bytes| bytes as usize)
}

/// Clears readiness, so that the next `readable()` waits. No event is missed: the runtime has one thread, so it has not
/// polled since the read.
fn await_next_event(source: &AsyncFd<OwnedFd>) {
    let nothing: io::Result<()> =
        source.try_io(Interest::READABLE, |_| Err(io::ErrorKind::WouldBlock.into()));
    drop(nothing);
}

/// Writes everything, waiting while there is no room.
pub(super) async fn write_all(sink: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let write = |fd: &OwnedFd| Ok(rustix::io::write(fd, bytes)?);
        let written = match sink.async_io(Interest::WRITABLE, write).await {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            other => other?,
        };
        bytes = &bytes[written..];
    }
    Ok(())
}
