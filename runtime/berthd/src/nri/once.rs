//! What plugins are told once in the life of a pod or container, however often it is stopped or its removal is tried.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// How far a life has come, as plugins know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// It has stopped, and nobody was told yet.
    Due,
    /// It has stopped.
    Stopped,
    /// It is removed.
    Removed,
}

/// The ends that were told, by the id of the pod or container. Those of what is removed are to be forgotten.
#[derive(Default)]
pub(super) struct Once(Mutex<HashMap<String, End>>);

impl Once {
    /// Whether this is the first time for `id` and `end`, or a later one.
    pub fn is_first(&self, id: &str, end: End) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(id).is_some_and(|last| *last >= end) {
            return false;
        }
        told.insert(id.to_owned(), end);
        true
    }

    /// Whether `id` has stopped and that is still to be told.
    pub fn is_due(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id) == Some(&End::Due)
    }

    /// Nothing is kept of `id`.
    pub fn forget(&self, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_told_once_and_none_after_a_later_one() {
        let told = Once::default();
        assert!(told.is_first("a", End::Due));
        assert!(told.is_due("a"));
        assert!(told.is_first("a", End::Stopped));
        assert!(!told.is_due("a"));
        assert!(!told.is_first("a", End::Stopped));
        assert!(told.is_first("b", End::Removed));
        assert!(!told.is_first("b", End::Stopped));
        assert!(told.is_first("a", End::Removed));
        told.forget("a");
        assert!(told.is_first("a", End::Stopped));
    }
}
