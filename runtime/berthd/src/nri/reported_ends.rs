//! Makes sure that plugins are told of the end of a pod or container once, however often its stop or removal is tried.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// Stage of the end of a pod or container, as reported to plugins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum EndStage {
    /// Stopped, not reported yet.
    Due,
    /// Stopped.
    Stopped,
    /// Removed.
    Removed,
}

/// The ends by the id of the pod or container. Entries must be forgotten once that is removed.
#[derive(Default)]
pub(super) struct ReportedEnds(Mutex<HashMap<String, EndStage>>);

impl ReportedEnds {
    /// Records `end` for `id`. Returns false if it, or a later end, was recorded before.
    pub fn record_first(&self, id: &str, end: EndStage) -> bool {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.get(id).is_some_and(|last| *last >= end) {
            return false;
        }
        reported.insert(id.to_owned(), end);
        true
    }

    /// Whether `id` has stopped and that is not reported yet.
    pub fn is_due(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id) == Some(&EndStage::Due)
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
        let reported = ReportedEnds::default();
        assert!(reported.record_first("a", EndStage::Due));
        assert!(reported.is_due("a"));
        assert!(reported.record_first("a", EndStage::Stopped));
        assert!(!reported.is_due("a"));
        assert!(!reported.record_first("a", EndStage::Stopped));
        assert!(reported.record_first("b", EndStage::Removed));
        assert!(!reported.record_first("b", EndStage::Stopped));
        assert!(reported.record_first("a", EndStage::Removed));
        reported.forget("a");
        assert!(reported.record_first("a", EndStage::Stopped));
    }
}
