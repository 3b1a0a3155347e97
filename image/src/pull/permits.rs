//! Limits how many layers are fetched and unpacked at once: for each registry, so that a slow one holds up no other,
//! and over all registries, to bound memory and threads.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Number of registries whose permits can all be in use at once; sets the limit over all registries.
const MAX_BUSY_REGISTRIES: usize = 8;

pub(crate) struct RegistryPermits {
    of_each: usize,
    all: Arc<Semaphore>,
    registries: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// A permit, held until dropped.
pub(crate) struct Permit {
    _own: OwnedSemaphorePermit,
    _shared: OwnedSemaphorePermit,
}

impl RegistryPermits {
    /// Allows `of_each` layers at once for each registry, at least one.
    pub(crate) fn new(of_each: usize) -> Self {
        let of_each = of_each.max(1);
        RegistryPermits {
            of_each,
            all: Arc::new(Semaphore::new(of_each * MAX_BUSY_REGISTRIES)),
            registries: Mutex::default(),
        }
    }

    /// Waits for a permit to pull from `registry`. `None` if the semaphores are closed, which never happens.
    pub(crate) async fn acquire(&self, registry: &str) -> Option<Permit> {
        let own = self.of(registry).acquire_owned().await.ok()?;
        let shared = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Permit { _own: own, _shared: shared })
    }

    fn of(&self, registry: &str) -> Arc<Semaphore> {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        registries.retain(|_, semaphore| semaphore.strong_count() > 0);
        if let Some(semaphore) = registries.get(registry).and_then(Weak::upgrade) {
            return semaphore;
        }
        let semaphore = Arc::new(Semaphore::new(self.of_each));
        registries.insert(registry.to_owned(), Arc::downgrade(&semaphore));
        semaphore
    }
}
