//! The streams of a command: the client opens one for each, and names it in a header field.

use std::time::Duration;

use super::{Acceptor, Incoming, Stream};
use crate::{
    container::RequestedStreams,
    streaming::{command::Streams, protocol::Protocol, resize::Sizes},
};

/// How long a client may take to open the streams that it asked for; as in kubelet.
const OPEN_STREAMS_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits for the streams that were `wanted`, and refuses all others from then on; `None` when they do not come in time.
pub(in crate::streaming) async fn collect(
    acceptor: &mut Acceptor,
    wanted: RequestedStreams,
    protocol: Protocol,
) -> Option<Streams> {
    tokio::time::timeout(OPEN_STREAMS_TIMEOUT, Collected::new(wanted, protocol).complete(acceptor))
        .await
        .ok()
        .flatten()
}

/// The streams opened so far, and the names of those still expected.
struct Collected {
    expected: Vec<&'static str>,
    streams: Vec<(&'static str, Stream)>,
}

impl Collected {
    fn new(wanted: RequestedStreams, protocol: Protocol) -> Self {
        let all = [
            ("error", true),
            ("stdin", wanted.stdin),
            ("stdout", wanted.stdout),
            ("stderr", wanted.stderr && !wanted.tty),
            ("resize", wanted.tty && protocol.resizes()),
        ];
        let expected = all.into_iter().filter(|(_, wanted)| *wanted).map(|(name, _)| name).collect();
        Self { expected, streams: Vec::new() }
    }

    async fn complete(mut self, acceptor: &mut Acceptor) -> Option<Streams> {
        while !self.expected.is_empty() {
            let incoming = acceptor.next().await?;
            match self.place(&incoming) {
                Some(name) => self.streams.push((name, acceptor.accept(incoming))),
                None => acceptor.refuse(&incoming),
            }
        }
        acceptor.close();
        Some(Streams {
            stdin: self.take("stdin").map(|stream| stream.inbox),
            stdout: self.take("stdout").map(|stream| stream.outlet),
            stderr: self.take("stderr").map(|stream| stream.outlet),
            resize: self.take("resize").map(|stream| Sizes::new(stream.inbox)),
            error: self.take("error")?.outlet,
        })
    }

    /// Returns the name of this stream, and expects it no longer; `None` when it is not expected.
    fn place(&mut self, incoming: &Incoming) -> Option<&'static str> {
        let name = incoming.headers.get("streamtype")?;
        let at = self.expected.iter().position(|&expected| expected == name)?;
        Some(self.expected.swap_remove(at))
    }

    fn take(&mut self, name: &str) -> Option<Stream> {
        let at = self.streams.iter().position(|(known, _)| *known == name)?;
        Some(self.streams.swap_remove(at).1)
    }
}
