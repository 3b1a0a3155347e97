//! Tells a slow connection from one that brings next to nothing and so never falls silent.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Response;
use tokio::time::{Instant, timeout};

/// What a connection has to bring to count as working.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// So many bytes,
    pub bytes: u64,
    /// in so much time spent waiting for them.
    pub within: Duration,
}

impl Default for Progress {
    fn default() -> Self {
        Self { bytes: 64 << 10, within: Duration::from_secs(60) }
    }
}

/// The pace of one connection. Time in which nobody waits for it does not count.
#[derive(Debug)]
pub(super) struct Pace {
    wanted: Progress,
    waited: Duration,
    brought: u64,
    has_kept_up: bool,
}

/// What came of waiting for a piece.
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

    /// The next piece of `response`. May be dropped and called again without losing a byte.
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

    /// Whether it has ever brought as much as it should.
    pub(super) fn has_kept_up(&self) -> bool {
        self.has_kept_up
    }
}
