//! The containers of a pod by id. While a container is being created its id is reserved, but the container is not listed.

use crate::error::Error;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Containers, native or of a foreign shim. The lock is never held across an await.
#[derive(Debug)]
pub(crate) struct Slots<T>(Mutex<BTreeMap<String, Slot<T>>>);

#[derive(Debug)]
enum Slot<T> {
    Reserved,
    Made(Arc<T>),
}

/// Reserves an id while its container is being created; dropped unfilled, the id is free again.
pub(crate) struct Reservation<T> {
    slots: Arc<Slots<T>>,
    id: String,
    filled: bool,
}

impl<T> Slots<T> {
    /// Nothing yet.
    pub(crate) fn empty() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// Reserves an id for a new container. Fails if it is empty or taken.
    pub(crate) fn reserve(self: &Arc<Self>, id: &str) -> Result<Reservation<T>, Error> {
        if id.is_empty() {
            return Err(Error::Invalid { field: "id", reason: "empty".into() });
        }
        let mut slots = self.lock();
        if slots.contains_key(id) {
            return Err(Error::AlreadyExists { what: "container", id: id.to_owned() });
        }
        slots.insert(id.to_owned(), Slot::Reserved);
        Ok(Reservation { slots: Arc::clone(self), id: id.to_owned(), filled: false })
    }

    /// Returns the container of that id. Fails while it is still being created.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<T>, Error> {
        match self.lock().get(id) {
            Some(Slot::Made(container)) => Ok(Arc::clone(container)),
            _ => Err(Error::no_container(id)),
        }
    }

    /// All containers, by id.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let made = |slot: &Slot<T>| match slot {
            Slot::Made(container) => Some(Arc::clone(container)),
            Slot::Reserved => None,
        };
        self.lock().values().filter_map(made).collect()
    }

    /// Forgets a container.
    pub(crate) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Whether there is no container and no reservation.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether no container is being created and none matches `like_this`.
    pub(crate) fn none_is(&self, like_this: impl Fn(&T) -> bool) -> bool {
        self.lock().values().all(|slot| matches!(slot, Slot::Made(container) if !like_this(container)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Reservation<T> {
    /// Enters the finished container in the place of the reservation.
    pub(crate) fn fill(mut self, container: &Arc<T>) {
        self.slots.lock().insert(self.id.clone(), Slot::Made(Arc::clone(container)));
        self.filled = true;
    }
}

impl<T> Drop for Reservation<T> {
    fn drop(&mut self) {
        if !self.filled {
            self.slots.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_is_taken_from_the_reservation_to_the_removal() {
        let slots = Slots::empty();
        let first = slots.reserve("a").unwrap();
        assert!(slots.reserve("a").is_err() && slots.get("a").is_err() && slots.all().is_empty());
        assert!(!slots.is_empty() && !slots.none_is(|_| false));
        drop(first);
        slots.reserve("a").unwrap().fill(&Arc::new(7));
        assert!(slots.reserve("a").is_err());
        assert_eq!((*slots.get("a").unwrap(), slots.all().len()), (7, 1));
        assert!(slots.none_is(|value| *value == 8) && !slots.none_is(|value| *value == 7));
        slots.remove("a");
        assert!(slots.is_empty() && slots.reserve("").is_err());
    }
}
