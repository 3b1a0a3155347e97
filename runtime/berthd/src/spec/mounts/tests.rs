#![allow(clippy::unwrap_used)]
use super::*;
use crate::spec::{PodFiles, tests::Given};

fn asked(container_path: &str) -> config::Mount {
    config::Mount {
        container_path: container_path.to_owned(),
        host_path: "/host".to_owned(),
        ..Default::default()
    }
}

fn destinations(mounts: &[Mount]) -> Vec<&str> {
    mounts.iter().map(|mount| mount.destination().to_str().unwrap()).collect()
}

fn at<'a>(mounts: &'a [Mount], destination: &str) -> &'a Mount {
    mounts.iter().find(|mount| mount.destination() == Path::new(destination)).unwrap()
}

fn options(mount: &Mount) -> String {
    mount.options().clone().unwrap().join(",")
}

fn files() -> PodFiles {
    let file = |name: &str| Some(format!("/run/berth/{name}").into());
    PodFiles { resolv_conf: file("resolv.conf"), hosts: file("hosts"), hostname: file("hostname") }
}

const DEFAULTS: [&str; 6] = ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys", "/sys/fs/cgroup"];

#[test]
fn a_plain_container_has_the_default_mounts_and_the_pods_files() {
    let given = Given { files: files(), ..Given::usual() };
    let mounts = build(&given.inputs()).unwrap();
    let expected = [&DEFAULTS[..], &["/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/dev/shm"]].concat();
    assert_eq!(destinations(&mounts), expected);
    assert_eq!(at(&mounts, "/dev/shm").typ().as_deref(), Some("pod-shm"));
    assert_eq!(options(at(&mounts, "/sys")), "nosuid,noexec,nodev,ro");
    assert_eq!(options(at(&mounts, "/sys/fs/cgroup")), "nosuid,noexec,nodev,relatime,ro");
    assert_eq!(at(&mounts, "/etc/hosts").source().as_deref(), Some(Path::new("/run/berth/hosts")));
    assert_eq!(options(at(&mounts, "/etc/hosts")), "rbind,rprivate,rw");
}

#[test]
fn a_privileged_container_may_write_to_sys() {
    let mounts = build(&Given::privileged().inputs()).unwrap();
    assert_eq!(options(at(&mounts, "/sys")), "nosuid,noexec,nodev,rw");
    assert_eq!(options(at(&mounts, "/sys/fs/cgroup")), "nosuid,noexec,nodev,relatime,rw");
}

fn users() -> Users {
    let range = |host| IdRange::new(host, 65536).unwrap();
    Users { uids: range(1000), gids: range(2000) }
}

#[test]
fn a_user_namespace_on_the_hosts_network_sees_the_hosts_sys() {
    let mut given = Given::usual();
    given.pod.namespaces.users = Some(users());
    let mounts = build(&given.inputs()).unwrap();
    assert_eq!(at(&mounts, "/sys").typ().as_deref(), Some("sysfs"));
    given.pod.namespaces.host_network = true;
    let mounts = build(&given.inputs()).unwrap();
    assert_eq!(at(&mounts, "/sys").typ().as_deref(), Some("bind"));
    assert_eq!(options(at(&mounts, "/sys")), "rbind,rprivate,nosuid,noexec,nodev,rro");
    assert_eq!(destinations(&mounts)[..6], DEFAULTS);
}

#[test]
fn a_mount_whose_owners_are_mapped_says_how() {
    let mut given = Given::usual();
    given.container.mounts = vec![config::Mount { owners: Some(users()), ..asked("/data") }, asked("/plain")];
    let mounts = build(&given.inputs()).unwrap();
    let mapped = at(&mounts, "/data");
    assert_eq!(options(mapped), "rbind,rprivate,rw,ridmap");
    let shown = |mappings: &Option<Vec<LinuxIdMapping>>| {
        let mapping = mappings.as_ref().unwrap()[0];
        (mapping.container_id(), mapping.host_id(), mapping.size())
    };
    assert_eq!(shown(mapped.uid_mappings()), (0, 1000, 65536));
    assert_eq!(shown(mapped.gid_mappings()), (0, 2000, 65536));
    assert_eq!(at(&mounts, "/plain").uid_mappings(), &None);
    given.host.features.user_namespaces = false;
    let error = build(&given.inputs()).unwrap_err();
    assert!(error.is_unsupported() && error.to_string().contains("/data"), "{error}");
}

