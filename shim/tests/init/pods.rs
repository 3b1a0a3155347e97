//! Pods: what their containers share, and that it is removed with them.

use super::support::{Fixture, block_on, need_root, wait};
use berth_shim::init::{PodNamespaces, PodOptions};
use rustix::process::{Signal, pidfd_send_signal};
use serde_json::json;
use std::fs;
use std::os::fd::AsFd;

#[test]
fn root_containers_of_a_pod_share_network_ipc_name_and_memory() {
    let fixture = Fixture::new();
    block_on(async {
        let first = fixture.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        let second = fixture.create("c2", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        let show = "for n in net ipc uts; do readlink /proc/self/ns/$n; done";
        assert_eq!(first.sh(show).await, second.sh(show).await);
        assert_ne!(
            first.sh("readlink /proc/self/ns/pid").await,
            second.sh("readlink /proc/self/ns/pid").await
        );
        first.sh("echo shared > /dev/shm/x").await;
        assert_eq!(second.sh("cat /dev/shm/x; stat -c %a /dev/shm").await.1, "shared\n1777\n");
        assert!(first.sh("ip addr show lo").await.1.contains("127.0.0.1/8"));
        first.end();
        second.end();
    });
    assert!(!fs::read_dir("/dev/shm").unwrap().any(|entry| entry.unwrap().file_name() == "x"));
}

#[test]
fn root_a_pods_sysctls_hold_in_its_containers() {
    let fixture = Fixture::with(|pod| {
        pod.sysctls = vec![
            ("net.ipv4.ip_unprivileged_port_start".into(), "80".into()),
            ("kernel.msgmax".into(), "4096".into()),
        ];
        pod.shm_size = 1 << 20;
    });
    let (_, output) = fixture.run("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax; grep ' /dev/shm ' /proc/self/mountinfo", |_| {});
    assert!(output.starts_with("80\n4096\n") && output.contains("size=1024k"), "{output}");
}

#[test]
fn root_a_shared_pid_namespace_has_a_first_process_without_any_power() {
    let mut fixture = Fixture::with(|pod| pod.shared_pid = true);
    let init = fixture.pod.init_pid().unwrap();
    let join = move |spec: &mut serde_json::Value| {
        spec["linux"]["namespaces"] =
            json!([{ "type": "mount" }, { "type": "pid", "path": format!("/proc/{init}/ns/pid") }]);
    };
    block_on(async {
        let first = fixture.create("c1", &["/bin/sleep", "1000"], join).await.unwrap().start().await;
        let second = fixture.create("c2", &["/bin/sleep", "2000"], join).await.unwrap().start().await;
        let (_, output) = second.sh("ps -o pid,args").await;
        assert!(output.contains("sleep 1000") && output.contains("sleep 2000"), "{output}");
        let (_, output) =
            second.sh("(sleep 0 &) ; ls /proc/1/root/ /proc/1/fd; grep CapEff /proc/1/status").await;
        assert!(!output.contains("etc") && output.ends_with("CapEff:\t0000000000000000\n"), "{output}");
        first.end();
        second.end();
    });
    fixture.pod.destroy().unwrap();
    assert!(!fs::exists(format!("/proc/{init}")).unwrap());
}

#[test]
fn root_the_first_process_of_a_pod_with_the_hosts_ipc_does_not_see_the_hosts_files() {
    let mut fixture = Fixture::with(|pod| (pod.shared_pid, pod.host_ipc) = (true, true));
    let init = fixture.pod.init_pid().unwrap();
    assert_eq!(fs::read_dir(format!("/proc/{init}/root/")).unwrap().count(), 0);
    fixture.pod.destroy().unwrap();
}

fn joins(spec: &mut serde_json::Value, path: &str) {
    spec["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "pid", "path": path }]);
}

#[test]
fn root_the_pid_namespace_of_a_neighbour_is_joined_by_name_or_number() {
    let fixture = Fixture::new();
    block_on(async {
        let target = fixture.create("target", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        for path in ["container:target".to_owned(), format!("/proc/{}/ns/pid", target.pid)] {
            let script = ["/bin/sh", "-c", "readlink /proc/self/ns/pid; ps -o args"];
            let debug = fixture.create_beside(&[&target], "debug", &script, |spec| joins(spec, &path)).await;
            let (_, output) = debug.unwrap().finish().await.unwrap();
            let namespace = fs::read_link(format!("/proc/{}/ns/pid", target.pid)).unwrap();
            assert!(output.starts_with(&namespace.display().to_string()), "{output}");
            assert!(output.contains("sleep 1000"), "{output}");
        }
        let beside = [&target];
        let stranger =
            fixture.create_beside(&beside, "debug", &["/bin/true"], |spec| joins(spec, "container:x"));
        let error = stranger.await.err().unwrap();
        assert_eq!(error.to_string(), "namespace: container \"x\" is not in this pod");
        target.end();
    });
}

/// The pid of an ended container may have been reused, here by the test itself.
#[test]
fn root_the_pid_namespace_of_who_has_got_a_neighbours_number_is_not_joined() {
    let fixture = Fixture::new();
    block_on(async {
        let mut target =
            fixture.create("target", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        pidfd_send_signal(&target.pidfd, Signal::KILL).unwrap();
        wait(target.pidfd.as_fd());
        target.pid = std::process::id();
        for path in ["container:target".to_owned(), format!("/proc/{}/ns/pid", target.pid)] {
            let beside = [&target];
            let debug = fixture.create_beside(&beside, "debug", &["/bin/true"], |spec| joins(spec, &path));
            let error = debug.await.err().unwrap();
            assert!(error.to_string().starts_with("namespace: join Pid: No such process"), "{error}");
        }
        target.cgroup.remove().unwrap();
    });
}

#[test]
fn root_the_network_namespace_is_pinned_joined_and_unpinned() {
    let mut fixture = Fixture::new();
    let pin = fixture.path("netns");
    let options = PodOptions { netns_path: Some(pin.clone()), ..PodOptions::default() };
    let mut other = PodNamespaces::create(&options).unwrap();
    other.destroy().unwrap();
    assert!(
        fs::read_to_string("/proc/self/mountinfo").unwrap().contains(pin.to_str().unwrap()),
        "unpinned by one who joined"
    );
    fixture.pod.destroy().unwrap();
    fixture.pod.destroy().unwrap();
    assert!(!pin.exists());
}

#[test]
fn root_a_pod_of_the_hosts_namespaces() {
    let fixture = Fixture::with(|pod| {
        pod.host_network = true;
        pod.host_ipc = true;
        pod.netns_path = None;
    });
    let own = |name: &str| fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    let (_, output) = fixture.run("for n in net ipc uts; do readlink /proc/self/ns/$n; done", |_| {});
    assert_eq!(output, format!("{}\n{}\n{}\n", own("net"), own("ipc"), own("uts")));
}

#[test]
fn root_a_pod_that_cannot_be_made_leaves_nothing() {
    need_root();
    let dir = tempfile::tempdir().unwrap();
    let netns = dir.path().join("netns");
    let name = format!("/berth-test-bad-{}", std::process::id());
    let good =
        PodOptions { netns_path: Some(netns.clone()), cgroup_path: name.clone(), ..PodOptions::default() };
    let bad = [
        PodOptions { sysctls: vec![("vm.swappiness".into(), "1".into())], ..good.clone() },
        PodOptions { sysctls: vec![("net.no.such".into(), "1".into())], ..good.clone() },
        PodOptions { hostname: "x".repeat(70), ..good.clone() },
        PodOptions { netns_path: Some("relative".into()), ..good.clone() },
        PodOptions { netns_path: None, ..good },
    ];
    for options in bad {
        let error = PodNamespaces::create(&options).unwrap_err();
        assert!(!netns.exists(), "{error}");
        assert!(berth_shim::cgroup::Cgroup::unchecked(&name).stats().is_err(), "{error}");
    }
}

/// Two pods below one parent, which either the caller has made before them, as kubelet does, or Berth.
#[test]
fn root_a_callers_group_stays_and_a_neighbour_in_it_lives_on() {
    let options = |id: &str, cgroup_path: String| PodOptions {
        id: id.into(),
        host_network: true,
        host_ipc: true,
        cgroup_path,
        ..PodOptions::default()
    };
    let fixture = Fixture::new();
    for (parent, callers) in [("caller", true), ("berth", false)] {
        let path = fixture.cgroup_path(parent);
        if callers {
            directories(&path).iter().for_each(|directory| fs::create_dir(directory).unwrap());
        }
        let mut first = PodNamespaces::create(&options("p1", path.clone())).unwrap();
        let mut second = PodNamespaces::create(&options("p2", path.clone())).unwrap();
        block_on(async {
            let neighbour = fixture.create("c2", &["/bin/sleep", "1000"], |spec| {
                spec["linux"]["cgroupsPath"] = json!(format!("{path}/c2"));
            });
            let neighbour = neighbour.await.unwrap().start().await;
            first.destroy().unwrap();
            assert_eq!(neighbour.sh("exit 7").await.0, 7);
            neighbour.end();
        });
        assert!(directories(&path).iter().all(|directory| directory.exists()), "{parent}");
        second.destroy().unwrap();
        assert_eq!(directories(&path).iter().filter(|directory| directory.exists()).count() > 0, callers);
        directories(&path).iter().for_each(|directory| drop(fs::remove_dir(directory)));
    }
}

/// The directories of a cgroup in every hierarchy.
pub fn directories(path: &str) -> Vec<std::path::PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let v1: Vec<_> = fields.clone().filter(|fields| fields[2] == "cgroup").map(|fields| fields[1]).collect();
    let v2 = fields.filter(|fields| fields[2] == "cgroup2").map(|fields| fields[1]);
    let roots = if v1.is_empty() { v2.collect() } else { v1 };
    roots.iter().map(|root| std::path::PathBuf::from(format!("{root}{path}"))).collect()
}
