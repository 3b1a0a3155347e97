//! The caller's side of named pipes.

use crate::fixture::Shim;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use tokio::task::{JoinHandle, spawn_blocking};

/// Makes a FIFO; returns its read end, non-blocking, and its path.
pub fn fifo(shim: &Shim, name: &str) -> (File, String) {
    let path = shim.path(name);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let nonblocking = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
    (nonblocking, path.display().to_string())
}

/// Makes reads block.
pub fn blocking(reader: File) -> File {
    let flags = rustix::fs::fcntl_getfl(&reader).unwrap();
    rustix::fs::fcntl_setfl(&reader, flags - rustix::fs::OFlags::NONBLOCK).unwrap();
    reader
}

/// Reads to the end. The other end must be open already.
pub fn all_of(reader: File) -> JoinHandle<String> {
    let reader = blocking(reader);
    spawn_blocking(move || {
        let (mut text, mut reader) = (String::new(), reader);
        reader.read_to_string(&mut text).unwrap();
        text
    })
}

pub fn writer(path: &str) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}