#[test]
fn the_owners_in_an_image_volume_are_the_pods_users() {
    let whole =
        super::volume(&volume("/whole", Part::Directory(vec!["/l/a".into()])), Some(users())).unwrap();
    assert_eq!(options(&whole), "ro,lowerdir=/l/a,uidmap=0:1000:65536,gidmap=0:2000:65536");
    let file = super::volume(&volume("/file", Part::File("/l/a/f".into())), Some(users())).unwrap();
    assert_eq!(options(&file), "ro,bind,rprivate,ridmap");
    assert!(file.uid_mappings().is_some() && file.gid_mappings().is_some());
}

#[test]
fn the_pods_files_are_read_only_with_the_root() {
    let mut given = Given { files: files(), ..Given::usual() };
    given.container.security.readonly_rootfs = true;
    let mounts = build(&given.inputs()).unwrap();
    assert_eq!(options(at(&mounts, "/etc/resolv.conf")), "rbind,rprivate,ro");
    assert_eq!(at(&mounts, "/dev/shm").typ().as_deref(), Some("pod-shm"), "shared memory stays writable");
}

#[test]
fn a_pod_that_shares_the_hosts_ipc_shares_its_shared_memory() {
    let mut given = Given::usual();
    given.pod.namespaces.host_ipc = true;
    let mounts = build(&given.inputs()).unwrap();
    let shm = at(&mounts, "/dev/shm");
    assert_eq!(shm.source().as_deref(), Some(Path::new("/dev/shm")));
    assert_eq!((shm.typ().as_deref(), options(shm).as_str()), (Some("bind"), "rbind,rprivate,rw"));
}

#[test]
fn a_mount_that_is_asked_for_takes_the_place_of_the_default_one() {
    for place in ["/etc/hosts", "/etc//hosts/", "/etc/../etc/hosts", "/dev/shm", "/sys/fs/cgroup", "/proc"] {
        let mut given = Given { files: files(), ..Given::usual() };
        given.container.mounts = vec![asked(place)];
        let mounts = build(&given.inputs()).unwrap();
        let cleaned = clean("", place).unwrap();
        assert_eq!(destinations(&mounts).iter().filter(|known| **known == cleaned).count(), 1, "{place}");
        assert_eq!(at(&mounts, &cleaned).source().as_deref(), Some(Path::new("/host")), "{place}");
    }
}

#[test]
fn a_mount_at_dev_replaces_all_defaults_below_it_but_shared_memory() {
    let mut given = Given::usual();
    given.container.mounts = vec![asked("/dev")];
    let expected = ["/proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/shm"];
    assert_eq!(destinations(&build(&given.inputs()).unwrap()), expected);
}

#[test]
fn outer_places_come_before_inner_ones_and_equals_stay_in_order() {
    let volumes = ["/a/v", "/data"].map(|place| volume(place, Part::File("/layer/file".into())));
    let mut given = Given { volumes: volumes.into(), ..Given::usual() };
    given.container.mounts = ["/a/b/c", "/z", "/a/b", "/y/x", "/a", "/z"].map(asked).into();
    let mounts = build(&given.inputs()).unwrap();
    let expected = ["/z", "/a", "/z", "/data", "/a/b", "/y/x", "/a/v", "/dev/shm", "/a/b/c"];
    assert_eq!(destinations(&mounts)[DEFAULTS.len()..], expected);
}

#[test]
fn options_follow_from_what_is_asked() {
    let none = config::Mount::default;
    let cases = [
        (none(), "rbind,rprivate,rw"),
        (config::Mount { readonly: true, ..none() }, "rbind,rprivate,ro"),
        (config::Mount { readonly: true, recursive_readonly: true, ..none() }, "rbind,rprivate,rro"),
        (config::Mount { propagation: Propagation::HostToContainer, ..none() }, "rbind,rslave,rw"),
        (
            config::Mount { propagation: Propagation::Bidirectional, readonly: true, ..none() },
            "rbind,rshared,ro",
        ),
        (config::Mount { noexec: true, nosuid: true, ..none() }, "rbind,rprivate,rw,noexec,nosuid"),
        (config::Mount { nodev: true, ..none() }, "rbind,rprivate,rw,nodev"),
    ];
    for (mount, expected) in cases {
        let mount = config::Mount { container_path: "/mnt".into(), host_path: "/host".into(), ..mount };
        assert_eq!(options(&bind(&mount, &Given::usual().host).unwrap()), expected);
    }
}

