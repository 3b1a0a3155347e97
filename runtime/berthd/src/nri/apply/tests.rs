#![allow(clippy::unwrap_used)]

use berth_nri::nri::{
    self, Hook, IOPrioClass, KeyValue, LinuxContainerAdjustment, LinuxDevice, LinuxIOPriority,
    LinuxResources, LinuxSeccomp, LinuxSyscall, Mount, POSIXRlimit,
};

use super::*;
use crate::{
    container::{ContainerState, config::ContainerConfig},
    nri::convert::Optional,
    spec::user::ResolvedUser,
};

fn container() -> Container {
    Container {
        id: "c".into(),
        pod_id: "p".into(),
        config: ContainerConfig::default(),
        image_id: String::new(),
        image_ref: String::new(),
        created_at: 0,
        state: ContainerState::Created { pid: 0 },
        log_path: None,
        user: ResolvedUser { uid: 0, gid: 0, additional_gids: Vec::new(), home: "/".into() },
        stop_signal: 15,
        cgroup: "/pod/c".into(),
    }
}

fn spec() -> Spec {
    let json = serde_json::json!({
        "ociVersion": "1.3.0",
        "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["a"], "env": ["A=1", "B=2"] },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/data/inner", "type": "bind", "source": "/x" }
        ],
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "pid" }],
            "resources": { "devices": [{ "allow": false }] }
        }
    });
    serde_json::from_value(json).unwrap()
}

fn adjusted(wanted: &ContainerAdjustment) -> Result<(Container, Spec)> {
    let (mut container, mut spec) = (container(), spec());
    apply(wanted, &Host::default(), &mut container, &mut spec).map(|_| (container, spec))
}

fn linux(linux: LinuxContainerAdjustment) -> ContainerAdjustment {
    ContainerAdjustment { linux: Some(linux).into(), ..Default::default() }
}

#[test]
fn variables_are_set_where_they_were_added_and_taken_away() {
    let set =
        |key: &str, value: &str| KeyValue { key: key.into(), value: value.into(), ..Default::default() };
    let env = vec![set("-B", ""), set("C", "3"), set("A", "9"), set("-A", "")];
    let (_, spec) = adjusted(&ContainerAdjustment { env, ..Default::default() }).unwrap();
    assert_eq!(spec.process().as_ref().unwrap().env().as_ref().unwrap(), &["A=9", "C=3"]);
}

#[test]
fn mounts_are_replaced_taken_away_and_ordered_from_the_outside_in() {
    let mount = |destination: &str| Mount {
        destination: destination.into(),
        type_: "bind".into(),
        source: "/y".into(),
        options: vec!["rbind".into(), "rslave".into()],
        ..Default::default()
    };
    let mounts = vec![mount("/data"), mount("-/proc"), mount("/data/inner")];
    let (_, spec) = adjusted(&ContainerAdjustment { mounts, ..Default::default() }).unwrap();
    let places: Vec<_> =
        spec.mounts().iter().flatten().map(|one| one.destination().display().to_string()).collect();
    assert_eq!(places, ["/data", "/data/inner"]);
    assert_eq!(spec.linux().as_ref().unwrap().rootfs_propagation().as_deref(), Some("rslave"));
}

#[test]
fn a_device_comes_with_leave_to_use_it() {
    let device = LinuxDevice {
        path: "/dev/null2".into(),
        type_: "c".into(),
        major: 1,
        minor: 3,
        ..Default::default()
    };
    let devices = vec![device];
    let (_, spec) = adjusted(&linux(LinuxContainerAdjustment { devices, ..Default::default() })).unwrap();
    let linux = spec.linux().as_ref().unwrap();
    assert_eq!(linux.devices().as_ref().unwrap().len(), 1);
    let rules = linux.resources().as_ref().unwrap().devices().as_ref().unwrap();
    assert_eq!((rules.len(), rules[1].allow(), rules[1].minor()), (2, true, Some(3)));
}

