use std::collections::HashMap;

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::{container, pod, shell},
    waiting::until,
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_runs_answers_an_exec_and_is_stopped_and_removed() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("life", &image, "echo hello; exec sleep 1000").await;

    let status = berth.status(&id).await.unwrap();
    assert_eq!(status.state(), v1::ContainerState::ContainerRunning);
    assert_eq!(status.image_id, image);
    assert!(status.created_at <= status.started_at && status.started_at > 0);
    let said = berth.exec(&id, &["sh", "-c", "echo out; echo err >&2; exit 3"]).await.unwrap();
    assert_eq!((said.stdout, said.stderr, said.exit_code), (b"out\n".to_vec(), b"err\n".to_vec(), 3));

    berth.stop_container(&id, 0).await.unwrap();
    let status = berth.status(&id).await.unwrap();
    assert_eq!((status.state(), status.exit_code), (v1::ContainerState::ContainerExited, 137));
    assert!(status.finished_at >= status.started_at);
    assert_eq!(berth.log_of("life", "life"), [("stdout".into(), "hello".into())]);

    berth.remove_container(&id).await.unwrap();
    assert_eq!(berth.status(&id).await.unwrap_err().code(), Code::NotFound);
    berth.stop_pod(&pod).await.unwrap();
    assert_eq!(berth.pod_status(&pod).await.unwrap().state(), v1::PodSandboxState::SandboxNotready);
    berth.remove_pod(&pod).await.unwrap();
    assert_eq!(berth.pod_status(&pod).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_exit_codes_and_reasons_are_told() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    for (name, script, code, reason) in [
        ("fine", "exit 0", 0, "Completed"),
        ("seven", "exit 7", 7, "Error"),
        ("killed", "kill -9 $$", 137, "Error"),
    ] {
        let (_, id) = berth.run_alone(name, &image, script).await;
        let status = berth.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (code, reason), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_stop_signal_is_sent_first_and_the_grace_period_is_given() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth
        .run_alone("polite", &image, "trap 'exit 42' TERM; echo ready; while :; do sleep 0.05; done")
        .await;
    until("it is ready", || !berth.log_of("polite", "polite").is_empty()).await;
    berth.stop_container(&id, 10).await.unwrap();
    assert_eq!(berth.status(&id).await.unwrap().exit_code, 42);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_asking_again_for_the_same_pod_or_container_gives_the_same_one() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "twice");
    let (mut other, same) = (berth.runtime.clone(), sandbox.clone());
    let at_once = tokio::spawn(async move {
        let request = v1::RunPodSandboxRequest { config: Some(same), runtime_handler: String::new() };
        other.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    });
    let first = berth.run(&sandbox).await.unwrap();
    assert_eq!(at_once.await.unwrap(), first);
    assert_eq!(berth.run(&sandbox).await.unwrap(), first);

    let created = berth.create(&first, &sandbox, shell("c", &image, "sleep 100")).await.unwrap();
    assert_eq!(berth.create(&first, &sandbox, shell("c", &image, "sleep 100")).await.unwrap(), created);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_is_gone_or_never_was_may_be_stopped_and_removed_again() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("again", &image, "true").await;
    for _ in 0..2 {
        berth.stop_container(&id, 0).await.unwrap();
        berth.stop_pod(&pod).await.unwrap();
    }
    for _ in 0..2 {
        berth.remove_container(&id).await.unwrap();
        berth.remove_pod(&pod).await.unwrap();
    }
    berth.stop_container("no-such-container", 1).await.unwrap();
    berth.stop_pod("no-such-pod").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_lists_are_filtered_by_id_state_pod_and_labels_together() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, running) = berth.run_alone("one", &image, "sleep 1000").await;
    let (_, ended) = berth.run_alone("two", &image, "true").await;
    berth.ended(&ended).await;
    let mut list = async |filter| {
        let request = v1::ListContainersRequest { filter: Some(filter) };
        let listed = berth.runtime.list_containers(request).await.unwrap().into_inner().containers;
        listed.into_iter().map(|container| container.id).collect::<Vec<_>>()
    };
    let by = v1::ContainerFilter::default;
    assert_eq!(list(by()).await.len(), 2);
    assert_eq!(
        list(v1::ContainerFilter { id: running.clone(), ..by() }).await,
        std::slice::from_ref(&running)
    );
    assert_eq!(
        list(v1::ContainerFilter { pod_sandbox_id: pod.clone(), ..by() }).await,
        std::slice::from_ref(&running)
    );
    let state = Some(v1::ContainerStateValue { state: v1::ContainerState::ContainerExited.into() });
    assert_eq!(list(v1::ContainerFilter { state, ..by() }).await, std::slice::from_ref(&ended));
    assert!(list(v1::ContainerFilter { state, pod_sandbox_id: pod, ..by() }).await.is_empty());
    let label_selector = HashMap::from([("none".into(), "such".into())]);
    assert!(list(v1::ContainerFilter { label_selector, ..by() }).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_over_its_memory_limit_is_reported_as_killed_for_it() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "oom");
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = container("oom", &image, &["dd", "if=/dev/zero", "of=/dev/null", "bs=100M"]);
    let resources = v1::LinuxContainerResources { memory_limit_in_bytes: 15 << 20, ..Default::default() };
    config.linux.as_mut().unwrap().resources = Some(resources);
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    let status = berth.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_exec_that_takes_too_long_is_killed_and_says_so() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("slow", &image, "exec sleep 1000").await;
    let request = v1::ExecSyncRequest {
        container_id: id.clone(),
        cmd: vec!["sleep".into(), "4321".into()],
        timeout: 1,
    };
    let error = berth.runtime.exec_sync(request).await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(!berth.shell(&id, "ps").await.contains("4321"));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_limits_change_while_it_runs_and_what_is_left_out_stays() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("limits", &image, "exec sleep 1000").await;
    for (memory, shares) in [(64 << 20, 0), (0, 512)] {
        let linux = v1::LinuxContainerResources {
            memory_limit_in_bytes: memory,
            cpu_shares: shares,
            ..Default::default()
        };
        let request = v1::UpdateContainerResourcesRequest {
            container_id: id.clone(),
            linux: Some(linux),
            ..Default::default()
        };
        berth.runtime.update_container_resources(request).await.unwrap();
    }
    let resources = berth.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!((resources.memory_limit_in_bytes, resources.cpu_shares), (64 << 20, 512));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_containers_of_a_pod_share_network_ipc_and_shm_and_the_pid_namespace_when_asked() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let mut sandbox = pod(&berth, "shared");
    let pid = v1::NamespaceOption { pid: v1::NamespaceMode::Pod.into(), ..Default::default() };
    sandbox.linux.as_mut().unwrap().security_context =
        Some(v1::LinuxSandboxSecurityContext { namespace_options: Some(pid.clone()), ..Default::default() });
    let pod = berth.run(&sandbox).await.unwrap();
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        let mut config = shell(name, &image, "exec sleep 1000");
        config.linux.as_mut().unwrap().security_context = Some(v1::LinuxContainerSecurityContext {
            namespace_options: Some(pid.clone()),
            ..Default::default()
        });
        let id = berth.create(&pod, &sandbox, config).await.unwrap();
        berth.start_container(&id).await.unwrap();
        ids.push(id);
    }
    let seen = "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; hostname";
    let first = berth.shell(&ids[0], seen).await;
    assert_eq!(first, berth.shell(&ids[1], seen).await);
    assert!(first.contains("shared"));
    berth.shell(&ids[0], "echo here > /dev/shm/file").await;
    assert_eq!(berth.shell(&ids[1], "cat /dev/shm/file").await, "here\n");
    assert_eq!(berth.shell(&ids[1], "ps | grep -c '[s]leep 1000'").await.trim(), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_with_a_standard_input_waits_for_someone_and_one_without_reads_its_end() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "input");
    let pod = berth.run(&sandbox).await.unwrap();
    let mut ids = Vec::new();
    for (name, stdin) in [("with", true), ("without", false)] {
        let config = v1::ContainerConfig { stdin, ..shell(name, &image, "cat; echo ended") };
        let id = berth.create(&pod, &sandbox, config).await.unwrap();
        berth.start_container(&id).await.unwrap();
        ids.push(id);
    }
    berth.ended(&ids[1]).await;
    assert_eq!(berth.log_of("input", "without"), [("stdout".into(), "ended".into())]);
    assert_eq!(berth.status(&ids[0]).await.unwrap().state(), v1::ContainerState::ContainerRunning);
    let pipe = berth.path().join("run/containers").join(&ids[0]).join("stdin");
    std::fs::write(pipe, "typed\n").unwrap();
    until("it has read the line", || !berth.log_of("input", "with").is_empty()).await;
    assert_eq!(berth.log_of("input", "with"), [("stdout".into(), "typed".into())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_nested_directories_deeply_is_removed_and_the_daemon_lives_on() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("deep", &image, "exec sleep 1000").await;
    berth.stop_container(&id, 0).await.unwrap();
    let writable = berth.path().join("root/containers").join(&id);
    nest(&writable.join("upper"), 1000);
    let limited = std::process::Command::new("prlimit")
        .args(["--nofile=500:500", "--pid", &berth.pid().to_string()])
        .status();
    assert!(limited.unwrap().success());
    berth.remove_container(&id).await.unwrap();
    assert!(!writable.exists());
}

/// Makes `depth` nested directories from the host, since a shell in the container would be too slow.
fn nest(top: &std::path::Path, depth: usize) {
    use nix::{fcntl, sys::stat};
    let mut here: std::os::fd::OwnedFd = std::fs::File::open(top).unwrap().into();
    for _ in 0..depth {
        stat::mkdirat(&here, "down", stat::Mode::S_IRWXU).unwrap();
        here = fcntl::openat(&here, "down", fcntl::OFlag::O_DIRECTORY, stat::Mode::empty()).unwrap();
    }
}
