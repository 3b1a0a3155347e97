//! Makes sure that plugins are told of the end of a pod or container once, however often its stop or removal is tried.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Stage of the end of a pod or container, as reported to plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Stopped, not reported yet.
    Due,
    /// Stopped.
    Stopped,
    /// Removed.
    Removed,
}

/// The ends by the id of the pod or container. Entries must be forgotten once that is removed.
#[derive(Default)]
pub(super) struct Once(Mutex<HashMap<String, End>>);

impl Once {
    /// Records `end` for `id`. Returns false if it, or a later end, was recorded before.
    pub fn is_first(&self, id: &str, end: End) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(id).is_some_and(|last| *last >= end) {
            return false;
        }
        told.insert(id.to_owned(), end);
        true
    }

    /// Whether `id` has stopped and that is not reported yet.
    pub fn is_due(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id) == Some(&End::Due)
    }

    /// Removes the entry of `id`.
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
