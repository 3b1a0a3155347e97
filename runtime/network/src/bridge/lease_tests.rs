#![allow(clippy::unwrap_used)]
use super::*;
use crate::Protocol;
use std::fs;

fn open(directory: &Path) -> Leases {
    Leases::open(directory, "10.1.2.0/29".parse().unwrap()).unwrap()
}

fn pod(id: &str) -> PodNetwork {
    PodNetwork { id: id.into(), ..PodNetwork::default() }
}

fn publishing(id: &str, protocol: Protocol, host_port: u16, host_ip: &str) -> PodNetwork {
    let mapping = PortMapping { protocol, container_port: 80, host_port, host_ip: host_ip.parse().ok() };
    PodNetwork { port_mappings: vec![mapping], ..pod(id) }
}

fn add(leases: &mut Leases, id: &str) -> u8 {
    leases.add(&pod(id)).unwrap().address.octets()[3]
}

fn remove(leases: &mut Leases, id: &str) {
    let interface = leases.get(id).unwrap().interface;
    leases.retire(id).unwrap();
    leases.free(&interface).unwrap();
}

#[test]
fn a_leaving_lease_keeps_its_address_but_not_its_pod_or_port_also_over_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut leases = open(directory.path());
    let first = leases.add(&publishing("a", Protocol::Tcp, 80, "")).unwrap();
    leases.retire("a").unwrap();
    leases.retire("a").unwrap();
    let mut leases = open(directory.path());
    assert_eq!(leases.retired(), std::slice::from_ref(&first.interface));
    assert!(!leases.is_empty());
    let second = leases.add(&publishing("a", Protocol::Tcp, 80, "")).unwrap();
    assert!(second.address != first.address && second.interface != first.interface);
    for id in ["b", "c", "d"] {
        add(&mut leases, id);
    }
    leases.add(&pod("e")).unwrap_err();
    leases.free(&first.interface).unwrap();
    assert_eq!(leases.add(&pod("e")).unwrap().address, first.address);
}

#[test]
fn interface_names_fit_and_tell_the_pod() {
    assert_eq!(interface(&"0123456789abcdef".repeat(4), 0x1_00ab), "b01234567-00ab");
    assert_eq!(interface("x", 1), "bx-0001");
}

#[test]
fn a_freed_address_rests_until_all_others_had_their_turn() {
    let directory = tempfile::tempdir().unwrap();
    let mut leases = open(directory.path());
    assert_eq!((add(&mut leases, "a"), add(&mut leases, "b")), (2, 3));
    remove(&mut leases, "a");
    assert_eq!((add(&mut leases, "c"), add(&mut leases, "d"), add(&mut leases, "e")), (4, 5, 6));
    assert_eq!(add(&mut leases, "f"), 2);
}

#[test]
fn a_full_subnet_is_refused_by_name_and_usable_again_after_a_removal() {
    let directory = tempfile::tempdir().unwrap();
    let mut leases = open(directory.path());
    for id in ["a", "b", "c", "d", "e"] {
        add(&mut leases, id);
    }
    let error = leases.add(&pod("f")).unwrap_err();
    assert_eq!(error.to_string(), "subnet 10.1.2.0/29 has no free address for pod f: all 5 are leased");
    remove(&mut leases, "c");
    assert_eq!(add(&mut leases, "f"), 4);
}

#[test]
fn a_restart_finds_the_leases_and_goes_on_after_the_newest() {
    let directory = tempfile::tempdir().unwrap();
    let mut leases = open(directory.path());
    let first = leases.add(&publishing("a", Protocol::Tcp, 80, "")).unwrap();
    add(&mut leases, "b");
    let mut leases = open(directory.path());
    assert_eq!(leases.get("a"), Some(first));
    assert_eq!(add(&mut leases, "c"), 4);
    remove(&mut leases, "b");
    assert_eq!(open(directory.path()).all().count(), 2);
}

#[test]
fn an_unreadable_lease_is_dropped_and_costs_the_others_nothing() {
    let directory = tempfile::tempdir().unwrap();
    add(&mut open(directory.path()), "a");
    fs::write(directory.path().join("torn.json"), "").unwrap();
    let leases = open(directory.path());
    assert_eq!(leases.all().count(), 1);
    assert!(!directory.path().join("torn.json").exists());
}

#[test]
fn a_published_port_is_refused_to_a_second_pod_only_where_packets_would_meet() {
    let directory = tempfile::tempdir().unwrap();
    let mut leases = open(directory.path());
    leases.add(&publishing("a", Protocol::Tcp, 80, "127.0.0.1")).unwrap();
    for (protocol, port, ip) in
        [(Protocol::Tcp, 80, ""), (Protocol::Tcp, 80, "127.0.0.1"), (Protocol::Tcp, 80, "0.0.0.0")]
    {
        let error = leases.add(&publishing("b", protocol, port, ip)).unwrap_err();
        assert!(error.to_string().contains("80->80/tcp of pod b is taken by pod a"), "{error}");
    }
    for (id, protocol, port, ip) in
        [("c", Protocol::Udp, 80, ""), ("d", Protocol::Tcp, 81, ""), ("e", Protocol::Tcp, 80, "10.0.0.1")]
    {
        leases.add(&publishing(id, protocol, port, ip)).unwrap();
    }
}

#[test]
fn a_refused_pod_holds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut leases = open(directory.path());
    leases.add(&publishing("a", Protocol::Tcp, 80, "")).unwrap();
    leases.add(&publishing("b", Protocol::Tcp, 80, "")).unwrap_err();
    assert_eq!(leases.get("b"), None);
    assert_eq!(open(directory.path()).all().count(), 1);
}
