//! The sandbox: what its containers share, and that nothing of it stays.

use crate::fixture::*;
use containerd_shim_protos::sandbox_api::*;
use serde_json::json;
use std::fs;
use std::time::Duration;
use ttrpc::Code;

fn joins_the_pod(config: &mut serde_json::Value) {
    config["linux"]["namespaces"] = json!([{"type": "mount"}, {"type": "pid"}]);
}

#[tokio::test]
async fn root_containers_share_the_pods_namespaces() {
    let mut shim = Shim::with_sandbox(|_| {}).await;
    for id in ["a", "b"] {
        let bundle = shim.bundle(id, "sleep 1000", joins_the_pod);
        shim.create_in(id, &bundle, |_| {}).await.unwrap();
        shim.start_task(id).await.unwrap();
    }
    let namespace = |kind: &str, pid: u32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let list = shim.berth.containers(soon(), &Default::default()).await.unwrap().containers;
    let (a, b) = (list[0].pid, list[1].pid);
    for kind in ["net", "ipc", "uts"] {
        assert_eq!(namespace(kind, a), namespace(kind, b), "{kind}");
        assert_ne!(namespace(kind, a), namespace(kind, std::process::id()), "{kind}");
    }
    assert_ne!(namespace("pid", a), namespace("pid", b));
    assert_eq!(shim.exec("a", "hostname", Duration::ZERO).await.0, "pod\n");
    let inode = |path: &std::path::Path| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path).unwrap());
    assert_eq!(inode(&shim.netns()), inode(format!("/proc/{a}/ns/net").as_ref()));
    shim.shutdown().await;
}

#[tokio::test]
async fn root_stopping_a_pod_leaves_nothing() {
    let mut shim = Shim::with_sandbox(|_| {}).await;
    let directory = shim.directory.path().display().to_string();
    let mounts = || fs::read_to_string("/proc/self/mounts").unwrap().matches(&directory).count();
    shim.run("running", "setsid sleep 6789012 & sleep 6789012").await;
    shim.create("created", "true").await;
    assert_eq!(mounts(), 1, "only the pin");
    shim.stop_sandbox().await;
    assert_eq!(processes_with("sleep 6789012"), [""; 0]);
    assert!(!shim.netns().exists());
    assert!(shim.cgroups().is_empty(), "{:?}", shim.cgroups());
    assert_eq!(mounts(), 0);
    assert_eq!(shim.wait("running").await, 137);
    shim.stop_sandbox().await;
    let refused = shim.try_create("late", "true", |_| {}).await.unwrap_err();
    assert_eq!(code(refused), Code::FAILED_PRECONDITION);
    shim.shutdown().await;
}

#[tokio::test]
async fn root_a_sandbox_tells_its_state_and_its_end() {
    let shim = Shim::with_sandbox(|options| options.host_network = true).await;
    let status = SandboxStatusRequest { sandbox_id: shim.id.clone(), ..Default::default() };
    let told = shim.sandbox.sandbox_status(soon(), &status).await.unwrap();
    assert_eq!(told.state, "SANDBOX_READY");
    assert!(told.created_at.seconds > 0 && told.pid > 0);
    let again = CreateSandboxRequest { sandbox_id: shim.id.clone(), ..Default::default() };
    assert_eq!(code(shim.sandbox.create_sandbox(soon(), &again).await.unwrap_err()), Code::ALREADY_EXISTS);
    let platform = PlatformRequest { sandbox_id: shim.id.clone(), ..Default::default() };
    assert_eq!(shim.sandbox.platform(soon(), &platform).await.unwrap().platform.os, "linux");
    let wait = WaitSandboxRequest { sandbox_id: shim.id.clone(), ..Default::default() };
    let (waited, ()) = tokio::join!(shim.sandbox.wait_sandbox(soon(), &wait), shim.stop_sandbox());
    assert!(waited.unwrap().exited_at.seconds > 0);
    assert_eq!(shim.sandbox.sandbox_status(soon(), &status).await.unwrap().state, "SANDBOX_NOTREADY");
    shim.shutdown().await;
}

#[tokio::test]
async fn root_a_shared_pid_namespace_has_a_first_process_of_the_shims_own() {
    let mut shim = Shim::with_sandbox(|options| options.shared_pid = true).await;
    let init = shim.berth.containers(soon(), &Default::default()).await.unwrap().pod_init_pid;
    assert_ne!(init, 0);
    for id in ["a", "b"] {
        let bundle = shim.bundle(id, &format!("sleep 789012{id} || sleep 7890123"), |config| {
            config["linux"]["namespaces"] =
                json!([{"type": "mount"}, {"type": "pid", "path": format!("/proc/{init}/ns/pid")}]);
        });
        shim.create_in(id, &bundle, |_| {}).await.unwrap();
        shim.start_task(id).await.unwrap();
    }
    until(|| processes_with("sleep 7890123").len() >= 2).await;
    let (listed, ..) = shim.exec("a", "ps", Duration::ZERO).await;
    assert!(listed.matches("sleep 7890123").count() >= 2, "{listed}");
    let init = pidfd(init);
    shim.stop_sandbox().await;
    gone(&init).await;
    shim.shutdown().await;
}

#[tokio::test]
async fn root_a_stopped_shim_whose_bundle_is_gone_leaves_by_itself() {
    let shim = Shim::with_sandbox(|options| options.host_network = true).await;
    fs::remove_dir_all(shim.path(&shim.id)).unwrap();
    let ended = pidfd(shim.pid);
    shim.stop_sandbox().await;
    gone(&ended).await;
}

#[tokio::test]
async fn root_a_stop_waits_for_containers_in_the_making_but_not_for_ever() {
    let mut shim = Shim::with_sandbox(|_| {}).await;
    let bundle = shim.bundle("c", "true", |config| {
        config["hooks"] = json!({"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "8901234"]}]});
    });
    let stopping = async {
        until(|| processes_with("sleep 8901234").len() == 1).await;
        let stop = StopSandboxRequest { sandbox_id: shim.id.clone(), timeout_secs: 1, ..Default::default() };
        let error = shim.sandbox.stop_sandbox(soon(), &stop).await.unwrap_err();
        assert!(error.to_string().contains("the creation of a container takes too long"), "{error}");
        shim.kill_shim().await;
    };
    let (created, ()) = tokio::join!(shim.create_in("c", &bundle, |_| {}), stopping);
    assert!(created.is_err());
    until(|| processes_with("sleep 8901234").is_empty()).await;
}
