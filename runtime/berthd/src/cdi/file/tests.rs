#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;

fn parse(value: &Value) -> Result<SpecFile, String> {
    SpecFile::parse(value.to_string().as_bytes(), Format::Json)
}

/// Returns a file with one device that has these edits.
fn with(edits: Value) -> Value {
    json!({"cdiVersion": "1.1.0", "kind": "vendor.com/net", "devices": [{"name": "d", "containerEdits": edits}]})
}

#[test]
fn a_file_is_the_same_in_json_and_yaml() {
    let yaml = r#"---
cdiVersion: "0.7.0"
kind: vendor.com/gpu
annotations: {made.by: hand}
containerEdits:
  env:
  - VENDOR=all
devices:
- name: "0"
  annotations: {}
  containerEdits:
    deviceNodes:
    - {path: /dev/gpu0, hostPath: /dev/real0, type: c, major: 195, minor: 0, fileMode: 0660, permissions: rw, uid: 7, gid: 44}
    hooks:
    - hookName: createContainer
      path: /usr/bin/hook
      args: [hook, run]
      timeout: 5
    mounts:
    - hostPath: /usr/lib/gpu
      containerPath: /usr/lib/gpu
      options: [ro, nosuid, rbind]
    additionalGids: [44]
    intelRdt: {closID: gpu}
    netDevices: null
"#;
    let same = json!({
        "cdiVersion": "0.7.0", "kind": "vendor.com/gpu", "annotations": {"made.by": "hand"},
        "containerEdits": {"env": ["VENDOR=all"]},
        "devices": [{"name": "0", "annotations": null, "containerEdits": {
            "deviceNodes": [{"path": "/dev/gpu0", "hostPath": "/dev/real0", "type": "c", "major": 195, "minor": 0,
                "fileMode": 432, "permissions": "rw", "uid": 7, "gid": 44}],
            "hooks": [{"hookName": "createContainer", "path": "/usr/bin/hook", "args": ["hook", "run"], "timeout": 5}],
            "mounts": [{"hostPath": "/usr/lib/gpu", "containerPath": "/usr/lib/gpu", "options": ["ro", "nosuid", "rbind"]}],
            "additionalGids": [44], "intelRdt": {"closID": "gpu"}, "netDevices": [],
        }}],
    });
    let read = SpecFile::parse(yaml.as_bytes(), Format::Yaml).unwrap();
    assert_eq!(read, parse(&same).unwrap());
    assert_eq!(read.devices[0].container_edits.device_nodes[0].file_mode, Some(0o660));
}

#[test]
fn what_is_wrong_is_said_with_its_field() {
    let node = |node: Value| with(json!({"deviceNodes": [{"path": "/dev/a"}, node]}));
    let mut twice = with(json!({"env": ["A=1"]}));
    twice["devices"] = json!([twice["devices"][0], twice["devices"][0]]);
    for (file, field) in [
        (json!({"cdiVersion": "1.2.0", "kind": "v/c", "devices": []}), "cdiVersion \"1.2.0\""),
        (json!({"cdiVersion": "1.0.0", "kind": "v", "devices": []}), "kind \"v\""),
        (json!({"cdiVersion": "1.0.0", "kind": "v/c", "devices": []}), "devices"),
        (json!({"cdiVersion": "1.0.0", "kind": "v/c"}), "devices"),
        (json!({"cdiVersion": "1.0.0", "kind": "v/c", "devices": [], "more": 1}), "more"),
        (twice, "devices[1].name \"d\": is there twice"),
        (with(json!({})), "devices[0].containerEdits"),
        (with(json!({"env": ["A=1", "=2"]})), "devices[0].containerEdits.env[1]"),
        (with(json!({"env": ["secret"]})), "env[0]: must be NAME=VALUE"),
        (node(json!({"path": "dev/a"})), "devices[0].containerEdits.deviceNodes[1].path \"dev/a\""),
        (node(json!({"path": "/dev/a", "hostPath": "b"})), "deviceNodes[1].hostPath"),
        (node(json!({"path": "/dev/a", "type": "x"})), "deviceNodes[1].type \"x\""),
        (node(json!({"path": "/dev/a", "permissions": "rx"})), "deviceNodes[1].permissions \"rx\""),
        (node(json!({"path": "/dev/a", "major": -1})), "deviceNodes[1].major"),
        (node(json!({"path": "/dev/a", "uid": -1})), "-1"),
        (node(json!({"path": "/dev/a", "nodes": 1})), "nodes"),
        (with(json!({"mounts": [{"hostPath": "", "containerPath": "/a"}]})), "mounts[0].hostPath"),
        (with(json!({"mounts": [{"hostPath": "/a", "containerPath": "a"}]})), "mounts[0].containerPath"),
        (with(json!({"mounts": [{"hostPath": "/a"}]})), "containerPath"),
        (with(json!({"hooks": [{"hookName": "later", "path": "/a"}]})), "hooks[0].hookName \"later\""),
        (with(json!({"hooks": [{"hookName": "poststop", "path": "a"}]})), "hooks[0].path"),
        (with(json!({"hooks": [{"hookName": "poststop", "path": "/a", "timeout": 0}]})), "hooks[0].timeout"),
        (with(json!({"additionalGids": [-1]})), "-1"),
    ] {
        let why = parse(&file).unwrap_err();
        assert!(why.contains(field), "{field}: {why}");
    }
    let why = parse(&with(json!({"env": ["secret"]}))).unwrap_err();
    assert!(!why.contains("secret"), "{why}");
}

#[test]
fn what_is_no_such_file_is_an_error_in_one_line() {
    let bomb = "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n\
                d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nkind: [*e,*e,*e,*e,*e,*e,*e,*e]\n";
    let deep = "[".repeat(100_000);
    for content in [
        "",
        "null",
        "[]",
        "{",
        "kind: [",
        "\0",
        "\u{feff}",
        "--- a\n--- b\n",
        "cdiVersion: 1.0\n",
        bomb,
        &deep,
    ] {
        for format in [Format::Json, Format::Yaml] {
            let why = SpecFile::parse(content.as_bytes(), format).unwrap_err();
            assert!(!why.is_empty() && !why.contains('\n') && why.len() < 1000, "{content:.20}: {why:.200}");
        }
    }
    assert!(SpecFile::parse(b"\xff\xfe\x00", Format::Json).is_err());
    assert!(SpecFile::parse(b"kind: \xff\xff", Format::Yaml).is_err());
}
