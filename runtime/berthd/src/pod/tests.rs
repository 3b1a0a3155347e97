use super::*;

#[test]
fn containers_lie_where_the_caller_looks_for_them() {
    let of = |parent: Option<&str>| {
        let config = PodConfig { cgroup_parent: parent.map(str::to_owned), ..PodConfig::default() };
        cgroup_of(&config, "/berth", "id")
    };
    for (parent, expected) in [
        (None, "/berth/id"),
        (Some(""), "/berth/id"),
        (Some("/kubepods/burstable/pod1"), "/kubepods/burstable/pod1"),
        (Some("kubepods/pod1/"), "/kubepods/pod1"),
        (Some("/"), ""),
    ] {
        assert_eq!(of(parent), expected, "{parent:?}");
    }
}
