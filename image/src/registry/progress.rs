//! Detects a connection that delivers next to nothing, yet never stays silent long enough to time out.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::{Instant, timeout};

/// Progress below which a connection counts as too slow.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Bytes that must arrive per [`Progress::within`].
    pub bytes: u64,
    /// Span of waiting time in which they must arrive.
    pub within: Duration,
}

impl Default for Progress {
    fn default() -> Self {
        Self { bytes: 64 << 10, within: Duration::from_secs(60) }
    }
}

/// Measures the progress of one connection. Only time spent waiting for bytes counts, not that of a slow consumer.
#[derive(Debug)]
pub(super) struct ProgressMonitor {
    required: Progress,
    waited: Duration,
    received: u64,
    has_kept_up: bool,
}

/// Outcome of waiting for a chunk.
pub(super) enum ChunkResult {
    Bytes(Bytes),
    End,
    Broken(reqwest::Error),
    TooSlow,
}

impl ProgressMonitor {
    pub(super) fn new(required: Progress) -> Self {
        Self { required, waited: Duration::ZERO, received: 0, has_kept_up: false }
    }

    /// Waits for the next chunk of `response`. The future may be dropped and called again without losing a byte.
    pub(super) async fn next_chunk(&mut self, response: &mut Response) -> ChunkResult {
        let started = Instant::now();
        let left = self.required.within.saturating_sub(self.waited);
        let chunk = timeout(left, response.chunk()).await;
        self.waited += started.elapsed();
        match chunk {
            Err(_) => ChunkResult::TooSlow,
            Ok(Err(error)) => ChunkResult::Broken(error),
            Ok(Ok(None)) => ChunkResult::End,
            Ok(Ok(Some(bytes))) => {
                self.count(bytes.len() as u64);
                ChunkResult::Bytes(bytes)
            }
        }
    }

    fn count(&mut self, bytes: u64) {
        self.received += bytes;
        if self.received >= self.required.bytes {
            *self = Self { has_kept_up: true, ..Self::new(self.required) };
        }
    }

    /// Whether the connection has ever delivered the demanded bytes in time.
    pub(super) fn has_kept_up(&self) -> bool {
        self.has_kept_up
    }
}
