//! Connections into a pod's network.
//!
//! A socket belongs to the network namespace in which it was made. Only socket(2) runs inside, on a thread that ends
//! afterwards; connect(2) and the rest work as for any other socket.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{Pod, PodState};
use crate::{
    error::{Error, Kind, Result},
    network::inside,
};

const PATIENCE: Duration = Duration::from_secs(10);
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

pub(super) async fn dial(pod: &Pod, port: u16) -> Result<TcpStream> {
    if pod.state != PodState::Ready {
        return Err(Error::new(Kind::FailedPrecondition, format!("pod {} is not ready", pod.id)));
    }
    if port == 0 {
        return Err(Error::new(Kind::InvalidArgument, "port 0 is none to connect to"));
    }
    let step = || format!("connect to port {port} in pod {}", pod.id);
    match timeout(PATIENCE, connect(pod, port)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Error::caused(kind_of(&error), step(), error)),
        Err(_) => Err(Error::new(Kind::DeadlineExceeded, format!("{}: no answer for 10 s", step()))),
    }
}

/// Tries IPv4 loopback, then IPv6, and returns the first connection. When both fail, returns the first error.
async fn connect(pod: &Pod, port: u16) -> io::Result<TcpStream> {
    let mut failed = None;
    for address in LOOPBACK.map(|ip| SocketAddr::new(ip, port)) {
        let socket = socket(pod.netns.clone(), address).await;
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

fn kind_of(error: &io::Error) -> Kind {
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => Kind::Unavailable,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests;
