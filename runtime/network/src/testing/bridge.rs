//! The built-in network, with real packets.

use std::collections::HashSet;
use std::net::{TcpListener, UdpSocket};

use super::*;
use crate::{BridgeConfig, Config, Error, Kind, Network, Provider};

fn config() -> Config {
    let bridge = BridgeConfig {
        name: "btest0".into(),
        subnet: Some("10.213.0.0/24".parse().unwrap()),
        remove_when_empty: true,
        ..BridgeConfig::default()
    };
    Config { provider: Provider::Bridge, bridge, ..Config::default() }
}

async fn open(host: &TestHost) -> Network {
    Network::open(config(), host.directory.path()).await.unwrap()
}

fn assert_nothing_left(host: &TestHost) {
    assert_eq!(interfaces().into_iter().filter(|name| name != "up0").collect::<Vec<_>>(), [""; 0]);
    assert_eq!(command("nft", &["list", "tables"]), "");
    assert_eq!(fs::read_dir(host.path("network/btest0")).unwrap().count(), 1, "leases");
    assert_eq!(fs::read_dir(host.path("network/btest0/leaving")).unwrap().count(), 0);
}

#[test]
fn root_pods_reach_each_other_the_host_and_the_outside_under_the_hosts_address() {
    on_test_host(|host| async move {
        let outside = host.outside();
        let network = open(&host).await;
        let (one, two) = (host.netns("one"), host.netns("two"));
        let first = network.attach(&one.pod("one")).await.unwrap();
        let second = network.attach(&two.pod("two")).await.unwrap();
        assert_eq!((primary(&first), primary(&second)), ("10.213.0.2".into(), "10.213.0.3".into()));
        let server = two.listen(80);
        assert_eq!(one.reaches("10.213.0.3:80", &server).as_deref(), Some("10.213.0.2"));
        assert_eq!(reaches("10.213.0.3:80", &server).as_deref(), Some("10.213.0.1"));
        let beyond = outside.listen(80);
        assert_eq!(one.reaches("198.51.100.2:80", &beyond).as_deref(), Some("198.51.100.1"));
        network.detach(&one.pod("one"), Some(&first)).await.unwrap();
        network.detach(&two.pod("two"), Some(&second)).await.unwrap();
        network.teardown().await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_published_ports_are_reached_from_everywhere_they_should_be() {
    on_test_host(|host| async move {
        let outside = host.outside();
        let network = open(&host).await;
        let (one, two) = (host.netns("one"), host.netns("two"));
        let ports = [
            (Protocol::Tcp, "", 8080, 80),
            (Protocol::Tcp, "127.0.0.1", 8081, 80),
            (Protocol::Tcp, "198.51.100.1", 8082, 80),
            (Protocol::Udp, "", 8080, 53),
        ];
        let pod = one.publishing("one", &ports);
        network.attach(&pod).await.unwrap();
        network.attach(&two.pod("two")).await.unwrap();
        let server = one.listen(80);
        assert_eq!(outside.reaches("198.51.100.1:8080", &server).as_deref(), Some("198.51.100.2"));
        assert_eq!(outside.reaches("198.51.100.1:8082", &server).as_deref(), Some("198.51.100.2"));
        for to in
            ["127.0.0.1:8080", "127.0.0.1:8081", "198.51.100.1:8080", "198.51.100.1:8082", "10.213.0.1:8080"]
        {
            assert!(reaches(to, &server).is_some(), "{to} from the host");
        }
        assert_eq!(reaches("127.0.0.1:8082", &server), None);
        assert_eq!(outside.reaches("198.51.100.1:8081", &server), None);
        for pod in [&one, &two] {
            assert!(pod.reaches("198.51.100.1:8080", &server).is_some());
            assert!(pod.reaches("10.213.0.1:8080", &server).is_some());
        }
        let datagrams = one.inside(|| UdpSocket::bind("0.0.0.0:53"));
        assert!(echoes("127.0.0.1:8080", &datagrams));
        assert!(outside.inside(|| Ok(echoes("198.51.100.1:8080", &datagrams))));
        network.detach(&pod, None).await.unwrap();
        assert_eq!(outside.reaches("198.51.100.1:8080", &server), None);
        assert_eq!(reaches("127.0.0.1:8080", &server), None);
        network.detach(&two.pod("two"), None).await.unwrap();
        network.teardown().await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_the_hosts_loopback_is_out_of_reach_for_pods() {
    on_test_host(|host| async move {
        let network = open(&host).await;
        let one = host.netns("one");
        network.attach(&one.pod("one")).await.unwrap();
        let private = TcpListener::bind("127.0.0.1:7000").unwrap();
        one.inside(|| {
            fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1")?;
            ip("address del 127.0.0.1/8 dev lo");
            ip("route add 127.0.0.0/8 via 10.213.0.1 src 10.213.0.2");
            Ok(())
        });
        assert_eq!(one.reaches("127.0.0.1:7000", &private), None);
        network.detach(&one.pod("one"), None).await.unwrap();
        network.teardown().await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_attaching_and_detaching_again_change_nothing() {
    on_test_host(|host| async move {
        let network = open(&host).await;
        let one = host.netns("one");
        let pod = one.pod("one");
        let first = network.attach(&pod).await.unwrap();
        assert_eq!(network.attach(&pod).await.unwrap(), first);
        network.check(&pod, &first).await.unwrap();
        network.detach(&pod, Some(&first)).await.unwrap();
        let second = network.attach(&pod).await.unwrap();
        assert_ne!(second.ips, first.ips);
        network.detach(&pod, Some(&first)).await.unwrap();
        network.detach(&pod, Some(&first)).await.unwrap();
        network.detach(&pod, None).await.unwrap();
        assert!(matches!(network.check(&pod, &first).await, Err(Error::Drift { .. })));
        network.teardown().await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_a_restarted_daemon_knows_addresses_and_ports_and_detaches() {
    on_test_host(|host| async move {
        let (one, two) = (host.netns("one"), host.netns("two"));
        let pod = one.publishing("one", &[(Protocol::Tcp, "", 8080, 80)]);
        let first = open(&host).await.attach(&pod).await.unwrap();
        command("nft", &["flush", "ruleset"]);
        let network = open(&host).await;
        let Backend::Bridge(bridge) = &network.backend else { panic!("no bridge") };
        bridge.wait_until_made().await.unwrap();
        let server = one.listen(80);
        assert!(reaches("127.0.0.1:8080", &server).is_some());
        network.check(&pod, &first).await.unwrap();
        assert_eq!(network.attach(&pod).await.unwrap(), first);
        let error =
            network.attach(&two.publishing("two", &[(Protocol::Tcp, "", 8080, 80)])).await.unwrap_err();
        assert_eq!(error.to_string(), "host port 8080->80/tcp of pod two is taken by pod one");
        assert_eq!(error.kind(), Kind::Conflict);
        assert_eq!(primary(&network.attach(&two.pod("two")).await.unwrap()), "10.213.0.3");
        network.retain(&HashSet::from(["two".to_owned()])).await;
        assert!(matches!(network.check(&pod, &first).await, Err(Error::Drift { .. })));
        network.detach(&two.pod("two"), None).await.unwrap();
        network.teardown().await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_detach_works_when_the_namespace_is_gone() {
    on_test_host(|host| async move {
        let network = open(&host).await;
        let one = host.netns("one");
        let pod = one.publishing("one", &[(Protocol::Tcp, "", 8080, 80)]);
        network.attach(&pod).await.unwrap();
        one.unpin();
        drop(one);
        network.detach(&pod, None).await.unwrap();
        // With remove_when_empty the last deletion removes the bridge too.
        network.close().await;
        assert_nothing_left(&host);
    });
}

#[test]
fn root_a_pod_that_cannot_be_attached_leaves_nothing_and_costs_the_next_one_nothing() {
    on_test_host(|host| async move {
        let network = open(&host).await;
        let one = host.netns("one");
        let unpinned = PodNetwork { netns: host.path("absent"), ..one.pod("absent") };
        let error = network.attach(&unpinned).await.unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
        one.inside(|| Ok(ip("link add eth0 type veth peer name other")));
        let error = network.attach(&one.pod("one")).await.unwrap_err();
        assert!(error.chain().contains("make the veth pair \"bone-0000\": File exists"), "{}", error.chain());
        one.inside(|| Ok(ip("link del eth0")));
        let listener = TcpListener::bind("0.0.0.0:8080").unwrap();
        let taken = one.publishing("one", &[(Protocol::Tcp, "", 8080, 80)]);
        let error = network.attach(&taken).await.unwrap_err();
        assert!(error.to_string().contains("taken by a process of the host"), "{error}");
        drop(listener);
        let attachment = network.attach(&taken).await.unwrap();
        network.detach(&taken, Some(&attachment)).await.unwrap();
        network.teardown().await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_what_somebody_removed_is_made_again() {
    on_test_host(|host| async move {
        let network = open(&host).await;
        let (one, two) = (host.netns("one"), host.netns("two"));
        let first = network.attach(&one.pod("one")).await.unwrap();
        ip("link del btest0");
        command("nft", &["flush", "ruleset"]);
        let error = network.check(&one.pod("one"), &first).await.unwrap_err();
        assert!(error.to_string().contains("is not on btest0"), "{error}");
        let again = network.attach(&one.pod("one")).await.unwrap();
        network.attach(&two.publishing("two", &[(Protocol::Tcp, "", 8080, 80)])).await.unwrap();
        let server = two.listen(80);
        assert!(reaches("127.0.0.1:8080", &server).is_some());
        assert!(one.reaches("10.213.0.1:8080", &server).is_some());
        network.check(&one.pod("one"), &again).await.unwrap();
        network.detach(&one.pod("one"), None).await.unwrap();
        network.detach(&two.pod("two"), None).await.unwrap();
        network.teardown().await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_annotations_limit_what_a_pod_gets_and_sends() {
    on_test_host(|host| async move {
        let network = open(&host).await;
        let one = host.netns("one");
        let mut pod = one.pod("one");
        pod.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "10M".into());
        pod.annotations.insert("kubernetes.io/egress-bandwidth".into(), "40G".into());
        network.attach(&pod).await.unwrap();
        let towards = command("tc", &["qdisc"]);
        assert!(towards.contains("tbf") && towards.contains("rate 10Mbit"), "{towards}");
        let out = one.inside(|| Ok(command("tc", &["qdisc", "show", "dev", "eth0"])));
        assert!(out.contains("tbf") && out.contains("rate 40Gbit"), "{out}");
        let server = one.listen(80);
        assert!(reaches("10.213.0.2:80", &server).is_some());
        pod.annotations.insert("kubernetes.io/egress-bandwidth".into(), "fast".into());
        let error = network.attach(&pod).await.unwrap_err();
        assert!(error.to_string().contains("kubernetes.io/egress-bandwidth"), "{error}");
        network.detach(&pod, None).await.unwrap();
        network.teardown().await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_many_pods_at_once_get_addresses_of_their_own() {
    on_test_host(|host| async move {
        let network = open(&host).await;
        let namespaces: Vec<_> = (0..20).map(|n| host.netns(&format!("many{n}"))).collect();
        let pods: Vec<_> =
            namespaces.iter().enumerate().map(|(n, netns)| netns.pod(&format!("many{n}"))).collect();
        let attached = futures::future::join_all(pods.iter().map(|pod| network.attach(pod))).await;
        let addresses: HashSet<String> = attached.iter().map(|one| primary(one.as_ref().unwrap())).collect();
        assert_eq!(addresses.len(), 20);
        let detached = futures::future::join_all(pods.iter().map(|pod| network.detach(pod, None))).await;
        detached.into_iter().for_each(Result::unwrap);
        network.teardown().await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_a_call_whose_caller_went_away_still_ends() {
    on_test_host(|host| async move {
        use futures::FutureExt;
        let network = open(&host).await;
        let one = host.netns("one");
        let pod = one.pod("one");
        assert!(network.attach(&pod).now_or_never().is_none());
        // The next call for the pod waits for the dropped one and finds its result.
        let attachment = network.attach(&pod).await.unwrap();
        assert_eq!(primary(&attachment), "10.213.0.2");
        network.detach(&pod, None).await.unwrap();
        network.teardown().await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_names_that_cannot_be_used_are_refused() {
    on_test_host(|host| async move {
        ip("link add plain0 type veth peer name plain1");
        let named = |name: &str| {
            let bridge = BridgeConfig { name: name.into(), ..config().bridge };
            Config { bridge, ..config() }
        };
        for name in ["", "a name that is far too long", "../x", "-x"] {
            let error = Network::open(named(name), host.directory.path()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid, "{error}");
        }
        let network = Network::open(named("plain0"), host.directory.path()).await.unwrap();
        let one = host.netns("one");
        let error = network.attach(&one.pod("one")).await.unwrap_err();
        assert!(error.to_string().contains("is no bridge"), "{error}");
        let error = network.attach(&one.pod("../one")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    });
}
