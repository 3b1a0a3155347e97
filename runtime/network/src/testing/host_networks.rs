//! The built-in network next to other networks and firewalls, and after a reboot or a hang.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::bridge::Bridge;
use crate::{BridgeConfig, Config, Kind, Network, Provider};

fn config(subnet: Option<&str>) -> Config {
    let subnet = subnet.map(|subnet| subnet.parse().unwrap());
    let bridge = BridgeConfig { name: "btest0".into(), subnet, ..BridgeConfig::default() };
    Config { provider: Provider::Bridge, bridge, ..Config::default() }
}

async fn open(host: &TestHost, subnet: Option<&str>) -> Network {
    Network::open(config(subnet), host.directory.path()).await.unwrap()
}

fn bridge(network: &Network) -> &Arc<Bridge> {
    let Backend::Bridge(bridge) = &network.backend else { panic!("no bridge") };
    bridge
}

/// An interface with an address, as another container engine has it.
fn another(address: &str) {
    ip("link add pod0 type veth peer name pod1");
    ip(&format!("address add {address} dev pod0"));
    ip("link set pod0 up");
    ip("link set pod1 up");
}

fn rules() -> String {
    command("nft", &["list", "ruleset"])
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < TEST_TIMEOUT, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn root_a_configured_subnet_that_somebody_uses_is_refused_by_name() {
    on_test_host(|host| async move {
        another("10.213.0.9/16");
        let error = Network::open(config(Some("10.213.7.0/24")), host.directory.path()).await.unwrap_err();
        for word in ["10.213.7.0/24", "10.213.0.9/16", "pod0"] {
            assert!(error.to_string().contains(word), "{error}");
        }
        assert_eq!(error.kind(), Kind::Conflict);
        ip("route add 10.99.3.0/24 via 10.213.0.77");
        let error = Network::open(config(Some("10.99.0.0/16")), host.directory.path()).await.unwrap_err();
        assert!(error.to_string().contains("10.99.3.0/24"), "{error}");
        // A subnet inside a wider network behind a gateway may be configured.
        ip("route add 10.0.0.0/8 via 10.213.0.77");
        open(&host, Some("10.98.0.0/16")).await;
    });
}

#[test]
fn root_a_subnet_that_is_taken_after_the_start_is_told_and_keeps_the_first_pod_out() {
    on_test_host(|host| async move {
        let network = open(&host, Some("10.213.7.0/24")).await;
        network.ready().unwrap();
        another("10.213.7.9/24");
        let one = host.netns("one");
        let error = network.attach(&one.pod("one")).await.unwrap_err();
        assert!(error.to_string().contains("pod0"), "{error}");
        until("the status tells", || network.ready().is_err_and(|why| why.message.contains("pod0"))).await;
        ip("link del pod0");
        network.attach(&one.pod("one")).await.unwrap();
        network.detach(&one.pod("one"), None).await.unwrap();
        network.teardown().await.unwrap();
    });
}

#[test]
fn root_a_free_subnet_is_chosen_and_kept_while_pods_have_addresses_of_it() {
    on_test_host(|host| async move {
        another("10.88.0.1/16");
        let (one, two) = (host.netns("one"), host.netns("two"));
        let network = open(&host, None).await;
        let attached = network.attach(&one.pod("one")).await.unwrap();
        assert_eq!(primary(&attached), "10.200.0.2");
        assert_eq!(network.describe()["subnet"], "10.200.0.0/16");
        drop(network);
        ip("link del pod0");
        another("10.200.9.1/24");
        let network = open(&host, None).await;
        assert_eq!(primary(&network.attach(&two.pod("two")).await.unwrap()), "10.200.0.3");
        let disturbed = || network.disturbance().is_some_and(|what| what.message.contains("pod0"));
        until("the intruder is told", disturbed).await;
        network.ready().unwrap();
        for pod in [one.pod("one"), two.pod("two")] {
            network.detach(&pod, None).await.unwrap();
        }
        network.close().await;
        drop(network);
        // No pod has an address any more, so a free subnet is chosen and the old address is removed from the bridge.
        let network = open(&host, None).await;
        assert_eq!(primary(&network.attach(&one.pod("one")).await.unwrap()), "10.88.0.2");
        assert!(!ip("-o address show btest0").contains("10.200."));
        network.detach(&one.pod("one"), None).await.unwrap();
        network.teardown().await.unwrap();
    });
}

#[test]
fn root_after_a_reboot_neither_ports_nor_addresses_of_dead_pods_come_back() {
    on_test_host(|host| async move {
        let subnet = Some("10.213.7.0/24");
        let (one, two) = (host.netns("one"), host.netns("two"));
        let network = open(&host, subnet).await;
        network.attach(&one.publishing("one", &[(Protocol::Tcp, "", 8080, 80)])).await.unwrap();
        drop(network);
        one.unpin();
        ip("link del btest0");
        for interface in interfaces().iter().filter(|name| name.starts_with("bone")) {
            ip(&format!("link del {interface}"));
        }
        command("nft", &["flush", "ruleset"]);
        let network = open(&host, subnet).await;
        assert_eq!(network.describe()["leases"], 0);
        assert!(!rules().contains("8080"), "{}", rules());
        let attached =
            network.attach(&two.publishing("two", &[(Protocol::Tcp, "", 8080, 80)])).await.unwrap();
        let server = two.listen(80);
        assert!(reaches("127.0.0.1:8080", &server).is_some());
        network.detach(&one.pod("one"), None).await.unwrap();
        network.detach(&two.pod("two"), Some(&attached)).await.unwrap();
        network.teardown().await.unwrap();
    });
}

#[test]
fn root_ports_that_no_lease_holds_are_taken_back_at_the_start() {
    on_test_host(|host| async move {
        let subnet = Some("10.213.7.0/24");
        let one = host.netns("one");
        let pod = one.publishing("one", &[(Protocol::Tcp, "", 8080, 80)]);
        let network = open(&host, subnet).await;
        network.attach(&pod).await.unwrap();
        let stray = |port: u16| {
            let element = format!("{{ tcp . {port} : 10.213.7.99 . 80 }}");
            command("nft", &["add", "element", "ip", "berth-btest0", "published", &element]);
        };
        stray(8081);
        drop(network);
        let network = open(&host, subnet).await;
        bridge(&network).wait_until_made().await.unwrap();
        assert!(rules().contains("tcp . 8080") && !rules().contains("tcp . 8081"), "{}", rules());
        network.detach(&pod, None).await.unwrap();
        network.close().await;
        drop(network);
        stray(8082);
        let _network = open(&host, subnet).await;
        until("the stray port is gone", || !rules().contains("tcp . 8082")).await;
    });
}

#[test]
fn root_a_firewall_that_drops_what_is_forwarded_is_told_until_it_lets_pods_through() {
    on_test_host(|host| async move {
        let _outside = host.outside();
        ip("route add default via 198.51.100.2");
        let network = open(&host, Some("10.213.7.0/24")).await;
        let blocked = || network.disturbance().filter(|what| what.reason == "ForwardingBlocked");
        command("nft", &["add", "table", "inet", "strict"]);
        let chain = "add chain inet strict forward { type filter hook forward priority 10; policy drop; }";
        command("nft", &[chain]);
        until("the policy is told", || {
            blocked().is_some_and(|what| what.message.contains("chain forward of table inet strict"))
        })
        .await;
        network.ready().unwrap();
        for direction in ["iifname", "oifname"] {
            command("nft", &[&format!("add rule inet strict forward {direction} btest0 accept")]);
        }
        until("nothing drops any more", || network.disturbance().is_none()).await;
    });
}

#[test]
fn root_iptables_policy_is_told_too() {
    on_test_host(|host| async move {
        let network = open(&host, Some("10.213.7.0/24")).await;
        command("iptables-nft", &["-P", "FORWARD", "DROP"]);
        command(
            "iptables-nft",
            &["-A", "FORWARD", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"],
        );
        let blocked =
            || network.disturbance().is_some_and(|what| what.message.contains("policy of chain FORWARD"));
        until("Docker's policy is told", blocked).await;
        command("iptables-nft", &["-I", "FORWARD", "-i", "btest0", "-j", "ACCEPT"]);
        command("iptables-nft", &["-I", "FORWARD", "-o", "btest0", "-j", "ACCEPT"]);
        until("nothing drops any more", || network.disturbance().is_none()).await;
    });
}

#[test]
fn root_nft_that_hangs_holds_up_nobody_for_ever_and_pods_not_one_after_the_other() {
    on_test_host(|host| async move {
        let tools = host.directory("tools");
        install(&tools, "nft", "exec sleep 1000");
        let nft = command("sh", &["-c", "command -v nft"]);
        let (hanging, nft) = (tools.join("nft"), Path::new(nft.trim()));
        let network = open(&host, Some("10.213.7.0/24")).await;
        mount(Some(&hanging), nft, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let namespaces: Vec<_> = (0..6).map(|n| host.netns(&format!("n{n}"))).collect();
        let pods: Vec<_> =
            namespaces.iter().enumerate().map(|(n, netns)| netns.pod(&format!("n{n}"))).collect();
        let begun = Instant::now();
        let attached = futures::future::join_all(pods.iter().map(|pod| network.attach(pod))).await;
        // One after the other they would take six times 10 s.
        assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
        for outcome in attached {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), Kind::TimedOut, "{error}");
            assert!(error.chain().contains("nft -f - (make the table) did not end within"), "{error}");
        }
        umount2(nft, MntFlags::MNT_DETACH).unwrap();
        for pod in &pods {
            network.attach(pod).await.unwrap();
            network.detach(pod, None).await.unwrap();
        }
        network.teardown().await.unwrap();
    });
}
