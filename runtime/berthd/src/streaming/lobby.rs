//! Clients that have connected and not asked for a stream yet.
//!
//! Their number is limited. One too many disconnects the client that has waited longest: clients send their request at
//! once, so silent connections do not keep out those that have a token.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// The waiting clients. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Lobby {
    room: usize,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// By number: the oldest client has the lowest.
    clients: BTreeMap<u64, CancellationToken>,
}

/// One client's place, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    lobby: Lobby,
    number: u64,
    lost: CancellationToken,
}

impl Lobby {
    pub(super) fn new(room: usize) -> Self {
        Self { room, waiting: Arc::default() }
    }

    /// Takes a place; when there is no room, the oldest client loses its place.
    pub(super) fn enter(&self) -> Place {
        let mut waiting = self.lock();
        while waiting.clients.len() >= self.room
            && let Some((_, oldest)) = waiting.clients.pop_first()
        {
            oldest.cancel();
        }
        let (number, lost) = (waiting.next, CancellationToken::new());
        waiting.next += 1;
        waiting.clients.insert(number, lost.clone());
        Place { lobby: self.clone(), number, lost }
    }

    // A poisoned lock still holds a consistent map: nothing can panic between its steps.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Returns when the place was given to another client.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.lobby.lock().clients.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn is_lost(place: &Place) -> bool {
        place.lost().now_or_never().is_some()
    }

    #[test]
    fn the_one_that_waited_longest_makes_room() {
        let lobby = Lobby::new(2);
        let (first, second) = (lobby.enter(), lobby.enter());
        let third = lobby.enter();
        assert_eq!([&first, &second, &third].map(is_lost), [true, false, false]);
        drop(second);
        let fourth = lobby.enter();
        assert_eq!([&third, &fourth].map(is_lost), [false, false], "a place was free");
    }
}
