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
pub(super) struct PendingClients {
    capacity: usize,
    slots: Arc<Mutex<Slots>>,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    /// By number: the oldest client has the lowest.
    clients: BTreeMap<u64, CancellationToken>,
}

/// One client's slot, free again when this is dropped.
#[derive(Debug)]
pub(super) struct PendingClient {
    pending: PendingClients,
    number: u64,
    evicted: CancellationToken,
}

impl PendingClients {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, slots: Arc::default() }
    }

    /// Takes a slot; when there is none, the oldest client is evicted.
    pub(super) fn add(&self) -> PendingClient {
        let mut slots = self.lock();
        while slots.clients.len() >= self.capacity
            && let Some((_, oldest)) = slots.clients.pop_first()
        {
            oldest.cancel();
        }
        let (number, evicted) = (slots.next, CancellationToken::new());
        slots.next += 1;
        slots.clients.insert(number, evicted.clone());
        PendingClient { pending: self.clone(), number, evicted }
    }

    // A poisoned lock still holds a consistent map: nothing can panic between its steps.
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingClient {
    /// Returns when the slot was given to another client.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for PendingClient {
    fn drop(&mut self) {
        self.pending.lock().clients.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn is_evicted(client: &PendingClient) -> bool {
        client.evicted().now_or_never().is_some()
    }

    #[test]
    fn the_one_that_waited_longest_makes_room() {
        let pending = PendingClients::new(2);
        let (first, second) = (pending.add(), pending.add());
        let third = pending.add();
        assert_eq!([&first, &second, &third].map(is_evicted), [true, false, false]);
        drop(second);
        let fourth = pending.add();
        assert_eq!([&third, &fourth].map(is_evicted), [false, false], "a slot was free");
    }
}
