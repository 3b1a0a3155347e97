//! The process itself: user, capabilities, limits, directory, environment.

use super::support::{Fixture, block_on};
use berth_shim::init::ExecProcess;
use serde_json::json;
use std::io::Read;

#[test]
fn root_the_process_runs_as_the_user_asked_for() {
    let fixture = Fixture::new();
    let (_, output) =
        fixture.run("id -u; id -g; id -G; echo $HOME; umask; touch /tmp/x; stat -c %u /tmp/x", |spec| {
            spec["process"]["user"] =
                json!({ "uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o027 });
            spec["mounts"].as_array_mut().unwrap().push(
                json!({ "destination": "/tmp", "type": "tmpfs", "source": "t", "options": ["mode=1777"] }),
            );
        });
    assert_eq!(output, "1000\n1001\n1001 5 6\n/home/me\n0027\n1000\n");
}

#[test]
fn root_a_user_can_reopen_his_standard_streams() {
    let fixture = Fixture::new();
    let (code, output) = fixture.run("echo again > /dev/stdout", |spec| {
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    });
    assert_eq!((code, output.as_str()), (0, "again\n"));
}

#[test]
fn root_capabilities_are_those_of_the_spec() {
    let fixture = Fixture::new();
    let (_, output) = fixture.run("grep -E 'Cap|NoNew' /proc/self/status", |spec| {
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["process"]["noNewPrivileges"] = json!(false);
        let net = json!(["CAP_NET_RAW"]);
        spec["process"]["capabilities"] = json!({ "bounding": ["CAP_NET_RAW", "CAP_CHOWN"], "effective": net, "permitted": net, "inheritable": net, "ambient": net });
    });
    let value =
        |name: &str| output.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(value(set), "0000000000002000", "{set}");
    }
    assert_eq!((value("CapBnd:"), value("NoNewPrivs:")), ("0000000000002001".into(), "0".into()));
}

#[test]
fn root_without_capabilities_in_the_spec_there_are_none() {
    let fixture = Fixture::new();
    let (_, output) = fixture.run("grep Cap /proc/self/status", |spec| {
        spec["process"].as_object_mut().unwrap().remove("capabilities");
    });
    assert!(output.lines().all(|line| line.ends_with("0000000000000000")), "{output}");
}

#[test]
fn root_all_capabilities_means_those_the_host_has() {
    let fixture = Fixture::new();
    let own = std::fs::read_to_string("/proc/self/status").unwrap();
    let own = own.lines().find(|line| line.starts_with("CapPrm")).unwrap();
    let (_, output) = fixture.run("grep CapPrm /proc/self/status", |spec| {
        let all = json!(["CAP_SYS_ADMIN", "CAP_SYS_RESOURCE", "CAP_CHOWN"]);
        spec["process"]["capabilities"] = json!({ "bounding": all, "effective": all, "permitted": all });
    });
    let bits = |line: &str| u64::from_str_radix(line.split_whitespace().next_back().unwrap(), 16).unwrap();
    assert_eq!(bits(&output), bits(own) & (1 << 21 | 1 << 24 | 1));
}

#[test]
fn root_no_descriptor_but_the_streams_reaches_the_process() {
    let fixture = Fixture::new();
    let (_, output) = fixture.run("cd /proc/self/fd; echo *; ls -l /proc/self/fd", |_| {});
    assert!(!output.contains("socket:") && !output.contains("berth-init"), "{output}");
    assert!(output.starts_with("0 1 2"), "{output}");
    assert!(output.lines().filter(|line| line.contains(" -> ")).count() <= 4, "{output}");
}

#[test]
fn root_no_signal_is_blocked_or_ignored_in_the_process() {
    let fixture = Fixture::new();
    let (_, output) = block_on(async {
        let args = ["/bin/grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"];
        fixture.create("c1", &args, |_| {}).await.unwrap().finish().await.unwrap()
    });
    assert_eq!(output, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn root_resource_limits_and_the_oom_score_are_set() {
    let fixture = Fixture::new();
    let (_, output) = fixture.run("ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj", |spec| {
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 }]);
        spec["process"]["oomScoreAdj"] = json!(500);
    });
    assert_eq!(output, "64\n128\n500\n");
}

