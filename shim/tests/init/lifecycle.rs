//! From create to the end, after which nothing is left.

use super::support::{Fixture, block_on, wait};
use berth_shim::cgroup::Cgroup;
use berth_shim::init::{Error, ExecProcess, Unrunnable};
use rustix::process::{Signal, pidfd_send_signal};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::time::{sleep, timeout};

#[test]
fn root_a_container_runs_and_its_output_and_exit_code_come_back() {
    let fixture = Fixture::new();
    let (code, output) = fixture.run("echo hello; hostname; exit 7", |_| {});
    assert_eq!((code, output.as_str()), (7, "hello\npod-host\n"));
}

#[test]
fn root_nothing_is_left_on_the_host() {
    let fixture = Fixture::new();
    let (_, output) = fixture.run("mount", |_| {});
    assert!(output.contains("overlay on / type overlay"), "{output}");
    assert!(!fixture.has_cgroup("c1"));
    let directory = fixture.dir.path().display().to_string();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours: Vec<_> = mounts().lines().filter(|line| line.contains(&directory)).map(str::to_owned).collect();
    assert!(ours.len() == 1 && ours[0].contains("/netns "), "{ours:?}");
    drop(fixture);
    assert!(!mounts().contains(&directory));
}

#[test]
fn root_an_exec_runs_beside_the_first_process() {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        let (code, output) = running.sh("ps -o pid,args; exit 3").await;
        assert_eq!(code, 3);
        assert!(output.contains("/bin/sleep 1000"), "{output}");
        assert_eq!(running.end(), 128 + 9);
    });
}

#[test]
fn root_an_exec_is_in_all_the_containers_namespaces_and_its_cgroup() {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        let script =
            "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; readlink /proc/1/ns/$n; done";
        let (_, output) = running.sh(script).await;
        let lines: Vec<_> = output.lines().collect();
        assert_eq!(lines.len(), 12, "{output}");
        assert!(lines.chunks(2).all(|pair| pair[0] == pair[1]), "{output}");
        let (_, output) = running.sh("cat /proc/self/cgroup").await;
        assert!(
            output.lines().filter(|line| !line.starts_with("0:")).all(|line| line.ends_with(":/")),
            "{output}"
        );
        running.end();
    });
}

#[test]
fn root_a_container_that_is_never_started_leaves_by_itself() {
    let fixture = Fixture::new();
    block_on(async {
        let created = fixture.create("c1", &["/bin/true"], |_| {}).await.unwrap().created;
        drop(created.barrier);
        assert_eq!(wait(created.pidfd.as_fd()), 1);
        created.cgroup.remove().unwrap();
    });
}

#[test]
fn root_a_create_that_is_given_up_leaves_nothing() {
    let fixture = Fixture::new();
    block_on(async {
        let bundle = fixture.bundle("c1", &["/bin/true"], |_| {});
        let rootfs = fixture.overlay("c1", &[fixture.image()]);
        let request = berth_shim::init::CreateRequest {
            id: "c1",
            bundle: &bundle,
            rootfs: &rootfs,
            terminal: false,
            stdio: Default::default(),
            pod: &fixture.pod,
            neighbours: &[],
        };
        let given_up = timeout(Duration::ZERO, berth_shim::init::create(request)).await;
        assert!(given_up.is_err());
        // It is killed at once, and a task reaps it.
        let tasks = tokio::runtime::Handle::current().metrics();
        let cleaned = async {
            while tasks.num_alive_tasks() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(Duration::from_secs(10), cleaned).await.expect("something of it lives on");
        assert!(fixture.cgroup_of("c1").is_empty());
        // The future that would have removed the cgroup is gone: the shim itself never drops it.
        Cgroup::unchecked(&fixture.cgroup_path("c1")).remove().unwrap();
    });
}

#[test]
fn root_a_container_killed_before_its_start_says_so() {
    let fixture = Fixture::new();
    block_on(async {
        let created = fixture.create("c1", &["/bin/true"], |_| {}).await.unwrap().created;
        pidfd_send_signal(&created.pidfd, Signal::KILL).unwrap();
        assert_eq!(wait(created.pidfd.as_fd()), 128 + 9);
        let error = created.barrier.start().await.unwrap_err();
        assert!(error.to_string().contains("is gone"), "{error}");
        created.cgroup.remove().unwrap();
    });
}

#[test]
fn root_killing_the_cgroup_ends_every_process() {
    let fixture = Fixture::new();
    block_on(async {
        let script = ["/bin/sh", "-c", "sleep 1000 & sleep 1000 & exec sleep 1000"];
        let running = fixture.create("c1", &script, |spec| {
            spec["linux"]["namespaces"] = serde_json::json!([{ "type": "mount" }]);
        });
        let running = running.await.unwrap().start().await;
        while running.cgroup.procs().unwrap().len() < 3 {
            tokio::task::yield_now().await;
        }
        running.cgroup.kill().unwrap();
        assert_eq!(wait(running.pidfd.as_fd()), 128 + 9);
        running.cgroup.remove().unwrap();
        assert!(!fixture.has_cgroup("c1"));
    });
}

#[test]
fn root_an_exec_that_cannot_run_leaves_the_container_alone() {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        let args = ["nothing-of-that-name".to_owned()];
        let error = running.exec(ExecProcess::Args(&args)).await.map(drop).unwrap_err();
        let problem = Unrunnable::NotInPath;
        assert_eq!(error, Error::Command { command: args[0].clone(), problem });
        assert_eq!(error.to_string(), r#"exec: "nothing-of-that-name": executable file not found in $PATH"#);
        assert_eq!(running.cgroup.procs().unwrap(), [running.pid]);
        assert_eq!(running.sh("exit 4").await.0, 4);
        running.end();
    });
}

#[test]
fn root_an_exec_into_a_container_that_has_ended_is_refused() {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        pidfd_send_signal(&running.pidfd, Signal::KILL).unwrap();
        wait(running.pidfd.as_fd());
        let args = ["true".to_owned()];
        let error = running.exec(ExecProcess::Args(&args)).await.map(drop).unwrap_err();
        assert!(error.to_string().starts_with("namespace: join the container of process"), "{error}");
        running.cgroup.remove().unwrap();
    });
}

#[test]
fn root_no_process_outlives_the_thread_that_made_it() {
    let fixture = Fixture::new();
    let make = || {
        block_on(async {
            let container = fixture.create("c1", &["/bin/sleep", "1000"], |spec| {
                spec["process"]["user"] = serde_json::json!({ "uid": 1000, "gid": 1000 });
            });
            let running = container.await.unwrap().start().await;
            let args = ["/bin/sleep".to_owned(), "1000".to_owned()];
            let (execed, _) = running.exec(ExecProcess::Args(&args)).await.unwrap();
            (running, execed)
        })
    };
    let (running, execed) = std::thread::scope(|scope| scope.spawn(make).join().unwrap());
    assert_eq!(wait(execed.pidfd.as_fd()), 128 + 9);
    assert_eq!(wait(running.pidfd.as_fd()), 128 + 9);
    running.cgroup.remove().unwrap();
}
