use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::{container, pod, shell},
    program,
    waiting::until,
};
use serde_json::Value;
use tonic::{Code, Status};

use crate::bad_input::assert_says;

async fn tell_ranges(berth: &mut Berth, pod_cidr: &str) -> Result<(), Status> {
    let network_config = Some(v1::NetworkConfig { pod_cidr: pod_cidr.into() });
    let runtime_config = Some(v1::RuntimeConfig { network_config });
    berth.runtime.update_runtime_config(v1::UpdateRuntimeConfigRequest { runtime_config }).await.map(drop)
}

/// A CNI template with its own bridge, and host-local's records in `data`.
fn template(bridge: &str, data: &Path) -> String {
    r#"{"cniVersion": "1.0.0", "name": "told", "plugins": [{"type": "bridge", "bridge": "BRIDGE", "ipam": {
        "type": "host-local", "dataDir": DATA,
        "ranges": [{{range $i, $range := .PodCIDRRanges}}{{if $i}}, {{end}}[{"subnet": "{{$range}}"}]{{end}}],
        "routes": [{{range $i, $route := .Routes}}{{if $i}}, {{end}}{"dst": "{{$route}}"}{{end}}]
    }}]}"#
        .replace("DATA", &format!("{data:?}"))
        .replace("BRIDGE", bridge)
}

async fn with_template(directory: &Path) -> Berth {
    Berth::with_network(&format!(
        "provider = \"cni\"\n[network.cni]\nconf_dir = {:?}\nbin_dirs = [{:?}]\nconf_template = {:?}\n",
        directory.join("net.d"),
        program("BERTH_TEST_CNI"),
        directory.join("template"),
    ))
    .await
}

