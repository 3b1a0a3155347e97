//! What a killed shim leaves behind, and what happens to its containers.

use crate::fixture::*;
use containerd_shim_protos::sandbox_api::*;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::fs;
use std::time::Duration;
use ttrpc::Code;

#[tokio::test]
async fn root_nothing_of_a_container_outlives_a_killed_shim() {
    let mut shim = Shim::start().await;
    let pid = shim.run("c", "sleep 1234567 & setsid sleep 1234567 & echo ready; wait").await;
    let init = pidfd(pid);
    shim.logged("c", "ready").await;
    until(|| processes_with("sleep 1234567").len() == 2).await;
    shim.kill_shim().await;
    gone(&init).await;
    let exit = shim.clean_up("c");
    assert_eq!(exit.exit_status, 137);
    assert!(exit.exited_at.seconds > 0);
    assert_eq!(processes_with("sleep 1234567"), [""; 0]);
    assert!(shim.cgroups().iter().all(|group| !group.join("c").exists()));
}

#[tokio::test]
async fn root_processes_in_the_hosts_pid_namespace_are_found_by_their_cgroup() {
    let mut shim = Shim::start().await;
    let script = "sleep 7654321 & setsid sleep 7654321 & echo ready; wait";
    let bundle =
        shim.bundle("c", script, |config| config["linux"]["namespaces"] = json!([{"type": "mount"}]));
    let log = shim.log_uri("c");
    shim.create_in("c", &bundle, |request| request.stdout = log).await.unwrap();
    shim.start_task("c").await.unwrap();
    shim.logged("c", "ready").await;
    until(|| processes_with("sleep 7654321").len() == 2).await;
    shim.kill_shim().await;
    shim.clean_up("c");
    until(|| processes_with("sleep 7654321").is_empty()).await;
}

#[tokio::test]
async fn root_the_end_that_a_dead_shim_recorded_stays_true() {
    let mut shim = Shim::start().await;
    shim.run("c", "exit 9").await;
    shim.wait("c").await;
    shim.kill_shim().await;
    assert_eq!(shim.clean_up("c").exit_status, 9);
}

#[tokio::test]
async fn root_a_dead_pods_namespace_and_cgroup_are_undone() {
    let shim = Shim::with_sandbox(|_| {}).await;
    assert!(shim.netns().exists() && !shim.cgroups().is_empty());
    shim.kill_shim().await;
    shim.clean_up(&shim.id);
    assert!(!shim.netns().exists());
    assert!(shim.cgroups().is_empty());
}

#[tokio::test]
async fn root_leftovers_of_a_container_in_the_hosts_pid_namespace_die_with_it() {
    let mut shim = Shim::start().await;
    let script = "setsid sleep 2345678 & echo ready; exit 0";
    let bundle =
        shim.bundle("c", script, |config| config["linux"]["namespaces"] = json!([{"type": "mount"}]));
    shim.create_in("c", &bundle, |_| {}).await.unwrap();
    shim.start_task("c").await.unwrap();
    assert_eq!(shim.wait("c").await, 0);
    until(|| processes_with("sleep 2345678").is_empty()).await;
    until(|| shim.children().is_empty()).await;
    shim.delete("c").await.unwrap();
    shim.shutdown().await;
}

/// Like an exec that is still being started when its container ends.
#[tokio::test]
async fn root_who_comes_into_the_cgroup_after_the_end_dies_with_the_deletion() {
    let mut shim = Shim::start().await;
    shim.run("c", "exit 0").await;
    assert_eq!(shim.wait("c").await, 0);
    let mut late = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    for group in shim.cgroups().iter().map(|group| group.join("c")) {
        fs::create_dir(&group).unwrap();
        // Fails for a new cpuset, which has no processors.
        let _ = fs::write(group.join("cgroup.procs"), late.id().to_string());
    }
    shim.delete("c").await.unwrap();
    assert!(!late.wait().unwrap().success());
    assert!(shim.cgroups().iter().all(|group| !group.join("c").exists()));
    shim.shutdown().await;
}

#[tokio::test]
async fn root_what_is_ours_is_undone_though_the_foreign_shim_is_not_installed_any_more() {
    let shim = Shim::with_sandbox(|_| {}).await;
    shim.kill_shim().await;
    let bundle = shim.path(&shim.id);
    fs::write(bundle.join("handler.json"), json!({"shim": "/no/such/shim"}).to_string()).unwrap();
    let address = json!({"address": format!("unix://{}", shim.path("nobody").display()), "version": 3});
    fs::write(bundle.join("foreign.json"), address.to_string()).unwrap();
    let said = shim.try_clean_up(&shim.id).unwrap_err();
    assert!(said.contains("/no/such/shim"), "{said}");
    assert!(!shim.netns().exists() && shim.cgroups().is_empty());
}

