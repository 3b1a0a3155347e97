//! Startup: containerd's command line, and both forms of its bootstrap protocol.
//!
//! `start` binds the socket, forks the server, prints the address and exits. The fork executes nothing again. Only if
//! the starter has not made a sealed copy of the program, `start` first executes itself from one. `delete` cleans up
//! after a shim that died. Without an action the server runs in the foreground.

mod delete;
mod features;
mod flags;
mod params;
pub(crate) mod program;
mod socket;
mod start;

pub use delete::delete;
pub use flags::{Action, Flags};
pub use start::{serve_here, start};

use crate::error::error_line;
use std::io;
use std::path::{Path, PathBuf};

/// Why the command line could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is invalid.
    #[error("{0}")]
    Usage(String),
    /// The parameters on standard input are for another shim.
    #[error("bootstrap parameters are for {got}, the command line is for {expected}")]
    #[allow(missing_docs)]
    WrongShim { got: String, expected: String },
    /// A system call failed.
    #[error("{doing} {}: {source}", path.display())]
    #[allow(missing_docs)]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// The cgroup of a dead shim's container could not be removed.
    #[error("clean up: {0}")]
    Cgroup(#[from] crate::cgroup::Error),
}

impl Error {
    /// The error with its causes, for standard error.
    pub fn line(&self) -> String {
        error_line(self)
    }
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| Error::Io { doing, path: path.to_owned(), source }
}

impl From<berth_failpoint::Injected> for Error {
    fn from(injected: berth_failpoint::Injected) -> Self {
        Self::Io { doing: "let fail", path: PathBuf::new(), source: injected.into() }
    }
}

/// Output of `-v`.
pub fn version() -> String {
    format!("containerd-shim-berth-v1 {}", env!("CARGO_PKG_VERSION"))
}

/// Output of `-info`: containerd's RuntimeInfo.
pub fn info() -> Vec<u8> {
    use containerd_shim_protos::protobuf::{Message, MessageField};
    use containerd_shim_protos::types::introspection::RuntimeInfo;
    let mut info = RuntimeInfo { name: "io.containerd.berth.v1".into(), ..Default::default() };
    info.features = MessageField::some(features::features());
    info.version.mut_or_insert_default().version = env!("CARGO_PKG_VERSION").into();
    info.write_to_bytes().unwrap_or_default()
}
