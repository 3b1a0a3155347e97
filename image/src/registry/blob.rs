//! Streaming of blobs, resumed after broken connections.
//!
//! ```text
//!             open                     all bytes seen
//!   start ───────────▶ Reading ─────────────────────────▶ Over
//!                       │   ▲                              ▲
//!      connection broke │   │ reopened at the next byte    │ too many failures without progress,
//!                       ▼   │ (the same host or another)   │ or content that cannot be right
//!                      Broken ─────────────────────────────┘
//! ```

use bytes::{Buf, Bytes};
use futures::Stream;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use super::client::Get;
use super::error::{Error, Kind};
use super::hosts::Endpoint;
use super::progress::{ChunkResult, ProgressMonitor};
use super::route::{HostFailures, Route};

/// The content of a blob as it arrives.
///
/// The length is checked, the digest is not: the consumer hashes the stream in the same pass. A broken connection is
/// resumed at the next byte, at another host if need be, as long as there is progress.
#[derive(Debug)]
pub struct Blob {
    route: Route,
    get: Get,
    size: u64,
    received: u64,
    /// Index in the route of the host that was read from last.
    host: usize,
    /// Failures since the last byte arrived.
    failures: u32,
    /// Times in a row that a connection was too slow.
    slow: u32,
    /// Hosts (as [`Endpoint::host`]) that bytes came from, in the order of their first byte.
    sources: Vec<String>,
    state: State,
}

#[derive(Debug)]
enum State {
    Reading {
        response: Response,
        monitor: ProgressMonitor,
        /// Bytes to skip because the host sends them again.
        skip: u64,
    },
    /// Contains the failure, returned if the retries run out.
    Broken(Error),
    Over,
}

impl Blob {
    /// Opens the blob at the first host that has it. Failures that may pass are retried.
    pub(super) async fn open(route: Route, get: Get, size: u64) -> Result<Self, Error> {
        let sources = Vec::new();
        let state = State::Over;
        let mut blob = Self { route, get, size, received: 0, host: 0, failures: 0, slow: 0, sources, state };
        loop {
            match blob.connect().await {
                Err(error) if error.may_pass() => blob.fail(error),
                other => return other.map(|()| blob),
            }
            blob.wait().await?;
        }
    }

