#![allow(clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use oci_spec::runtime::{Capability, LinuxSeccompAction::*, LinuxSeccompOperator};
use serde_json::{Value, json};

use super::*;
use crate::spec::tests::Given;

fn asking(seccomp: Seccomp) -> Given {
    let mut given = Given::usual();
    given.container.security.seccomp = seccomp;
    given.host.kernel = (6, 1);
    given
}

fn filter(given: &Given) -> LinuxSeccomp {
    build(&given.inputs()).unwrap().unwrap()
}

/// Returns the rules about a system call: action, error number, and value of the first argument.
fn about(filter: &LinuxSeccomp, name: &str) -> Vec<(LinuxSeccompAction, Option<u32>, Option<u64>)> {
    let rules =
        filter.syscalls().iter().flatten().filter(|rule| rule.names().iter().any(|have| have == name));
    rules
        .map(|rule| {
            let first = rule.args().as_ref().and_then(|args| args.first()).map(LinuxSeccompArg::value);
            (rule.action(), rule.errno_ret(), first)
        })
        .collect()
}

const ALLOWED: (LinuxSeccompAction, Option<u32>, Option<u64>) = (ScmpActAllow, None, None);

#[test]
fn the_default_profile_allows_what_is_listed_and_nothing_else() {
    let filter = filter(&asking(Seccomp::RuntimeDefault));
    assert_eq!((filter.default_action(), filter.default_errno_ret()), (ScmpActErrno, None));
    assert_eq!(filter.architectures().as_ref().map(Vec::len), Some(1 + COMPAT_ARCHITECTURES.len()));
    for name in ["read", "execve", "mknod", "chown32", "ptrace", "openat2", "fchmodat2", "seccomp"] {
        assert_eq!(about(&filter, name), [ALLOWED], "{name}");
    }
    for name in [
        "mount",
        "unshare",
        "sethostname",
        "reboot",
        "init_module",
        "keyctl",
        "io_uring_setup",
        "bpf",
        "swapon",
    ] {
        assert_eq!(about(&filter, name), [], "{name}");
    }
    assert_eq!(about(&filter, "personality").len(), 5);
    let families: Vec<_> = about(&filter, "socket").into_iter().filter_map(|(.., family)| family).collect();
    assert_eq!(families, [38, 39, 41, 42, 43, 44, 45], "below AF_ALG, and one by one without AF_VSOCK");
}

