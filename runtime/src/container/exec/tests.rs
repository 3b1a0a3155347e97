#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A bundle whose process has `env`.
fn bundle(env: &[&str]) -> TempDir {
    let config = json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": true,
            "consoleSize": {"height": 1, "width": 2},
            "user": {"uid": 7, "gid": 8, "additionalGids": [9]},
            "args": ["/init", "--now"],
            "env": env,
            "cwd": "/work",
            "capabilities": {"bounding": ["CAP_KILL"]},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20, "soft": 10}],
            "noNewPrivileges": true,
            "apparmorProfile": "tight",
        },
        "root": {"path": "rootfs"},
    });
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    directory
}

fn process(env: &[&str], tty: bool) -> Value {
    let json = process_of(bundle(env).path(), vec!["ps".into(), "-a".into()], tty).unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[test]
fn a_command_runs_as_the_container_does() {
    let process = process(&["A=1"], false);
    let expected = json!({
        "terminal": false,
        "user": {"uid": 7, "gid": 8, "additionalGids": [9]},
        "args": ["ps", "-a"],
        "env": ["A=1"],
        "cwd": "/work",
        "capabilities": {"bounding": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 20, "soft": 10}],
        "noNewPrivileges": true,
        "apparmorProfile": "tight",
    });
    assert_eq!(process, expected);
}

#[test]
fn a_terminal_is_named_unless_the_container_names_its_own() {
    assert_eq!(process(&["A=1"], true)["env"], json!(["A=1", "TERM=xterm"]));
    assert_eq!(process(&["TERM=dumb"], true)["env"], json!(["TERM=dumb"]));
    assert_eq!(process(&[], true)["terminal"], json!(true));
}
