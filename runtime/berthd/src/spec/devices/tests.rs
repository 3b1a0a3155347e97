#![allow(clippy::unwrap_used)]
use super::*;
use crate::spec::tests::Given;

fn node(path: &str, kind: LinuxDeviceType, major: i64, minor: i64) -> LinuxDevice {
    let mut node = LinuxDevice::default();
    node.set_path(path.into()).set_typ(kind).set_major(major).set_minor(minor).set_file_mode(Some(0o660));
    node
}

fn found(path: &str, permissions: &str) -> FoundDevice {
    FoundDevice { node: node(path, LinuxDeviceType::B, 8, 1), permissions: permissions.to_owned() }
}

fn asked(asked: Vec<FoundDevice>) -> Devices {
    Devices { asked, ..Default::default() }
}

fn paths(given: &Given) -> Vec<String> {
    let nodes = nodes(&given.inputs()).unwrap();
    nodes.iter().map(|node| node.path().to_string_lossy().into_owned()).collect()
}

/// Formats a rule as the device controller of cgroup v1 does.
fn shown(rule: &LinuxDeviceCgroup) -> String {
    let number = |number: Option<i64>| number.map_or("*".to_owned(), |number| number.to_string());
    let verdict = if rule.allow() { "allow" } else { "deny" };
    let access = rule.access().as_deref().unwrap_or_default();
    let kind = rule.typ().unwrap_or_default();
    format!("{verdict} {} {}:{} {access}", kind.as_str(), number(rule.major()), number(rule.minor()))
}

fn shown_rules(given: &Given) -> Vec<String> {
    rules(&given.inputs()).unwrap().iter().map(shown).collect()
}

#[test]
fn a_plain_container_opens_the_default_devices_and_no_others() {
    let expected = [
        "deny a *:* rwm",
        "allow c *:* m",
        "allow b *:* m",
        "allow c 1:3 rwm",
        "allow c 1:5 rwm",
        "allow c 1:7 rwm",
        "allow c 1:8 rwm",
        "allow c 1:9 rwm",
        "allow c 5:0 rwm",
        "allow c 5:1 rwm",
        "allow c 5:2 rwm",
        "allow c 136:* rwm",
    ];
    assert_eq!(shown_rules(&Given::usual()), expected);
    assert_eq!(paths(&Given::usual()), Vec::<String>::new());
}

#[test]
fn a_device_that_was_asked_for_is_made_and_may_be_opened() {
    let given = Given { devices: asked(vec![found("/dev//disk/", "rw")]), ..Given::usual() };
    assert_eq!(paths(&given), ["/dev/disk"]);
    assert_eq!(shown_rules(&given).last().unwrap(), "allow b 8:1 rw");
    assert_eq!(nodes(&given.inputs()).unwrap()[0].file_mode(), Some(0o660));
}

#[test]
fn a_named_pipe_needs_no_rule() {
    let pipe =
        FoundDevice { node: node("/dev/pipe", LinuxDeviceType::P, 0, 0), permissions: "rw".to_owned() };
    let given = Given { devices: asked(vec![pipe]), ..Given::usual() };
    assert_eq!(paths(&given), ["/dev/pipe"]);
    assert_eq!(shown_rules(&given), shown_rules(&Given::usual()));
}

#[test]
fn a_privileged_container_has_the_hosts_devices_and_may_open_all() {
    let mut given = Given::privileged();
    given.devices.of_host = vec![
        node("/dev/null", LinuxDeviceType::C, 1, 3),
        node("/dev/ptmx", LinuxDeviceType::C, 5, 2),
        node("/dev/sda", LinuxDeviceType::B, 8, 0),
        node("/dev/sda1", LinuxDeviceType::B, 8, 1),
    ];
    given.devices.asked = vec![found("/dev/sda", "r")];
    assert_eq!(paths(&given), ["/dev/sda", "/dev/sda1"]);
    assert_eq!(nodes(&given.inputs()).unwrap()[0].minor(), 1, "the one asked for wins");
    assert_eq!(shown_rules(&given), ["allow a *:* rwm"]);
}

#[test]
fn permissions_are_made_of_r_w_and_m() {
    for permissions in ["", "x", "rwx", "RW", "r w"] {
        let given = Given { devices: asked(vec![found("/dev/disk", permissions)]), ..Given::usual() };
        let expected = Error::invalid("device permissions", permissions, "is not made of r, w and m");
        assert_eq!(rules(&given.inputs()), Err(expected));
    }
    for permissions in ["r", "w", "m", "mrw"] {
        let given = Given { devices: asked(vec![found("/dev/disk", permissions)]), ..Given::usual() };
        assert!(rules(&given.inputs()).is_ok(), "{permissions}");
    }
}

#[test]
fn a_device_needs_a_place() {
    for (path, reason) in
        [("dev/disk", "is not an absolute path"), ("/", "is the root itself"), ("/d\0", "holds a NUL byte")]
    {
        let given = Given { devices: asked(vec![found(path, "r")]), ..Given::usual() };
        let expected = Error::invalid("device container_path", path, reason);
        assert_eq!(nodes(&given.inputs()), Err(expected));
    }
}
