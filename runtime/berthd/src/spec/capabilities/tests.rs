#![allow(clippy::unwrap_used)]
use super::*;

fn host() -> Capabilities {
    let extra = [Capability::NetAdmin, Capability::SysAdmin];
    DEFAULT_CAPABILITIES.into_iter().chain(extra).collect()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

fn security(add: &[&str], drop: &[&str], ambient: &[&str]) -> Security {
    Security {
        add_capabilities: names(add),
        drop_capabilities: names(drop),
        add_ambient_capabilities: names(ambient),
        ..Default::default()
    }
}

fn granted(security: &Security) -> Capabilities {
    let sets = build(security, &host()).unwrap();
    assert_eq!(sets.bounding(), sets.effective());
    assert_eq!(sets.bounding(), sets.permitted());
    assert_eq!(sets.inheritable(), sets.ambient());
    sets.bounding().clone().unwrap()
}

fn without(set: Capabilities, dropped: &[Capability]) -> Capabilities {
    set.into_iter().filter(|capability| !dropped.contains(capability)).collect()
}

fn with(added: &[Capability]) -> Capabilities {
    DEFAULT_CAPABILITIES.into_iter().chain(added.iter().copied()).collect()
}

#[test]
fn a_container_has_the_default_set_changed_as_asked_and_cut_to_the_hosts() {
    use Capability::{Chown, NetAdmin, NetRaw, SysAdmin};
    let none = Capabilities::new;
    type Case<'a> = (&'a str, &'a [&'a str], &'a [&'a str], Capabilities);
    let cases: [Case<'_>; 14] = [
        ("nothing asked", &[], &[], with(&[])),
        ("one added", &["NET_ADMIN"], &[], with(&[NetAdmin])),
        ("one added in lower case with prefix", &["cap_net_admin"], &[], with(&[NetAdmin])),
        ("one added that is there", &["CHOWN"], &[], with(&[])),
        ("one dropped", &[], &["NET_RAW"], without(with(&[]), &[NetRaw])),
        ("one dropped that is not there", &[], &["SYS_TIME"], with(&[])),
        ("all added", &["ALL"], &[], host()),
        ("all added in lower case", &["all"], &[], host()),
        ("all dropped", &[], &["ALL"], none()),
        ("all added but one", &["ALL"], &["CHOWN"], without(host(), &[Chown])),
        ("all dropped but one", &["SYS_ADMIN"], &["ALL"], [SysAdmin].into()),
        ("all added and all dropped", &["ALL"], &["ALL"], none()),
        ("the same added and dropped", &["NET_ADMIN"], &["NET_ADMIN"], with(&[])),
        ("one that the host lacks", &["SYS_RESOURCE", "NET_ADMIN"], &[], with(&[NetAdmin])),
    ];
    for (name, add, drop, expected) in cases {
        assert_eq!(granted(&security(add, drop, &[])), expected, "{name}");
    }
}

#[test]
fn ambient_ones_are_in_every_set_and_others_are_not_inherited() {
    let asked = security(&["SYS_ADMIN"], &[], &["NET_ADMIN", "SYS_TIME"]);
    let sets = build(&asked, &host()).unwrap();
    assert_eq!(sets.ambient().clone().unwrap(), Capabilities::from([Capability::NetAdmin]));
    assert_eq!(sets.inheritable(), sets.ambient());
    assert_eq!(granted(&asked), with(&[Capability::SysAdmin, Capability::NetAdmin]));
}

#[test]
fn a_dropped_capability_is_dropped_from_the_ambient_set_too() {
    let sets = build(&security(&[], &["NET_ADMIN"], &["NET_ADMIN", "KILL"]), &host()).unwrap();
    assert_eq!(sets.ambient().clone().unwrap(), Capabilities::from([Capability::Kill]));
    assert_eq!(granted(&security(&[], &[], &["ALL"])), host());
}

#[test]
fn a_privileged_container_has_all_the_host_has_whatever_is_dropped() {
    let privileged = Security { privileged: true, ..security(&[], &["ALL"], &[]) };
    assert_eq!(granted(&privileged), host());
}

#[test]
fn an_unknown_capability_is_refused_with_its_field_and_name() {
    for name in ["", "CAP_", "NET_ADMINS", "CAP_ALL", "CAP_CAP_CHOWN", "NET ADMIN"] {
        for field in ["add_capabilities", "drop_capabilities", "add_ambient_capabilities"] {
            let list = |wanted| if field == wanted { vec![name] } else { vec![] };
            let asked = security(
                &list("add_capabilities"),
                &list("drop_capabilities"),
                &list("add_ambient_capabilities"),
            );
            let error = build(&asked, &host()).unwrap_err();
            assert_eq!(error, Error::invalid(field, name, "no such capability"));
        }
    }
}
