//! The standard streams: pipes or a terminal on the process's side, log files and FIFOs on the other.
//!
//! Streams are opened before the process exists ([`connect`]) and pumped afterwards ([`ShimStdio::start`]). The process
//! only holds the shim's own pipes or terminal (or a file that is appended to directly), so a reader that disconnects
//! or was never there cannot break it.

pub mod cri_log;
pub mod timestamp;
pub mod uri;

mod attached;
mod fifo;
mod input;
mod output;

use crate::init::Stdio;
use crate::sys::watched;
use cri_log::{CriLog, Stream};
use input::StdinPump;
use output::{OutputPump, Sink};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use uri::{Input, Output};

pub use output::{Read, bytes_in_pipe, read};

/// Time for a FIFO's reader to take the last bytes.
pub const READER_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 5_000 });

/// Maximum bytes that [`copy`] reads at once.
const COPY_CHUNK_BYTES: usize = 4096;
/// Maximum size of a file that [`copy`] appends to.
const MAX_COPY_BYTES: u64 = if cfg!(test) { 100_000 } else { 16 << 20 };

/// Destinations of one process's streams.
#[derive(Debug, Clone)]
pub struct Streams {
    stdin: Option<Input>,
    stdout: Output,
    stderr: Output,
    terminal: bool,
    readers: ReaderPolicy,
}

/// Effect on a process of the reader of its output FIFO leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReaderPolicy {
    /// The process blocks until a reader comes back; likewise before the first one comes.
    Block,
    /// The process gets EPIPE, if a reader was there when it started. While the reader stays, it may take any time for
    /// the last bytes.
    BreakPipe,
}

/// Failure to open a stream.
#[derive(Debug, thiserror::Error)]
#[error("open {}: {source}", path.display())]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

impl OpenError {
    /// The kind of failure.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl Streams {
    /// Parses the URIs of a request. A terminal has no separate stderr, so that one is ignored.
    pub fn parse(stdin: &str, stdout: &str, stderr: &str, terminal: bool) -> Result<Self, uri::Invalid> {
        let stderr = if terminal { Output::Null } else { Output::parse(stderr)? };
        let (stdin, stdout) = (Input::parse(stdin)?, Output::parse(stdout)?);
        Ok(Self { stdin, stdout, stderr, terminal, readers: ReaderPolicy::Block })
    }

    /// Changes the effect of readers that leave.
    pub fn with_reader_policy(self, readers: ReaderPolicy) -> Self {
        Self { readers, ..self }
    }
}

/// The shim's ends of the streams of a process that does not exist yet.
#[derive(Debug)]
pub struct ShimStdio {
    stdin: Option<(Input, AsyncFd<OwnedFd>, Option<OwnedFd>)>,
    outputs: Vec<(Stream, Option<OwnedFd>, Sink)>,
    readers: ReaderPolicy,
    log: Option<Arc<CriLog>>,
}

/// Opens everything; returns the process's ends and the shim's.
pub fn connect(streams: &Streams) -> Result<(Stdio, ShimStdio), OpenError> {
    let mut stdio = Stdio::default();
    let mut shim_stdio = ShimStdio { stdin: None, outputs: Vec::new(), readers: streams.readers, log: None };
    if let Some(input) = &streams.stdin {
        let fifo = at(&input.fifo, fifo::open_reader(&input.fifo))?;
        let writer = if streams.terminal { None } else { Some(at(&input.fifo, stdin_pipe(&mut stdio))?) };
        shim_stdio.stdin = Some((input.clone(), fifo, writer));
    }
    stdio.stdout = shim_stdio.add_output(&streams.stdout, Stream::Stdout, streams.terminal)?;
    if !streams.terminal {
        stdio.stderr = shim_stdio.add_output(&streams.stderr, Stream::Stderr, false)?;
    }
    Ok((stdio, shim_stdio))
}

impl ShimStdio {
    /// Opens one output; returns the process's end.
    fn add_output(
        &mut self,
        output: &Output,
        stream: Stream,
        terminal: bool,
    ) -> Result<Option<OwnedFd>, OpenError> {
        let (path, sink) = match output {
            Output::Null if !terminal => return Ok(None),
            Output::Null | Output::Discard => (Path::new("pipe"), Sink::Discard),
            Output::File(path) if !terminal => return at(path, append_to(path)).map(Some),
            Output::File(path) => (path.as_path(), Sink::File(at(path, append_to(path))?)),
            Output::Fifo(path) => (path.as_path(), at(path, open_sink(path, self.readers))?),
            Output::CriLog { path, max_line } => {
                (path.as_path(), Sink::Log(self.log(path, *max_line)?, stream))
            }
        };
        if terminal {
            self.outputs.push((stream, None, sink));
            return Ok(None);
        }
        let (reader, writer) = at(path, pipe())?;
        self.outputs.push((stream, Some(reader), sink));
        Ok(Some(writer))
    }

    /// Opens the log, or shares the one that the other stream has opened.
    fn log(&mut self, path: &Path, max_line: usize) -> Result<Arc<CriLog>, OpenError> {
        if let Some(log) = self.log.as_ref().filter(|log| log.path() == path) {
            return Ok(Arc::clone(log));
        }
        let log = Arc::new(at(path, CriLog::open(path, max_line))?);
        self.log = Some(Arc::clone(&log));
        Ok(log)
    }

