#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::{Value, json};

fn parse(section: &Value) -> Result<Profile, Error> {
    Profile::parse(&section.to_string())
}

fn with_rule(rule: Value) -> Result<Profile, Error> {
    parse(&json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }))
}

#[test]
fn every_action_is_what_the_kernel_calls_it() {
    for (name, errno, expected) in [
        ("SCMP_ACT_KILL", None, 0),
        ("SCMP_ACT_KILL_THREAD", None, 0),
        ("SCMP_ACT_KILL_PROCESS", None, 0x8000_0000),
        ("SCMP_ACT_TRAP", None, 0x0003_0000),
        ("SCMP_ACT_ERRNO", None, 0x0005_0001),
        ("SCMP_ACT_ERRNO", Some(38), 0x0005_0026),
        ("SCMP_ACT_ERRNO", Some(0), 0x0005_0000),
        ("SCMP_ACT_TRACE", None, 0x7ff0_0001),
        ("SCMP_ACT_TRACE", Some(4095), 0x7ff0_0fff),
        ("SCMP_ACT_LOG", None, 0x7ffc_0000),
        ("SCMP_ACT_ALLOW", None, 0x7fff_0000),
    ] {
        let profile = parse(&json!({ "defaultAction": name, "defaultErrnoRet": errno })).unwrap();
        assert_eq!(profile.default, Action(expected), "{name} {errno:?}");
        let rule = with_rule(json!({ "names": ["read"], "action": name, "errnoRet": errno })).unwrap();
        assert_eq!(rule.rules[0].action, Action(expected), "{name} {errno:?}");
    }
}

#[test]
fn the_native_architecture_is_always_there_and_foreign_ones_are_passed_over() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_MIPS", "SCMP_ARCH_X86", "SCMP_ARCH_NATIVE"]
    });
    assert_eq!(parse(&profile).unwrap().architectures, [Architecture::NATIVE, Architecture::X86]);
}

#[test]
fn flags_are_the_kernels_where_they_mean_anything() {
    let of =
        |flags: Value| parse(&json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": flags })).unwrap().flags;
    assert_eq!(of(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])), 6);
    assert_eq!(of(json!(["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])), 0);
    assert_eq!(of(json!(null)), 0);
}

#[test]
fn conditions_on_several_arguments_hold_together_and_on_one_each_for_itself() {
    let one = |index: u64, value: u64| json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" });
    let rule = |args: Value| {
        let profile =
            with_rule(json!({ "names": ["socket"], "action": "SCMP_ACT_KILL", "args": args })).unwrap();
        profile.rules[0].conditions.iter().map(Vec::len).collect::<Vec<_>>()
    };
    assert_eq!(rule(json!([one(0, 1), one(1, 2)])), [2]);
    assert_eq!(rule(json!([one(0, 1), one(1, 2), one(0, 3)])), [1, 1, 1]);
    assert!(rule(json!([])).is_empty() && rule(json!(null)).is_empty());
}

#[test]
fn bits_outside_of_a_mask_are_not_compared() {
    let args = json!([{ "index": 2, "value": 0xf0, "valueTwo": 0xff, "op": "SCMP_CMP_MASKED_EQ" }]);
    let profile = with_rule(json!({ "names": ["clone"], "action": "SCMP_ACT_KILL", "args": args })).unwrap();
    let expected = Condition { argument: 2, comparison: Comparison::MaskedEqual(0xf0), value: 0xf0 };
    assert_eq!(profile.rules[0].conditions, [[expected]]);
}

#[test]
fn what_is_wrong_is_named_with_its_place_and_value() {
    let rule = |change: &dyn Fn(&mut Value)| {
        let mut rule = json!({
            "names": ["read"], "action": "SCMP_ACT_ERRNO",
            "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }]
        });
        change(&mut rule);
        json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] })
    };
    for (section, expected) in [
        (json!({ "defaultAction": "SCMP_ACT_FLY" }), r#"defaultAction "SCMP_ACT_FLY": is no action"#),
        (
            json!({ "defaultAction": "SCMP_ACT_NOTIFY" }),
            r#"defaultAction "SCMP_ACT_NOTIFY": is not supported: no agent is asked"#,
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1 }),
            r#"defaultErrnoRet "1": is for SCMP_ACT_ERRNO and SCMP_ACT_TRACE only"#,
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096 }),
            r#"defaultErrnoRet "4096": must be 4095 at most"#,
        ),
        (
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_Z80"] }),
            r#"architectures[1] "SCMP_ARCH_Z80": is no architecture"#,
        ),
        (json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["FAST"] }), r#"flags[0] "FAST": is no flag"#),
        (rule(&|rule| rule["names"] = json!([])), r#"syscalls[0].names "[]": names no system call"#),
        (rule(&|rule| rule["action"] = json!("ALLOW")), r#"syscalls[0].action "ALLOW": is no action"#),
        (
            rule(&|rule| rule["errnoRet"] = json!(9999)),
            r#"syscalls[0].errnoRet "9999": must be 4095 at most"#,
        ),
        (
            rule(&|rule| rule["args"][0]["index"] = json!(6)),
            r#"syscalls[0].args[0].index "6": must be 5 at most"#,
        ),
        (rule(&|rule| rule["args"][0]["op"] = json!("==")), r#"syscalls[0].args[0].op "==": is no operator"#),
    ] {
        assert_eq!(parse(&section).unwrap_err().to_string(), format!("linux.seccomp.{expected}"));
    }
}

#[test]
fn what_has_another_shape_is_refused_with_the_place_in_the_text() {
    for section in [
        "",
        "[]",
        "{}",
        "null",
        r#"{"defaultAction":7}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"action":"SCMP_ACT_KILL"}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_KILL","args":[{"index":-1,"value":0,"op":""}]}]}"#,
        r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":-1}"#,
    ] {
        let error = Profile::parse(section).unwrap_err();
        assert!(matches!(&error, Error::Malformed(text) if text.contains("line 1")), "{section}: {error}");
    }
}
