//! Connections to ports inside a network namespace.
//!
//! A socket belongs to the network namespace in which it was made. Only socket(2) runs inside, on a thread that ends
//! afterwards; connect(2) and the rest work as for any other socket.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::netns::inside;

/// Time limit of a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Connects to `port` of the IPv4 loopback, or else of the IPv6 loopback, in the network namespace pinned at `netns`, or in the
/// host's for `None`.
///
/// # Errors
///
/// When both fail the first error; `TimedOut` after 10 s.
pub async fn dial(netns: Option<PathBuf>, port: u16) -> io::Result<TcpStream> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no answer for 10 s");
    timeout(CONNECT_TIMEOUT, connect(netns, port)).await.unwrap_or_else(|_| Err(late()))
}

async fn connect(netns: Option<PathBuf>, port: u16) -> io::Result<TcpStream> {
    let mut failed = None;
    for address in LOOPBACK.map(|ip| SocketAddr::new(ip, port)) {
        let socket = socket(netns.clone(), address).await;
        let connected = match socket {
            Ok(socket) => socket.connect(address).await,
            Err(error) => Err(error),
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    Err(failed.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into()))
}

/// Makes a socket in the namespace pinned at `netns`, or in the host's for `None`.
async fn socket(netns: Option<PathBuf>, to: SocketAddr) -> io::Result<TcpSocket> {
    let make = move || if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    match netns {
        None => make(),
        Some(netns) => tokio::task::spawn_blocking(move || inside(&File::open(netns)?, make)).await?,
    }
}
