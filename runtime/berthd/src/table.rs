//! The pods and containers that exist, as immutable snapshots, so that readers never wait.
//!
//! A table reports every snapshot that is added, replaced or removed to one observer.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use berth_failpoint::killpoint;
use tokio::sync::{Mutex, MutexGuard, watch};

use crate::{
    error::{Error, Kind, Result},
    state::{Record, State},
};

/// One pod or container: its current snapshot, and the lock that serializes operations on it.
#[derive(Debug)]
pub struct Entry<T> {
    current: watch::Sender<Arc<T>>,
    operation: Mutex<()>,
    /// Held while record and snapshot change, so that changes are recorded in the order in which they are shown.
    recorded: Mutex<Recording>,
    observer: Arc<Observer<T>>,
}

/// Whether changes of an entry are still recorded.
#[derive(Debug, PartialEq, Eq)]
enum Recording {
    On,
    /// The entry was removed, and its record must not come back.
    Off,
}

/// Callback with the previous and the new snapshot. The previous one is `None` when an entry is added, the new one when
/// it is removed.
struct Observer<T>(OnceLock<Box<Observe<T>>>);

type Observe<T> = dyn Fn(Option<&Arc<T>>, Option<&Arc<T>>) + Send + Sync;

impl<T> Observer<T> {
    fn notify(&self, was: Option<&Arc<T>>, is: Option<&Arc<T>>) {
        if let Some(observe) = self.0.get() {
            observe(was, is);
        }
    }
}

impl<T> fmt::Debug for Observer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.get().is_some()).finish()
    }
}

impl<T> Entry<T> {
    fn new(value: T, observer: Arc<Observer<T>>) -> Self {
        let current = watch::Sender::new(Arc::new(value));
        Self { current, operation: Mutex::new(()), recorded: Mutex::new(Recording::On), observer }
    }

    /// Returns the current snapshot.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.borrow())
    }

    /// Whether an operation is under way.
    pub fn is_locked(&self) -> bool {
        self.operation.try_lock().is_err()
    }

    /// Waits until no other operation holds the entry's lock. An operation holds it from its first to its last step.
    pub async fn lock(&self) -> MutexGuard<'_, ()> {
        self.operation.lock().await
    }

    /// Replaces the snapshot, wakes tasks that wait in [`Entry::wait_for`], and notifies the observer.
    fn set(&self, value: Arc<T>) {
        let was = self.current.send_replace(Arc::clone(&value));
        self.observer.notify(Some(&was), Some(&value));
    }

    /// Returns the first snapshot, from the current one on, that `wanted` accepts.
    pub async fn wait_for(&self, wanted: impl Fn(&T) -> bool) -> Arc<T> {
        let mut changes = self.current.subscribe();
        // The sender lives as long as `self`, so waiting cannot fail.
        match changes.wait_for(|value| wanted(value)).await {
            Ok(value) => Arc::clone(&value),
            Err(_) => self.get(),
        }
    }
}

impl<T: Record> Entry<T> {
    /// Makes the next snapshot from the current one, records it and shows it. Changes are applied one at a time. A
    /// change of an entry that was removed is not recorded, and only holders of the entry see it.
    ///
    /// # Errors
    ///
    /// When the snapshot could not be recorded. It is shown regardless, because the change has happened.
    pub async fn change(&self, state: &State, next: impl FnOnce(&T) -> T) -> Result<Arc<T>> {
        let recorded = self.recorded.lock().await;
        let next = Arc::new(next(&self.get()));
        if *recorded == Recording::Off {
            self.current.send_replace(Arc::clone(&next));
            return Ok(next);
        }
        let written = state.put(&*next).await;
        self.set(Arc::clone(&next));
        written.map(|()| next)
    }
}

/// Entries by id.
#[derive(Debug)]
pub struct Table<T> {
    what: &'static str,
    entries: RwLock<HashMap<String, Arc<Entry<T>>>>,
    observer: Arc<Observer<T>>,
}

impl<T> Table<T> {
    /// Returns an empty table. `what` names its entries in errors.
    pub fn new(what: &'static str) -> Self {
        Self { what, entries: RwLock::default(), observer: Arc::new(Observer(OnceLock::new())) }
    }

    /// Calls `observe` for every change from now on; changes of one entry come in order. The entry is locked during the
    /// call, which must not block. Only the first observer is used.
    pub fn observe(&self, observe: impl Fn(Option<&Arc<T>>, Option<&Arc<T>>) + Send + Sync + 'static) {
        let _ = self.observer.0.set(Box::new(observe));
    }

    /// Adds an entry with the snapshot `value`.
    pub fn insert(&self, id: &str, value: T) -> Arc<Entry<T>> {
        let entry = Arc::new(Entry::new(value, Arc::clone(&self.observer)));
        // No other task has the entry yet, so the lock is free. It keeps changes from being reported before the
        // addition.
        let _changing = entry.recorded.try_lock();
        self.write().insert(id.to_owned(), Arc::clone(&entry));
        self.observer.notify(None, Some(&entry.get()));
        Arc::clone(&entry)
    }

