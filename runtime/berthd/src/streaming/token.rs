//! One-time tokens: whoever holds one may do the one thing that it was issued for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::Request;
use crate::{
    error::{Error, Kind, Result},
    identity,
};

/// How long a token waits to be used.
const LIFE: Duration = Duration::from_secs(60);
/// How many tokens wait at most; a caller that takes more than it uses must not fill the memory.
const OUTSTANDING: usize = 1000;

/// The tokens that wait to be used. Clones share them.
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

    /// The URL under which `request` is served, once and within a minute.
    ///
    /// # Errors
    ///
    /// `ResourceExhausted` when too many are waiting.
    pub fn issue(&self, request: Request) -> Result<String> {
        let token = identity::generate()?;
        let url = format!("{}/{}/{token}", self.base, request.path());
        let mut waiting = self.lock();
        waiting.retain(|_, issued| issued.at.elapsed() < LIFE);
        if waiting.len() >= OUTSTANDING {
            let why = format!("{OUTSTANDING} streams that were asked for have not been opened yet");
            return Err(Error::new(Kind::ResourceExhausted, why));
        }
        waiting.insert(token, Issued { at: Instant::now(), request });
        Ok(url)
    }

    /// What the path `/exec/TOKEN`, `/attach/TOKEN` or `/portforward/TOKEN` stands for. It stands for nothing after.
    pub(super) fn redeem(&self, path: &str) -> Option<Request> {
        let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
        let mut waiting = self.lock();
        let issued = waiting.get(token)?;
        if issued.request.path() != kind {
            return None;
        }
        let Issued { at, request } = waiting.remove(token)?;
        (at.elapsed() < LIFE).then_some(request)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Issued>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
