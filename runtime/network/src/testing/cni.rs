//! CNI with the reference plugins, and with misbehaving ones.

use std::collections::HashSet;

use super::*;
use crate::{CniConfig, Config, Error, Kind, Network, PluginFailure};

/// bridge, portmap and bandwidth, as a node has them; `more` is another plugin at the end of the chain.
fn conflist(more: &str) -> String {
    format!(
        r#"{{"cniVersion":"1.0.0","name":"net","plugins":[
        {{"type":"bridge","bridge":"cbr0","isGateway":true,"ipMasq":true,"hairpinMode":true,
          "ipam":{{"type":"host-local","ranges":[[{{"subnet":"10.214.0.0/24"}}]],"routes":[{{"dst":"0.0.0.0/0"}}]}}}},
        {{"type":"portmap","capabilities":{{"portMappings":true}}}},
        {{"type":"bandwidth","capabilities":{{"bandwidth":true}}}}{more}]}}"#
    )
}

fn config(host: &TestHost) -> Config {
    let cni = CniConfig {
        conf_dir: host.directory("conf"),
        bin_dirs: vec![host.directory("bin"), reference_plugins()],
        plugin_timeout_seconds: 20,
        ..CniConfig::default()
    };
    Config { cni, ..Config::default() }
}

fn configure(host: &TestHost, content: &str) {
    fs::write(host.directory("conf").join("10-net.conflist"), content).unwrap();
}

async fn open(host: &TestHost) -> Network {
    Network::open(config(host), host.directory.path()).await.unwrap()
}

/// Lists the addresses that the reference IPAM plugin has handed out.
fn addresses_in_use() -> Vec<String> {
    let names = fs::read_dir("/var/lib/cni/networks/net").into_iter().flatten();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("10.")).collect()
}

fn assert_nothing_left(host: &TestHost) {
    assert_eq!(interfaces().into_iter().filter(|name| name != "cbr0").collect::<Vec<_>>(), [""; 0]);
    assert_eq!(addresses_in_use(), [""; 0]);
    assert_eq!(fs::read_dir(host.path("cni")).unwrap().count(), 0);
}

