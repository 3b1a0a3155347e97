//! Limits how many layers are fetched and unpacked at once: for each registry, so that a slow one holds up no other,
//! and over all registries, to bound memory and threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Number of registries whose slots can all be in use at once; sets the limit over all registries.
const REGISTRIES: usize = 8;

pub(crate) struct Slots {
    of_each: usize,
    all: Arc<Semaphore>,
    registries: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A slot, held until dropped.
pub(crate) struct Slot {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

impl Slots {
    /// Allows `of_each` layers at once for each registry, at least one.
    pub(crate) fn new(of_each: usize) -> Self {
        let of_each = of_each.max(1);
        Slots { of_each, all: Arc::new(Semaphore::new(of_each * REGISTRIES)), registries: Mutex::default() }
    }

    /// Waits for a slot to pull from `registry`. `None` if the semaphores are closed, which never happens.
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
