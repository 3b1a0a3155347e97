//! Port-forward: one connection to a port of the pod for every connection that the client accepts at its end.
//!
//! The client opens two streams for each, which carry the same request id: one for data, one for an error message.
//! Several at once are the rule; each pair is a task of its own.

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    task::JoinSet,
    time::Instant,
};
use tracing::debug;

use super::{
    inbox::{Copied, Inbox},
    outlet::Outlet,
    session::Behind,
    spdy::{Acceptor, Incoming, Stream},
};
use crate::pod::Pods;

/// Limit of a client's connections at a time.
const MAX_CONNECTIONS: usize = 1024;
/// How long one stream of a pair may wait for the other; as in kubelet.
const PAIR_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest id of a pair in bytes. Clients send small numbers.
const MAX_REQUEST_ID_BYTES: usize = 64;

/// Serves every pair of streams that the client opens, until it disconnects or the daemon stops. All connections are
/// closed when this ends.
pub(super) async fn serve(mut acceptor: Acceptor, behind: &Behind, pod: &str) {
    let mut waiting = Waiting::default();
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = acceptor.next() => incoming,
            Some(_) = connections.join_next() => continue,
            () = behind.stopping.cancelled() => return,
        };
        let Some(incoming) = incoming else { return };
        waiting.forget_late();
        let room = connections.len() < MAX_CONNECTIONS;
        let Some(ask) = Ask::read(&incoming).filter(|ask| room && waiting.wants(ask)) else {
            acceptor.refuse(&incoming);
            continue;
        };
        let stream = acceptor.accept(incoming);
        if let Some((port, data, error)) = waiting.add(ask, stream) {
            let (pods, pod) = (behind.pods.clone(), pod.to_owned());
            connections.spawn(async move { forward(&pods, &pod, port, data, error).await });
        }
    }
}

/// Purpose of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ask {
    /// Request id, the same for the two streams of a pair.
    request: String,
    kind: Kind,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

impl Ask {
    /// Reads the headers; `None` when one is missing or invalid.
    fn read(incoming: &Incoming) -> Option<Self> {
        let headers = &incoming.headers;
        let port = headers.get("port")?.parse().ok().filter(|&port| port > 0)?;
        let kind = match headers.get("streamtype")? {
            "data" => Kind::Data,
            "error" => Kind::Error,
            _ => return None,
        };
        // Clients that send no id open the stream for errors first, and the other directly after (id + 2).
        let first = if kind == Kind::Data { incoming.id.wrapping_sub(2) } else { incoming.id };
        let request = headers.get("requestid").map_or_else(|| first.to_string(), str::to_owned);
        (request.len() <= MAX_REQUEST_ID_BYTES).then_some(Self { request, kind, port })
    }
}

/// Streams whose other half has not come yet.
#[derive(Debug, Default)]
struct Waiting(HashMap<String, (Kind, Instant, Stream)>);

impl Waiting {
    fn forget_late(&mut self) {
        self.0.retain(|_, (_, since, _)| since.elapsed() < PAIR_TIMEOUT);
    }

    /// Whether this stream begins or completes a pair.
    fn wants(&self, ask: &Ask) -> bool {
        match self.0.get(&ask.request) {
            Some((kind, ..)) => *kind != ask.kind,
            None => self.0.len() < MAX_CONNECTIONS,
        }
    }

    /// Adds a stream. Returns the port and the streams for data and for errors, once both are there.
    fn add(&mut self, ask: Ask, stream: Stream) -> Option<(u16, Stream, Stream)> {
        match self.0.entry(ask.request) {
            Entry::Vacant(place) => {
                place.insert((ask.kind, Instant::now(), stream));
                None
            }
            Entry::Occupied(place) => {
                let (_, _, other) = place.remove();
                let (data, error) = if ask.kind == Kind::Data { (stream, other) } else { (other, stream) };
                Some((ask.port, data, error))
            }
        }
    }
}

async fn forward(pods: &Pods, pod: &str, port: u16, data: Stream, error: Stream) {
    let served = match pods.dial(pod, port).await {
        Ok(connection) => {
            let _ = connection.set_nodelay(true);
            let (from, to) = connection.into_split();
            join(from, to, data, &error.outlet).await
        }
        Err(failed) => refuse(&format!("forward port {port} to pod {pod}: {failed}"), &data, &error).await,
    };
    if let Err(error) = served {
        debug!(pod, port, %error, "a forwarded connection broke off");
    }
}

async fn refuse(why: &str, data: &Stream, error: &Stream) -> io::Result<()> {
    error.outlet.send(why.as_bytes()).await?;
    error.outlet.finish().await?;
    data.outlet.reset().await
}

/// Copies both ways until both directions have ended or the client resets the stream. Each direction ends by itself.
async fn join(
    mut from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    data: Stream,
    error: &Outlet,
) -> io::Result<()> {
    let Stream { inbox, outlet } = data;
    let down = async {
        match outlet.pump(&mut from).await {
            Ok(()) => outlet.finish().await?,
            Err(_) => outlet.reset().await?,
        }
        // Clients wait for the end of this stream before they close the connection.
        error.finish().await
    };
    tokio::try_join!(up(inbox, to), down).map(drop)
}

/// Copies from the client to the pod. A pod that reads no more may still send.
async fn up(mut inbox: Inbox, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    match inbox.copy(&mut to).await {
        Ok(Copied::All) => to.shutdown().await.or(Ok(())),
        Ok(Copied::Reset) => Err(io::ErrorKind::ConnectionReset.into()),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
