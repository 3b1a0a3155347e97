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
    session::SessionContext,
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
pub(super) async fn serve(mut acceptor: Acceptor, context: &SessionContext, pod: &str) {
    let mut unpaired = UnpairedStreams::default();
    let mut connections = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = acceptor.next() => incoming,
            Some(_) = connections.join_next() => continue,
            () = context.stopping.cancelled() => return,
        };
        let Some(incoming) = incoming else { return };
        unpaired.drop_expired();
        let room = connections.len() < MAX_CONNECTIONS;
        let Some(purpose) =
            StreamPurpose::read(&incoming).filter(|purpose| room && unpaired.accepts(purpose))
        else {
            acceptor.refuse(&incoming);
            continue;
        };
        let stream = acceptor.accept(incoming);
        if let Some((port, data, error)) = unpaired.add(purpose, stream) {
            let (pods, pod) = (context.pods.clone(), pod.to_owned());
            connections.spawn(async move { forward(&pods, &pod, port, data, error).await });
        }
    }
}

/// Purpose of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StreamPurpose {
    /// Request id, the same for the two streams of a pair.
    request: String,
    kind: StreamKind,
    port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamKind {
    Data,
    Error,
}

impl StreamPurpose {
    /// Reads the headers; `None` when one is missing or invalid.
    fn read(incoming: &Incoming) -> Option<Self> {
        let headers = &incoming.headers;
        let port = headers.get("port")?.parse().ok().filter(|&port| port > 0)?;
        let kind = match headers.get("streamtype")? {
            "data" => StreamKind::Data,
            "error" => StreamKind::Error,
            _ => return None,
        };
        // Clients that send no id open the stream for errors first, and the other directly after (id + 2).
        let first = if kind == StreamKind::Data { incoming.id.wrapping_sub(2) } else { incoming.id };
        let request = headers.get("requestid").map_or_else(|| first.to_string(), str::to_owned);
        (request.len() <= MAX_REQUEST_ID_BYTES).then_some(Self { request, kind, port })
    }
}

/// Streams whose other half has not come yet.
#[derive(Debug, Default)]
struct UnpairedStreams(HashMap<String, (StreamKind, Instant, Stream)>);

impl UnpairedStreams {
    fn drop_expired(&mut self) {
        self.0.retain(|_, (_, since, _)| since.elapsed() < PAIR_TIMEOUT);
    }

    /// Whether this stream begins or completes a pair.
    fn accepts(&self, purpose: &StreamPurpose) -> bool {
        match self.0.get(&purpose.request) {
            Some((kind, ..)) => *kind != purpose.kind,
            None => self.0.len() < MAX_CONNECTIONS,
        }
    }

    /// Adds a stream. Returns the port and the streams for data and for errors, once both are there.
    fn add(&mut self, purpose: StreamPurpose, stream: Stream) -> Option<(u16, Stream, Stream)> {
        match self.0.entry(purpose.request) {
            Entry::Vacant(place) => {
                place.insert((purpose.kind, Instant::now(), stream));
                None
            }
            Entry::Occupied(place) => {
                let (_, _, other) = place.remove();
                let (data, error) =
                    if purpose.kind == StreamKind::Data { (stream, other) } else { (other, stream) };
                Some((purpose.port, data, error))
            }
        }
    }
}

async fn forward(pods: &Pods, pod: &str, port: u16, data: Stream, error: Stream) {
    let served = match pods.dial(pod, port).await {
        Ok(connection) => {
            let _ = connection.set_nodelay(true);
            let (from, to) = connection.into_split();
            copy_both_ways(from, to, data, &error.outlet).await
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
async fn copy_both_ways(
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
    tokio::try_join!(copy_to_pod(inbox, to), down).map(drop)
}

/// Copies from the client to the pod. A pod that reads no more may still send.
async fn copy_to_pod(mut inbox: Inbox, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    match inbox.copy(&mut to).await {
        Ok(Copied::All) => to.shutdown().await.or(Ok(())),
        Ok(Copied::Reset) => Err(io::ErrorKind::ConnectionReset.into()),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
