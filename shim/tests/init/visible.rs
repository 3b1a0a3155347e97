//! Processes that a container can see, and could take over with CAP_SYS_PTRACE, while another process is made among them.

use super::support::{Fixture, Running, block_on, wait};
use berth_shim::init::ExecProcess;
use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// State of an exec's process right after it is created.
#[derive(Debug)]
struct Newborn {
    descriptors: Vec<String>,
    permitted: u64,
    filter: String,
}

fn status(pid: u32, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim_start_matches(':').trim().to_owned()
}

fn pid_namespace(pid: u32) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}

/// Polls a condition for which there is no notification.
async fn until<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Thaws the container even if the test fails.
struct Frozen<'a>(&'a Running);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.0.cgroup.thaw().unwrap();
    }
}

/// Freezes the container, so that the maker of the exec's process (the helper, or on v1 the stage) stops as soon as it is
/// in the container's cgroup. Then traces the maker, and the kernel stops the new process before its first instruction.
async fn newborn(running: &Running) -> Newborn {
    running.cgroup.freeze(Duration::from_secs(10)).await.unwrap();
    let frozen = Frozen(running);
    let args = ["true".to_owned()];
    let exec = running.exec(ExecProcess::Args(&args));
    let observe = async {
        let maker = until("nobody comes in", || {
            running.cgroup.procs().unwrap().into_iter().find(|pid| *pid != running.pid)
        })
        .await;
        assert_ne!(pid_namespace(maker), pid_namespace(running.pid), "seen before it has given anything up");
        let traced = Pid::from_raw(maker as i32);
        ptrace::seize(traced, Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_TRACEFORK).unwrap();
        drop(frozen);
        until("the maker makes nobody", || status(maker, "State").starts_with('t').then_some(())).await;
        let pid = ptrace::getevent(traced).unwrap() as u32;
        until("it does not stop", || status(pid, "State").starts_with('t').then_some(())).await;
        assert_eq!(pid_namespace(pid), pid_namespace(running.pid));
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let link = |entry: std::io::Result<fs::DirEntry>| fs::read_link(entry.unwrap().path()).unwrap();
        let seen = Newborn {
            descriptors: descriptors.map(|entry| link(entry).display().to_string()).collect(),
            permitted: u64::from_str_radix(&status(pid, "CapPrm"), 16).unwrap(),
            filter: status(pid, "Seccomp"),
        };
        ptrace::detach(Pid::from_raw(pid as i32), None).unwrap();
        ptrace::detach(traced, None).unwrap();
        seen
    };
    let (execed, seen) = tokio::join!(exec, observe);
    assert_eq!(wait(execed.unwrap().0.pidfd.as_fd()), 0);
    seen
}

fn check(change: impl FnOnce(&mut Value)) -> Newborn {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], change).await.unwrap().start().await;
        let seen = newborn(&running).await;
        let own = u64::from_str_radix(&status(running.pid, "CapPrm"), 16).unwrap();
        assert_eq!(seen.permitted & !own, 0, "capabilities that the container has not: {seen:?}");
        let of_the_host =
            |link: &&String| !link.starts_with("pipe:") && !link.starts_with("socket:") && *link != "/";
        assert_eq!(seen.descriptors.iter().find(of_the_host), None, "{seen:?}");
        assert_eq!(seen.descriptors.len(), 4, "{seen:?}");
        running.end();
        seen
    })
}

#[test]
fn root_an_exec_has_nothing_of_the_hosts_when_the_container_can_see_it() {
    check(|_| {});
}

#[test]
fn root_an_exec_keeps_no_privilege_for_its_filter() {
    let seen = check(|spec| {
        spec["process"]["noNewPrivileges"] = json!(false);
        spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["mkdir"], "action": "SCMP_ACT_ERRNO" },
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
        ] });
    });
    assert_eq!(seen.filter, "2", "the filter is in force already");
}

/// A filter that forbids clone and other calls before execve: then the exec's process itself loads it, as late as possible.
#[test]
fn root_an_exec_under_a_filter_without_clone_works_all_the_same() {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |spec| {
            spec["process"]["noNewPrivileges"] = json!(false);
            let names = ["clone", "fork", "vfork", "setsid", "sendmsg", "recvfrom"];
            spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                { "names": names, "action": "SCMP_ACT_KILL_PROCESS" },
            ] });
        });
        let running = running.await.unwrap().start().await;
        assert_eq!(running.sh("exit 4").await.0, 4);
        running.end();
    });
}

#[test]
fn root_a_container_has_a_session_keyring_of_its_own_and_execs_share_it() {
    let fixture = Fixture::new();
    let (_, keys) = fixture.run("cat /proc/keys", |spec| {
        spec["linux"]["maskedPaths"] = json!([]);
        spec["process"]["user"] = json!({ "uid": 4321, "gid": 4321 });
    });
    assert!(keys.contains(" c1:"), "{keys}");
    block_on(async {
        // A user without capabilities sees only keys that it possesses or owns; so root's keys it sees, it possesses.
        let user = |spec: &mut Value| {
            spec["linux"]["maskedPaths"] = json!([]);
            spec["process"]["user"] = json!({ "uid": 4321, "gid": 4321 });
        };
        let first = fixture.create("ring-1", &["/bin/sleep", "1000"], user).await.unwrap().start().await;
        let second = fixture.create("ring-2", &["/bin/sleep", "1000"], user).await.unwrap().start().await;
        for (running, own, other) in [(&first, "ring-1:", "ring-2:"), (&second, "ring-2:", "ring-1:")] {
            let (_, keys) = running.sh("cat /proc/keys").await;
            assert!(keys.contains(own) && !keys.contains(other), "{keys}");
            let number = keys.lines().find(|line| line.contains(own)).unwrap().split(' ').next().unwrap();
            let (_, again) = running.sh("cat /proc/keys").await;
            assert!(again.contains(number), "each exec made one of its own: {keys}{again}");
        }
        // As root of another container would see it.
        let keys = fs::read_to_string("/proc/keys").unwrap();
        assert!(!keys.contains(" ring-1:"), "{keys}");
        first.end();
        second.end();
    });
}
