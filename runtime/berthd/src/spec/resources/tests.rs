#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;

fn host() -> Host {
    Host {
        swap: true,
        cgroups: Cgroups::V2,
        hugepages: ["2MB", "1GB"].map(str::to_owned).into(),
        ..Default::default()
    }
}

fn text(value: &str) -> Option<String> {
    Some(value.to_owned())
}

/// Returns the refused field, or `None`.
fn refused(resources: &Resources, host: &Host) -> Option<&'static str> {
    match to_oci(resources, host).and_then(|_| oom_score_adj(resources, host)) {
        Ok(_) => None,
        Err(Error::Invalid { field, .. } | Error::Unsupported { field, .. }) => Some(field),
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn nothing_asked_limits_nothing() {
    assert_eq!(to_oci(&Resources::default(), &host()), Ok(LinuxResources::default()));
    assert_eq!(oom_score_adj(&Resources::default(), &host()), Ok(None));
}

#[test]
fn processor_limits_are_passed_on() {
    let asked = Resources {
        cpu_period: Some(100_000),
        cpu_quota: Some(-1),
        cpu_shares: Some(2),
        cpuset_cpus: text("0-2,7"),
        cpuset_mems: text("0"),
        ..Default::default()
    };
    let cpu = to_oci(&asked, &host()).unwrap().cpu().clone().unwrap();
    assert_eq!((cpu.period(), cpu.quota(), cpu.shares()), (Some(100_000), Some(-1), Some(2)));
    assert_eq!((cpu.cpus().as_deref(), cpu.mems().as_deref()), (Some("0-2,7"), Some("0")));
}

#[test]
fn swap_follows_memory_unless_it_has_a_limit_of_its_own() {
    let cases = [
        ("nothing", None, None, true, None),
        ("memory alone", Some(1000), None, true, Some((Some(1000), Some(1000)))),
        ("both", Some(1000), Some(3000), true, Some((Some(1000), Some(3000)))),
        ("both the same", Some(1000), Some(1000), true, Some((Some(1000), Some(1000)))),
        ("unlimited swap", Some(1000), Some(-1), true, Some((Some(1000), Some(-1)))),
        ("unlimited memory", Some(-1), None, true, Some((Some(-1), Some(-1)))),
        ("unlimited swap alone", None, Some(-1), true, Some((None, Some(-1)))),
        ("memory where swap is not counted", Some(1000), None, false, Some((Some(1000), None))),
        ("both where swap is not counted", Some(1000), Some(3000), false, Some((Some(1000), None))),
        ("swap alone where it is not counted", None, Some(-1), false, None),
    ];
    for (name, memory_limit, memory_swap_limit, swap, expected) in cases {
        let asked = Resources { memory_limit, memory_swap_limit, ..Default::default() };
        let limits = to_oci(&asked, &Host { swap, ..host() }).unwrap();
        let found = limits.memory().map(|memory| (memory.limit(), memory.swap()));
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn values_out_of_range_are_refused_by_their_field() {
    let none = Resources::default;
    let unified = |name: &str| [(name.to_owned(), "1".to_owned())].into();
    let cases = [
        ("cpu_shares", Resources { cpu_shares: Some(1), ..none() }),
        ("cpu_shares", Resources { cpu_shares: Some(262_145), ..none() }),
        ("cpu_period", Resources { cpu_period: Some(999), ..none() }),
        ("cpu_period", Resources { cpu_period: Some(1_000_001), ..none() }),
        ("cpu_quota", Resources { cpu_quota: Some(0), ..none() }),
        ("cpu_quota", Resources { cpu_quota: Some(999), ..none() }),
        ("cpuset_cpus", Resources { cpuset_cpus: text("2-1"), ..none() }),
        ("cpuset_cpus", Resources { cpuset_cpus: text("0,"), ..none() }),
        ("cpuset_cpus", Resources { cpuset_cpus: text("0-"), ..none() }),
        ("cpuset_cpus", Resources { cpuset_cpus: text("+1"), ..none() }),
        ("cpuset_cpus", Resources { cpuset_cpus: text("all\n"), ..none() }),
        ("cpuset_mems", Resources { cpuset_mems: text("-1"), ..none() }),
        ("memory_limit", Resources { memory_limit: Some(0), ..none() }),
        ("memory_limit", Resources { memory_limit: Some(-2), ..none() }),
        ("memory_swap_limit", Resources { memory_limit: Some(9), memory_swap_limit: Some(8), ..none() }),
        ("memory_swap_limit", Resources { memory_swap_limit: Some(8), ..none() }),
        ("memory_swap_limit", Resources { memory_limit: Some(-1), memory_swap_limit: Some(8), ..none() }),
        ("memory_swap_limit", Resources { memory_swap_limit: Some(-2), ..none() }),
        ("oom_score_adj", Resources { oom_score_adj: Some(1001), ..none() }),
        ("oom_score_adj", Resources { oom_score_adj: Some(-1001), ..none() }),
        ("hugepage_limits page size", Resources { hugepages: vec![("3MB".to_owned(), 0)], ..none() }),
        ("hugepage_limits limit", Resources { hugepages: vec![("2MB".to_owned(), u64::MAX)], ..none() }),
        ("unified", Resources { unified: unified("../memory.max"), ..none() }),
        ("unified", Resources { unified: unified("memory"), ..none() }),
        ("unified", Resources { unified: unified("cgroup.procs"), ..none() }),
        ("unified", Resources { unified: unified(""), ..none() }),
    ];
    for (field, asked) in cases {
        assert_eq!(refused(&asked, &host()), Some(field), "{asked:?}");
    }
}

#[test]
fn values_at_the_edges_are_taken() {
    let none = Resources::default;
    let cases = [
        Resources { cpu_shares: Some(262_144), ..none() },
        Resources { cpu_period: Some(1000), cpu_quota: Some(1000), ..none() },
        Resources { cpu_period: Some(1_000_000), cpu_quota: Some(i64::MAX), ..none() },
        Resources { cpuset_cpus: text(""), cpuset_mems: text("3-3"), ..none() },
        Resources { memory_limit: Some(1), memory_swap_limit: Some(i64::MAX), ..none() },
        Resources { oom_score_adj: Some(-1000), ..none() },
        Resources { oom_score_adj: Some(1000), ..none() },
    ];
    for asked in cases {
        assert_eq!(refused(&asked, &host()), None, "{asked:?}");
    }
}

#[test]
fn huge_pages_are_limited_where_the_host_can() {
    let asked = Resources { hugepages: vec![("2MB".to_owned(), 4 << 20)], ..Default::default() };
    let limits = to_oci(&asked, &host()).unwrap().hugepage_limits().clone().unwrap();
    assert_eq!((limits[0].page_size().as_str(), limits[0].limit()), ("2MB", 4 << 20));
    let without = Host { hugepages: Default::default(), ..host() };
    assert_eq!(*to_oci(&asked, &without).unwrap().hugepage_limits(), None);
}

#[test]
fn files_of_cgroup_v2_are_for_hosts_that_have_it() {
    let asked =
        Resources { unified: [("memory.high".to_owned(), "1000".to_owned())].into(), ..Default::default() };
    let written = to_oci(&asked, &host()).unwrap().unified().clone().unwrap();
    assert_eq!(written.get("memory.high").map(String::as_str), Some("1000"));
    let error = to_oci(&asked, &Host { cgroups: Cgroups::V1, ..host() }).unwrap_err();
    assert!(error.is_unsupported(), "{error}");
    assert_eq!(error.to_string(), r#"unified "memory.high": this host has cgroup v1"#);
}

#[test]
fn what_only_cgroup_v1_has_is_for_hosts_that_have_it() {
    let v1 = Host { cgroups: Cgroups::V1, ..host() };
    let asked =
        Resources { memory_swappiness: Some(0), disable_oom_killer: Some(true), ..Default::default() };
    let memory = to_oci(&asked, &v1).unwrap().memory().unwrap();
    assert_eq!((memory.swappiness(), memory.disable_oom_killer()), (Some(0), Some(true)));
    assert_eq!(refused(&asked, &host()), Some("memory_swappiness"));
    let asked = Resources { memory_swappiness: None, ..asked };
    assert_eq!(refused(&asked, &host()), Some("disable_oom_killer"));
    let asked = Resources { disable_oom_killer: Some(false), ..asked };
    assert_eq!(refused(&asked, &host()), None);
    let asked = Resources { memory_swappiness: Some(101), ..asked };
    assert_eq!(refused(&asked, &v1), Some("memory_swappiness"));
}

#[test]
fn oom_score_adj_is_not_lowered_below_what_the_host_allows() {
    let cases = [
        ("free to lower", -997, None, -997),
        ("restricted and lower", -997, Some(0), 0),
        ("restricted and higher", 500, Some(0), 500),
        ("restricted to a floor that is not zero", 100, Some(200), 200),
    ];
    for (name, asked, oom_score_adj_floor, expected) in cases {
        let host = Host { oom_score_adj_floor, ..host() };
        let asked = Resources { oom_score_adj: Some(asked), ..Default::default() };
        assert_eq!(oom_score_adj(&asked, &host), Ok(Some(expected)), "{name}");
    }
}

#[test]
fn an_update_keeps_what_it_does_not_name() {
    let current = Resources {
        cpu_period: Some(1),
        cpu_quota: Some(2),
        cpu_shares: Some(3),
        cpuset_cpus: text("0"),
        cpuset_mems: text("1"),
        memory_limit: Some(4),
        memory_swap_limit: Some(5),
        memory_reservation: Some(3),
        memory_swappiness: Some(10),
        disable_oom_killer: Some(true),
        pids_limit: Some(9),
        oom_score_adj: Some(6),
        hugepages: vec![("1GB".to_owned(), 7), ("2MB".to_owned(), 8)],
        unified: [("a.b".to_owned(), "c".to_owned()), ("d.e".to_owned(), "f".to_owned())].into(),
    };
    assert_eq!(merge(&current, &Resources::default()), current);
    assert_eq!(merge(&current, &current), current);
    let update = Resources {
        cpu_quota: Some(-1),
        cpuset_mems: text("0-1"),
        memory_limit: Some(40),
        disable_oom_killer: Some(false),
        pids_limit: Some(90),
        oom_score_adj: Some(60),
        hugepages: vec![("2MB".to_owned(), 80)],
        unified: [("d.e".to_owned(), "g".to_owned())].into(),
        ..Default::default()
    };
    let expected = Resources {
        cpu_quota: Some(-1),
        cpuset_mems: text("0-1"),
        memory_limit: Some(40),
        disable_oom_killer: Some(false),
        pids_limit: Some(90),
        hugepages: vec![("1GB".to_owned(), 7), ("2MB".to_owned(), 80)],
        unified: [("a.b".to_owned(), "c".to_owned()), ("d.e".to_owned(), "g".to_owned())].into(),
        ..current.clone()
    };
    assert_eq!(merge(&current, &update), expected);
}

#[test]
fn raising_the_memory_limit_raises_the_swap_limit_that_followed_it() {
    let raised = merge(
        &Resources { memory_limit: Some(1000), ..Default::default() },
        &Resources { memory_limit: Some(2000), ..Default::default() },
    );
    assert_eq!(to_oci(&raised, &host()).unwrap().memory().unwrap().swap(), Some(2000));
}
