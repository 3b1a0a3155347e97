//! Filters that the kernel enforces.

use super::support::{Fixture, block_on};
use berth_shim::init::{Error, ExecProcess, Step, Unrunnable};
use serde_json::{Value, json};
use std::io::Read;

/// A filter that allows all calls but `names`.
fn except(names: &[&str], action: &str) -> Value {
    json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{ "names": names, "action": action }] })
}

/// Runs a script under a filter, as root with no_new_privs or as a user without it.
fn run(filter: &Value, new_privileges: bool, script: &str) -> (i32, String) {
    Fixture::new().run(script, |spec| {
        spec["linux"]["seccomp"] = filter.clone();
        spec["process"]["noNewPrivileges"] = json!(!new_privileges);
        if new_privileges {
            spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        }
    })
}

#[test]
fn root_a_filter_is_in_force_with_and_without_new_privileges() {
    let filter = except(&["getcwd", "sethostname"], "SCMP_ACT_ERRNO");
    for new_privileges in [false, true] {
        let script = "grep -E 'Seccomp|NoNewPrivs' /proc/self/status; cd /tmp; busybox pwd -P";
        let (code, output) = run(&filter, new_privileges, script);
        let no_new_privileges = u8::from(!new_privileges);
        let expected = format!("NoNewPrivs:\t{no_new_privileges}\nSeccomp:\t2\nSeccomp_filters:\t1\n");
        assert!(output.starts_with(&expected), "{output}");
        assert!(code != 0 && output.contains("Operation not permitted"), "{output}");
    }
}

#[test]
fn root_what_a_filter_needs_to_be_loaded_does_not_reach_the_process() {
    let filter = except(&["sethostname"], "SCMP_ACT_ERRNO");
    let script = "grep -E 'Cap(Prm|Eff|Amb|Inh)' /proc/self/status";
    for user in [0, 1000] {
        let with = |seccomp: Value| {
            Fixture::new().run(script, |spec| {
                spec["linux"]["seccomp"] = seccomp;
                spec["process"]["noNewPrivileges"] = json!(false);
                spec["process"]["user"] = json!({ "uid": user, "gid": user });
                let net = json!(["CAP_NET_RAW"]);
                spec["process"]["capabilities"] = json!({ "bounding": net, "effective": net, "permitted": net, "inheritable": net, "ambient": net });
            })
        };
        let (_, filtered) = with(filter.clone());
        assert_eq!(filtered, with(Value::Null).1, "user {user}");
        assert_eq!(filtered.matches("0000000000002000").count(), 4, "{filtered}");
    }
}

#[test]
fn root_each_action_does_what_it_says() {
    let script = "busybox mkdir /tmp/x && echo made";
    for (action, errno, expected) in [
        ("SCMP_ACT_ERRNO", None, "Operation not permitted"),
        ("SCMP_ACT_ERRNO", Some(28), "No space left on device"),
        ("SCMP_ACT_TRACE", None, "Function not implemented"),
        ("SCMP_ACT_LOG", None, "made"),
        ("SCMP_ACT_ALLOW", None, "made"),
    ] {
        let mut filter = except(&["mkdir"], action);
        filter["syscalls"][0]["errnoRet"] = json!(errno);
        let (_, output) = run(&filter, false, script);
        assert!(output.contains(expected), "{action} {errno:?}: {output}");
    }
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let (code, output) = run(&except(&["mkdir"], action), false, "exec busybox mkdir /tmp/x");
        assert_eq!((code, output.as_str()), (128 + 31, ""), "{action}");
    }
}

#[test]
fn root_a_list_of_what_is_allowed_need_not_name_what_the_shim_does() {
    // The calls of busybox to print a word, and execve.
    let own = json!([
        "execve",
        "brk",
        "arch_prctl",
        "set_tid_address",
        "set_robust_list",
        "rseq",
        "prlimit64",
        "readlinkat",
        "readlink",
        "getrandom",
        "mprotect",
        "write",
        "exit_group",
        "getuid",
        "mmap",
        "munmap",
        "prctl",
        "fstat",
        "newfstatat",
        "ioctl"
    ]);
    let filter = |extra: &[&str]| {
        json!({ "defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [
            { "names": own, "action": "SCMP_ACT_ALLOW" }, { "names": extra, "action": "SCMP_ACT_ALLOW" }
        ] })
    };
    for (no_new_privileges, extra) in [(true, "execve"), (false, "capset")] {
        let fixture = Fixture::new();
        let (code, output) = block_on(async {
            let change = |spec: &mut Value| {
                spec["linux"]["seccomp"] = filter(&[extra]);
                spec["process"]["noNewPrivileges"] = json!(no_new_privileges);
            };
            fixture.create("c1", &["/bin/echo", "word"], change).await.unwrap().finish().await.unwrap()
        });
        assert_eq!((code, output.as_str()), (0, "word\n"), "no_new_privs {no_new_privileges}");
    }
}

