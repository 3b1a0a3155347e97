use std::{fs, path::Path};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    waiting::{eventually, until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_killed_with_twenty_containers_finds_them_and_the_exits_it_missed() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let gate = berth.path().join("logs");
    let mut running = Vec::new();
    for number in 0..20 {
        let name = format!("c{number}");
        let script = match number {
            0..5 => format!(
                "echo begin; while [ ! -e /gate/go ]; do sleep 0.05; done; echo end; exit {}",
                number + 10
            ),
            _ => "echo begin; exec sleep 1000".into(),
        };
        running.push(run_with_gate(&mut berth, &name, &image, &script, &gate).await);
    }
    berth.kill();
    fs::write(gate.join("go"), "").unwrap();
    for (_, id) in &running[..5] {
        wait_for_exit_record(berth.path(), id).await;
    }
    let took = berth.restart().await;
    println!("the first answer came after {took:?}");

    for (number, (_, id)) in running.iter().enumerate() {
        if number < 5 {
            let status = berth.ended(id).await;
            assert_eq!(status.exit_code, i32::try_from(number).unwrap() + 10);
            assert!(status.finished_at >= status.started_at);
            let log: Vec<_> = berth.log_of(&format!("c{number}"), &format!("c{number}"));
            assert_eq!(log, [("stdout".into(), "begin".into()), ("stdout".into(), "end".into())]);
        } else {
            assert_eq!(berth.status(id).await.unwrap().state(), v1::ContainerState::ContainerRunning);
            assert_eq!(berth.shell(id, "echo alive").await, "alive\n");
        }
    }
    for (_, id) in &running {
        berth.stop_container(id, 0).await.unwrap();
    }
    // An exit after the restart is recorded too.
    assert_eq!(berth.status(&running[19].1).await.unwrap().exit_code, 137);
    berth.remove_all_pods().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pod_that_has_lost_its_network_is_told_of_after_a_restart() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (whole, _) = berth.run_alone("whole", &image, "exec sleep 1000").await;
    let (cut_off, _) = berth.run_alone("cut-off", &image, "exec sleep 1000").await;
    berth.kill();
    let interface = format!("b{}-", &cut_off[..8]);
    let interfaces = fs::read_dir("/sys/class/net").unwrap().map(|entry| entry.unwrap().file_name());
    let interface =
        interfaces.map(|name| name.into_string().unwrap()).find(|name| name.starts_with(&interface));
    let deleted = std::process::Command::new("ip").args(["link", "del", &interface.unwrap()]).status();
    assert!(deleted.unwrap().success());
    berth.restart().await;
    let told = |pod: &str| {
        let log = berth.log();
        log.lines().any(|line| line.contains("is not as it was set up") && line.contains(pod))
    };
    until("it is told", || told(&cut_off)).await;
    assert!(!told(&whole), "{}", berth.log());
    berth.remove_all_pods().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_containers_of_a_killed_shim_are_reported_as_ended_and_none_of_their_processes_runs_on() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("orphan", &image, "sleep 7654321 & exec sleep 1000").await;
    let (_, bystander) = berth.run_alone("bystander", &image, "exec sleep 1000").await;
    kill(shim_of(&pod), Signal::SIGKILL).unwrap();
    let status = berth.ended(&id).await;
    assert_ne!(status.exit_code, 0);
    assert!(status.message.contains("shim died"), "{}", status.message);
    assert_eq!(processes_with("7654321"), 0);
    assert_eq!(berth.pod_status(&pod).await.unwrap().state(), v1::PodSandboxState::SandboxNotready);
    assert_eq!(berth.shell(&bystander, "echo fine").await, "fine\n");
    berth.remove_container(&id).await.unwrap();
    berth.remove_pod(&pod).await.unwrap();
    assert_eq!(berth.pod_status(&pod).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_shim_killed_while_the_daemon_is_away_is_noticed_at_its_start() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("both", &image, "sleep 7654322 & exec sleep 1000").await;
    berth.kill();
    kill(shim_of(&pod), Signal::SIGKILL).unwrap();
    berth.restart().await;
    let status = berth.ended(&id).await;
    assert_eq!(status.state(), v1::ContainerState::ContainerExited);
    assert!(status.message.contains("shim died"), "{}", status.message);
    assert_eq!(processes_with("7654322"), 0);
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_shim_that_is_silent_at_the_start_of_the_daemon_is_followed_once_it_answers() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("silent", &image, "exec sleep 1000").await;
    let shim = shim_of(&pod);
    berth.kill();
    kill(shim, Signal::SIGSTOP).unwrap();
    berth.restart().await;
    assert_eq!(berth.status(&id).await.unwrap().state(), v1::ContainerState::ContainerRunning);
    kill(shim, Signal::SIGCONT).unwrap();
    berth.stop_container(&id, 0).await.unwrap();
    assert_eq!(berth.status(&id).await.unwrap().exit_code, 137);
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pod_ends_with_its_first_process_and_so_do_all_its_containers() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, shared) = berth.run_alone("first", &image, "exec sleep 1000").await;
    let sandbox = berth_tests::pod::pod(&berth, "first");
    let mut config = berth_tests::pod::shell("own", &image, "exec sleep 1000");
    let own = v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() };
    config.linux.as_mut().unwrap().security_context =
        Some(v1::LinuxContainerSecurityContext { namespace_options: Some(own), ..Default::default() });
    let own = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&own).await.unwrap();
    let shim = shim_of(&pod);
    let mut events = crate::events::listen(&mut berth).await;
    kill(first_process_of(&pod), Signal::SIGKILL).unwrap();
    let mut ended = Vec::new();
    for _ in 0..3 {
        let event = events.message().await.unwrap().unwrap();
        assert_eq!(event.container_event_type(), v1::ContainerEventType::ContainerStoppedEvent);
        ended.push(event.container_id);
    }
    assert_eq!(ended[2], pod, "the pod is over when its containers are");
    for id in [&shared, &own] {
        let status = berth.status(id).await.unwrap();
        assert_eq!((status.state(), status.exit_code), (v1::ContainerState::ContainerExited, 137));
    }
    assert_eq!(berth.pod_status(&pod).await.unwrap().state(), v1::PodSandboxState::SandboxNotready);
    assert_eq!(children_of(shim), [] as [i32; 0], "nobody waits to be reaped");
    let late = berth_tests::pod::shell("late", &image, "true");
    assert_eq!(berth.create(&pod, &sandbox, late).await.unwrap_err().code(), Code::FailedPrecondition);
    berth.stop_pod(&pod).await.unwrap();
    berth.remove_pod(&pod).await.unwrap();
    assert_eq!(processes_with(&pod), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_first_process_killed_while_the_daemon_is_away_is_noticed_at_its_start() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("away", &image, "exec sleep 1000").await;
    berth.kill();
    kill(first_process_of(&pod), Signal::SIGKILL).unwrap();
    wait_for_exit_record(berth.path(), &id).await;
    berth.restart().await;
    assert_eq!(berth.ended(&id).await.exit_code, 137);
    let state = async || berth.pod_status(&pod).await.unwrap().state();
    eventually(state, |state| *state == v1::PodSandboxState::SandboxNotready).await;
    berth.remove_pod(&pod).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_without_descriptors_takes_no_shim_for_dead() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("stays", &image, "exec sleep 1000").await;
    limit_descriptors(berth.pid(), 0);
    assert_eq!(berth.stop_container(&id, 0).await.unwrap_err().code(), Code::ResourceExhausted);
    assert_eq!(berth.status(&id).await.unwrap().state(), v1::ContainerState::ContainerRunning);
    limit_descriptors(berth.pid(), 1024);
    assert_eq!(berth.shell(&id, "echo alive").await, "alive\n");
    berth.stop_container(&id, 0).await.unwrap();
    assert_eq!(berth.status(&id).await.unwrap().exit_code, 137);
    berth.remove_all_pods().await;
}

