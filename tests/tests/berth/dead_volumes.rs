use std::time::{Duration, Instant};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    dead_fs::DeadFs,
    pod::{pod, shell},
};
use tonic::{Code, Request};

use crate::restart::shim_of;

/// Adds a directory below the daemon's own as a volume at /data.
fn with_volume(berth: &Berth, volume: &str, mut config: v1::ContainerConfig) -> v1::ContainerConfig {
    config.mounts.push(v1::Mount {
        host_path: berth.path().join(volume).display().to_string(),
        container_path: "/data".into(),
        ..Default::default()
    });
    config
}

/// Request to create a container with a volume below `volume`, with `limit` as the caller's deadline.
fn hanging(
    berth: &Berth,
    pod: &str,
    sandbox: &v1::PodSandboxConfig,
    image: &str,
    limit: Duration,
) -> Request<v1::CreateContainerRequest> {
    let config = with_volume(berth, "volume/data", shell("hangs", image, "sleep 1000"));
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
    let dead = DeadFs::unanswered(&berth.path().join("volume"));

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

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_cannot_die_is_given_up_with_its_pod_and_gone_when_its_volume_is_back() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "undead");
    let pod = berth.run(&sandbox).await.unwrap();
    let dead = DeadFs::lookups_unanswered(&berth.path().join("volume"));
    let asks = with_volume(&berth, "volume", shell("asks", &image, "exec cat /data/anything"));
    let id = berth.create(&pod, &sandbox, asks).await.unwrap();
    berth.start_container(&id).await.unwrap();
    let shim = shim_of(&pod);

    let error = berth.stop_container(&id, 0).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    berth.stop_pod(&pod).await.unwrap();
    let status = berth.status(&id).await.unwrap();
    assert_eq!((status.state(), status.exit_code), (v1::ContainerState::ContainerExited, 137));
    assert!(status.message.contains("does not die"), "{}", status.message);
    berth.remove_pod(&pod).await.unwrap();
    assert!(runs(shim), "the shim stays until the container is gone");
    let (other, _) = berth.run_alone("other", &image, "sleep 1000").await;
    berth.remove_pod(&other).await.unwrap();

    drop(dead);
    berth_tests::waiting::until("the shim has left", || !runs(shim)).await;
}

fn runs(process: nix::unistd::Pid) -> bool {
    nix::sys::signal::kill(process, None).is_ok()
}
