#![allow(clippy::unwrap_used)]
use std::error::Error as _;

use super::*;

const V1: [(&str, &str); 2] = [
    ("sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", ""),
    ("sys/fs/cgroup/unified/cgroup.controllers", ""),
];
const V2: [(&str, &str); 3] = [
    ("sys/fs/cgroup/cgroup.controllers", "cpu memory hugetlb pids\n"),
    ("proc/self/cgroup", "0::/system.slice/berthd.service\n"),
    ("sys/fs/cgroup/system.slice/berthd.service/memory.swap.max", "max\n"),
];

/// Returns a host with these files besides those that every host has.
fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let always = [
        ("proc/self/status", "Name:\tberthd\nCapEff:\t000001fffeffffff\nCapBnd:\t000001ffffffffff\n"),
        ("proc/self/oom_score_adj", "-5\n"),
        ("proc/sys/kernel/osrelease", "6.18.1-cloud-amd64\n"),
        ("proc/sys/user/max_user_namespaces", "96365\n"),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0\n"),
        ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n"),
        ("sys/kernel/mm/hugepages/hugepages-64kB/nr_hugepages", "0\n"),
    ];
    for (path, text) in always.iter().chain(files) {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    root
}

#[test]
fn a_host_of_cgroup_v1_is_known_by_its_files_even_with_v2_beside() {
    let host = Host::probe(machine(&V1).path(), Restrict::Auto).unwrap();
    assert_eq!(host.cgroups, Cgroups::V1);
    assert!(host.swap);
    assert_eq!(host.hugepages, BTreeSet::new(), "there is no controller for them");
    assert!(host.features.recursive_readonly);
}

#[test]
fn a_host_of_cgroup_v2_is_known_by_its_files() {
    let host = Host::probe(machine(&V2).path(), Restrict::Auto).unwrap();
    assert_eq!(host.cgroups, Cgroups::V2);
    assert!(host.swap);
    assert_eq!(host.hugepages, ["1GB", "2MB", "64KB"].map(str::to_owned).into());
}

#[test]
fn user_namespaces_need_a_kernel_that_maps_every_file_system_and_leave_to_make_them() {
    let can = |release, most| {
        let files = [("proc/sys/kernel/osrelease", release), ("proc/sys/user/max_user_namespaces", most)];
        Host::probe(machine(&files).path(), Restrict::Auto).unwrap().features.user_namespaces
    };
    assert!(can("6.3.0\n", "1000\n") && !can("6.2.16\n", "1000\n") && !can("6.3.0\n", "0\n"));
    let without = machine(&[]);
    fs::remove_dir_all(without.path().join("proc/sys/user")).unwrap();
    assert!(!Host::probe(without.path(), Restrict::Auto).unwrap().features.user_namespaces);
}

#[test]
fn a_host_that_counts_no_swap_is_known_by_the_missing_file() {
    assert!(!Host::probe(machine(&V1[1..]).path(), Restrict::Auto).unwrap().swap);
    assert!(!Host::probe(machine(&V2[..2]).path(), Restrict::Auto).unwrap().swap);
}

#[test]
fn capabilities_are_those_in_force_that_may_be_passed_on() {
    let host = Host::probe(machine(&[]).path(), Restrict::Auto).unwrap();
    assert_eq!(host.capabilities.len(), 40);
    assert!(!host.capabilities.contains(&Capability::SysResource), "the bit that CapEff lacks");
    let status = [("proc/self/status", "CapEff:\t00000000000000ff\nCapBnd:\t8000000000000003\n")];
    let host = Host::probe(machine(&status).path(), Restrict::Auto).unwrap();
    assert_eq!(host.capabilities, [Capability::Chown, Capability::DacOverride].into());
}

#[test]
fn oom_score_adj_has_a_floor_where_it_must_or_shall() {
    let with = ("proc/self/status", "CapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\n");
    let without = ("proc/self/status", "CapEff:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\n");
    let cases = [
        ("the capability is there", with, Restrict::Auto, None),
        ("the capability is missing", without, Restrict::Auto, Some(-5)),
        ("always", with, Restrict::Always, Some(-5)),
        ("never", without, Restrict::Never, None),
    ];
    for (name, status, restrict, expected) in cases {
        let host = Host::probe(machine(&[status]).path(), restrict).unwrap();
        assert_eq!(host.oom_score_adj_floor, expected, "{name}");
    }
}

#[test]
fn an_old_kernel_makes_no_recursive_read_only_mounts() {
    for (release, expected) in
        [("5.11.22\n", false), ("5.12-rc1\n", true), ("4.18.0-553.el8\n", false), ("10.0\n", true)]
    {
        let root = machine(&[("proc/sys/kernel/osrelease", release)]);
        assert_eq!(
            Host::probe(root.path(), Restrict::Auto).unwrap().features.recursive_readonly,
            expected,
            "{release}"
        );
    }
}

#[test]
fn a_file_that_is_missing_or_makes_no_sense_is_named() {
    for (path, text) in [
        ("proc/self/status", "CapEff:\tnothing\n"),
        ("proc/self/oom_score_adj", "low\n"),
        ("proc/sys/kernel/osrelease", "linux\n"),
    ] {
        let root = machine(&[(path, text)]);
        let error = Host::probe(root.path(), Restrict::Auto).unwrap_err();
        assert!(error.to_string().ends_with(path), "{error}");
        assert!(
            error.source().unwrap().to_string().contains(text.trim().trim_start_matches("CapEff:\t")),
            "{error:?}"
        );
        fs::remove_file(root.path().join(path)).unwrap();
        assert!(Host::probe(root.path(), Restrict::Auto).unwrap_err().to_string().ends_with(path));
    }
}

#[test]
fn this_machine_can_be_looked_at() {
    let host = Host::probe(Path::new("/"), Restrict::Always).unwrap();
    assert!(host.oom_score_adj_floor.is_some());
}