#[test]
fn no_call_is_in_the_default_profile_twice() {
    let filter = filter(&asking(Seccomp::RuntimeDefault));
    let plain = filter.syscalls().iter().flatten().filter(|rule| rule.args().is_none());
    let mut names: Vec<_> = plain.flat_map(|rule| rule.names()).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(
        names.iter().all(|name| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')))
    );
}

#[test]
fn a_capability_opens_the_calls_it_is_for() {
    use Capability::*;
    for (capability, name) in [
        (Bpf, "bpf"),
        (DacReadSearch, "open_by_handle_at"),
        (Perfmon, "perf_event_open"),
        (SysAdmin, "sethostname"),
        (SysAdmin, "mount"),
        (SysBoot, "reboot"),
        (SysChroot, "chroot"),
        (SysModule, "init_module"),
        (SysNice, "mbind"),
        (SysPacct, "acct"),
        (SysPtrace, "kcmp"),
        (SysRawio, "iopl"),
        (SysTime, "settimeofday"),
        (SysTtyConfig, "vhangup"),
        (Syslog, "syslog"),
    ] {
        let mut given = asking(Seccomp::RuntimeDefault);
        given.host.capabilities = [capability].into();
        given.container.security.drop_capabilities = vec!["ALL".to_owned()];
        assert_eq!(about(&filter(&given), name), [], "{name} without {capability}");
        given.container.security.drop_capabilities.clear();
        given.container.security.add_capabilities = vec![capability.to_string()];
        assert_eq!(about(&filter(&given), name), [ALLOWED], "{name} with {capability}");
    }
}

#[test]
fn new_namespaces_are_for_those_who_may_administer_the_system() {
    let mut given = asking(Seccomp::RuntimeDefault);
    let plain = filter(&given);
    assert_eq!(about(&plain, "clone"), [(ScmpActAllow, None, Some(0x7e02_0000))]);
    assert_eq!(about(&plain, "clone3"), [(ScmpActErrno, Some(38), None)]);
    let clone = plain.syscalls().iter().flatten().find(|rule| rule.names() == &["clone".to_owned()]).unwrap();
    let args = clone.args().as_ref().unwrap();
    assert_eq!((args[0].op(), args[0].value_two()), (LinuxSeccompOperator::ScmpCmpMaskedEq, Some(0)));
    given.container.security.add_capabilities = vec!["SYS_ADMIN".to_owned()];
    assert_eq!(about(&filter(&given), "clone"), [ALLOWED]);
    assert_eq!(about(&filter(&given), "clone3"), [ALLOWED]);
}

#[test]
fn an_old_kernel_lets_nobody_look_into_processes() {
    let mut given = asking(Seccomp::RuntimeDefault);
    given.host.kernel = (4, 7);
    assert_eq!(about(&filter(&given), "ptrace"), []);
}

#[test]
fn without_a_profile_and_privileged_there_is_no_filter() {
    assert_eq!(build(&asking(Seccomp::Unconfined).inputs()), Ok(None));
    for seccomp in [Seccomp::RuntimeDefault, Seccomp::Localhost("/does/not/exist".into())] {
        let mut given = Given::privileged();
        given.container.security.seccomp = seccomp;
        assert_eq!(read(&given.container), Ok(None));
        assert_eq!(build(&given.inputs()), Ok(None));
    }
}

/// Writes a profile, reads it as a container's, and builds the filter.
fn from_file(text: &str, change: impl FnOnce(&mut Given)) -> Result<LinuxSeccomp, String> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("profile.json");
    fs::write(&path, text).unwrap();
    let mut given = asking(Seccomp::Localhost(path.clone()));
    given.seccomp = read(&given.container).map_err(|error| {
        error.to_string().strip_prefix(&format!("seccomp profile {path:?}: ")).unwrap().to_owned()
    })?;
    change(&mut given);
    Ok(filter(&given))
}

#[test]
fn a_profile_of_the_oci_specification_is_taken_as_it_is() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/agent.sock", "listenerMetadata": "words",
        "syscalls": [
            { "names": ["read", "write"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97, "args": [
                { "index": 1, "value": 3, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ" }
            ] }
        ]
    });
    let mut expected = profile.clone();
    expected["architectures"] = json!([NATIVE_ARCHITECTURE]);
    let filter = from_file(&profile.to_string(), |_| {}).unwrap();
    assert_eq!(serde_json::to_value(&filter).unwrap(), expected);
}

#[test]
fn a_profile_of_dockers_form_is_taken_for_this_machine() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_KILL_PROCESS",
        "archMap": [
            { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"] },
            { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"] },
            { "architecture": "SCMP_ARCH_S390X", "subArchitectures": null }
        ],
        "syscalls": [
            { "name": "read", "action": "SCMP_ACT_ALLOW", "args": [], "comment": "one", "includes": {}, "excludes": {} },
            { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": null }
        ]
    });
    let filter = from_file(&profile.to_string(), |_| {}).unwrap();
    assert_eq!(*filter.architectures(), Some([&[NATIVE_ARCHITECTURE], COMPAT_ARCHITECTURES].concat()));
    assert_eq!((about(&filter, "read"), about(&filter, "mount")), (vec![ALLOWED], vec![ALLOWED]));
}

