//! Pods of another handler, with containerd's unmodified shim for runc.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use berth_cri::v1::{self, runtime_service_client::RuntimeServiceClient};
use berth_tests::{
    berth::Berth,
    crictl::{Running, TRANSPORTS, Terminal, crictl},
    nri::Plugin,
    pod::{pod, shell},
    waiting::{eventually, until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use tonic::Code;

use crate::{
    bad_input::assert_says,
    restart::processes_with,
    streaming::{ECHO, comes_back, forward},
};

/// Runs a pod of the handler `runc` with one container that runs `script`. Returns the ids of both.
async fn run(berth: &mut Berth, name: &str, image: &str, script: &str) -> (String, String) {
    let sandbox = pod(berth, name);
    let id = berth.run_in("runc", &sandbox).await.unwrap();
    let container = berth.create(&id, &sandbox, shell(name, image, script)).await.unwrap();
    berth.start_container(&container).await.unwrap();
    (id, container)
}

/// Asserts that mounts, processes, cgroups and runc's state of a removed pod are gone.
fn nothing_is_left_of(berth: &Berth, pod: &str) {
    let directory = berth.path().display().to_string();
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.lines().any(|line| line.contains(&directory)), "{mounts}");
    assert_eq!(processes_with(pod), 0);
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name", pod]).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
    assert!(!fs::exists(format!("/run/containerd/runc/berth/{pod}")).unwrap());
}

/// Pids whose command line has `binary` and, after it, `pod`.
fn shims(binary: &str, pod: &str) -> Vec<Pid> {
    let found = Command::new("pgrep").args(["-f", &format!("{binary}.*{pod}")]).output().unwrap();
    let text = String::from_utf8(found.stdout).unwrap();
    text.lines().map(|line| Pid::from_raw(line.parse().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pod_of_runc_lives_and_dies_like_one_of_berths_own() {
    let mut berth = Berth::with_runc().await;
    let image = berth.busybox().await;
    let script = "echo out; echo err >&2; trap 'echo bye; exit 7' TERM; while :; do sleep 0.1; done";
    let (pod, id) = run(&mut berth, "life", &image, script).await;
    assert_eq!(berth.pod_status(&pod).await.unwrap().runtime_handler, "runc");
    assert_eq!(berth.shell(&id, "hostname; cat /etc/hostname").await, "life\nlife\n");
    let address = berth.pod_status(&pod).await.unwrap().network.unwrap().ip;
    assert!(berth.shell(&id, "ip address").await.contains(&address));
    assert_eq!(berth.exec(&id, &["sh", "-c", "exit 42"]).await.unwrap().exit_code, 42);
    assert_eq!(
        berth.shell(&id, "seq 100000 | md5sum").await,
        berth.shell(&id, "seq 100000 > /n; md5sum < /n").await
    );
    assert_eq!(berth.shell(&id, "seq 100000").await.lines().count(), 100_000);
    assert_eq!(berth.remove_pod("no such pod").await.map_err(|s| s.code()), Ok(()));
    berth.stop_container(&id, 10).await.unwrap();
    let status = berth.status(&id).await.unwrap();
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    let mut log = berth.log_of("life", "life");
    log.sort();
    let line = |stream: &str, text: &str| (stream.to_owned(), text.to_owned());
    assert_eq!(log, [line("stderr", "err"), line("stdout", "bye"), line("stdout", "out")]);
    berth.remove_container(&id).await.unwrap();
    berth.remove_pod(&pod).await.unwrap();
    nothing_is_left_of(&berth, &pod);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_containers_of_a_foreign_pod_share_what_a_pod_shares() {
    let mut berth = Berth::with_runc().await;
    let image = berth.busybox().await;
    let mut sandbox = pod(&berth, "shared");
    let linux = sandbox.linux.get_or_insert_default();
    linux.sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "77".into());
    linux.security_context.get_or_insert_default().namespace_options =
        Some(v1::NamespaceOption { pid: v1::NamespaceMode::Pod.into(), ..Default::default() });
    let id = berth.run_in("runc", &sandbox).await.unwrap();
    let mut containers = Vec::new();
    for name in ["a", "b"] {
        let mut config = shell(name, &image, "exec sleep 1000");
        config.linux.get_or_insert_default().security_context.get_or_insert_default().namespace_options =
            Some(v1::NamespaceOption { pid: v1::NamespaceMode::Pod.into(), ..Default::default() });
        let container = berth.create(&id, &sandbox, config).await.unwrap();
        berth.start_container(&container).await.unwrap();
        containers.push(container);
    }
    berth.shell(&containers[0], "echo here > /dev/shm/note").await;
    assert_eq!(berth.shell(&containers[1], "cat /dev/shm/note").await, "here\n");
    assert_eq!(
        berth.shell(&containers[1], "cat /proc/sys/net/ipv4/ip_unprivileged_port_start").await,
        "77\n"
    );
    assert_eq!(berth.shell(&containers[0], "ps | grep -c '[s]leep 1000'").await, "2\n");
    assert_eq!(berth.shell(&containers[0], "readlink /proc/1/exe; cat /proc/1/comm").await, "pause\n");
    berth.remove_pod(&id).await.unwrap();
    nothing_is_left_of(&berth, &id);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_killed_daemon_finds_foreign_containers_their_logs_and_the_exits_it_missed() {
    let mut berth = Berth::with_runc().await;
    let image = berth.busybox().await;
    let script = "echo one; while [ ! -e /dev/shm/go ]; do sleep 0.05; done; echo two; exit 13";
    let (pod, id) = run(&mut berth, "missed", &image, script).await;
    let (_, other) = run(&mut berth, "stays", &image, "exec sleep 1000").await;
    berth.kill();
    let shm = berth.path().join("run/sandboxes").join(&pod).join("shm/go");
    fs::write(shm, "").unwrap();
    let record = berth.path().join("run/containers").join(&id).join("exit.json");
    until("its end is written down", || record.exists()).await;
    berth.restart().await;
    let status = berth.ended(&id).await;
    assert_eq!((status.state(), status.exit_code), (v1::ContainerState::ContainerExited, 13));
    let lines: Vec<_> = berth.log_of("missed", "missed").into_iter().map(|(_, line)| line).collect();
    assert_eq!(lines, ["one", "two"]);
    assert_eq!(berth.shell(&other, "echo alive").await, "alive\n");
    berth.stop_container(&other, 0).await.unwrap();
    assert_eq!(berth.status(&other).await.unwrap().exit_code, 137);
    berth.remove_all_pods().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_foreign_shim_that_is_killed_takes_its_pod_with_it() {
    let mut berth = Berth::with_runc().await;
    let image = berth.busybox().await;
    let (pod, id) = run(&mut berth, "foreign", &image, "exec sleep 7654331").await;
    let found = shims("containerd-shim-runc-v2", &pod);
    assert_eq!(found.len(), 1);
    kill(found[0], Signal::SIGKILL).unwrap();
    let status = berth.ended(&id).await;
    assert_eq!(status.exit_code, 137);
    assert!(status.message.contains("shim died"), "{}", status.message);
    assert_eq!(processes_with("7654331"), 0);
    not_ready(&mut berth, &pod).await;
    berth.remove_pod(&pod).await.unwrap();
    nothing_is_left_of(&berth, &pod);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_nothing_runs_on_when_the_process_before_a_foreign_shim_is_killed() {
    let mut berth = Berth::with_runc().await;
    let image = berth.busybox().await;
    let (pod, id) = run(&mut berth, "between", &image, "exec sleep 7654332").await;
    for shim in shims("containerd-shim-berth-v1", &pod) {
        kill(shim, Signal::SIGKILL).unwrap();
    }
    let status = berth.ended(&id).await;
    assert_ne!(status.exit_code, 0);
    assert_eq!(processes_with("7654332"), 0);
    not_ready(&mut berth, &pod).await;
    berth.remove_pod(&pod).await.unwrap();
    assert_eq!(shims("containerd-shim-runc-v2", &pod), []);
    nothing_is_left_of(&berth, &pod);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_both_killed_while_the_daemon_is_away_are_noticed_at_its_start() {
    let mut berth = Berth::with_runc().await;
    let image = berth.busybox().await;
    let (pod, id) = run(&mut berth, "all", &image, "exec sleep 7654333").await;
    berth.kill();
    for shim in shims("containerd-shim", &pod) {
        kill(shim, Signal::SIGKILL).unwrap();
    }
    berth.restart().await;
    let status = berth.ended(&id).await;
    assert_eq!(status.state(), v1::ContainerState::ContainerExited);
    assert_eq!(processes_with("7654333"), 0);
    berth.remove_pod(&pod).await.unwrap();
    nothing_is_left_of(&berth, &pod);
}

async fn not_ready(berth: &mut Berth, pod: &str) {
    let state = async || berth.pod_status(pod).await.unwrap().state();
    eventually(state, |state| *state == v1::PodSandboxState::SandboxNotready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_foreign_container_that_cannot_start_says_why() {
    let mut berth = Berth::with_runc().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "fails");
    let id = berth.run_in("runc", &sandbox).await.unwrap();
    let config = berth_tests::pod::container("fails", &image, &["/no/such/command"]);
    let refused = match berth.create(&id, &sandbox, config).await {
        Ok(container) => berth.start_container(&container).await.unwrap_err(),
        Err(refused) => refused,
    };
    assert!(refused.message().contains("/no/such/command"), "{}", refused.message());
    berth.remove_pod(&id).await.unwrap();
    nothing_is_left_of(&berth, &id);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_foreign_container_that_needs_too_much_memory_is_reported_as_such() {
    let mut berth = Berth::with_runc().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "oom");
    let id = berth.run_in("runc", &sandbox).await.unwrap();
    let mut config = shell("oom", &image, "exec tail /dev/zero");
    config.linux.get_or_insert_default().resources =
        Some(v1::LinuxContainerResources { memory_limit_in_bytes: 20 << 20, ..Default::default() });
    let container = berth.create(&id, &sandbox, config).await.unwrap();
    berth.start_container(&container).await.unwrap();
    let status = berth.ended(&container).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    berth.remove_pod(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_handler_that_is_not_there_is_refused_and_leaves_nothing() {
    let mut berth = Berth::with_runc().await;
    let sandbox = pod(&berth, "unknown");
    assert_eq!(berth.run_in("kata", &sandbox).await.unwrap_err().code(), Code::InvalidArgument);
    let status = berth.runtime.status(v1::StatusRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = status.runtime_handlers.iter().map(|handler| handler.name.as_str()).collect();
    assert_eq!(names, ["", "berth", "runc"]);
    let features = status.runtime_handlers[2].features.unwrap();
    assert!(features.recursive_read_only_mounts && !features.user_namespaces);
    let listed = berth.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
    assert!(listed.into_inner().items.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_foreign_pod_that_cannot_be_made_leaves_no_shim_behind() {
    let mut berth = Berth::with_runc().await;
    let mut sandbox = pod(&berth, "unmade");
    sandbox.linux.get_or_insert_default().sysctls.insert("net.ipv4.no_such_parameter".into(), "1".into());
    let refused = berth.run_in("runc", &sandbox).await.unwrap_err();
    assert!(refused.message().contains("no_such_parameter"), "{}", refused.message());
    assert_eq!(shims("containerd-shim-runc-v2", &berth.path().display().to_string()), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_foreign_pod_that_is_removed_while_a_container_is_made_leaves_nothing() {
    let mut berth = Berth::with_runc().await;
    let image = berth.busybox().await;
    for delay in [20, 40, 60, 80] {
        let sandbox = pod(&berth, "hurried");
        let id = berth.run_in("runc", &sandbox).await.unwrap();
        let mut other = RuntimeServiceClient::new(berth.connect().await);
        let request = v1::StopPodSandboxRequest { pod_sandbox_id: id.clone() };
        let stopping = async {
            tokio::time::sleep(Duration::from_millis(delay)).await;
            other.stop_pod_sandbox(request).await.unwrap();
        };
        // The container is created and then ended with its pod, or refused.
        let creating = berth.create(&id, &sandbox, shell("hurried", &image, "exec sleep 1000"));
        let (_, ()) = tokio::join!(creating, stopping);
        berth.remove_pod(&id).await.unwrap();
        nothing_is_left_of(&berth, &id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_foreign_container_is_reached_by_exec_attach_and_port_forward() {
    let mut berth = Berth::with_runc().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "reached");
    let pod = berth.run_in("runc", &sandbox).await.unwrap();
    let script = "while read -r line; do echo \"got $line\"; done; exec sleep 1000";
    let config = v1::ContainerConfig { stdin: true, ..shell("reached", &image, script) };
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    let echo = berth.create(&pod, &sandbox, shell("echo", &image, ECHO)).await.unwrap();
    berth.start_container(&echo).await.unwrap();
    for transport in TRANSPORTS {
        let mut terminal =
            Terminal::start(&mut crictl(&berth, "exec", transport, &["-it", &id, "sh"]), 91, 31);
        terminal.write("while [ \"$(busybox stty size)\" != '31 91' ]; do :; done; echo si''zed\n");
        terminal.until("sized");
        terminal.resize(120, 40);
        terminal.write("while [ \"$(busybox stty size)\" != '40 120' ]; do :; done; echo re''sized\n");
        terminal.until("resized");
        terminal.write("exit 7\n");
        terminal.until("exit code 7");
        assert!(!terminal.wait().success(), "{transport}");

        let mut command = crictl(&berth, "attach", transport, &["-i", &id]);
        let mut attached = Running::start(command.stdin(Stdio::piped()));
        let line = format!("{transport}\n");
        attached.0.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
        assert_eq!(attached.until(&line), format!("got {line}"), "only what came after");
        attached.kill();

        let (_forward, port) = forward(&berth, transport, &pod, 8080);
        assert!(comes_back(port, 1).await, "{transport}");
    }
    eventually(async || processes_with(&id), |&clients| clients == 0).await;
    berth.remove_pod(&pod).await.unwrap();
    nothing_is_left_of(&berth, &pod);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_devices_plugins_and_missing_sources_of_mounts_are_for_foreign_containers_too() {
    let devices = tempfile::tempdir().unwrap();
    let mut berth = Berth::with_runc_and(&format!("[cdi]\ndirs = [{:?}]\n", devices.path())).await;
    let node = json!({"path": "/dev/vendor-tun", "hostPath": "/dev/net/tun", "permissions": "rw"});
    let edits = json!({"env": ["DEVICE=tun"], "deviceNodes": [node]});
    let file = json!({
        "cdiVersion": "0.7.0", "kind": "vendor.com/net", "devices": [{"name": "tun", "containerEdits": edits}],
    });
    fs::write(devices.path().join("net.json"), file.to_string()).unwrap();
    let adjust = json!({"adjust": {"c": {"env": [{"key": "COLOUR", "value": "blue"}]}}});
    let _plugin = Plugin::connect(&berth, "adjuster", "10-colour", adjust).await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "more");
    let pod = berth.run_in("runc", &sandbox).await.unwrap();
    let source = berth.path().join("not/yet/there");
    let mut config = shell("c", &image, "exec sleep 1000");
    config.cdi_devices = vec![v1::CdiDevice { name: "vendor.com/net=tun".into() }];
    config.mounts = vec![v1::Mount {
        host_path: source.display().to_string(),
        container_path: "/data".into(),
        ..Default::default()
    }];
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    let script = "echo $DEVICE $COLOUR; stat -c %t:%T /dev/vendor-tun; true < /dev/vendor-tun && echo open; echo x > /data/file";
    assert_eq!(berth.shell(&id, script).await, "tun blue\na:c8\nopen\n");
    assert_eq!(fs::read_to_string(source.join("file")).unwrap(), "x\n");

    let mut config = shell("wrong", &image, "true");
    config.mounts = vec![v1::Mount {
        host_path: "/proc/no/such".into(),
        container_path: "/data".into(),
        ..Default::default()
    }];
    let error = berth.create(&pod, &sandbox, config).await.unwrap_err();
    assert_says(&error, Code::InvalidArgument, &["/proc/no/such"]);
    berth.remove_pod(&pod).await.unwrap();
    nothing_is_left_of(&berth, &pod);
}
