//! Containers whose pod was stopped or over before this daemon started. No pod watch covers them, so their ends are
//! recorded here.

use std::sync::Arc;

use crate::{runtime::Shared, watch};

/// Records the ends of the containers of a pod that is not ready, as far as an earlier daemon did not.
pub(crate) async fn record_ends_of_stopped(shared: &Arc<Shared>, pod_id: &str) {
    let mut left = shared.containers_of(pod_id);
    left.retain(|entry| !entry.get().state.is_exited());
    for entry in left {
        match watch::reconnect(shared, pod_id).await {
            Err(_) => watch::end_without_shim(shared, &entry).await,
            // The pod's first process has ended, and its shim still knows how the containers did.
            Ok(shim) => drop(tokio::spawn(watch::record_end_after_pod(Arc::clone(shared), entry, shim))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{
        container::{Container, ContainerState},
        cri::samples,
        pod::PodState,
    };

    fn running(id: &str, pod: &str) -> Container {
        samples::container(id, pod, ContainerState::Running { pid: 1, started_at: 5 })
    }

    #[tokio::test]
    async fn what_ran_in_a_pod_that_was_stopped_has_ended() {
        let (runtime, _directory) = samples::runtime().await;
        let shared = &runtime.containers.shared;
        shared.pods.insert("p", samples::pod("p", PodState::NotReady));
        shared.containers.insert("c", running("c", "p"));
        record_ends_of_stopped(shared, "p").await;
        let ContainerState::Exited { code, started_at, .. } =
            shared.containers.find("c").unwrap().get().state
        else {
            unreachable!("it has ended")
        };
        assert_eq!((code, started_at), (255, 5), "how is not known");
    }
}
