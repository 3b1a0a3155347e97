//! The streaming server: it serves the URLs that Exec, Attach and PortForward return.
//!
//! ```text
//!  the call   -- issue -->   a URL with a token, good once and for a minute
//!  the client -- HTTP/1.1, redeem, upgrade -->   SPDY/3.1 streams or WebSocket messages
//!                                                  |-- command: standard streams of a process in a container
//!                                                  '-- forward: connections to ports of a pod
//! ```
//!
//! One client is one task: first HTTP, then reader, writer and work beside each other (`connection.rs`). When any of
//! them finds that the client is gone, the task ends and everything that was done for the client with it. Behind the
//! two transports all is alike: bytes from the client come out of an [`inbox::Inbox`], bytes to it go into an
//! [`outlet::Outlet`].

mod command;
mod connection;
mod forward;
mod idle;
mod inbox;
mod negotiate;
mod outcome;
mod outlet;
mod pending_clients;
mod protocol;
mod resize;
mod server;
mod session;
pub(crate) mod spdy;
#[cfg(test)]
mod testing;
mod tls;
mod token;
pub(crate) mod websocket;

pub use server::Server;
pub use token::Tokens;

use crate::container::RequestedStreams;

/// The operation that a client is admitted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Access to the standard streams of a process.
    Command(Command),
    /// Access to ports of a pod.
    Forward {
        /// Id of the pod.
        pod: String,
    },
}

/// A process in a container, and the streams that are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Id of the container.
    pub container: String,
    /// The command to run in it; `None` stands for the container's own process.
    pub args: Option<Vec<String>>,
    /// The streams that are wanted.
    pub wanted: RequestedStreams,
}

impl Request {
    /// Returns the first part of the request's path.
    fn path(&self) -> &'static str {
        match self {
            Self::Command(Command { args: Some(_), .. }) => "exec",
            Self::Command(Command { args: None, .. }) => "attach",
            Self::Forward { .. } => "portforward",
        }
    }
}