async fn network_is_ready(berth: &mut Berth) -> bool {
    let status = berth.runtime.status(v1::StatusRequest::default()).await.unwrap().into_inner();
    status.status.unwrap().conditions.iter().all(|condition| condition.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_nodes_addresses_make_a_network_of_the_template() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let bridge = format!("btold{}", std::process::id());
    fs::write(path.join("template"), template(&bridge, &path.join("leases"))).unwrap();
    let mut berth = with_template(path).await;
    tell_ranges(&mut berth, "").await.unwrap();
    assert!(!network_is_ready(&mut berth).await);

    tell_ranges(&mut berth, "10.213.7.0/24, fd00:213::/64").await.unwrap();
    assert!(network_is_ready(&mut berth).await, "as soon as the call is answered");
    let sandbox = pod(&berth, "told");
    let id = berth.run(&sandbox).await.unwrap();
    let network = berth.pod_status(&id).await.unwrap().network.unwrap();
    assert!(network.ip.starts_with("10.213.7."), "{network:?}");
    assert!(network.additional_ips[0].ip.starts_with("fd00:213::"), "{network:?}");
    berth.remove_pod(&id).await.unwrap();
    // The CNI plugin does not remove its bridge.
    assert!(Command::new("ip").args(["link", "del", &bridge]).status().unwrap().success());

    // A new range is written to the file.
    tell_ranges(&mut berth, "10.213.8.0/24").await.unwrap();
    let file = path.join("net.d/10-berth-net.conflist");
    let list: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(list["plugins"][0]["ipam"]["ranges"].to_string(), r#"[[{"subnet":"10.213.8.0/24"}]]"#);
    assert_eq!(list["plugins"][0]["ipam"]["routes"].to_string(), r#"[{"dst":"0.0.0.0/0"}]"#);

    // No file is written while there is another network.
    fs::rename(&file, path.join("net.d/50-other.conflist")).unwrap();
    tell_ranges(&mut berth, "10.213.9.0/24").await.unwrap();
    assert_eq!(fs::read_dir(path.join("net.d")).unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_addresses_or_a_template_that_make_no_network_are_refused_and_leave_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::create_dir(path.join("net.d")).unwrap();
    let mut berth = with_template(path).await;
    for wrong in ["10.1.0.0", "10.1.0.0/16,", "fd00::/129", "\n10.1.0.0/40", "x"] {
        let error = tell_ranges(&mut berth, wrong).await.unwrap_err();
        assert_says(&error, Code::InvalidArgument, &["pod_cidr"]);
    }
    let error = tell_ranges(&mut berth, "10.1.0.0/16").await.unwrap_err();
    assert_says(&error, Code::Internal, &["template", "No such file"]);
    for (text, word) in [("{{.Nothing}}", ".Nothing"), ("no JSON", "JSON"), ("{}", "name"), ("{{range", "}}")]
    {
        fs::write(path.join("template"), text).unwrap();
        let error = tell_ranges(&mut berth, "10.1.0.0/16").await.unwrap_err();
        assert_says(&error, Code::FailedPrecondition, &["template", word]);
    }
    assert_eq!(fs::read_dir(path.join("net.d")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_built_in_network_keeps_its_subnet() {
    let mut berth = Berth::start().await;
    tell_ranges(&mut berth, "10.1.0.0/16").await.unwrap();
    assert!(berth.log().contains("keeps its subnet"));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_a_pod_may_take_is_remembered() {
    let mut berth = Berth::start().await;
    let mut sandbox = pod(&berth, "resized");
    let told = |memory, shares| {
        Some(v1::LinuxContainerResources {
            memory_limit_in_bytes: memory,
            cpu_shares: shares,
            ..Default::default()
        })
    };
    sandbox.linux.as_mut().unwrap().resources = told(1 << 30, 512);
    let id = berth.run(&sandbox).await.unwrap();
    assert_eq!(limit(&mut berth, &id, "resources").await, 1 << 30);
    let request = |id: &str, overhead, resources| v1::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: id.into(),
        overhead,
        resources,
    };
    let change = request(&id, told(1 << 20, 2), told(1 << 31, 1024));
    berth.runtime.update_pod_sandbox_resources(change).await.unwrap();
    let change = request(&id, None, told(1 << 32, 0));
    berth.runtime.update_pod_sandbox_resources(change).await.unwrap();
    berth.kill();
    berth.restart().await;
    assert_eq!(limit(&mut berth, &id, "resources").await, 1 << 32);
    assert_eq!(limit(&mut berth, &id, "overhead").await, 1 << 20);

    for (wrong, code, word) in [
        (request("0123", None, told(1, 2)), Code::NotFound, "0123"),
        (request("", None, told(1, 2)), Code::InvalidArgument, "pod_sandbox_id"),
        (request(&id, None, None), Code::InvalidArgument, "resources"),
        (request(&id, told(-2, 2), None), Code::InvalidArgument, "overhead.memory_limit_in_bytes"),
        (request(&id, None, told(1, -1)), Code::InvalidArgument, "resources.cpu_shares"),
    ] {
        let error = berth.runtime.update_pod_sandbox_resources(wrong).await.unwrap_err();
        assert_says(&error, code, &[word]);
    }
}

async fn limit(berth: &mut Berth, pod: &str, which: &str) -> i64 {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
    let answer = berth.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
    let info: Value = serde_json::from_str(&answer.info["info"]).unwrap();
    info["config"][which]["memory_limit"].as_i64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_limits_of_a_container_change_all_or_none() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("limits", &image, "exec sleep 1000").await;
    let update = |id: &str, memory, cpus: &str| v1::UpdateContainerResourcesRequest {
        container_id: id.into(),
        linux: Some(v1::LinuxContainerResources {
            memory_limit_in_bytes: memory,
            cpu_shares: 300,
            cpuset_cpus: cpus.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let in_force = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes cpu/cpu.shares cpuset/cpuset.cpus \
                    memory.max cpu.weight cpuset.cpus 2>/dev/null";
    berth.runtime.update_container_resources(update(&id, 256 << 20, "0")).await.unwrap();
    let before = berth.shell(&id, in_force).await;
    assert!(before.starts_with("268435456\n"), "{before}");
    let error = berth.runtime.update_container_resources(update(&id, 512 << 20, "4095")).await.unwrap_err();
    assert!(error.message().contains("cpuset.cpus"), "{error:?}");
    assert_eq!(berth.shell(&id, in_force).await, before);
    let resources = berth.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!((resources.memory_limit_in_bytes, resources.cpuset_cpus.as_str()), (256 << 20, "0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_checkpoints_say_what_is_missing_and_leave_nothing() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod_id, id) = berth.run_alone("frozen", &image, "exec sleep 1000").await;
    let (_, other) = berth.run_alone("other", &image, "exec sleep 1000").await;
    let output = tempfile::tempdir().unwrap();
    let place = output.path().display().to_string();

    let one = |id: &str, location: &str, timeout| v1::CheckpointContainerRequest {
        container_id: id.into(),
        location: location.into(),
        timeout,
    };
    let archive = format!("{place}/archive.tar");
    for (request, code, word) in [
        (one(&id, &archive, 0), Code::FailedPrecondition, "CRIU"),
        (one("0123", &archive, 0), Code::NotFound, "0123"),
        (one(&id, "", 0), Code::InvalidArgument, "location"),
        (one(&id, "../archive", 0), Code::InvalidArgument, "location"),
        (one(&id, &archive, -1), Code::InvalidArgument, "timeout"),
        (one("", &archive, 0), Code::InvalidArgument, "container_id"),
    ] {
        assert_says(&berth.runtime.checkpoint_container(request).await.unwrap_err(), code, &[word]);
    }

    let whole = |pod: &str, ids: &[&str], option: Option<&str>| v1::CheckpointPodRequest {
        pod_sandbox_id: pod.into(),
        output_path: place.clone(),
        container_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        options: option.map(|key| (key.to_owned(), "1".to_owned())).into_iter().collect(),
    };
    for (request, code, word) in [
        (whole(&pod_id, &[&id], None), Code::FailedPrecondition, "CRIU"),
        (whole("0123", &[&id], None), Code::NotFound, "0123"),
        (whole(&pod_id, &["4567"], None), Code::NotFound, "4567"),
        (whole(&pod_id, &[], None), Code::InvalidArgument, "container_ids"),
        (whole(&pod_id, &[&id, &id], None), Code::InvalidArgument, "twice"),
        (whole(&pod_id, &[&other], None), Code::InvalidArgument, "is not of pod"),
        (whole(&pod_id, &[&id], Some("leave-running")), Code::InvalidArgument, "leave-running"),
    ] {
        assert_says(&berth.runtime.checkpoint_pod(request).await.unwrap_err(), code, &[word]);
    }
    let error = berth.runtime.checkpoint_pod(v1::CheckpointPodRequest::default()).await.unwrap_err();
    assert_says(&error, Code::InvalidArgument, &["output_path"]);

    let restored = v1::RestorePodRequest {
        checkpoint_path: place.clone(),
        config: Some(pod(&berth, "restored")),
        container_configs: vec![container("frozen", &image, &["true"])],
        ..Default::default()
    };
    let error = berth.runtime.restore_pod(restored.clone()).await.unwrap_err();
    assert_says(&error, Code::FailedPrecondition, &["CRIU"]);
    let handler = v1::RestorePodRequest { runtime_handler: "none".into(), ..restored.clone() };
    assert_says(&berth.runtime.restore_pod(handler).await.unwrap_err(), Code::InvalidArgument, &["none"]);
    let empty = v1::RestorePodRequest { container_configs: Vec::new(), ..restored.clone() };
    let error = berth.runtime.restore_pod(empty).await.unwrap_err();
    assert_says(&error, Code::InvalidArgument, &["container_configs"]);
    let unnamed = v1::RestorePodRequest { config: None, ..restored };
    assert_says(&berth.runtime.restore_pod(unnamed).await.unwrap_err(), Code::InvalidArgument, &["config"]);

    assert_eq!(fs::read_dir(output.path()).unwrap().count(), 0);
    assert_eq!(berth.shell(&id, "echo fine").await, "fine\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_directory_is_made_where_the_source_of_a_mount_is_missing() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "missing");
    let pod = berth.run(&sandbox).await.unwrap();
    let source = berth.path().join("not/yet/there");
    let mount = |host_path: &Path| v1::Mount {
        container_path: "/data".into(),
        host_path: host_path.display().to_string(),
        mount_options: vec!["nosuid".into(), "noexec".into(), "nodev".into()],
        ..Default::default()
    };
    let script = "echo written > /data/file; exec sleep 1000";
    let mut config = shell("made", &image, script);
    config.mounts.push(mount(&source));
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    // The shell creates the file before it writes to it.
    until("the file is written", || {
        fs::read_to_string(source.join("file")).is_ok_and(|text| text == "written\n")
    })
    .await;
    assert_eq!(fs::metadata(&source).unwrap().permissions().mode() & 0o7777, 0o755);
    let options = berth.shell(&id, "grep ' /data ' /proc/self/mountinfo").await;
    for option in ["nosuid", "noexec", "nodev"] {
        assert!(options.contains(option), "{options}");
    }

    for (number, wrong) in [source.join("file/below"), "/proc/no/such".into()].iter().enumerate() {
        let mut config = shell(&format!("wrong{number}"), &image, "true");
        config.mounts.push(mount(wrong));
        let error = berth.create(&pod, &sandbox, config).await.unwrap_err();
        assert_says(&error, Code::InvalidArgument, &[&wrong.display().to_string()]);
    }
}
