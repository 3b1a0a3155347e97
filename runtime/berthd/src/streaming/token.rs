//! One-time tokens: each permits the one operation that it was issued for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Request;
use crate::{
    error::{Error, Kind, Result},
    ids,
};

/// How long a token is valid.
const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// Limit of unused tokens, so that a caller that does not use its tokens cannot fill the memory.
const MAX_UNUSED_TOKENS: usize = 1000;

/// The unused tokens. Clones share them.
#[derive(Clone, Debug)]
pub struct Tokens {
    base: Arc<str>,
    waiting: Arc<Mutex<HashMap<String, Issued>>>,
}

#[derive(Debug)]
struct Issued {
    at: Instant,
    request: Request,
}

impl Tokens {
    /// `base` is the address of the server: `http://127.0.0.1:1234`.
    pub(crate) fn new(base: &str) -> Self {
        Self { base: base.into(), waiting: Arc::default() }
    }

    /// Issues a URL for `request`, which is served once and within a minute.
    ///
    /// # Errors
    ///
    /// `ResourceExhausted` when too many tokens are unused.
    pub fn issue(&self, request: Request) -> Result<String> {
        let token = ids::generate()?;
        let url = format!("{}/{}/{token}", self.base, request.path());
        let mut waiting = self.lock();
        waiting.retain(|_, issued| issued.at.elapsed() < TOKEN_LIFETIME);
        if waiting.len() >= MAX_UNUSED_TOKENS {
            let why = format!("{MAX_UNUSED_TOKENS} streams that were asked for have not been opened yet");
            return Err(Error::new(Kind::ResourceExhausted, why));
        }
        waiting.insert(token, Issued { at: Instant::now(), request });
        Ok(url)
    }

    /// Redeems the path `/exec/TOKEN`, `/attach/TOKEN` or `/portforward/TOKEN`; `None` if unknown, used or expired.
    pub(super) fn redeem(&self, path: &str) -> Option<Request> {
        let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
        let mut waiting = self.lock();
        let issued = waiting.get(token)?;
        if issued.request.path() != kind {
            return None;
        }
        let Issued { at, request } = waiting.remove(token)?;
        (at.elapsed() < TOKEN_LIFETIME).then_some(request)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Issued>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