#[test]
fn limits_become_what_the_container_was_asked_to_be() {
    let mut resources = LinuxResources::new();
    resources.memory.mut_or_insert_default().limit = nri::OptionalInt64::of(Some(1 << 20));
    resources.cpu.mut_or_insert_default().shares = nri::OptionalUInt64::of(Some(512_u64));
    let wanted = LinuxContainerAdjustment { resources: Some(resources).into(), ..Default::default() };
    let (container, spec) = adjusted(&linux(wanted)).unwrap();
    assert_eq!(container.config.resources.memory_limit, Some(1 << 20));
    let limits = spec.linux().as_ref().unwrap().resources().as_ref().unwrap();
    assert_eq!(limits.memory().unwrap().limit(), Some(1 << 20));
    assert_eq!(limits.cpu().as_ref().unwrap().shares(), Some(512));
    assert_eq!(limits.devices().as_ref().unwrap().len(), 1, "device rules stay");
}

#[test]
fn hooks_limits_of_processes_filters_and_priorities_are_described() {
    let mut wanted = linux(LinuxContainerAdjustment {
        io_priority: Some(LinuxIOPriority {
            class: IOPrioClass::IOPRIO_CLASS_IDLE.into(),
            ..Default::default()
        })
        .into(),
        seccomp_policy: Some(LinuxSeccomp {
            default_action: "SCMP_ACT_ALLOW".into(),
            syscalls: vec![LinuxSyscall {
                names: vec!["reboot".into()],
                action: "SCMP_ACT_ERRNO".into(),
                ..Default::default()
            }],
            ..Default::default()
        })
        .into(),
        ..Default::default()
    });
    wanted.hooks.mut_or_insert_default().prestart =
        vec![Hook { path: "/bin/a".into(), ..Default::default() }];
    wanted.rlimits =
        vec![POSIXRlimit { type_: "RLIMIT_NOFILE".into(), hard: 9, soft: 8, ..Default::default() }];
    let (_, spec) = adjusted(&wanted).unwrap();
    let json = serde_json::to_value(&spec).unwrap();
    assert_eq!(json["hooks"]["prestart"][0]["path"], "/bin/a");
    assert_eq!(json["process"]["rlimits"][0]["type"], "RLIMIT_NOFILE");
    assert_eq!(json["process"]["ioPriority"]["class"], "IOPRIO_CLASS_IDLE");
    assert_eq!(json["linux"]["seccomp"]["syscalls"][0]["names"][0], "reboot");
}

#[test]
fn namespaces_are_replaced_and_taken_away() {
    let namespace = |kind: &str, path: &str| nri::LinuxNamespace {
        type_: kind.into(),
        path: path.into(),
        ..Default::default()
    };
    let namespaces = vec![namespace("-pid", ""), namespace("network", "/run/netns/x")];
    let (_, spec) = adjusted(&linux(LinuxContainerAdjustment { namespaces, ..Default::default() })).unwrap();
    let json = serde_json::to_value(spec.linux().as_ref().unwrap().namespaces()).unwrap();
    assert_eq!(json, serde_json::json!([{ "type": "mount" }, { "type": "network", "path": "/run/netns/x" }]));
}

#[test]
fn what_cannot_be_or_is_not_built_is_refused_by_name() {
    let refused = |wanted: ContainerAdjustment| adjusted(&wanted).map(|_| ()).unwrap_err();
    let mut rdt = LinuxResources::new();
    rdt.rdt_class = nri::OptionalString::of(Some("gold"));
    let wanted = LinuxContainerAdjustment { resources: Some(rdt).into(), ..Default::default() };
    let error = refused(linux(wanted));
    assert_eq!(error.kind(), Kind::Unimplemented);
    assert!(error.to_string().contains("rdt_class"), "{error}");
    let wanted = LinuxContainerAdjustment { cgroups_path: "../x".into(), ..Default::default() };
    assert_eq!(refused(linux(wanted)).kind(), Kind::InvalidArgument);
    let rlimits = vec![POSIXRlimit { type_: "RLIMIT_NONSENSE".into(), ..Default::default() }];
    let error = refused(ContainerAdjustment { rlimits, ..Default::default() });
    assert!(error.to_string().contains("RLIMIT_NONSENSE"), "{error}");
}
