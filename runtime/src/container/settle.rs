//! Containers whose pod was over when the daemon came back: nobody watches them, so that they are brought to their end here.

use std::sync::Arc;

use super::{Container, life};
use crate::{error::Kind, runtime::Shared, table::Entry, watch};

/// Records the ends of those containers of a pod that is not ready which a daemon before this one had no time for.
pub(crate) async fn settle_stopped(shared: &Arc<Shared>, pod_id: &str) {
    let mut left = shared.containers_of(pod_id);
    left.retain(|entry| !entry.get().state.is_exited());
    for entry in left {
        match shared.shim_of(pod_id).await {
            Err(_) => watch::abandoned(shared, &entry).await,
            // The first process of the pod has ended, and its shim knows how the others did.
            Ok(shim) => {
                let shared = Arc::clone(shared);
                tokio::spawn(async move {
                    match shim.wait(&entry.get().id).await {
                        Ok(exit) => watch::record_end(&shared, &entry, exit).await,
                        Err(_) => watch::abandoned(&shared, &entry).await,
                    }
                });
            }
        }
    }
}

/// Removes containers of pods that have no record: their removal was cut off between the two.
pub(crate) async fn remove_strays(shared: &Arc<Shared>) {
    let stray = |entry: &Arc<Entry<Container>>| {
        let found = shared.pods.find(&entry.get().pod_id);
        found.is_err_and(|error| error.kind() == Kind::NotFound)
    };
    for entry in shared.containers.entries().iter().filter(|entry| stray(entry)) {
        if let Err(error) = life::remove_entry(shared, entry).await {
            tracing::warn!(container = entry.get().id, %error, "its pod is gone, and it could not be removed");
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
        settle_stopped(shared, "p").await;
        let ContainerState::Exited { code, started_at, .. } =
            shared.containers.find("c").unwrap().get().state
        else {
            unreachable!("it has ended")
        };
        assert_eq!((code, started_at), (255, 5), "how is not known");
    }

    #[tokio::test]
    async fn a_container_without_a_pod_is_removed_and_others_stay() {
        let (runtime, _directory) = samples::runtime().await;
        let shared = &runtime.containers.shared;
        shared.pods.insert("p", samples::pod("p", PodState::Ready));
        shared.containers.insert("stray", running("stray", "gone"));
        shared.containers.insert("c", running("c", "p"));
        remove_strays(shared).await;
        let ids: Vec<_> = shared.containers.list().iter().map(|one| one.id.clone()).collect();
        assert_eq!(ids, ["c"]);
    }
}
