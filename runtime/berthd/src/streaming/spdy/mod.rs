//! SPDY/3.1 as the clients of Kubernetes speak it: streams that they open over one connection.
//!
//! Their library has no flow control: it neither sends WINDOW_UPDATE nor heeds it. So a slow side delays the other by
//! TCP alone, and window updates are ignored here too. The server opens no streams, though the protocol would allow it.
//!
//! <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>

mod collect;
mod connection;
mod dictionary;
pub(super) mod frame;
#[cfg(feature = "fuzz")]
pub(crate) mod fuzz;
mod headers;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use dictionary::DICTIONARY;

pub(super) use collect::collect;
pub(super) use connection::{Acceptor, Incoming, Stream, connection};

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The client does not speak the protocol.
    #[error("SPDY: {0}")]
    Malformed(&'static str),
    /// The connection is broken.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}
