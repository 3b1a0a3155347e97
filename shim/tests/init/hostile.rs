//! Images and volumes prepared to lead the shim astray.

use super::support::{Fixture, block_on};
use berth_shim::init::{self, Stdio};
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

const SHOW_HIDDEN: &str = "cat /proc/timer_list | wc -c; cat /proc/keys | wc -c; ls /sys/firmware | wc -l";

/// Puts a volume in the place of `/dev`, as an emptyDir or an image's `VOLUME` can be.
fn dev_is(spec: &mut Value, volume: &Path) {
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    mounts.push(json!({ "destination": "/dev", "type": "bind", "source": volume, "options": ["rbind"] }));
}

/// Tries all low numbers that a descriptor of the host may have while the directory is created.
#[test]
fn root_a_working_directory_is_not_made_through_a_descriptor_of_the_host() {
    let fixture = Fixture::new();
    let host = fixture.path("host");
    fs::create_dir(&host).unwrap();
    let shim = std::process::id();
    for number in 0..30 {
        for way in [format!("{shim}/root"), "..".to_owned(), ".".to_owned()] {
            let cwd = format!("/proc/self/fd/{number}/{way}{}/x", host.display());
            let error = fixture.fail(&["/bin/true"], |spec| spec["process"]["cwd"] = json!(cwd));
            assert!(error.to_string().starts_with("working directory: "), "{cwd}: {error}");
        }
    }
    assert_eq!(fs::read_dir(&host).unwrap().count(), 0);
}

#[test]
fn root_a_working_directory_behind_a_link_is_made_inside() {
    let fixture = Fixture::new();
    let outside = fixture.path("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, fixture.image().join("link")).unwrap();
    let (_, output) = fixture.run("pwd -P", |spec| spec["process"]["cwd"] = json!("/link/below"));
    assert_eq!(output, format!("{}/below\n", outside.display()));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn root_what_is_masked_stays_so_without_a_null_device() {
    let fixture = Fixture::new();
    let volume = fixture.path("volume");
    fs::create_dir(&volume).unwrap();
    let (_, output) = fixture.run(SHOW_HIDDEN, |spec| dev_is(spec, &volume));
    assert_eq!(output, "0\n0\n0\n");
}

#[test]
fn root_what_is_masked_stays_so_with_a_null_device_that_is_none() {
    let fixture = Fixture::new();
    let volume = fixture.path("volume");
    fs::create_dir(&volume).unwrap();
    fs::write(volume.join("null"), "a file").unwrap();
    let (_, output) = fixture.run(SHOW_HIDDEN, |spec| dev_is(spec, &volume));
    assert_eq!(output, "0\n0\n0\n");
    fs::remove_file(volume.join("null")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", volume.join("null")).unwrap();
    let (_, output) = fixture.run(SHOW_HIDDEN, |spec| dev_is(spec, &volume));
    assert_eq!(output, "0\n0\n0\n");
}

/// Restores the mode of the host's `/dev/null`, which a failing test would leave changed.
struct HostsNull(Permissions);

impl HostsNull {
    fn look() -> Self {
        Self(fs::metadata("/dev/null").unwrap().permissions())
    }
}

impl Drop for HostsNull {
    fn drop(&mut self) {
        fs::set_permissions("/dev/null", self.0.clone()).unwrap();
    }
}

#[test]
fn root_the_hosts_null_device_is_not_the_containers_to_change() {
    let fixture = Fixture::new();
    let before = HostsNull::look();
    let script = "busybox chmod 667 /proc/self/fd/0 /proc/timer_list; echo 2 > /proc/self/fd/0 && cat /proc/self/fd/0 && echo ok";
    let (_, output) = fixture.run(script, |_| {});
    assert_eq!(HostsNull::look().0.mode(), before.0.mode(), "{output}");
    assert!(output.matches("Read-only file system").count() == 2 && output.ends_with("ok\n"), "{output}");
}

/// The console goes to a path where a container may have put a symlink (CVE-2025-52565).
#[test]
fn root_the_console_does_not_follow_a_link() {
    let fixture = Fixture::new();
    let volume = fixture.path("volume");
    fs::create_dir_all(volume.join("pts")).unwrap();
    symlink("/proc/sys/kernel/core_pattern", volume.join("console")).unwrap();
    let rootfs = fixture.overlay("c1", &[fixture.image()]);
    let created = fixture.create_on_terminal(&rootfs, &["/bin/true"], |spec| {
        dev_is(spec, &volume);
        let pts = json!({ "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] });
        spec["mounts"].as_array_mut().unwrap().push(pts);
    });
    let error = block_on(created).map(drop).unwrap_err();
    assert!(
        error.to_string().starts_with("terminal: ") && error.to_string().contains("/dev/console"),
        "{error}"
    );
}

/// The container puts a multiplexer of its own over the devpts one (by a bind mount, which only a running container can make).
#[test]
fn root_a_terminal_is_not_taken_from_what_covers_the_multiplexer() {
    let fixture = Fixture::new();
    block_on(async {
        let running = fixture.create("c1", &["/bin/sleep", "1000"], |_| {}).await.unwrap().start().await;
        running.change_mounts("mount --bind /dev/zero /dev/pts/ptmx");
        let args = ["true".to_owned()];
        let request = running.request(init::ExecProcess::Args(&args), true, Stdio::default());
        let error = init::exec(request).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("/dev/pts/ptmx"), "{error}");
        running.end();
    });
}