#[test]
fn root_a_lower_oom_score_than_the_host_allows_is_left_as_it_is() {
    let fixture = Fixture::new();
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let (code, output) = fixture.run("cat /proc/self/oom_score_adj", |spec| {
        spec["process"]["oomScoreAdj"] = json!(-999);
    });
    assert_eq!(code, 0);
    assert!(output == own || output == "-999\n", "{output}");
}

#[test]
fn root_a_missing_working_directory_is_made() {
    let fixture = Fixture::new();
    let (_, output) = fixture.run("pwd; stat -c '%u %a' .", |spec| {
        spec["process"]["cwd"] = json!("/new/deep/dir");
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["root"]["readonly"] = json!(true);
    });
    assert_eq!(output, "/new/deep/dir\n0 755\n");
}

#[test]
fn root_an_exec_of_an_oci_process_has_its_own_user_directory_and_environment() {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        let process = json!({
            "args": ["sh", "-c", "id -u; pwd; echo $A $HOME; grep CapEff /proc/self/status"], "cwd": "/home/me",
            "env": ["PATH=/bin", "A=1", "HOME=/x"], "user": { "uid": 1000, "gid": 1000 }
        });
        let (execed, output) = running.exec(ExecProcess::Spec(process.to_string().as_bytes())).await.unwrap();
        let mut text = String::new();
        std::fs::File::from(output).read_to_string(&mut text).unwrap();
        super::support::wait(std::os::fd::AsFd::as_fd(&execed.pidfd));
        assert_eq!(text, "1000\n/home/me\n1 /x\nCapEff:\t0000000000000000\n");
        running.end();
    });
}

#[test]
fn root_host_name_and_sysctls_of_namespaces_of_its_own() {
    let fixture = Fixture::new();
    let (_, output) =
        fixture.run("hostname; cat /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_forward", |spec| {
            spec["hostname"] = json!("own-name");
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.extend([
                json!({ "type": "uts" }),
                json!({ "type": "ipc" }),
                json!({ "type": "network" }),
            ]);
            spec["linux"]["sysctl"] = json!({ "kernel.shm_rmid_forced": "1", "net.ipv4.ip_forward": "1" });
        });
    assert_eq!(output, "own-name\n1\n1\n");
}

#[test]
fn root_a_personality_holds_for_execs_too() {
    let fixture = Fixture::new();
    block_on(async {
        let change =
            |spec: &mut serde_json::Value| spec["linux"]["personality"] = json!({ "domain": "LINUX32" });
        let container = fixture.create("c1", &["/bin/sleep", "1000"], change);
        let running = container.await.unwrap().start().await;
        assert_eq!(
            running.sh("cat /proc/1/personality /proc/self/personality").await.1,
            "00000008\n00000008\n"
        );
        running.end();
    });
}

/// Fields 19 and 41 of /proc/PID/stat are nice value and policy.
#[test]
fn root_an_exec_has_the_scheduler_that_it_asks_for_to_itself() {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        for (flags, inherited) in [(json!([]), "-5"), (json!(["SCHED_FLAG_RESET_ON_FORK"]), "0")] {
            let script = "read -r line < /proc/$$/stat; echo $line; cat /proc/self/stat; true";
            let process = json!({ "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"],
                "scheduler": { "policy": "SCHED_BATCH", "nice": -5, "flags": flags } });
            let process = process.to_string();
            let (execed, output) = running.exec(ExecProcess::Spec(process.as_bytes())).await.unwrap();
            let mut text = String::new();
            std::fs::File::from(output).read_to_string(&mut text).unwrap();
            super::support::wait(std::os::fd::AsFd::as_fd(&execed.pidfd));
            let field = |number: usize| -> Vec<_> {
                text.lines().map(|line| line.split(' ').nth(number - 1).unwrap()).collect()
            };
            assert_eq!(field(19), ["-5", inherited], "{text}");
            assert_eq!(field(41), ["3", "3"], "{text}");
        }
        let process =
            json!({ "args": ["true"], "cwd": "/", "scheduler": { "policy": "SCHED_DEADLINE" } }).to_string();
        let error = running.exec(ExecProcess::Spec(process.as_bytes())).await.map(drop).unwrap_err();
        assert_eq!(error.to_string(), "process.scheduler SCHED_DEADLINE of an exec is not supported yet");
        running.end();
    });
}
