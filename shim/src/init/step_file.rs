//! The current step of a stage, or of the process it makes, readable for the shim even while the writer hangs in the kernel.
//!
//! A memfd rather than a report: it is written with every mount, but read only on request.

use super::error::At;
use super::{Error, Step};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{pread, pwrite};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

/// Maximum length in bytes; longer than any path.
const MAX_TEXT_BYTES: usize = 8192;
/// Size of the length field before the text.
const LENGTH_FIELD_BYTES: usize = 4;

/// The step file of this process, if it is a stage or was made by one. Only until it closes all descriptors but its
/// socket.
static INSTALLED: OnceLock<OwnedFd> = OnceLock::new();

/// The memfd that holds the current step of one creation.
#[derive(Debug)]
pub struct StepFile(OwnedFd);

impl StepFile {
    /// An empty step file. Fails if no memfd can be made.
    pub fn new() -> Result<Self, Error> {
        let file = memfd_create("berth-step", MemfdFlags::CLOEXEC);
        Ok(Self(file.at(Step::Process, || "make a file in memory".into())?))
    }

    /// Called in the fork: later steps are written here. If it fails, the creation continues without a step file.
    pub(super) fn install(&self) {
        if let Ok(installed) = self.0.try_clone() {
            let _ = INSTALLED.set(installed);
        }
    }

    /// The last step written, a verb phrase; empty before the first.
    pub fn read(&self) -> String {
        let mut bytes = vec![0; LENGTH_FIELD_BYTES + MAX_TEXT_BYTES];
        let read = pread(&self.0, &mut bytes, 0).unwrap_or(0);
        text(&bytes[..read]).unwrap_or_default()
    }
}

fn text(bytes: &[u8]) -> Option<String> {
    let (head, text) = bytes.split_first_chunk::<LENGTH_FIELD_BYTES>()?;
    let length = usize::try_from(u32::from_ne_bytes(*head)).ok()?;
    Some(String::from_utf8_lossy(text.get(..length)?).into_owned())
}

/// The descriptor to keep open: a memfd, which gives access to nothing else.
pub(super) fn descriptor() -> Option<BorrowedFd<'static>> {
    INSTALLED.get().map(AsFd::as_fd)
}

/// Writes the current step, a verb phrase. Does nothing in a process without a step file.
pub(super) fn record(what: impl FnOnce() -> String) {
    let Some(installed) = INSTALLED.get() else { return };
    let what = what();
    let text = &what.as_bytes()[..what.len().min(MAX_TEXT_BYTES)];
    let head = u32::try_from(text.len()).unwrap_or(0).to_ne_bytes();
    // Errors are ignored: only the display depends on it.
    let _ = pwrite(installed, &[&head, text].concat(), 0);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_last_words_are_read_whole_and_none_before_the_first() {
        let step_file = StepFile::new().unwrap();
        assert_eq!(step_file.read(), "");
        for words in ["mount a long name", "wait"] {
            let head = u32::try_from(words.len()).unwrap().to_ne_bytes();
            pwrite(&step_file.0, &[&head, words.as_bytes()].concat(), 0).unwrap();
            assert_eq!(step_file.read(), words);
        }
    }
}