/// Sets the soft limit of a process's open files. Those already open stay.
fn limit_descriptors(pid: u32, limit: usize) {
    let limit = format!("--nofile={limit}:");
    let limited = std::process::Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]).status();
    assert!(limited.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_that_is_asked_to_end_leaves_its_pods_running() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, id) = berth.run_alone("stays", &image, "exec sleep 1000").await;
    assert!(berth.terminate().success());
    berth.restart().await;
    assert_eq!(berth.shell(&id, "echo alive").await, "alive\n");
}

async fn run_with_gate(
    berth: &mut Berth,
    name: &str,
    image: &str,
    script: &str,
    gate: &Path,
) -> (String, String) {
    let sandbox = berth_tests::pod::pod(berth, name);
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = berth_tests::pod::shell(name, image, script);
    config.mounts.push(v1::Mount {
        container_path: "/gate".into(),
        host_path: gate.display().to_string(),
        ..Default::default()
    });
    fs::create_dir_all(gate).unwrap();
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    (pod, id)
}

async fn wait_for_exit_record(directory: &Path, id: &str) {
    let record = directory.join("run/containers").join(id).join("exit.json");
    until("the exit is written down", || record.exists()).await;
}

/// Pid of the pod's shim: the process with the pod's id in its command line whose parent has no such command line.
pub fn shim_of(pod: &str) -> Pid {
    let found: Vec<i32> = pids().filter(|pid| command_line(*pid).contains(pod)).collect();
    let shims: Vec<i32> = found.iter().copied().filter(|pid| !found.contains(&parent(*pid))).collect();
    assert_eq!(shims.len(), 1, "one shim for pod {pod}");
    Pid::from_raw(shims[0])
}

/// Pids of the shim's children, zombies included.
fn children_of(shim: Pid) -> Vec<i32> {
    pids().filter(|pid| parent(*pid) == shim.as_raw()).collect()
}

/// Pid of the pod's first process, which is a child of the shim with the pod's id in its command line.
fn first_process_of(pod: &str) -> Pid {
    let of_pod = |pid: &i32| command_line(*pid).contains(pod);
    let found: Vec<_> = children_of(shim_of(pod)).into_iter().filter(of_pod).collect();
    assert_eq!(found.len(), 1, "one first process of pod {pod}");
    Pid::from_raw(found[0])
}

fn parent(pid: i32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap_or("0");
    line.trim().parse().unwrap()
}

pub fn processes_with(text: &str) -> usize {
    pids().filter(|pid| command_line(*pid).contains(text)).count()
}

pub fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

pub fn command_line(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}
