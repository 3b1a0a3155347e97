//! Pods whose shims are gone: none of their processes runs, and no shim answers.
#![allow(clippy::unwrap_used)]
use super::*;
use crate::{container::ContainerState, cri::samples, shim::ShimAddress};

const RUNNING: ContainerState = ContainerState::Running { pid: u32::MAX, started_at: 1 };

#[tokio::test]
async fn stopping_a_pod_whose_shim_is_dead_ends_its_containers() {
    let (runtime, directory) = samples::runtime().await;
    let shared = &runtime.pods.shared;
    let socket = directory.path().join("nobody").display().to_string();
    let shim = Some(ShimAddress { socket, pid: 0 });
    shared.pods.insert("p", Pod { shim, ..samples::pod("p", PodState::Ready) });
    shared.containers.insert("c", samples::container("c", "p", RUNNING));
    runtime.pods.stop("p").await.unwrap();
    assert_eq!(runtime.pods.get("p").unwrap().state, PodState::NotReady);
    assert!(runtime.containers.get("c").unwrap().state.is_exited());
    runtime.pods.remove("p").await.unwrap();
    assert!(runtime.containers.list().is_empty());
}

#[tokio::test]
async fn a_container_that_came_to_be_while_its_pod_was_stopped_or_removed_can_be_removed() {
    let (runtime, _directory) = samples::runtime().await;
    let shared = &runtime.pods.shared;
    shared.pods.insert("p", samples::pod("p", PodState::NotReady));
    for (id, pod) in [("c", "p"), ("d", "p"), ("e", "none")] {
        shared.containers.insert(id, samples::container(id, pod, ContainerState::Created { pid: u32::MAX }));
    }
    runtime.containers.remove("c").await.unwrap();
    runtime.pods.remove("p").await.unwrap();
    runtime.containers.remove("e").await.unwrap();
    assert!(runtime.pods.list().is_empty() && runtime.containers.list().is_empty());
}

#[tokio::test]
async fn a_pod_that_could_not_be_undone_stays_on_record_until_it_can() {
    let (runtime, directory) = samples::runtime().await;
    let shared = &runtime.pods.shared;
    let socket = directory.path().join("nobody").display().to_string();
    let pod = Pod { shim: Some(ShimAddress { socket, pid: 0 }), ..samples::pod("p", PodState::Starting) };
    shared.state.put(&pod).await.unwrap();
    let bundle = shared.layout.sandbox("p");
    std::fs::create_dir(&bundle).unwrap();
    // There is no shim binary that could clean up.
    undo(shared, pod).await;
    let on_record = || shared.state.load::<Pod>().unwrap().records.len();
    assert_eq!((on_record(), bundle.exists()), (1, true));
    std::os::unix::fs::symlink("/bin/true", directory.path().join("no-shim")).unwrap();
    let undone = async {
        while on_record() > 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(30), undone).await.unwrap();
    assert!(!bundle.exists());
}
