//! Requests that cannot work: each fails with an error that names the step and leaves nothing behind (which `fail` checks).

use super::support::Fixture;
use berth_shim::init::{Error, Step, Unrunnable};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn problem(error: &Error) -> Unrunnable {
    match error {
        Error::Command { problem, .. } => *problem,
        other => panic!("{other}"),
    }
}

#[test]
fn root_commands_that_cannot_be_run_are_told_apart() {
    let fixture = Fixture::new();
    let tmp = fixture.image().join("tmp");
    fs::write(tmp.join("plain"), "text").unwrap();
    fs::write(tmp.join("garbage"), "\u{1}\u{2}").unwrap();
    fs::set_permissions(tmp.join("garbage"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(tmp.join("script"), "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(tmp.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
    let cases = [
        ("absent", Unrunnable::NotInPath),
        ("/bin/absent", Unrunnable::NotFound),
        ("/tmp/plain", Unrunnable::PermissionDenied),
        ("/tmp", Unrunnable::IsDirectory),
        ("/tmp/garbage", Unrunnable::ExecFormat),
        ("/tmp/script", Unrunnable::NoInterpreter),
        ("/proc/self/exe", Unrunnable::PermissionDenied),
    ];
    for (command, expected) in cases {
        assert_eq!(problem(&fixture.fail(&[command], |_| {})), expected, "{command}");
    }
    let error = fixture.fail(&["plain"], |spec| spec["process"]["env"] = json!(["PATH=/tmp"]));
    assert_eq!(error.to_string(), r#"exec: "plain": permission denied"#);
}

/// Like a whole script given as the command.
#[test]
fn root_a_command_of_any_length_is_told_in_short() {
    let fixture = Fixture::new();
    for command in ["x".repeat(100_000), format!("/{}", "\u{1}".repeat(100_000))] {
        let error = fixture.fail(&[&command], |_| {});
        assert!(matches!(problem(&error), Unrunnable::NotInPath | Unrunnable::NotFound));
        assert!(error.to_string().len() < 20_000, "{}", error.to_string().len());
    }
}

#[test]
fn root_a_command_only_root_may_run_is_denied_to_a_user() {
    let fixture = Fixture::new();
    let bin = fixture.image().join("root/tool");
    fs::copy(fixture.image().join("bin/busybox"), &bin).unwrap();
    fs::set_permissions(fixture.image().join("root"), fs::Permissions::from_mode(0o700)).unwrap();
    let error = fixture.fail(&["/root/tool"], |spec| {
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        spec["process"].as_object_mut().unwrap().remove("capabilities");
    });
    assert_eq!(problem(&error), Unrunnable::PermissionDenied);
}

#[test]
fn root_an_empty_command_or_environment_with_nul_is_invalid() {
    let fixture = Fixture::new();
    assert!(matches!(fixture.fail(&[], |_| {}), Error::Invalid { step: Step::Exec, .. }));
    assert_eq!(problem(&fixture.fail(&[""], |_| {})), Unrunnable::NotInPath);
    let error = fixture.fail(&["/bin/true"], |spec| spec["process"]["env"] = json!(["A=\u{0}"]));
    assert!(matches!(error, Error::Invalid { step: Step::Exec, .. }), "{error}");
}

#[test]
fn root_working_directories_that_cannot_be_are_refused() {
    let fixture = Fixture::new();
    let error = fixture.fail(&["/bin/true"], |spec| spec["process"]["cwd"] = json!("/etc/passwd"));
    assert_eq!(
        error.to_string(),
        r#"working directory: chdir to cwd ("/etc/passwd") set in config.json failed: Not a directory (os error 20)"#
    );
    for cwd in ["", "relative", "/etc/passwd/below"] {
        let error = fixture.fail(&["/bin/true"], |spec| spec["process"]["cwd"] = json!(cwd));
        assert!(error.to_string().starts_with("working directory: "), "{error}");
    }
}

#[test]
fn root_a_directory_reached_through_a_descriptor_of_the_host_is_refused() {
    let fixture = Fixture::new();
    for number in 3..12 {
        let cwd = format!("/proc/self/fd/{number}");
        let (code, output) = match super::support::block_on(
            fixture.create("c1", &["/bin/pwd"], |spec| spec["process"]["cwd"] = json!(cwd)),
        ) {
            Ok(container) => super::support::block_on(container.finish()).unwrap(),
            Err(error) => {
                assert!(error.to_string().starts_with("working directory: "), "{error}");
                continue;
            }
        };
        assert!(code == 0 && output == "/\n", "descriptor {number} leads to {output}");
    }
}

#[test]
fn root_a_bad_mount_is_named_with_source_and_destination() {
    let fixture = Fixture::new();
    let with = |mount: serde_json::Value| {
        fixture.fail(&["/bin/true"], |spec| spec["mounts"].as_array_mut().unwrap().push(mount))
    };
    let error = with(
        json!({ "destination": "/data", "type": "bind", "source": "/no/such/place", "options": ["rbind"] }),
    );
    assert_eq!(
        error.to_string(),
        r#"mount: source "/no/such/place" of "/data": No such file or directory (os error 2)"#
    );
    let error = with(json!({ "destination": "/data", "type": "nofs", "source": "x" }));
    assert!(error.to_string().starts_with(r#"mount: "x" of type "nofs": "#), "{error}");
    let error =
        with(json!({ "destination": "/data", "type": "tmpfs", "source": "x", "options": ["size=lots"] }));
    assert!(error.to_string().starts_with("mount: option size=lots: tmpfs: Bad value for 'size'"), "{error}");
    for destination in ["", "/", "relative"] {
        let error = with(json!({ "destination": destination, "type": "tmpfs", "source": "x" }));
        assert!(matches!(error, Error::Invalid { step: Step::Mount, .. }), "{error}");
    }
    let error =
        with(json!({ "destination": "/etc/passwd", "type": "bind", "source": "/tmp", "options": ["rbind"] }));
    assert!(error.to_string().ends_with("onto a directory?"), "{error}");
}

#[test]
fn root_a_bad_rootfs_is_named() {
    let fixture = Fixture::new();
    let bundle_less =
        super::support::block_on(fixture.create_on("c1", &[], &["/bin/true"], |_| {})).err().unwrap();
    assert!(bundle_less.to_string().starts_with("rootfs: root.path"), "{bundle_less}");
    let missing = fixture.overlay("c1", &[fixture.path("missing")]);
    let error =
        super::support::block_on(fixture.create_on("c1", &missing, &["/bin/true"], |_| {})).err().unwrap();
    assert!(error.to_string().contains("missing"), "{error}");
    assert!(!fixture.has_cgroup("c1"));
}

#[test]
fn root_what_is_not_built_is_refused_by_name() {
    let fixture = Fixture::new();
    let error = fixture.fail(&["/bin/true"], |spec| {
        spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }))
    });
    assert_eq!(error.to_string(), "time namespaces are not supported yet");
    let error = fixture.fail(&["/bin/true"], |spec| {
        spec["linux"]["resources"]["cpu"] = json!({ "realtimeRuntime": 1000 });
    });
    assert_eq!(error.to_string(), "linux.resources.cpu.realtimeRuntime is not supported yet");
    let error =
        fixture.fail(&["/bin/true"], |spec| spec["linux"]["personality"] = json!({ "domain": "SOLARIS" }));
    assert_eq!(error.to_string(), r#"process: linux.personality.domain "SOLARIS""#);
    let error =
        fixture.fail(&["/bin/true"], |spec| spec["process"]["apparmorProfile"] = json!("some-profile"));
    assert!(error.to_string().starts_with("security: "), "{error}");
}

#[test]
fn root_broken_configuration_is_reported_with_its_place() {
    let fixture = Fixture::new();
    let error = fixture.fail(&["/bin/true"], |spec| spec["process"]["user"] = json!("nobody"));
    assert!(
        matches!(&error, Error::Invalid { step: Step::Config, reason } if reason.contains("config.json")),
        "{error}"
    );
    let error = fixture
        .fail(&["/bin/true"], |spec| spec["process"]["capabilities"] = json!({ "bounding": ["CAP_FLY"] }));
    assert!(error.to_string().contains("CAP_FLY"), "{error}");
    let error = fixture.fail(&["/bin/true"], |spec| spec["linux"]["sysctl"] = json!({ "kernel.panic": "1" }));
    assert!(error.to_string().contains("would change the host"), "{error}");
    let error = fixture.fail(&["/bin/true"], |spec| {
        spec["linux"]["namespaces"] = json!([{ "type": "network", "path": "/no/netns" }])
    });
    assert!(error.to_string().contains("/no/netns"), "{error}");
}
