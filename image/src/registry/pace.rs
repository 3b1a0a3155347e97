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

/// The pace of one connection. Only time spent waiting for bytes counts, not that of a slow consumer.
#[derive(Debug)]
pub(super) struct Pace {
    wanted: Progress,
    waited: Duration,
    brought: u64,
    has_kept_up: bool,
}

/// Outcome of waiting for a piece.
pub(super) enum Piece {
    Bytes(Bytes),
    End,
    Broken(reqwest::Error),
    TooSlow,
}

impl Pace {
    pub(super) fn new(wanted: Progress) -> Self {
        Self { wanted, waited: Duration::ZERO, brought: 0, has_kept_up: false }
    }

    /// Waits for the next piece of `response`. The future may be dropped and called again without losing a byte.
    pub(super) async fn piece(&mut self, response: &mut Response) -> Piece {
        let started = Instant::now();
        let left = self.wanted.within.saturating_sub(self.waited);
        let piece = timeout(left, response.chunk()).await;
        self.waited += started.elapsed();
        match piece {
            Err(_) => Piece::TooSlow,
            Ok(Err(error)) => Piece::Broken(error),
            Ok(Ok(None)) => Piece::End,
            Ok(Ok(Some(bytes))) => {
                self.count(bytes.len() as u64);
                Piece::Bytes(bytes)
            }
        }
    }

    fn count(&mut self, bytes: u64) {
        self.brought += bytes;
        if self.brought >= self.wanted.bytes {
            *self = Self { has_kept_up: true, ..Self::new(self.wanted) };
        }
    }

    /// Whether the connection has ever delivered the demanded bytes in time.
    pub(super) fn has_kept_up(&self) -> bool {
        self.has_kept_up
    }
}
