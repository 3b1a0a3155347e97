//! Pods of an earlier daemon that are not recovered yet. Their records may be out of date.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// Ids of these pods. Empty soon after the start, except for pods whose shims do not answer.
#[derive(Debug, Default)]
pub(crate) struct PendingPods(watch::Sender<BTreeSet<String>>);

impl PendingPods {
    /// Adds pods that are going to be recovered.
    pub(super) fn add(&self, pods: impl Iterator<Item = String>) {
        self.0.send_modify(|pending| pending.extend(pods));
    }

    /// Returns a guard that removes the pod when it is dropped, also by a panic; calls that wait for the pod then
    /// continue.
    pub(super) fn guard(&self, pod: &str) -> RecoveryGuard<'_> {
        RecoveryGuard { pending: self, pod: pod.to_owned() }
    }

    /// Whether the pod is not recovered yet.
    pub(crate) fn has(&self, pod: &str) -> bool {
        self.0.borrow().contains(pod)
    }

    /// Returns when the pod is recovered; at once if it is not in the set.
    pub(crate) async fn wait(&self, pod: &str) {
        // The sender lives as long as self, so waiting cannot fail.
        let _ = self.0.subscribe().wait_for(|pending| !pending.contains(pod)).await;
    }

    /// Returns all ids.
    pub(crate) fn list(&self) -> Vec<String> {
        self.0.borrow().iter().cloned().collect()
    }
}

/// Guard of a pod that is being recovered.
#[derive(Debug)]
pub(super) struct RecoveryGuard<'a> {
    pending: &'a PendingPods,
    pod: String,
}

impl Drop for RecoveryGuard<'_> {
    fn drop(&mut self) {
        self.pending.0.send_if_modified(|pending| pending.remove(&self.pod));
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_pod_is_waited_for_and_no_other() {
        let pending = PendingPods::default();
        pending.add(["a".to_owned(), "b".to_owned()].into_iter());
        assert!(pending.wait("a").now_or_never().is_none());
        assert!(pending.wait("c").now_or_never().is_some());
        drop(pending.guard("a"));
        assert!(pending.wait("a").now_or_never().is_some());
        assert_eq!(pending.list(), ["b"]);
    }
}