    /// Returns the promised size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the hosts that the bytes so far came from, as `host:port`.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Returns the next piece, `None` after the last one. After an error the stream is over.
    ///
    /// The future may be dropped and called again without losing a byte.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match &mut self.state {
                State::Over => return Ok(None),
                State::Broken(_) => self.reconnect().await?,
                State::Reading { response, monitor, .. } => match monitor.next_chunk(response).await {
                    ChunkResult::Bytes(bytes) => {
                        if let Some(fresh) = self.accept(bytes)? {
                            return Ok(Some(fresh));
                        }
                    }
                    _ if self.received == self.size => self.state = State::Over,
                    ChunkResult::End => self.connection_broke(None),
                    ChunkResult::Broken(error) => self.connection_broke(Some(error)),
                    ChunkResult::TooSlow => self.connection_too_slow(),
                },
            }
        }
    }

    /// Turns the blob into a [`Stream`] of its pieces.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
        futures::stream::try_unfold(self, async |mut blob| Ok(blob.chunk().await?.map(|chunk| (chunk, blob))))
    }

    /// Returns the part of `bytes` that was not received before.
    fn accept(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>, Error> {
        if let State::Reading { skip, monitor, .. } = &mut self.state {
            if monitor.has_kept_up() {
                self.slow = 0;
            }
            let passed = usize::try_from(*skip).unwrap_or(usize::MAX).min(bytes.len());
            *skip -= passed as u64;
            bytes.advance(passed);
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        self.received += bytes.len() as u64;
        self.failures = 0;
        if self.received > self.size {
            self.state = State::Over;
            return Err(Error::TooLarge {
                what: self.get.what.clone(),
                host: self.host_name(),
                limit: self.size,
            });
        }
        Ok(Some(bytes))
    }

    /// From Reading to Broken. After the second break without a byte in between, the next host is asked.
    fn connection_broke(&mut self, cause: Option<reqwest::Error>) {
        let error = Error::Truncated {
            what: self.get.what.clone(),
            host: self.host_name(),
            received: self.received,
            expected: self.size,
            source: cause.map(|error| Box::new(error.without_url())),
        };
        if self.failures > 0 {
            self.host = (self.host + 1) % self.route.endpoints.len();
        }
        self.fail(error);
    }

    /// From Reading to Broken because the host is too slow. The few bytes that came do not reset the failures.
    fn connection_too_slow(&mut self) {
        let (what, host, received) = (self.get.what.clone(), self.host_name(), self.received);
        let within = self.route.client.config.progress.within;
        self.host = (self.host + 1) % self.route.endpoints.len();
        self.slow += 1;
        self.failures = self.slow - 1;
        self.fail(Error::TooSlow { what, host, received, within });
    }

    fn fail(&mut self, error: Error) {
        self.failures += 1;
        self.state = State::Broken(error);
    }

    /// From Broken to Reading, to Broken again, or to Over with an error.
    async fn reconnect(&mut self) -> Result<(), Error> {
        self.wait().await?;
        match self.connect().await {
            Ok(()) => Ok(()),
            Err(error) if error.may_pass() || error.kind() == Kind::Unavailable => {
                self.fail(error);
                Ok(())
            }
            Err(error) => {
                self.state = State::Over;
                Err(error)
            }
        }
    }

    /// Pauses before the next try, or returns the last failure if the retries have run out.
    async fn wait(&mut self) -> Result<(), Error> {
        let State::Broken(why) = &self.state else { return Ok(()) };
        let retry = self.route.client.config.retry;
        let pause = (self.failures <= retry.limit).then(|| retry.pause(self.failures - 1, why)).flatten();
        if let Some(pause) = pause {
            tokio::time::sleep(pause).await;
            return Ok(());
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Broken(why) => Err(why),
            _ => Ok(()),
        }
    }

    /// Asks the hosts in turn for the missing bytes, beginning with the one that was read from last.
    async fn connect(&mut self) -> Result<(), Error> {
        let get = Get { offset: self.received, ..self.get.clone() };
        let mut host_failures = HostFailures::new(&get.what);
        let count = self.route.endpoints.len();
        for position in (self.host..count).chain(0..self.host) {
            let endpoint = &self.route.endpoints[position];
            if !host_failures.should_try(endpoint) {
                continue;
            }
            match open_at(&self.route, endpoint, &get, self.size).await {
                Ok((response, skip)) => {
                    self.host = self.route.confirm(position);
                    let source = self.route.endpoints[self.host].host();
                    if !self.sources.contains(&source) {
                        self.sources.push(source);
                    }
                    let monitor = ProgressMonitor::new(self.route.client.config.progress);
                    self.state = State::Reading { response, monitor, skip };
                    return Ok(());
                }
                Err(failure) => host_failures.add(position, endpoint, failure),
            }
        }
        Err(host_failures.into_error())
    }

    fn host_name(&self) -> String {
        self.route.endpoints[self.host].origin()
    }
}

/// Opens the blob from `get.offset` on. Also returns how many bytes at the start of the response are to be skipped.
async fn open_at(route: &Route, endpoint: &Endpoint, get: &Get, size: u64) -> Result<(Response, u64), Error> {
    let response = route.client.get(endpoint, get).await?;
    let bad = |reason: String| Error::BadResponse { what: get.what.clone(), host: endpoint.origin(), reason };
    let (starts_at, total) = match response.status() {
        StatusCode::OK => (0, response.content_length()),
        StatusCode::PARTIAL_CONTENT => {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            range
                .and_then(content_range)
                .ok_or_else(|| bad("it does not say which range it sends".to_owned()))?
        }
        status => return Err(bad(format!("status {status}"))),
    };
    if let Some(actual) = total.filter(|total| *total != size) {
        let (what, host) = (get.what.clone(), endpoint.origin());
        return Err(Error::SizeMismatch { what, host, expected: size, actual });
    }
    match get.offset.checked_sub(starts_at) {
        Some(skip) => Ok((response, skip)),
        None => Err(bad(format!("it sends from byte {starts_at}, asked for {}", get.offset))),
    }
}

/// Reads first byte and total of `bytes 5-9/10`; the total may be unknown (`*`).
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let (first, _last) = range.split_once('-')?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((first.trim().parse().ok()?, total))
}