#[test]
fn rules_hold_where_all_of_their_includes_and_none_of_their_excludes_are_given() {
    let holds = |includes: Value, excludes: Value| {
        let profile = json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            { "names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": includes, "excludes": excludes }
        ] });
        let filter = from_file(&profile.to_string(), |given| {
            given.host.capabilities = [Capability::Chown, Capability::SysAdmin].into();
        });
        !filter.unwrap().syscalls().as_ref().unwrap().is_empty()
    };
    let nothing = || json!({});
    for (circumstance, given) in [
        (json!({ "caps": ["CAP_CHOWN"] }), true),
        (json!({ "caps": ["CAP_SYS_ADMIN"] }), false),
        (json!({ "arches": [ARCHITECTURE, "s390"] }), true),
        (json!({ "arches": ["s390"] }), false),
        (json!({ "minKernel": "4.8" }), true),
        (json!({ "minKernel": "6.1" }), true),
        (json!({ "minKernel": "6.2" }), false),
    ] {
        assert_eq!(holds(circumstance.clone(), nothing()), given, "includes {circumstance}");
        assert_eq!(holds(nothing(), circumstance.clone()), !given, "excludes {circumstance}");
    }
    assert!(!holds(json!({ "caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"] }), nothing()), "all must be included");
    assert!(!holds(nothing(), json!({ "caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"] })), "one excluded is enough");
    assert!(holds(json!(null), json!(null)));
}

#[test]
fn what_is_wrong_with_a_profile_is_named_with_field_and_value() {
    let call = |call: Value| json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [call] });
    let read = |field: &str, value: Value| {
        let mut rule = json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO" });
        rule[field] = value;
        call(rule)
    };
    for (profile, expected) in [
        (json!({ "defaultAction": "ALLOW" }), r#"defaultAction "ALLOW": is unknown"#),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 }),
            "defaultErrnoRet 1: is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE only",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["Z80"] }),
            r#"architectures[0] "Z80": is unknown"#,
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                "archMap": [{ "architecture": "SCMP_ARCH_X86_64" }] }),
            "archMap: architectures are given too",
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW",
                "archMap": [{ "architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_Z80"] }] }),
            r#"archMap[0].subArchitectures[0] "SCMP_ARCH_Z80": is unknown"#,
        ),
        (json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["FAST"] }), r#"flags[0] "FAST": is unknown"#),
        (
            call(json!({ "action": "SCMP_ACT_KILL" })),
            r#"syscalls[0].name "": there must be either name or names"#,
        ),
        (read("name", json!("write")), r#"syscalls[0].name "write": there must be either name or names"#),
        (read("action", json!("SCMP_ACT_FLY")), r#"syscalls[0].action "SCMP_ACT_FLY": is unknown"#),
        (read("errnoRet", json!(5000)), "syscalls[0].errnoRet 5000: must be 4095 at most"),
        (
            read("args", json!([{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }])),
            "syscalls[0].args[0].index 6: must be 5 at most",
        ),
        (
            read("args", json!([{ "index": 0, "value": 0, "op": "EQ" }])),
            r#"syscalls[0].args[0].op "EQ": is unknown"#,
        ),
        (
            read("includes", json!({ "caps": ["CAP_FLY"] })),
            r#"syscalls[0].includes.caps[0] "CAP_FLY": is unknown"#,
        ),
        (
            read("excludes", json!({ "minKernel": "5" })),
            r#"syscalls[0].excludes.minKernel "5": must be like 4.8"#,
        ),
    ] {
        assert_eq!(from_file(&profile.to_string(), |_| {}), Err(expected.to_owned()), "{profile}");
    }
    for text in
        ["", "{", "[]", "{}", r#"{"defaultAction":1}"#, r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":{}}"#]
    {
        assert!(from_file(text, |_| {}).unwrap_err().contains("line 1"), "{text}");
    }
}

#[test]
fn a_file_that_is_no_profile_is_refused_by_its_path() {
    let directory = tempfile::tempdir().unwrap();
    let (pipe, large) = (directory.path().join("pipe"), directory.path().join("large"));
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, rustix::fs::Mode::RUSR, 0).unwrap();
    fs::write(&large, " ".repeat((1 << 20) + 1)).unwrap();
    for (path, reason) in [
        (PathBuf::from("/does/not/exist"), "No such file or directory (os error 2)"),
        (directory.path().to_owned(), "is no file"),
        (pipe, "is no file"),
        (large, "is larger than 1 MiB"),
    ] {
        let expected = Error::invalid("seccomp profile", path.to_string_lossy(), reason);
        assert_eq!(read(&asking(Seccomp::Localhost(path)).container), Err(expected));
    }
}