    /// Returns the entry with this id, or the only one whose id begins with it.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when `id` is empty or the beginning of several, `NotFound` when there is no such entry.
    pub fn find(&self, id: &str) -> Result<Arc<Entry<T>>> {
        let entries = self.read();
        if let Some(entry) = entries.get(id) {
            return Ok(Arc::clone(entry));
        }
        if id.is_empty() {
            return Err(Error::new(Kind::InvalidArgument, format!("{} id is empty", self.what)));
        }
        let mut matches = entries.iter().filter(|(key, _)| key.starts_with(id));
        match (matches.next(), matches.next()) {
            (Some((_, entry)), None) => Ok(Arc::clone(entry)),
            (None, _) => Err(Error::not_found(self.what, id)),
            _ => Err(Error::new(
                Kind::InvalidArgument,
                format!("{} id {id:?} is the beginning of several", self.what),
            )),
        }
    }

    /// Whether there is an entry with exactly this id.
    pub fn has(&self, id: &str) -> bool {
        self.read().contains_key(id)
    }

    /// Returns all entries, in no order.
    pub fn entries(&self) -> Vec<Arc<Entry<T>>> {
        self.read().values().cloned().collect()
    }

    /// Returns the snapshots of all entries, in no order.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.read().values().map(|entry| entry.get()).collect()
    }

    // A poisoned lock still guards a consistent map: nothing can panic between the steps of a change.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Arc<Entry<T>>>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<Entry<T>>>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Record> Table<T> {
    /// Deletes the record of an entry, then removes the entry from the table. Tasks that hold the entry may finish.
    ///
    /// # Errors
    ///
    /// When the record could not be deleted; the table is unchanged then.
    pub async fn remove(&self, id: &str, state: &State) -> Result<()> {
        let Some(entry) = self.read().get(id).cloned() else { return Ok(()) };
        let mut recorded = entry.recorded.lock().await;
        if *recorded == Recording::Off {
            return Ok(());
        }
        state.delete::<T>(id).await?;
        killpoint!(ROW_DELETED);
        *recorded = Recording::Off;
        self.write().remove(id);
        self.observer.notify(Some(&entry.get()), None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::state::tests::Thing;

    fn table() -> Table<u32> {
        let table = Table::new("container");
        for (id, value) in [("abc1", 1), ("abc2", 2), ("d", 3)] {
            table.insert(id, value);
        }
        table
    }

    #[test]
    fn an_id_is_found_whole_or_by_its_only_beginning() {
        assert_eq!(*table().find("abc1").unwrap().get(), 1);
        assert_eq!(*table().find("abc2").unwrap().get(), 2);
        assert_eq!(*table().find("d").unwrap().get(), 3);
    }

    #[test]
    fn an_ambiguous_empty_or_unknown_id_is_refused() {
        let kind = |id| table().find(id).map(|_| ()).unwrap_err().kind();
        assert_eq!(kind("abc"), Kind::InvalidArgument);
        assert_eq!(kind(""), Kind::InvalidArgument);
        assert_eq!(kind("x"), Kind::NotFound);
    }

    #[tokio::test]
    async fn a_turn_and_a_change_that_panic_are_over() {
        let (state, _directory) = state();
        let entry = Table::new("thing").insert("e", thing(1));
        let crashed = tokio::spawn({
            let (entry, state) = (Arc::clone(&entry), state.clone());
            async move {
                let _lock = entry.lock().await;
                entry.change(&state, |_| panic!("a fault of ours")).await
            }
        });
        assert!(crashed.await.is_err());
        let _lock = entry.lock().await;
        assert_eq!(entry.change(&state, |_| thing(2)).await.unwrap().value, 2);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_change_sees_it() {
        let entry = Table::new("container").insert("a", 1);
        let waiting = {
            let entry = Arc::clone(&entry);
            tokio::spawn(async move { *entry.wait_for(|v| *v == 2).await })
        };
        entry.set(Arc::new(2));
        assert_eq!(waiting.await.unwrap(), 2);
    }

    #[tokio::test]
    async fn the_observer_is_told_what_came_what_changed_and_what_went() {
        let (state, _directory) = state();
        let told = Arc::new(std::sync::Mutex::new(Vec::new()));
        let table = Table::new("thing");
        let hearing = Arc::clone(&told);
        let value = |thing: Option<&Arc<Thing>>| thing.map(|thing| thing.value);
        table.observe(move |was, is| hearing.lock().unwrap().push((value(was), value(is))));
        let entry = table.insert("e", thing(4));
        entry.set(Arc::new(thing(5)));
        table.remove("e", &state).await.unwrap();
        table.remove("e", &state).await.unwrap();
        assert_eq!(*told.lock().unwrap(), [(None, Some(4)), (Some(4), Some(5)), (Some(5), None)]);
    }

    #[tokio::test]
    async fn a_change_after_the_removal_is_seen_by_who_holds_the_entry_and_nobody_else() {
        let (state, _directory) = state();
        let told = Arc::new(std::sync::Mutex::new(0));
        let table = Table::new("thing");
        let hearing = Arc::clone(&told);
        table.observe(move |_, _| *hearing.lock().unwrap() += 1);
        let entry = table.insert("e", thing(1));
        entry.change(&state, |_| thing(2)).await.unwrap();
        table.remove("e", &state).await.unwrap();
        assert_eq!(entry.change(&state, |_| thing(3)).await.unwrap().value, 3);
        assert_eq!(entry.wait_for(|thing| thing.value == 3).await.value, 3);
        assert_eq!(*told.lock().unwrap(), 3, "it came, it changed, it went");
        assert!(state.load::<Thing>().unwrap().records.is_empty(), "its record stays gone");
    }

    fn thing(value: u32) -> Thing {
        Thing { id: "e".into(), value }
    }

    fn state() -> (State, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        (State::open(&directory.path().join("state.db")).unwrap(), directory)
    }
}
