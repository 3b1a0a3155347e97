//! The containers of a pod by id. While a container is being created its id is reserved, but the container is not listed.

use crate::error::Error;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Containers, native or of a foreign shim. The lock is never held across an await.
#[derive(Debug)]
pub(crate) struct ContainerMap<T>(Mutex<BTreeMap<String, Entry<T>>>);

#[derive(Debug)]
enum Entry<T> {
    Reserved,
    Created(Arc<T>),
}

/// Reserves an id while its container is being created; dropped unfilled, the id is free again.
pub(crate) struct Reservation<T> {
    containers: Arc<ContainerMap<T>>,
    id: String,
    filled: bool,
}

impl<T> ContainerMap<T> {
    /// Nothing yet.
    pub(crate) fn empty() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// Reserves an id for a new container. Fails if it is empty or taken.
    pub(crate) fn reserve(self: &Arc<Self>, id: &str) -> Result<Reservation<T>, Error> {
        if id.is_empty() {
            return Err(Error::Invalid { field: "id", reason: "empty".into() });
        }
        let mut containers = self.lock();
        if containers.contains_key(id) {
            return Err(Error::AlreadyExists { what: "container", id: id.to_owned() });
        }
        containers.insert(id.to_owned(), Entry::Reserved);
        Ok(Reservation { containers: Arc::clone(self), id: id.to_owned(), filled: false })
    }

    /// Returns the container of that id. Fails while it is still being created.
    pub(crate) fn get(&self, id: &str) -> Result<Arc<T>, Error> {
        match self.lock().get(id) {
            Some(Entry::Created(container)) => Ok(Arc::clone(container)),
            _ => Err(Error::no_container(id)),
        }
    }

    /// All containers, by id.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let made = |entry: &Entry<T>| match entry {
            Entry::Created(container) => Some(Arc::clone(container)),
            Entry::Reserved => None,
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

    /// Whether no container is being created and none matches `predicate`.
    pub(crate) fn none_matches(&self, predicate: impl Fn(&T) -> bool) -> bool {
        self.lock().values().all(|entry| matches!(entry, Entry::Created(container) if !predicate(container)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry<T>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Reservation<T> {
    /// Enters the finished container in the place of the reservation.
    pub(crate) fn fill(mut self, container: &Arc<T>) {
        self.containers.lock().insert(self.id.clone(), Entry::Created(Arc::clone(container)));
        self.filled = true;
    }
}

impl<T> Drop for Reservation<T> {
    fn drop(&mut self) {
        if !self.filled {
            self.containers.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_is_taken_from_the_reservation_to_the_removal() {
        let containers = ContainerMap::empty();
        let first = containers.reserve("a").unwrap();
        assert!(
            containers.reserve("a").is_err() && containers.get("a").is_err() && containers.all().is_empty()
        );
        assert!(!containers.is_empty() && !containers.none_matches(|_| false));
        drop(first);
        containers.reserve("a").unwrap().fill(&Arc::new(7));
        assert!(containers.reserve("a").is_err());
        assert_eq!((*containers.get("a").unwrap(), containers.all().len()), (7, 1));
        assert!(
            containers.none_matches(|value| *value == 8) && !containers.none_matches(|value| *value == 7)
        );
        containers.remove("a");
        assert!(containers.is_empty() && containers.reserve("").is_err());
    }
}
