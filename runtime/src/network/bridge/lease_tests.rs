#![allow(clippy::unwrap_used)]
use super::*;
use crate::network::Protocol;
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
    leases.add(&pod(id), "veth".into()).unwrap().address.octets()[3]
}

#[test]
fn a_freed_address_rests_until_all_others_had_their_turn() {
    let directory = tempfile::tempdir().unwrap();
    let mut leases = open(directory.path());
    assert_eq!((add(&mut leases, "a"), add(&mut leases, "b")), (2, 3));
    leases.remove("a").unwrap();
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
    let error = leases.add(&pod("f"), "veth".into()).unwrap_err();
    assert_eq!(error.to_string(), "subnet 10.1.2.0/29 has no free address for pod f: all 5 are leased");
    leases.remove("c").unwrap();
    assert_eq!(add(&mut leases, "f"), 4);
}

#[test]
fn a_restart_finds_the_leases_and_goes_on_after_the_newest() {
    let directory = tempfile::tempdir().unwrap();
    let mut leases = open(directory.path());
    let first = leases.add(&publishing("a", Protocol::Tcp, 80, ""), "veth".into()).unwrap();
    add(&mut leases, "b");
    let mut leases = open(directory.path());
    assert_eq!(leases.get("a"), Some(first));
    assert_eq!(add(&mut leases, "c"), 4);
    leases.remove("b").unwrap();
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
    leases.add(&publishing("a", Protocol::Tcp, 80, "127.0.0.1"), "veth".into()).unwrap();
    for (protocol, port, ip) in
        [(Protocol::Tcp, 80, ""), (Protocol::Tcp, 80, "127.0.0.1"), (Protocol::Tcp, 80, "0.0.0.0")]
    {
        let error = leases.add(&publishing("b", protocol, port, ip), "veth".into()).unwrap_err();
        assert!(error.to_string().contains("80->80/tcp of pod b is taken by pod a"), "{error}");
    }
    for (id, protocol, port, ip) in
        [("c", Protocol::Udp, 80, ""), ("d", Protocol::Tcp, 81, ""), ("e", Protocol::Tcp, 80, "10.0.0.1")]
    {
        leases.add(&publishing(id, protocol, port, ip), "veth".into()).unwrap();
    }
}

#[test]
fn a_refused_pod_holds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut leases = open(directory.path());
    leases.add(&publishing("a", Protocol::Tcp, 80, ""), "veth".into()).unwrap();
    leases.add(&publishing("b", Protocol::Tcp, 80, ""), "veth".into()).unwrap_err();
    assert_eq!(leases.get("b"), None);
    assert_eq!(open(directory.path()).all().count(), 1);
}