#[test]
fn recursive_read_only_needs_a_read_only_private_mount_and_a_host_that_can() {
    let rro = |readonly, propagation| config::Mount {
        readonly,
        propagation,
        recursive_readonly: true,
        ..asked("/mnt")
    };
    let refused = |mount| bind(&mount, &Given::usual().host).unwrap_err();
    let invalid = |reason| Error::invalid("mount recursive_read_only", "/mnt", reason);
    assert_eq!(
        refused(rro(false, Propagation::Private)),
        invalid("is asked for a mount that is not read-only")
    );
    for propagation in [Propagation::HostToContainer, Propagation::Bidirectional] {
        let expected = invalid("is asked for a mount whose propagation is not private");
        assert_eq!(refused(rro(true, propagation)), expected);
    }
    let error = bind(&rro(true, Propagation::Private), &Host::default()).unwrap_err();
    assert_eq!(error, Error::RecursiveReadonly("/mnt".to_owned()));
}

#[test]
fn the_root_propagates_as_much_as_its_mounts_need() {
    use Propagation::{Bidirectional, HostToContainer, Private};
    let cases: [(&[Propagation], Option<&str>); 5] = [
        (&[], None),
        (&[Private], None),
        (&[Private, HostToContainer], Some("rslave")),
        (&[HostToContainer, Bidirectional], Some("rshared")),
        (&[Bidirectional, HostToContainer], Some("rshared")),
    ];
    for (kinds, expected) in cases {
        let mounts: Vec<_> =
            kinds.iter().map(|&propagation| config::Mount { propagation, ..asked("/mnt") }).collect();
        assert_eq!(root_propagation(&mounts), expected, "{kinds:?}");
    }
}

#[test]
fn a_path_is_cleaned_by_its_text_alone() {
    let cases = [
        ("/", "/"),
        ("/a", "/a"),
        ("//a///b/", "/a/b"),
        ("/a/./b/.", "/a/b"),
        ("/a/../b", "/b"),
        ("/../../a", "/a"),
        ("/..", "/"),
        ("/a/.../b", "/a/.../b"),
    ];
    for (path, expected) in cases {
        assert_eq!(clean("path", path).as_deref(), Ok(expected), "{path}");
    }
}

#[test]
fn a_mount_without_a_proper_place_or_source_is_refused() {
    let cases = [
        ("mount container_path", "", "/host", "is not an absolute path"),
        ("mount container_path", "mnt", "/host", "is not an absolute path"),
        ("mount container_path", "/", "/host", "is the root itself"),
        ("mount container_path", "/a/..", "/host", "is the root itself"),
        ("mount container_path", "/a\0", "/host", "holds a NUL byte"),
        ("mount host_path", "/mnt", "", "is not an absolute path"),
        ("mount host_path", "/mnt", "host", "is not an absolute path"),
        ("mount host_path", "/mnt", "/host\0", "holds a NUL byte"),
    ];
    for (field, container_path, host_path, reason) in cases {
        let mount = config::Mount {
            container_path: container_path.to_owned(),
            host_path: host_path.to_owned(),
            ..Default::default()
        };
        let value = if field == "mount host_path" { host_path } else { container_path };
        let error = bind(&mount, &Host::default()).unwrap_err();
        assert_eq!(error, Error::invalid(field, value, reason));
    }
}

fn volume(container_path: &str, part: Part) -> ImageVolume {
    let mount = config::ImageMount { container_path: container_path.into(), ..Default::default() };
    ImageVolume { mount, part }
}

#[test]
fn an_image_is_an_overlay_nobody_writes_to_and_a_file_of_one_is_bound() {
    let layers = Part::Directory(vec!["/l/a".into(), "/l/b:c\\d".into()]);
    let shown = super::volume(&volume("/mnt/", layers), None).unwrap();
    assert_eq!((shown.typ().as_deref(), shown.destination().to_str()), (Some("overlay"), Some("/mnt")));
    assert_eq!(options(&shown), r"ro,lowerdir=/l/a:/l/b\:c\\d");
    let shown = super::volume(&volume("/mnt", Part::File("/l/a/f".into())), None).unwrap();
    assert_eq!(
        (shown.source().as_deref(), options(&shown).as_str()),
        (Some(Path::new("/l/a/f")), "ro,bind,rprivate")
    );
    assert!(super::volume(&volume("/", Part::File("/f".into())), None).is_err());
}
