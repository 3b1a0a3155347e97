#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// Creates directories with files, given as directory, name and content.
fn directories(files: &[(usize, &str, &str)]) -> (TempDir, Vec<PathBuf>) {
    let root = tempfile::tempdir().unwrap();
    let directories = [root.path().join("first"), root.path().join("second"), root.path().join("absent")];
    for (directory, name, content) in files {
        fs::create_dir_all(&directories[*directory]).unwrap();
        fs::write(directories[*directory].join(name), content).unwrap();
    }
    (root, directories.to_vec())
}

/// Returns a file whose devices set variables to `mark`.
fn file(devices: &[&str], mark: &str) -> String {
    let devices = devices
        .iter()
        .map(|name| json!({"name": name, "containerEdits": {"env": [format!("{name}={mark}")]}}));
    let edits = json!({"env": [format!("ALL={mark}")]});
    let devices: Vec<_> = devices.collect();
    json!({"cdiVersion": "1.0.0", "kind": "v/c", "devices": devices, "containerEdits": edits}).to_string()
}

fn names(names: &[&str]) -> Vec<DeviceName> {
    names.iter().map(|name| format!("v/c={name}").parse().unwrap()).collect()
}

fn env(directories: &[PathBuf], devices: &[&str]) -> Vec<String> {
    find(directories, &names(devices)).unwrap().env
}

#[test]
fn the_edits_of_a_file_come_once_and_before_those_of_its_devices() {
    let (_root, directories) =
        directories(&[(0, "a.json", &file(&["a", "b"], "1")), (0, "c.yaml", &file(&["c"], "2"))]);
    assert_eq!(env(&directories, &["b", "c", "a"]), ["ALL=1", "b=1", "ALL=2", "c=2", "a=1"]);
    assert_eq!(env(&directories, &[]), [""; 0]);
}

#[test]
fn later_directories_win_over_earlier_ones_device_by_device() {
    let (_root, directories) =
        directories(&[(0, "a.json", &file(&["a", "b"], "1")), (1, "a.json", &file(&["b"], "2"))]);
    assert_eq!(env(&directories, &["a"]), ["ALL=1", "a=1"]);
    assert_eq!(env(&directories, &["b"]), ["ALL=2", "b=2"]);
}

#[test]
fn two_files_of_one_directory_must_not_describe_one_device() {
    let files = [
        (1, "a.json", &*file(&["a"], "1")),
        (1, "b.json", &*file(&["a", "b"], "2")),
        (0, "c.json", &*file(&["a"], "3")),
    ];
    let (_root, directories) = directories(&files);
    let error = find(&directories, &names(&["a"])).unwrap_err().to_string();
    assert!(
        error.contains("second/a.json") && error.contains("second/b.json") && error.contains("v/c=a"),
        "{error}"
    );
    assert_eq!(env(&directories, &["b"]), ["ALL=2", "b=2"], "the other device is not concerned");
}

#[test]
fn a_broken_file_breaks_its_own_devices_only_and_is_named() {
    let (_root, directories) = directories(&[
        (0, "a.json", &file(&["a"], "1")),
        (0, "broken.yaml", "kind: v/c\ncdiVersion: 9.9.9\ndevices: []\n"),
        (0, "empty.json", ""),
        (0, "README", "no such file"),
    ]);
    assert_eq!(env(&directories, &["a"]), ["ALL=1", "a=1"]);
    let error = find(&directories, &names(&["a", "gone"])).unwrap_err().to_string();
    for word in ["v/c=gone", "first", "second", "absent", "broken.yaml", "cdiVersion", "empty.json"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    assert!(!error.contains("README"), "{error}");
}

fn with(edits: Value) -> (TempDir, Vec<PathBuf>) {
    let devices = json!([{"name": "a", "containerEdits": edits}]);
    directories(&[(
        0,
        "a.json",
        &json!({"cdiVersion": "1.1.0", "kind": "v/c", "devices": devices}).to_string(),
    )])
}

fn nodes(node: Value) -> Result<Vec<Node>, Error> {
    let (_root, directories) = with(json!({"deviceNodes": [node]}));
    find(&directories, &names(&["a"])).map(|edits| edits.nodes)
}

#[test]
fn what_a_node_leaves_out_is_taken_from_the_host() {
    let found = nodes(json!({"path": "/dev/other", "hostPath": "/dev/null"})).unwrap();
    let (node, access) = (&found[0].node, &found[0].access);
    assert_eq!((node.path().as_path(), node.typ()), (Path::new("/dev/other"), LinuxDeviceType::C));
    assert_eq!((node.major(), node.minor(), access.as_str()), (1, 3, "rwm"));
    assert_eq!(node.file_mode(), Some(fs::metadata("/dev/null").unwrap().mode() & 0o7777));
}

#[test]
fn a_node_that_is_described_completely_need_not_be_there() {
    let node = json!({"path": "/dev/no-such", "type": "c", "major": 5, "minor": 6, "fileMode": 384, "uid": 1,
        "gid": 2, "permissions": "none"});
    let found = nodes(node).unwrap();
    let node = &found[0].node;
    assert_eq!((node.major(), node.minor(), node.file_mode()), (5, 6, Some(0o600)));
    assert_eq!((node.uid(), node.gid(), found[0].access.as_str()), (Some(1), Some(2), ""));
}

#[test]
fn what_is_not_on_the_host_or_not_supported_is_named() {
    for (edits, words) in [
        (json!({"deviceNodes": [{"path": "/dev/no-such"}]}), ["/dev/no-such", "a.json"]),
        (json!({"deviceNodes": [{"path": "/dev"}]}), ["/dev", "no device node"]),
        (json!({"deviceNodes": [{"path": "/dev/null", "type": "b"}]}), ["/dev/null", "another type"]),
        (json!({"mounts": [{"hostPath": "/no/such", "containerPath": "/a"}]}), ["/no/such", "a.json"]),
        (json!({"intelRdt": {"closID": "x"}}), ["intelRdt", "not supported"]),
        (
            json!({"netDevices": [{"hostInterfaceName": "eth9", "name": "eth0"}]}),
            ["netDevices", "not supported"],
        ),
    ] {
        let (_root, directories) = with(edits);
        let error = find(&directories, &names(&["a"])).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)) && error.contains("v/c=a"), "{error}");
    }
}
