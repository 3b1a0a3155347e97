use std::io::{Read, Write};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::{pod, shell},
};

#[tokio::test(flavor = "multi_thread")]
async fn root_pods_reach_each_other_under_their_addresses() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (server, _) = berth.run_alone("server", &image, "exec nc -lk -p 8080 -e echo greetings").await;
    let (_, client) = berth.run_alone("client", &image, "exec sleep 1000").await;
    let ip = berth.pod_status(&server).await.unwrap().network.unwrap().ip;
    let script = format!("for i in $(seq 50); do nc -w 1 {ip} 8080 </dev/null && break; sleep 0.1; done");
    assert_eq!(berth.shell(&client, &script).await, "greetings\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_published_port_answers_on_the_host() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let host_port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut sandbox = pod(&berth, "published");
    sandbox.port_mappings =
        vec![v1::PortMapping { container_port: 8080, host_port: host_port.into(), ..Default::default() }];
    let pod = berth.run(&sandbox).await.unwrap();
    let id = berth
        .create(&pod, &sandbox, shell("web", &image, "exec nc -lk -p 8080 -e echo published"))
        .await
        .unwrap();
    berth.start_container(&id).await.unwrap();
    let mut answer = String::new();
    for _ in 0..100 {
        if let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", host_port)) {
            stream.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
            let _ = stream.write_all(b"");
            let _ = stream.read_to_string(&mut answer);
        }
        if !answer.is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(answer, "published\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_annotations_limit_a_pods_traffic_where_a_plugin_can() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("leases");
    let bridge = format!("btlim{}", std::process::id());
    let list = r#"{"cniVersion": "1.0.0", "name": "limited", "plugins": [
        {"type": "bridge", "bridge": "BRIDGE", "ipam": {"type": "host-local", "dataDir": DATA, "subnet": "10.213.17.0/24"}},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}}]}"#;
    let list = list.replace("BRIDGE", &bridge).replace("DATA", &format!("{data:?}"));
    std::fs::write(directory.path().join("10-net.conflist"), list).unwrap();
    let mut berth = Berth::with_cni(directory.path(), &berth_tests::program("BERTH_TEST_CNI")).await;
    let mut sandbox = pod(&berth, "limited");
    sandbox.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "11M".into());
    sandbox.annotations.insert("kubernetes.io/egress-bandwidth".into(), "12M".into());
    let id = berth.run(&sandbox).await.unwrap();
    let disciplines = command("tc", &["qdisc"]);
    for rate in ["rate 11Mbit", "rate 12Mbit"] {
        assert!(disciplines.contains(rate), "{disciplines}");
    }
    berth.remove_pod(&id).await.unwrap();
    assert!(!command("tc", &["qdisc"]).contains("rate 12Mbit"));
    sandbox.annotations.insert("kubernetes.io/egress-bandwidth".into(), "fast".into());
    let error = berth.run(&sandbox).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::InvalidArgument, "{error:?}");
    assert!(error.message().contains("kubernetes.io/egress-bandwidth"), "{error:?}");
    // The CNI plugin does not remove its bridge.
    command("ip", &["link", "del", &bridge]);
}

fn command(program: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pod_on_the_hosts_network_sees_the_hosts_interfaces_and_name() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let mut sandbox = pod(&berth, "hostnet");
    let options = v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() };
    sandbox.linux.as_mut().unwrap().security_context = Some(v1::LinuxSandboxSecurityContext {
        namespace_options: Some(options.clone()),
        ..Default::default()
    });
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = shell("c", &image, "exec sleep 1000");
    config.linux.as_mut().unwrap().security_context =
        Some(v1::LinuxContainerSecurityContext { namespace_options: Some(options), ..Default::default() });
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    let inside = berth.shell(&id, "readlink /proc/self/ns/net; readlink /proc/self/ns/uts").await;
    let outside = |name| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap().display().to_string();
    assert_eq!(inside, format!("{}\n{}\n", outside("net"), outside("uts")));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_nameservers_and_host_name_are_what_the_pod_asked_for() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let mut sandbox = pod(&berth, "named");
    sandbox.dns_config = Some(v1::DnsConfig {
        servers: vec!["10.10.10.10".into()],
        searches: vec!["example.test".into()],
        options: vec!["ndots:8".into()],
    });
    let pod = berth.run(&sandbox).await.unwrap();
    let id = berth.create(&pod, &sandbox, shell("c", &image, "exec sleep 1000")).await.unwrap();
    berth.start_container(&id).await.unwrap();
    let seen = berth.shell(&id, "cat /etc/resolv.conf; hostname; cat /etc/hostname").await;
    assert_eq!(seen, "search example.test\nnameserver 10.10.10.10\noptions ndots:8\nnamed\nnamed\n");
}
