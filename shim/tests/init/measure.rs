//! Duration of single steps: `cargo test -p berth-shim --test init -- --ignored --nocapture measure`.

use super::support::{Fixture, HOST, block_on, ids, mapped_overlay, wait};
use berth_shim::init::{self, CreateRequest, ExecProcess, PodNamespaces, PodOptions, Stdio};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const ROUNDS: usize = 200;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |part: usize| times[times.len() * part / 10];
    println!("{what}: best {:?}, p10 {:?}, median {:?}, p90 {:?}", times[0], at(1), at(5), at(9));
}

#[test]
#[ignore = "a measurement, not a test"]
fn root_measure_create_start_and_exec() {
    measure_create_and_start(|_, _| {});
}

/// An allow list of the usual size: cached, and uncached because it has a different name in it each time.
#[test]
#[ignore = "a measurement, not a test"]
fn root_measure_create_and_start_under_a_filter() {
    let names: Vec<_> = std::fs::read_to_string("/proc/kallsyms")
        .unwrap()
        .lines()
        .filter_map(|line| line.split(" __x64_sys_").nth(1))
        .take(370)
        .map(str::to_owned)
        .collect();
    let filter = |extra: &str| {
        serde_json::json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }, { "names": [extra], "action": "SCMP_ACT_ALLOW" }]
        })
    };
    println!("with a filter of {} names, compiled before", names.len());
    measure_create_and_start(|_, spec| spec["linux"]["seccomp"] = filter("read"));
    println!("compiled each time");
    measure_create_and_start(|round, spec| spec["linux"]["seccomp"] = filter(&format!("round-{round}")));
}

fn measure_create_and_start(change: impl Fn(usize, &mut serde_json::Value)) {
    let fixture = Fixture::new();
    block_on(async {
        let (mut create, mut start, mut both) = (vec![], vec![], vec![]);
        for round in 0..ROUNDS {
            let bundle = fixture.bundle("c1", &["/bin/true"], |spec| change(round, spec));
            let rootfs = fixture.overlay(&format!("round-{round}"), &[fixture.image()]);
            let begun = Instant::now();
            let request = CreateRequest {
                id: "c1",
                bundle: &bundle,
                rootfs: &rootfs,
                terminal: false,
                stdio: Stdio::default(),
                pod: &fixture.pod,
                neighbours: &[],
            };
            let created = init::create(request).await.unwrap();
            create.push(begun.elapsed());
            let starting = Instant::now();
            created.barrier.start().await.unwrap();
            start.push(starting.elapsed());
            both.push(begun.elapsed());
            wait(created.pidfd.as_fd());
            created.cgroup.remove().unwrap();
        }
        report("create", create);
        report("start", start);
        report("create + start", both);
    });
}

#[test]
#[ignore = "a measurement, not a test"]
fn root_measure_exec() {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        let (mut times, mut whole) = (vec![], vec![]);
        let args = ["/bin/true".to_owned()];
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let execed =
                init::exec(running.request(ExecProcess::Args(&args), false, Stdio::default())).await.unwrap();
            times.push(begun.elapsed());
            wait(execed.pidfd.as_fd());
            whole.push(begun.elapsed());
        }
        report("exec", times);
        report("exec and its end", whole);
        running.end();
    });
}

#[test]
#[ignore = "a measurement, not a test"]
fn root_measure_pod() {
    let fixture = Fixture::new();
    let (mut create, mut destroy) = (vec![], vec![]);
    for _ in 0..50 {
        let options = PodOptions {
            netns_path: Some(fixture.path("pin")),
            cgroup_path: format!("/{}/pod", fixture.name),
            hostname: "x".into(),
            ..PodOptions::default()
        };
        let begun = Instant::now();
        let mut pod = PodNamespaces::create(&options).unwrap();
        create.push(begun.elapsed());
        let begun = Instant::now();
        pod.destroy().unwrap();
        destroy.push(begun.elapsed());
    }
    report("pod create", create);
    report("pod destroy", destroy);
}

/// A pod with a container from nothing to running: with the host's users and with its own, on few and on many layers, in turn.
#[test]
#[ignore = "a measurement, not a test"]
fn root_measure_users() {
    let fixture = Fixture::new();
    let mut layers = vec![fixture.image()];
    for number in 1..20 {
        let layer = fixture.path(&format!("layer-{number}"));
        std::fs::create_dir_all(layer.join("etc")).unwrap();
        layers.insert(0, layer);
    }
    let cases = [(1, false), (1, true), (20, false), (20, true)];
    let mut times = vec![(vec![], vec![]); cases.len()];
    for round in 0..ROUNDS {
        for turn in 0..cases.len() {
            let case = (round + turn) % cases.len();
            let (count, own) = cases[case];
            let (pod, container) = block_on(pod_and_container(&fixture, &layers[20 - count..], own));
            times[case].0.push(pod);
            times[case].1.push(container);
        }
    }
    for ((count, own), (pod, container)) in cases.into_iter().zip(times) {
        let users = if own { "its own" } else { "the host's" };
        report(&format!("{count} layers, users {users}: pod"), pod);
        report(&format!("{count} layers, users {users}: container"), container);
    }
}

async fn pod_and_container(fixture: &Fixture, layers: &[PathBuf], own: bool) -> (Duration, Duration) {
    let options = PodOptions {
        netns_path: Some(fixture.path("pin")),
        cgroup_path: format!("/{}/pod", fixture.name),
        users: own.then(|| ids(HOST)),
        ..PodOptions::default()
    };
    let bundle = fixture.bundle("c1", &["/bin/true"], |_| {});
    let _ = std::fs::remove_dir_all(fixture.path("c1-upper"));
    let rootfs = if own { mapped_overlay(fixture, "c1", layers) } else { fixture.overlay("c1", layers) };
    let begun = Instant::now();
    let mut pod = PodNamespaces::create(&options).unwrap();
    let made = begun.elapsed();
    let begun = Instant::now();
    let (terminal, stdio) = (false, Stdio::default());
    let request = CreateRequest {
        id: "c1",
        bundle: &bundle,
        rootfs: &rootfs,
        terminal,
        stdio,
        pod: &pod,
        neighbours: &[],
    };
    let created = init::create(request).await.unwrap();
    created.barrier.start().await.unwrap();
    let started = begun.elapsed();
    wait(created.pidfd.as_fd());
    created.cgroup.remove().unwrap();
    pod.destroy().unwrap();
    (made, started)
}
