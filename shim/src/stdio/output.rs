//! From a process to a log, a FIFO or a file: one task per stream.

use super::attached::Attached;
use super::cri_log::{self, CriLog, Stream};
use super::{READER_PATIENCE, Readers, fifo};
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

/// As much as a pipe holds by default.
const BUFFER: usize = 64 * 1024;
/// For each stream that leads into a FIFO.
const FIFO_BUFFER: usize = 16 * 1024;

/// No less than what a pipe or a terminal can hold when its process ends.
const HELD: usize = 2 * BUFFER;

thread_local! {
    /// Shared by all streams: it is filled and emptied again without waiting in between.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Where output goes.
#[derive(Debug)]
pub(super) enum Sink {
    /// Read, because a terminal would block otherwise, and forgotten.
    Discard,
    Log(Arc<CriLog>, Stream),
    File(OwnedFd),
    Fifo(AsyncFd<OwnedFd>, Readers),
}

/// The task that reads one stream.
#[derive(Debug)]
pub(super) struct OutputPump {
    task: JoinHandle<()>,
    ending: watch::Sender<bool>,
    /// How long the last bytes may take.
    reader_patience: Duration,
    attached: Arc<Attached>,
}

impl OutputPump {
    pub(super) fn start(source: Arc<AsyncFd<OwnedFd>>, sink: Sink) -> Self {
        let (ending, ended) = watch::channel(false);
        let attached = Attached::nobody();
        let reader_patience = match sink {
            // It reads on, or leaves, which is noticed.
            Sink::Fifo(_, Readers::Stay) => Duration::MAX,
            _ => READER_PATIENCE,
        };
        let task = tokio::spawn(pump(source, sink, ended, Arc::clone(&attached)));
        Self { task, ending, reader_patience, attached }
    }

    /// One more reader, at the other end of `fifo`.
    pub(super) fn attach(&self, fifo: OwnedFd) -> io::Result<()> {
        self.attached.join(fifo)
    }

    /// Waits for the stream's end for so long; then only for what is there already.
    pub(super) async fn finish(&mut self, patience: Duration) {
        if timeout(patience, &mut self.task).await.is_err() {
            self.ending.send_replace(true);
            if timeout(self.reader_patience, &mut self.task).await.is_err() {
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
    attached: Arc<Attached>,
) {
    match sink {
        Sink::Fifo(fifo, readers) => {
            into_fifo(&source, &fifo, ending, &attached).await;
            if readers == Readers::Return {
                // What cannot be closed in order is closed all the same.
                let _ = fifo::close_writer(fifo).await;
            }
        }
        Sink::Discard => take_all(&source, ending, |bytes| attached.pass(bytes)).await,
        Sink::File(file) => {
            let mut file = File::from(file);
            let take = |bytes: &[u8]| {
                // A full disk must not stop the process; a plain file has no other way to say that something is missing.
                drop(file.write_all(bytes));
                attached.pass(bytes);
            };
            take_all(&source, ending, take).await;
        }
        Sink::Log(log, stream) => {
            let take = |bytes: &[u8]| {
                log.append(stream, bytes);
                attached.pass(bytes);
            };
            take_all(&source, ending, take).await;
            log.end(stream);
        }
    }
    attached.end();
    SCRATCH.take();
    cri_log::release();
}

/// Hands on everything until the end of the stream, or, once `ending` is set, until nothing more is there.
async fn take_all(
    source: &AsyncFd<OwnedFd>,
    mut ending: watch::Receiver<bool>,
    mut take: impl FnMut(&[u8]) + Send,
) {
    // A pipe that gave less than was asked for is empty; a terminal may have more.
    let is_pipe = fstat(source).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
    while let Some(waited) = ready(source, &mut ending).await {
        let read = SCRATCH.with_borrow_mut(|scratch| {
            scratch.reserve(BUFFER);
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
    attached: &Attached,
) {
    let mut buffer = Vec::with_capacity(FIFO_BUFFER);
    let mut rest = HELD;
    while let Some(waited) = ready(source, &mut ending).await {
        match read(source, &mut buffer) {
            // Someone else goes on printing as fast as it is read.
            Read::Some if rest == 0 => return,
            Read::Some => {
                if waited == Ready::Ending {
                    rest = rest.saturating_sub(buffer.len());
                }
                attached.pass(&buffer);
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

/// What a non-blocking read gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// The buffer holds it.
    Some,
    /// Nothing now.
    Nothing,
    /// The other side is closed, or broken.
    End,
}

/// Fills an empty buffer, as far as its capacity goes, with what is there, whether or not the runtime has heard of it yet.
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
            // A terminal whose other side is closed says EIO.
            Err(_) => return Read::End,
        }
    }
}

/// How many bytes a pipe holds now.
pub fn held(source: &AsyncFd<OwnedFd>) -> usize {
    rustix::io::ioctl_fionread(source).map_or(0, |bytes| bytes as usize)
}

/// Nothing is there, so the next `readable()` has to wait. Nothing can be missed: the runtime has one thread, so no new event
/// was taken from the kernel since the read.
fn await_next_event(source: &AsyncFd<OwnedFd>) {
    let nothing: io::Result<()> =
        source.try_io(Interest::READABLE, |_| Err(io::ErrorKind::WouldBlock.into()));
    drop(nothing);
}

/// Writes everything, waiting for room.
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
