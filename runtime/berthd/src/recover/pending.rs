//! Pods of an earlier daemon that are not taken up yet: what is on record of them may be old.

use std::collections::BTreeSet;

use tokio::sync::watch;

/// The ids of these pods. Empty soon after the start, but for those whose shims are silent.
#[derive(Debug, Default)]
pub(crate) struct Pending(watch::Sender<BTreeSet<String>>);

impl Pending {
    /// These pods are going to be taken up.
    pub(super) fn begin(&self, pods: impl Iterator<Item = String>) {
        self.0.send_modify(|pending| pending.extend(pods));
    }

    /// Whoever waits for this pod may go on when the guard is dropped, be it by a panic.
    pub(super) fn taken_up(&self, pod: &str) -> TakenUp<'_> {
        TakenUp { pending: self, pod: pod.to_owned() }
    }

    /// Whether the pod is one of these.
    pub(crate) fn has(&self, pod: &str) -> bool {
        self.0.borrow().contains(pod)
    }

    /// Returns when the pod was taken up, at once when it is none of these.
    pub(crate) async fn wait(&self, pod: &str) {
        // The sender lives as long as self.
        let _ = self.0.subscribe().wait_for(|pending| !pending.contains(pod)).await;
    }

    /// All of them.
    pub(crate) fn list(&self) -> Vec<String> {
        self.0.borrow().iter().cloned().collect()
    }
}

/// A pod that is being taken up.
#[derive(Debug)]
pub(super) struct TakenUp<'a> {
    pending: &'a Pending,
    pod: String,
}

impl Drop for TakenUp<'_> {
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
        let pending = Pending::default();
        pending.begin(["a".to_owned(), "b".to_owned()].into_iter());
        assert!(pending.wait("a").now_or_never().is_none());
        assert!(pending.wait("c").now_or_never().is_some());
        drop(pending.taken_up("a"));
        assert!(pending.wait("a").now_or_never().is_some());
        assert_eq!(pending.list(), ["b"]);
    }
}
