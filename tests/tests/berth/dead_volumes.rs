use std::time::{Duration, Instant};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    dead_fs::DeadFs,
    pod::{pod, shell},
};
use tonic::{Code, Request};

/// A request to create a container with a volume on a file system that hangs, of a caller that waits this long.
fn hanging(
    berth: &Berth,
    pod: &str,
    sandbox: &v1::PodSandboxConfig,
    image: &str,
    limit: Duration,
) -> Request<v1::CreateContainerRequest> {
    let mut config = shell("hangs", image, "sleep 1000");
    config.mounts.push(v1::Mount {
        host_path: berth.path().join("volume/data").display().to_string(),
        container_path: "/data".into(),
        ..Default::default()
    });
    let mut request = Request::new(v1::CreateContainerRequest {
        pod_sandbox_id: pod.into(),
        config: Some(config),
        sandbox_config: Some(sandbox.clone()),
    });
    request.set_timeout(limit);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_creation_that_hangs_ends_with_its_pod_and_nothing_wakes_up_when_the_volume_is_back() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "dead");
    let id = berth.run(&sandbox).await.unwrap();
    let dead = DeadFs::deaf(&berth.path().join("volume"));

    for _ in 0..2 {
        let request = hanging(&berth, &id, &sandbox, &image, Duration::from_secs(6));
        let error = berth.runtime.create_container(request).await.unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
        let text = error.message();
        assert!(text.contains("it waits to") && text.contains("volume/data"), "{text}");
    }
    let listed = berth.runtime.list_containers(v1::ListContainersRequest::default()).await.unwrap();
    assert!(listed.into_inner().containers.is_empty());
    let bundles = std::fs::read_dir(berth.path().join("run/containers")).unwrap().count();
    assert_eq!(bundles, 1, "the second call joined the first");

    let begun = Instant::now();
    berth.stop_pod(&id).await.unwrap();
    berth.remove_pod(&id).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    berth.run_alone("other", &image, "sleep 1000").await;

    drop(dead);
    let there = || std::fs::read_dir(berth.path().join("run/containers")).unwrap().count();
    berth_tests::waiting::until("only the other's bundle is there", || there() == 1).await;
    let listed = berth.runtime.list_containers(v1::ListContainersRequest::default()).await.unwrap();
    assert_eq!(listed.into_inner().containers.len(), 1);
    berth.remove_all_pods().await;
}