#[test]
fn root_arguments_decide() {
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["chmod"], "action": "SCMP_ACT_ERRNO", "args": [
            { "index": 1, "value": 0o700, "valueTwo": 0o500, "op": "SCMP_CMP_MASKED_EQ" }
        ] }
    ] });
    let script = "cd /tmp; touch x; for mode in 500 577 700 400; do busybox chmod $mode x 2>/dev/null && echo $mode; done";
    let (_, output) = run(&filter, false, script);
    assert_eq!(output, "700\n400\n");
}

#[test]
fn root_an_exec_is_under_the_containers_filter() {
    let fixture = Fixture::new();
    block_on(async {
        let sleeping = fixture.create("c1", &["/bin/sleep", "1000"], |spec| {
            spec["linux"]["seccomp"] = except(&["mkdir"], "SCMP_ACT_ERRNO");
            spec["process"]["noNewPrivileges"] = json!(false);
        });
        let running = sleeping.await.unwrap().start().await;
        let (_, output) = running.sh("grep Seccomp: /proc/self/status; busybox mkdir /tmp/x").await;
        assert!(
            output.starts_with("Seccomp:\t2\n") && output.contains("Operation not permitted"),
            "{output}"
        );
        let process = json!({
            "args": ["grep", "Seccomp:", "/proc/self/status"], "cwd": "/", "env": ["PATH=/bin"],
            "user": { "uid": 1000, "gid": 1000 }, "noNewPrivileges": true
        });
        let (execed, output) = running.exec(ExecProcess::Spec(process.to_string().as_bytes())).await.unwrap();
        let mut text = String::new();
        std::fs::File::from(output).read_to_string(&mut text).unwrap();
        super::support::wait(std::os::fd::AsFd::as_fd(&execed.pidfd));
        assert_eq!(text, "Seccomp:\t2\n");
        running.end();
    });
}

#[test]
fn root_a_command_that_cannot_be_run_is_reported_from_under_a_filter() {
    let fixture = Fixture::new();
    let error = fixture.fail(&["/bin/absent"], |spec| {
        spec["linux"]["seccomp"] = except(&["mkdir"], "SCMP_ACT_ERRNO");
    });
    assert!(matches!(error, Error::Command { .. }), "{error}");
}

#[test]
fn root_a_filter_that_cannot_be_is_refused_with_its_field() {
    let fixture = Fixture::new();
    for (filter, expected) in [
        (
            json!({ "defaultAction": "SCMP_ACT_FLY" }),
            r#"seccomp: linux.seccomp.defaultAction "SCMP_ACT_FLY": is no action"#,
        ),
        (
            except(&["mkdir"], "SCMP_ACT_NOTIFY"),
            r#"seccomp: linux.seccomp.syscalls[0].action "SCMP_ACT_NOTIFY": is not supported: no agent is asked"#,
        ),
    ] {
        let error = fixture.fail(&["/bin/true"], |spec| spec["linux"]["seccomp"] = filter);
        assert!(matches!(error, Error::Invalid { step: Step::Seccomp, .. }));
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn root_names_of_unknown_calls_are_passed_over() {
    let filter = except(&["no_such_call", "mkdir"], "SCMP_ACT_ERRNO");
    let (_, output) = run(&filter, false, "busybox mkdir /tmp/x");
    assert!(output.contains("Operation not permitted"), "{output}");
}

#[test]
fn root_the_shims_own_binary_is_not_run_where_a_filter_forbids_to_look_for_it() {
    let looking = ["stat", "newfstatat", "statx", "access", "faccessat", "faccessat2"];
    let filter = except(&looking, "SCMP_ACT_ERRNO");
    let error = Fixture::new().fail(&["/proc/self/exe"], |spec| spec["linux"]["seccomp"] = filter);
    let problem = Unrunnable::PermissionDenied;
    assert_eq!(error, Error::Command { command: "/proc/self/exe".into(), problem });
}