#[tokio::test]
async fn root_asking_for_a_pod_again_does_not_change_what_is_undone_after_a_death() {
    let shim = Shim::with_sandbox(|_| {}).await;
    let netns_path = shim.path("another").display().to_string();
    let again = CreateSandboxRequest { sandbox_id: shim.id.clone(), netns_path, ..Default::default() };
    assert_eq!(code(shim.sandbox.create_sandbox(soon(), &again).await.unwrap_err()), Code::ALREADY_EXISTS);
    shim.kill_shim().await;
    shim.clean_up(&shim.id);
    assert!(!shim.netns().exists() && shim.cgroups().is_empty());
}

/// Killed by the OOM killer, or by an administrator.
#[tokio::test]
async fn root_a_stage_that_is_killed_at_any_moment_leaves_neither_a_group_nor_a_call_without_an_answer() {
    let mut shim = Shim::start().await;
    let bundle = shim.bundle("c", "true", |_| {});
    for round in 0..100u64 {
        let killing = async {
            until(|| !shim.children().is_empty()).await;
            tokio::time::sleep(Duration::from_micros(round * 50)).await;
            let stage = shim.children().first().and_then(|pid| Pid::from_raw(*pid as i32));
            stage.map(|stage| kill_process(stage, Signal::KILL));
        };
        let creating = tokio::time::timeout(Duration::from_secs(20), shim.create_in("c", &bundle, |_| {}));
        let (created, ()) = tokio::join!(creating, killing);
        if created.expect("no answer").is_ok() {
            shim.delete("c").await.unwrap();
        }
        assert!(shim.cgroups().iter().all(|group| !group.join("c").exists()), "round {round}");
        until(|| shim.children().is_empty()).await;
    }
    shim.shutdown().await;
}

/// Like a namespace that `ip netns add` or another daemon has pinned.
#[tokio::test]
async fn root_the_clean_up_after_a_dead_shim_leaves_a_namespace_that_it_joined() {
    let mut maker = Shim::with_sandbox(|_| {}).await;
    let pin = maker.netns();
    let shim = Shim::start().await;
    let request = CreateSandboxRequest {
        sandbox_id: shim.id.clone(),
        netns_path: pin.display().to_string(),
        ..Default::default()
    };
    shim.sandbox.create_sandbox(soon(), &request).await.unwrap();
    shim.kill_shim().await;
    shim.clean_up(&shim.id);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(mounts.contains(pin.to_str().unwrap()), "{mounts}");
    maker.run("c", "exec sleep 1000").await;
    maker.stop_sandbox().await;
}

/// Two pods below one parent, as a caller other than kubelet may put them, and like all pods of one QoS class.
#[tokio::test]
async fn root_the_clean_up_after_a_dead_shim_leaves_its_neighbours_alone() {
    let parent = format!("/berth-test-parent-{}", std::process::id());
    let mut neighbour = Shim::with_sandbox(|options| options.cgroup_path = parent.clone()).await;
    let mut dying = Shim::with_sandbox(|options| options.cgroup_path = parent.clone()).await;
    for (shim, id) in [(&mut neighbour, "n"), (&mut dying, "d")] {
        let bundle = shim.bundle(id, "exec sleep 1000", |config| {
            config["linux"]["cgroupsPath"] = json!(format!("{parent}/{id}"));
        });
        shim.create_in(id, &bundle, |_| {}).await.unwrap();
        shim.start_task(id).await.unwrap();
    }
    dying.kill_shim().await;
    dying.clean_up("d");
    dying.clean_up(&dying.id);
    assert_eq!(neighbour.exec("n", "exit 7", Duration::from_secs(60)).await.2, 7);
    let is_there = |name: &str| {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().map(|entry| entry.unwrap().path());
        hierarchies.chain(["/sys/fs/cgroup".into()]).any(|root| root.join(&parent[1..]).join(name).exists())
    };
    assert!(is_there("n") && !is_there("d"));
    // A bundle that names another container's cgroup; creating it would have been refused.
    dying.bundle("e", "true", |config| config["linux"]["cgroupsPath"] = json!(format!("{parent}/n")));
    dying.clean_up("e");
    assert_eq!(neighbour.exec("n", "exit 7", Duration::from_secs(60)).await.2, 7);
    neighbour.stop_sandbox().await;
    neighbour.delete("n").await.unwrap();
    assert!(!is_there(""));
}
