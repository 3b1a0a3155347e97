#![allow(clippy::unwrap_used)]

use std::{fs::Permissions, os::unix::fs::PermissionsExt};

use super::*;

fn config(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

fn refused(name: &str, text: &str) -> String {
    let invalid = config(text).check(name).unwrap_err();
    let source = std::error::Error::source(&invalid).map(ToString::to_string).unwrap_or_default();
    format!("{invalid}: {source}")
}

#[test]
fn what_can_never_work_is_refused_by_name() {
    let runc = "shim = 'io.containerd.runc.v2'";
    for (name, text, expected) in [
        ("berth", runc, "Berth's own"),
        ("", runc, "Berth's own"),
        ("a/b", runc, "letters"),
        ("a", "shim = 'runc'", "\"runc\""),
        ("a", "shim = 'io.containerd.runc'", "io.containerd.runc"),
        ("a", "shim = 'io.containerd.runc.v2'\noptions.BinaryNam = 'x'", "BinaryNam"),
        ("a", "shim = 'io.containerd.runc.v2'\noptions.SystemdCgroup = 'yes'", "SystemdCgroup"),
        ("a", "shim = '/usr/bin/containerd-shim-kata-v2'\noptions.BinaryName = 'x'", "BinaryName"),
    ] {
        let refused = refused(name, text);
        assert!(refused.contains(expected), "{name} {text}: {refused}");
    }
    config(runc).check("runc").unwrap();
}

#[test]
fn options_travel_as_the_shims_own_message() {
    let options = |text: &str| config(text).options().unwrap().unwrap();
    let runc = options("shim = '/opt/containerd-shim-runc-v2'\noptions.Root = '/r'");
    assert_eq!((runc.type_url, &runc.value[..]), ("containerd.runc.v1.Options", &b"\x3a\x02/r"[..]));
    let other = options("shim = 'io.containerd.kata.v2'\noptions.ConfigPath = '/c'");
    assert_eq!((other.type_url, &other.value[..]), ("runtimeoptions.v1.Options", &b"\x12\x02/c"[..]));
    assert_eq!(config("shim = 'io.containerd.runc.v2'").options().unwrap(), None);
}

#[tokio::test]
async fn a_shim_is_looked_for_when_a_pod_is_to_run_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let shim = directory.path().join("containerd-shim-x-v1");
    let configured = [("x".to_owned(), config(&format!("shim = '{}'", shim.display())))].into();
    let (handlers, _) = Handlers::open(&configured, HostFeatures::default()).unwrap();
    let missing = handlers.prepare("x", directory.path()).unwrap_err();
    assert_eq!(missing.kind(), Kind::FailedPrecondition);
    assert!(missing.to_string().contains("containerd-shim-x-v1"), "{missing}");
    fs::write(&shim, "").unwrap();
    handlers.prepare("x", directory.path()).unwrap();
    let choice: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.path().join(FILE_NAME)).unwrap()).unwrap();
    assert_eq!(choice, serde_json::json!({"shim": shim, "options": null}));
    let names: Vec<_> = handlers.list().map(|(name, _)| name).collect();
    assert_eq!(names, ["", "berth", "x"]);
    assert_eq!(handlers.features("y").unwrap_err().kind(), Kind::InvalidArgument);
}

#[tokio::test]
async fn what_a_shim_cannot_do_is_not_offered() {
    let directory = tempfile::tempdir().unwrap();
    let shim = directory.path().join("containerd-shim-x-v1");
    fs::write(&shim, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&shim, Permissions::from_mode(0o755)).unwrap();
    let configured = [("x".to_owned(), config(&format!("shim = '{}'", shim.display())))].into();
    let own = HostFeatures { recursive_readonly: true, user_namespaces: true };
    let (handlers, asked) = Handlers::open(&configured, own).unwrap();
    asked.await;
    assert_eq!(handlers.features("").unwrap(), own);
    assert_eq!(handlers.features("x").unwrap(), HostFeatures::default());
}

#[tokio::test]
async fn only_annotations_that_are_named_reach_a_shim() {
    let text = "shim = '/x'\npod_annotations = ['io.x.*', 'exact']";
    let handlers =
        Handlers::open(&[("x".to_owned(), config(text))].into(), HostFeatures::default()).unwrap().0;
    let annotations: BTreeMap<_, _> =
        ["io.x.a", "io.y", "exact", "exactly"].map(|name| (name.to_owned(), "v".to_owned())).into();
    let passed = |handler| handlers.passed(handler, &annotations).into_keys().collect::<Vec<_>>();
    assert_eq!(passed("x"), ["exact", "io.x.a"]);
    assert!(passed("").is_empty());
}
