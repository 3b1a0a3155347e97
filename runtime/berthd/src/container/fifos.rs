//! The FIFOs between a session and a shim: one directory per session, one FIFO per stream.
//!
//! Nothing here blocks on the other side: FIFOs are opened non-blocking, and the reading ends are open before the shim
//! is asked to open its own.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, FileType, Mode, OFlags, mknodat},
    io::Errno,
    pipe::fcntl_setpipe_size,
};
use tokio::net::unix::pipe;

use super::session::RequestedStreams;
use crate::{
    error::{During, Error, Kind, Result},
    layout::remove_directory,
    runtime::Shared,
};

/// Requested buffer size of FIFOs that are read, in bytes: fewer wake-ups for processes that print much.
const PIPE_BUFFER_BYTES: usize = 1 << 20;

/// Name of the FIFO for the container's input in its bundle.
pub(super) const STDIN: &str = "stdin";

/// The FIFOs of a session.
#[derive(Debug)]
pub(super) struct Fifos {
    directory: PathBuf,
    wanted: RequestedStreams,
}

impl Fifos {
    /// Makes the wanted FIFOs in a new directory; on failure removes it again.
    pub(super) fn make(directory: PathBuf, wanted: RequestedStreams) -> Result<Self> {
        fs::create_dir_all(&directory).during(|| format!("create {}", directory.display()))?;
        let fifos = Self { directory, wanted };
        match fifos.fill() {
            Ok(()) => Ok(fifos),
            Err(error) => {
                fifos.remove();
                Err(error)
            }
        }
    }

    fn fill(&self) -> Result<()> {
        for path in [self.stdin(), self.stdout(), self.stderr()].into_iter().flatten() {
            let made = mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o600), 0);
            made.map_err(std::io::Error::from).during(|| format!("make the pipe {}", path.display()))?;
        }
        Ok(())
    }

    /// The FIFOs that an earlier daemon left in `directory`.
    pub(super) fn existing(directory: PathBuf) -> Self {
        Self { directory, wanted: RequestedStreams::default() }
    }

    /// Path of the FIFO for the process's input, if wanted.
    pub(super) fn stdin(&self) -> Option<PathBuf> {
        self.wanted.stdin.then(|| self.directory.join("stdin"))
    }

    /// Path of the FIFO for the process's output, if wanted.
    pub(super) fn stdout(&self) -> Option<PathBuf> {
        self.wanted.stdout.then(|| self.directory.join("stdout"))
    }

    /// Path of the FIFO for the process's errors, if wanted and not merged into `stdout` by a terminal.
    pub(super) fn stderr(&self) -> Option<PathBuf> {
        (self.wanted.stderr && !self.wanted.tty).then(|| self.directory.join("stderr"))
    }

    /// Removes the directory with the FIFOs. Descriptors that are open stay usable.
    pub(super) fn remove(&self) {
        if let Err(error) = remove_directory(&self.directory) {
            tracing::warn!(%error, "could not remove the pipes of a session");
        }
    }
}

/// Returns the directory of a container's session directories, each named by the session's id.
pub(super) fn directory(shared: &Shared, container: &str) -> PathBuf {
    shared.layout.bundle(container).join("sessions")
}

/// Returns a path in the form that shims take; empty for none.
pub(super) fn name_of(path: Option<PathBuf>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

/// Opens the reading end.
pub(super) fn reader(path: &Path) -> Result<pipe::Receiver> {
    let opened = pipe::OpenOptions::new().open_receiver(path);
    let reader = opened.during(|| format!("open the pipe {}", path.display()))?;
    // Fails beyond the user's limit for pipe buffers (pipe(7)); then the default size stays.
    let _ = fcntl_setpipe_size(&reader, PIPE_BUFFER_BYTES);
    Ok(reader)
}

/// Opens the writing end. The reading end must already be open, or open(2) fails with ENXIO.
pub(super) fn writer(path: &Path) -> Result<pipe::Sender> {
    let opened = pipe::OpenOptions::new().open_sender(path);
    opened.during(|| format!("open the pipe {}", path.display()))
}

/// Opens the writing end of the FIFO that is the container's input.
///
/// # Errors
///
/// `FailedPrecondition` when no process reads it any more.
pub(super) fn input_of(shared: &Shared, container: &str) -> Result<pipe::Sender> {
    let path = shared.layout.bundle(container).join(STDIN);
    match pipe::OpenOptions::new().open_sender(&path) {
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => {
            let text = format!("the input of container {container} has ended");
            Err(Error::new(Kind::FailedPrecondition, text))
        }
        opened => opened.during(|| format!("open the pipe {}", path.display())),
    }
}

/// Opens the FIFO for reading and writing, so that others can open either end without waiting for the opposite one.
pub(super) fn both_ends(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let opened = options.read(true).write(true).custom_flags(flags).open(path);
    opened.during(|| format!("open the pipe {}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_pipes_are_made_or_nothing_is() {
        let directory = tempfile::tempdir().unwrap();
        let wanted = RequestedStreams { stdin: true, stdout: true, ..RequestedStreams::default() };
        let fifos = Fifos::make(directory.path().join("a"), wanted).unwrap();
        assert!(fifos.stdin().unwrap().exists() && fifos.stdout().unwrap().exists());
        let taken = directory.path().join("b");
        fs::create_dir(&taken).unwrap();
        fs::write(taken.join("stdout"), "").unwrap();
        Fifos::make(taken.clone(), wanted).unwrap_err();
        assert!(!taken.exists());
    }
}
