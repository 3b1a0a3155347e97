//! How many layers are fetched and unpacked at once. Each registry has places of its own, so that one that trickles holds
//! up no other; over all there is a limit too, for the sake of memory and threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many registries can have all their places taken at once.
const REGISTRIES: usize = 8;

pub(crate) struct Slots {
    of_each: usize,
    all: Arc<Semaphore>,
    registries: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A place, until it is dropped.
pub(crate) struct Slot {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

impl Slots {
    /// `of_each` layers at once from one registry.
    pub(crate) fn new(of_each: usize) -> Self {
        let of_each = of_each.max(1);
        Slots { of_each, all: Arc::new(Semaphore::new(of_each * REGISTRIES)), registries: Mutex::default() }
    }

    /// Waits for a place to pull from `registry`. None when they are closed, which they never are.
    pub(crate) async fn take(&self, registry: &str) -> Option<Slot> {
        let own = self.of(registry).acquire_owned().await.ok()?;
        let shared = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Slot { _own: own, _shared: shared })
    }

    fn of(&self, registry: &str) -> Arc<Semaphore> {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        registries.retain(|_, places| places.strong_count() > 0);
        if let Some(places) = registries.get(registry).and_then(Weak::upgrade) {
            return places;
        }
        let places = Arc::new(Semaphore::new(self.of_each));
        registries.insert(registry.to_owned(), Arc::downgrade(&places));
        places
    }
}