#[test]
fn root_a_chain_of_reference_plugins_is_added_checked_and_deleted_by_another_instance() {
    on_test_host(|host| async move {
        configure(&host, &conflist(""));
        let one = host.netns("one");
        // CHECK runs on a pod without ports: portmap 1.1.1 looks for IPv6 rules that it never made.
        let two = host.netns("two");
        let mut pod = one.publishing("one", &[(Protocol::Tcp, "", 8080, 80)]);
        for direction in ["ingress", "egress"] {
            pod.annotations.insert(format!("kubernetes.io/{direction}-bandwidth"), "100M".into());
        }
        let network = open(&host).await;
        network.ready().unwrap();
        let attachment = network.attach(&pod).await.unwrap();
        assert_eq!(primary(&attachment), "10.214.0.2");
        assert!(attachment.interfaces.iter().any(|interface| interface.name == "eth0"));
        let server = one.listen(80);
        assert!(reaches("10.214.0.2:80", &server).is_some());
        assert!(reaches("10.214.0.1:8080", &server).is_some());
        assert!(one.inside(|| Ok(ip("-o link show eth0"))).contains("eth0"));
        assert!(command("tc", &["qdisc"]).contains("tbf"));
        let unpublished = PodNetwork { annotations: pod.annotations.clone(), ..two.pod("two") };
        let second = network.attach(&unpublished).await.unwrap();
        network.check(&unpublished, &second).await.unwrap();
        drop(network);
        configure(&host, "{}");
        let network = open(&host).await;
        network.check(&unpublished, &second).await.unwrap();
        network.detach(&unpublished, None).await.unwrap();
        network.detach(&pod, None).await.unwrap();
        network.detach(&pod, Some(&attachment)).await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_an_attachment_alone_is_enough_to_detach_and_check_notices_what_is_gone() {
    on_test_host(|host| async move {
        configure(&host, &conflist(""));
        let one = host.netns("one");
        let network = open(&host).await;
        let attachment = network.attach(&one.pod("one")).await.unwrap();
        one.inside(|| Ok(ip("address flush dev eth0")));
        let error = network.check(&one.pod("one"), &attachment).await.unwrap_err();
        assert!(error.to_string().contains("plugin \"bridge\" CHECK for pod one"), "{error}");
        fs::remove_dir_all(host.path("cni")).unwrap();
        fs::create_dir(host.path("cni")).unwrap();
        network.detach(&one.pod("one"), Some(&attachment)).await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_a_pod_that_is_attached_again_is_checked_and_attached_anew_when_it_has_lost_its_network() {
    on_test_host(|host| async move {
        let (log, lost) = (host.path("log"), host.path("lost"));
        let script = format!(
            r#"cat > /dev/null; echo "$CNI_COMMAND" >> {log}
            case $CNI_COMMAND in
            ADD) echo '{{"cniVersion":"1.0.0","ips":[{{"address":"10.0.0.2/24"}}]}}';;
            CHECK) [ -e {lost} ] && {{ echo '{{"code":100,"msg":"eth0 is gone"}}'; exit 1; }};;
            esac; exit 0"#,
            log = log.display(),
            lost = lost.display(),
        );
        install(&host.directory("bin"), "simple", &script);
        configure(&host, r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"simple"}]}"#);
        let one = host.netns("one");
        let network = open(&host).await;
        let first = network.attach(&one.pod("one")).await.unwrap();
        assert_eq!(network.attach(&one.pod("one")).await.unwrap(), first);
        fs::write(lost, "").unwrap();
        network.attach(&one.pod("one")).await.unwrap();
        let asked = fs::read_to_string(log).unwrap();
        assert_eq!(asked.split_whitespace().collect::<Vec<_>>(), ["ADD", "CHECK", "CHECK", "DEL", "ADD"]);
        network.detach(&one.pod("one"), None).await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_the_nodes_ranges_reach_plugins_that_ask_for_them_also_after_a_restart() {
    on_test_host(|host| async move {
        let content = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge","bridge":"cbr0",
            "capabilities":{"ipRanges":true},"ipam":{"type":"host-local"}}]}"#;
        configure(&host, content);
        let one = host.netns("one");
        open(&host).await.use_ranges(&["10.219.0.0/16".parse().unwrap()]).await.unwrap();
        let network = open(&host).await;
        assert_eq!(primary(&network.attach(&one.pod("one")).await.unwrap()), "10.219.0.2");
        network.detach(&one.pod("one"), None).await.unwrap();
        assert_eq!(addresses_in_use(), [""; 0]);
    });
}

#[test]
fn root_a_limit_that_is_none_is_refused_before_anything_is_made() {
    on_test_host(|host| async move {
        configure(&host, &conflist(""));
        let one = host.netns("one");
        let mut pod = one.pod("one");
        pod.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "fast".into());
        let network = open(&host).await;
        let error = network.attach(&pod).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(error.to_string().contains("\"fast\""), "{error}");
        network.detach(&pod, None).await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_detach_gives_the_address_back_when_the_namespace_is_gone() {
    on_test_host(|host| async move {
        configure(&host, &conflist(""));
        let network = open(&host).await;
        let one = host.netns("one");
        let pod = one.pod("one");
        network.attach(&pod).await.unwrap();
        assert_eq!(addresses_in_use(), ["10.214.0.2"]);
        // After a reboot a plain file is left of the pin.
        one.unpin();
        File::create(&pod.netns).unwrap();
        drop(one);
        network.detach(&pod, None).await.unwrap();
        assert_eq!(addresses_in_use(), [""; 0]);
        assert_eq!(fs::read_dir(host.path("cni")).unwrap().count(), 0);
    });
}

#[test]
fn root_each_way_a_plugin_fails_is_told_and_undone_and_the_next_pod_is_attached() {
    on_test_host(|host| async move {
        let bin = host.directory("bin");
        install(&bin, "failing", r#"[ $CNI_COMMAND = DEL ] || { echo '{"code":7,"msg":"no"}'; exit 1; }"#);
        install(&bin, "garbage", r#"[ $CNI_COMMAND = DEL ] || echo "not json""#);
        install(&bin, "hanging", r#"[ $CNI_COMMAND = DEL ] || sleep 1000"#);
        install(&bin, "wordless", r#"exit 0"#);
        let one = host.netns("one");
        for (plugin, expected, kind) in [
            ("failing", "failed with code 7: no", Kind::Internal),
            ("garbage", "not json", Kind::Internal),
            ("hanging", "did not end within 1s", Kind::TimedOut),
            ("wordless", "it is empty", Kind::Internal),
        ] {
            configure(&host, &conflist(&format!(r#",{{"type":"{plugin}"}}"#)));
            let mut config = config(&host);
            if plugin == "hanging" {
                config.cni.plugin_timeout_seconds = 1;
            }
            let network = Network::open(config, host.directory.path()).await.unwrap();
            let error = network.attach(&one.pod("one")).await.unwrap_err();
            let text = error.chain();
            assert!(text.contains(expected) && text.contains(plugin) && text.contains("pod one"), "{text}");
            assert_eq!(error.kind(), kind, "{text}");
            assert_nothing_left(&host);
        }
        configure(&host, &conflist(""));
        let network = open(&host).await;
        network.attach(&one.pod("one")).await.unwrap();
        network.detach(&one.pod("one"), None).await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_what_cannot_be_undone_stays_on_record_until_detach_can() {
    on_test_host(|host| async move {
        configure(&host, &conflist(r#",{"type":"missing"}"#));
        let one = host.netns("one");
        let network = open(&host).await;
        let error = network.attach(&one.pod("one")).await.unwrap_err();
        assert!(error.chain().contains("left to detach"), "{}", error.chain());
        assert_eq!(error.kind(), Kind::NotReady);
        let Error::Undo { attach, .. } = error else { panic!("{error:?}") };
        let Error::Plugin { failure, .. } = *attach else { panic!("{attach:?}") };
        assert!(matches!(*failure, PluginFailure::Missing { .. }), "{failure:?}");
        assert_eq!(fs::read_dir(host.path("cni")).unwrap().count(), 1);
        drop(network);
        install(&host.directory("bin"), "missing", "exit 0");
        let network = open(&host).await;
        network.detach(&one.pod("one"), None).await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_the_directory_is_watched_and_readiness_follows_it() {
    on_test_host(|host| async move {
        let network = open(&host).await;
        let Backend::Cni(cni) = &network.backend else { panic!("not CNI") };
        let mut changes = cni.changes();
        let not_ready = network.ready().unwrap_err();
        assert_eq!(not_ready.reason, "NetworkPluginNotReady");
        let one = host.netns("one");
        let error = network.attach(&one.pod("one")).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotReady);
        configure(&host, &conflist(""));
        changes.wait_for(|_| network.ready().is_ok()).await.unwrap();
        assert_eq!(network.describe()["cniconfig"]["Networks"][0]["Config"]["Name"], "net");
        network.attach(&one.pod("one")).await.unwrap();
        configure(&host, "{ broken");
        changes.wait_for(|_| network.ready().is_err()).await.unwrap();
        assert!(network.ready().unwrap_err().message.contains("10-net.conflist"));
        fs::remove_dir_all(host.path("conf")).unwrap();
        changes.wait_for(|snapshot| snapshot.is_empty()).await.unwrap();
        while !host.path("conf").exists() {
            changes.changed().await.unwrap();
        }
        configure(&host, &conflist(""));
        changes.wait_for(|_| network.ready().is_ok()).await.unwrap();
        network.detach(&one.pod("one"), None).await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_status_and_gc_are_asked_where_the_version_has_them() {
    on_test_host(|host| async move {
        let log = host.path("log");
        let script = format!(
            r#"input=$(cat); echo "$CNI_COMMAND $CNI_CONTAINERID $input" >> {log}
            case $CNI_COMMAND in
            ADD) echo '{{"cniVersion":"1.1.0","ips":[{{"address":"10.0.0.2/24"}}]}}';;
            STATUS) [ -e {ailing} ] && {{ echo '{{"code":50,"msg":"no addresses"}}'; exit 1; }};;
            esac; exit 0"#,
            log = log.display(),
            ailing = host.path("ailing").display(),
        );
        install(&host.directory("bin"), "modern", &script);
        configure(&host, r#"{"cniVersion":"1.1.0","name":"net","plugins":[{"type":"modern"}]}"#);
        fs::write(host.path("ailing"), "").unwrap();
        let network = open(&host).await;
        assert!(network.ready().unwrap_err().message.contains("not told yet"));
        network.settled().await;
        assert!(network.ready().unwrap_err().message.contains("failed with code 50: no addresses"));
        fs::remove_file(host.path("ailing")).unwrap();
        let network = open(&host).await;
        network.settled().await;
        network.ready().unwrap();
        let (one, two) = (host.netns("one"), host.netns("two"));
        network.attach(&one.pod("one")).await.unwrap();
        network.attach(&two.pod("two")).await.unwrap();
        network.retain(&HashSet::from(["two".to_owned()])).await;
        let log = fs::read_to_string(log).unwrap();
        assert!(log.contains("DEL one") && !log.contains("DEL two"), "{log}");
        let gc = log.lines().find(|line| line.starts_with("GC ")).unwrap();
        assert!(
            gc.contains(r#""cni.dev/valid-attachments":[{"containerID":"two","ifname":"eth0"}]"#),
            "{gc}"
        );
        network.detach(&two.pod("two"), None).await.unwrap();
        assert_nothing_left(&host);
    });
}

#[test]
fn root_a_pod_joins_as_many_networks_as_configured() {
    on_test_host(|host| async move {
        let conf = host.directory("conf");
        for (n, subnet) in [(1, "10.215.1.0/24"), (2, "10.215.2.0/24"), (3, "10.215.3.0/24")] {
            let content = format!(
                r#"{{"cniVersion":"0.3.1","name":"net{n}","type":"bridge","bridge":"cbr{n}",
                "ipam":{{"type":"host-local","subnet":"{subnet}"}}}}"#
            );
            fs::write(conf.join(format!("{n}.conf")), content).unwrap();
        }
        let mut config = config(&host);
        config.cni.max_conf_num = 2;
        let network = Network::open(config, host.directory.path()).await.unwrap();
        let one = host.netns("one");
        let attachment = network.attach(&one.pod("one")).await.unwrap();
        let ips: Vec<String> = attachment.ips.iter().map(ToString::to_string).collect();
        assert_eq!(ips, ["10.215.1.2", "10.215.2.2"]);
        assert_eq!(one.inside(|| Ok(interfaces())).len(), 2);
        network.detach(&one.pod("one"), None).await.unwrap();
        assert_eq!(one.inside(|| Ok(interfaces())).len(), 0);
    });
}

#[test]
fn root_limits_of_zero_are_refused() {
    on_test_host(|host| async move {
        let mut config = config(&host);
        config.cni.plugin_timeout_seconds = 0;
        let error = Network::open(config, host.directory.path()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
    });
}
