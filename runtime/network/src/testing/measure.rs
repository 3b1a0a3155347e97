//! Times of attach and detach, by hand: `cargo test -p berth-network -- --ignored --nocapture root_measure`.

use std::time::Instant;

use super::*;
use crate::{BridgeConfig, CniConfig, Config, Network, Provider};

const ROUNDS: usize = 40;

async fn measure(host: &TestHost, what: &str, network: &Network, ports: &[(Protocol, &str, u16, u16)]) {
    let (mut attach, mut detach) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let netns = host.netns(&format!("m{round}"));
        let pod = netns.publishing(&format!("m{round}"), ports);
        let start = Instant::now();
        let attachment = network.attach(&pod).await.unwrap();
        attach.push(start.elapsed());
        let server = netns.listen(80);
        let start = Instant::now();
        assert!(reaches(&format!("{}:80", primary(&attachment)), &server).is_some());
        let first_packet = start.elapsed();
        assert!(first_packet < Duration::from_millis(500), "the first packet took {first_packet:?}");
        let start = Instant::now();
        network.detach(&pod, Some(&attachment)).await.unwrap();
        detach.push(start.elapsed());
    }
    let median = |mut times: Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    println!("{what}: attach {:?}, detach {:?}", median(attach), median(detach));
}

#[test]
#[ignore = "measures; run by hand"]
fn root_measure_attach_and_detach() {
    on_test_host(|host| async move {
        let bridge = BridgeConfig { name: "btest0".into(), ..BridgeConfig::default() };
        let built_in = Config { provider: Provider::Bridge, bridge, ..Config::default() };
        let network = Network::open(built_in, host.directory.path()).await.unwrap();
        measure(&host, "built-in", &network, &[]).await;
        measure(&host, "built-in, one port", &network, &[(Protocol::Tcp, "", 8080, 80)]).await;
        network.teardown().await.unwrap();
        let conf_dir = host.directory("conf");
        fs::write(conf_dir.join("10-net.conflist"), BRIDGE).unwrap();
        let cni = CniConfig { conf_dir, bin_dirs: vec![reference_plugins()], ..CniConfig::default() };
        let cni = Config { cni, ..Config::default() };
        let network = Network::open(cni.clone(), host.directory.path()).await.unwrap();
        measure(&host, "cni bridge", &network, &[]).await;
        let instant = host.directory("instant");
        install(
            &instant,
            "bridge",
            r#"sleep 0.03; echo '{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.2/24"}]}'"#,
        );
        let cni = CniConfig { bin_dirs: vec![instant], ..cni.cni };
        let network =
            Network::open(Config { cni, ..Config::default() }, host.directory.path()).await.unwrap();
        measure_bare(&host, &network).await;
    });
}

/// Measures a plugin that takes as long as a sync of the disk may, in a chain and run alone; the difference is Berth's.
async fn measure_bare(host: &TestHost, network: &Network) {
    let netns = host.netns("bare");
    let (mut with, mut alone, pod) = (Vec::new(), Vec::new(), netns.pod("bare"));
    for _ in 0..ROUNDS {
        let start = Instant::now();
        network.attach(&pod).await.unwrap();
        network.detach(&pod, None).await.unwrap();
        with.push(start.elapsed());
        let start = Instant::now();
        for _ in ["ADD", "DEL"] {
            Command::new(host.path("instant/bridge")).output().unwrap();
        }
        alone.push(start.elapsed());
    }
    with.sort();
    alone.sort();
    let (with, alone) = (with[ROUNDS / 2], alone[ROUNDS / 2]);
    println!("cni, a plugin that sleeps 30 ms: attach + detach {with:?}, the plugin alone twice {alone:?}");
}

const BRIDGE: &str = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"bridge","bridge":"cbr0","isGateway":true,
    "ipMasq":true,"ipam":{"type":"host-local","subnet":"10.214.0.0/16","routes":[{"dst":"0.0.0.0/0"}]}}]}"#;