    /// Starts pumping. `console` is the master of the process's terminal, if it has one.
    pub fn start(self, console: Option<OwnedFd>) -> io::Result<Pumps> {
        let console = console.map(asynchronous).transpose()?.map(Arc::new);
        let mut outputs = Vec::new();
        for (stream, reader, sink) in self.outputs {
            let source = match (reader, &console) {
                (Some(reader), _) => Arc::new(asynchronous(reader)?),
                (None, Some(console)) => Arc::clone(console),
                (None, None) => continue,
            };
            outputs.push((stream, OutputPump::start(source, sink)));
        }
        let stdin = match self.stdin {
            None => None,
            Some((input, fifo, writer)) => {
                let sink = match (writer, &console) {
                    (Some(writer), _) => Some(Arc::new(asynchronous(writer)?)),
                    (None, console) => console.clone(),
                };
                sink.map(|sink| StdinPump::start(input, fifo, sink))
            }
        };
        Ok(Pumps { stdin, outputs, console, log: self.log })
    }
}

/// The running pumps of one process.
#[derive(Debug, Default)]
pub struct Pumps {
    stdin: Option<StdinPump>,
    outputs: Vec<(Stream, OutputPump)>,
    console: Option<Arc<AsyncFd<OwnedFd>>>,
    log: Option<Arc<CriLog>>,
}

impl Pumps {
    /// The log, when output goes to one.
    pub fn log(&self) -> Option<Arc<CriLog>> {
        self.log.clone()
    }

    /// Closes the process's stdin once everything written so far has been passed on.
    pub fn close_stdin(&self) {
        if let Some(stdin) = &self.stdin {
            stdin.close();
        }
    }

    /// Becomes true when all input has been passed on; `None` for a process without input.
    pub fn input_ended(&self) -> Option<watch::Receiver<bool>> {
        self.stdin.as_ref().map(StdinPump::ended)
    }

    /// Copies output from now on to the FIFOs at these paths (empty: none), which must have readers. Each FIFO is closed
    /// when its stream ends, or at once if it has ended. Output that does not fit into a FIFO is lost to its reader.
    pub fn attach(&self, stdout: &str, stderr: &str) -> Result<(), OpenError> {
        let asked = [(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
        let mut asked = asked.into_iter().filter(|(_, path)| !path.is_empty());
        asked.try_for_each(|(stream, path)| self.attach_to(stream, Path::new(path)))
    }

    fn attach_to(&self, stream: Stream, path: &Path) -> Result<(), OpenError> {
        let fifo = at(path, fifo::open_for_reader(path))?;
        match self.outputs.iter().find(|(of, _)| *of == stream) {
            Some((_, pump)) => at(path, pump.attach(fifo)),
            None => Ok(()),
        }
    }

    /// Sets the size of the terminal in characters; does nothing without a terminal.
    pub fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        let Some(console) = &self.console else {
            return Ok(());
        };
        let size = rustix::termios::Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(console.get_ref(), size)?)
    }

    /// Called after the process's end: passes on the rest of its output and closes everything. Other holders of a pipe
    /// (a process that left the cgroup, a child that an exec left behind) get `time_limit`, then only what is in the pipe
    /// is read. A FIFO without reader is given up after [`READER_TIMEOUT`].
    pub async fn finish(mut self, time_limit: Duration) {
        drop(self.stdin.take());
        for (_, output) in &mut self.outputs {
            output.finish(time_limit).await;
        }
    }
}

/// Appends what is written to the FIFO `from` to the file `to`, for the life of this process. Bytes beyond 16 MiB, or
/// that cannot be written, are read and dropped, so that the writer never blocks.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (source, mut file) = (fifo::open_writer(from)?, File::from(append_to(to)?));
    let mut room = MAX_COPY_BYTES.saturating_sub(file.metadata()?.len());
    tokio::spawn(async move {
        let mut buffer = Vec::with_capacity(COPY_CHUNK_BYTES);
        while let Ok(mut ready) = source.readable().await {
            ready.retain_ready();
            if read(&source, &mut buffer) == Read::Some {
                buffer.truncate(usize::try_from(room).unwrap_or(usize::MAX));
                room -= buffer.len() as u64;
                let _ = file.write_all(&buffer);
            }
        }
    });
    Ok(())
}

fn stdin_pipe(stdio: &mut Stdio) -> io::Result<OwnedFd> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    stdio.stdin = Some(reader);
    Ok(writer)
}

/// Makes a pipe: the read end for the shim, the write end for the process.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

fn open_sink(path: &Path, readers: ReaderPolicy) -> io::Result<Sink> {
    if readers == ReaderPolicy::BreakPipe
        && let Ok(fifo) = fifo::open_for_reader(path)
    {
        return Ok(Sink::Fifo(asynchronous(fifo)?, ReaderPolicy::BreakPipe));
    }
    Ok(Sink::Fifo(fifo::open_writer(path)?, ReaderPolicy::Block))
}

/// Opens with O_NONBLOCK, because a FIFO in the file's place would block until it has a reader; then clears the flag.
fn append_to(path: &Path) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file.into())
}

/// Registers the shim's end with the runtime and makes it non-blocking; the process's end stays blocking.
pub fn asynchronous(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    fcntl_setfl(&fd, fcntl_getfl(&fd)? | OFlags::NONBLOCK)?;
    watched(fd)
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, OpenError> {
    result.map_err(|source| OpenError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
