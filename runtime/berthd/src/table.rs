//! The pods and containers that exist, as snapshots that readers take without waiting for anyone.
//!
//! A table tells one observer of every snapshot that came, of one that took another's place, and of one that went.

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

/// One pod or container: its current snapshot, and the turn of whoever may change it.
#[derive(Debug)]
pub struct Entry<T> {
    current: watch::Sender<Arc<T>>,
    turn: Mutex<()>,
    /// Held while record and snapshot change together.
    recorded: Mutex<Recorded>,
    observer: Arc<Observer<T>>,
}

/// Whether changes of an entry are recorded.
#[derive(Debug, PartialEq, Eq)]
enum Recorded {
    Yes,
    /// It was removed: its record must not come back.
    NoMore,
}

/// Who is told what was and what is, the one or the other being nothing when an entry comes or goes.
struct Observer<T>(OnceLock<Box<Observe<T>>>);

type Observe<T> = dyn Fn(Option<&Arc<T>>, Option<&Arc<T>>) + Send + Sync;

impl<T> Observer<T> {
    fn tell(&self, was: Option<&Arc<T>>, is: Option<&Arc<T>>) {
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
        Self { current, turn: Mutex::new(()), recorded: Mutex::new(Recorded::Yes), observer }
    }

    /// The snapshot of this moment.
    pub fn get(&self) -> Arc<T> {
        Arc::clone(&self.current.borrow())
    }

    /// Waits until no other call changes this entry. Operations hold it from first to last step.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Replaces the snapshot, wakes those who wait for a change, and tells the observer.
    fn set(&self, value: Arc<T>) {
        let was = self.current.send_replace(Arc::clone(&value));
        self.observer.tell(Some(&was), Some(&value));
    }

    /// The first snapshot, from now on, that `wanted` accepts.
    pub async fn when(&self, wanted: impl Fn(&T) -> bool) -> Arc<T> {
        let mut changes = self.current.subscribe();
        // The sender lives as long as `self`, so there is always a value to wait for.
        match changes.wait_for(|value| wanted(value)).await {
            Ok(value) => Arc::clone(&value),
            Err(_) => self.get(),
        }
    }
}

impl<T: Record> Entry<T> {
    /// Makes the next snapshot from the present one, records it and shows it. Changes never overtake each other. Of an
    /// entry that was removed only those see it who still hold the entry.
    ///
    /// # Errors
    ///
    /// When it could not be recorded. It is shown all the same: what happened has happened.
    pub async fn change(&self, state: &State, next: impl FnOnce(&T) -> T) -> Result<Arc<T>> {
        let recorded = self.recorded.lock().await;
        let next = Arc::new(next(&self.get()));
        if *recorded == Recorded::NoMore {
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
    /// An empty table of `what` (for error messages).
    pub fn new(what: &'static str) -> Self {
        Self { what, entries: RwLock::default(), observer: Arc::new(Observer(OnceLock::new())) }
    }

    /// Has `observe` told of every change from now on, those of one entry in the order in which they happen. It is called
    /// while the entry cannot change, and must not wait for anyone. Only the first observer counts.
    pub fn observe(&self, observe: impl Fn(Option<&Arc<T>>, Option<&Arc<T>>) + Send + Sync + 'static) {
        let _ = self.observer.0.set(Box::new(observe));
    }

    /// Makes an entry that starts with `value`, and shows it.
    pub fn insert(&self, id: &str, value: T) -> Arc<Entry<T>> {
        let entry = Arc::new(Entry::new(value, Arc::clone(&self.observer)));
        // Nobody else has it yet, so that this is had at once; no change is told before its coming.
        let _changing = entry.recorded.try_lock();
        self.write().insert(id.to_owned(), Arc::clone(&entry));
        self.observer.tell(None, Some(&entry.get()));
        Arc::clone(&entry)
    }

    /// The entry whose id is `id` or, when only one does, begins with it.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when it is empty or several begin with it, `NotFound` when none does.
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

    /// Whether there is an entry of exactly this id.
    pub fn has(&self, id: &str) -> bool {
        self.read().contains_key(id)
    }

    /// All entries, in no order.
    pub fn entries(&self) -> Vec<Arc<Entry<T>>> {
        self.read().values().cloned().collect()
    }

    /// Snapshots of all entries, in no order.
    pub fn list(&self) -> Vec<Arc<T>> {
        self.read().values().map(|entry| entry.get()).collect()
    }

    // A poisoned lock still holds a whole map: nothing can panic between its steps.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Arc<Entry<T>>>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<Entry<T>>>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Record> Table<T> {
    /// Deletes the record of an entry, then makes the entry invisible. Those who hold it may finish.
    ///
    /// # Errors
    ///
    /// When the record could not be deleted; everything is as before then.
    pub async fn remove(&self, id: &str, state: &State) -> Result<()> {
        let Some(entry) = self.read().get(id).cloned() else { return Ok(()) };
        let mut recorded = entry.recorded.lock().await;
        if *recorded == Recorded::NoMore {
            return Ok(());
        }
        state.delete::<T>(id).await?;
        killpoint!(ROW_DELETED);
        *recorded = Recorded::NoMore;
        self.write().remove(id);
        self.observer.tell(Some(&entry.get()), None);
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
                let _turn = entry.turn().await;
                entry.change(&state, |_| panic!("a fault of ours")).await
            }
        });
        assert!(crashed.await.is_err());
        let _turn = entry.turn().await;
        assert_eq!(entry.change(&state, |_| thing(2)).await.unwrap().value, 2);
    }

    #[tokio::test]
    async fn whoever_waits_for_a_change_sees_it() {
        let entry = Table::new("container").insert("a", 1);
        let waiting = {
            let entry = Arc::clone(&entry);
            tokio::spawn(async move { *entry.when(|v| *v == 2).await })
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
        assert_eq!(entry.when(|thing| thing.value == 3).await.value, 3);
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
