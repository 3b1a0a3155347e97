use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    pod::{pod, shell},
    waiting::until,
};
use tonic::{Code, Status};

const MEBIBYTE: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn root_processor_time_and_its_rate_are_those_of_the_container() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, busy) = berth.run_alone("busy", &image, "while :; do :; done").await;
    let (_, idle) = berth.run_alone("idle", &image, "exec sleep 1000").await;
    let cpu = |stats: v1::ContainerStats| stats.cpu.unwrap();
    let (first, begun) = (cpu(stats(&mut berth, &busy).await.unwrap()), Instant::now());
    assert_eq!(first.usage_nano_cores, None, "there is no rate before the second reading");
    stats(&mut berth, &idle).await.unwrap();
    pod_stats(&mut berth, &pod).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let second = cpu(stats(&mut berth, &busy).await.unwrap());
    let elapsed = begun.elapsed().as_nanos() as f64;
    let passed = (second.timestamp - first.timestamp) as f64;
    let used = (value(second.usage_core_nano_seconds) - value(first.usage_core_nano_seconds)) as f64;
    assert!(passed <= elapsed * 1.2 && used > passed * 0.05 && used < passed * 1.1, "{used} of {passed} ns");
    let rate = value(second.usage_nano_cores) as f64;
    assert!((rate / (used / passed * 1e9) - 1.0).abs() < 0.1, "{rate} for {used} of {passed} ns");
    let idle = cpu(stats(&mut berth, &idle).await.unwrap());
    assert!(value(idle.usage_nano_cores) < 50_000_000, "{idle:?}");
    let of_pod = pod_stats(&mut berth, &pod).await.unwrap().linux.unwrap().cpu.unwrap();
    assert!(value(of_pod.usage_core_nano_seconds) >= value(second.usage_core_nano_seconds));
    assert!(value(of_pod.usage_nano_cores) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_memory_that_is_held_is_in_the_working_set_and_missing_from_what_is_available() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "memory");
    let pod = berth.run(&sandbox).await.unwrap();
    let script = "x=$(head -c 40000000 /dev/zero | tr '\\0' x); echo ready; while :; do sleep 1; done";
    let mut config = shell("memory", &image, script);
    let limit = 200 * MEBIBYTE;
    let resources = v1::LinuxContainerResources { memory_limit_in_bytes: limit as i64, ..Default::default() };
    config.linux.as_mut().unwrap().resources = Some(resources);
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    let before = stats(&mut berth, &id).await.unwrap().memory.unwrap();
    assert!(value(before.working_set_bytes) < 20 * MEBIBYTE, "{before:?}");
    berth.start_container(&id).await.unwrap();
    until("it is ready", || !berth.log_of("memory", "memory").is_empty()).await;
    let memory = stats(&mut berth, &id).await.unwrap().memory.unwrap();
    let working_set = value(memory.working_set_bytes);
    assert!(working_set >= 40_000_000 && working_set < limit, "{memory:?}");
    assert!(value(memory.rss_bytes) >= 40_000_000 && value(memory.usage_bytes) >= working_set);
    assert_eq!(value(memory.available_bytes), limit - working_set);
    assert!(value(memory.page_faults) > value(before.page_faults));
    let of_pod = pod_stats(&mut berth, &pod).await.unwrap().linux.unwrap().memory.unwrap();
    assert!(value(of_pod.working_set_bytes) >= 40_000_000, "{of_pod:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_a_container_writes_is_counted_also_after_its_end() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("writer", &image, "exec sleep 1000").await;
    berth.shell(&id, "mkdir /data; dd if=/dev/zero of=/data/file bs=1M count=5; for i in 1 2 3; do touch /data/$i; done").await;
    let layer = stats(&mut berth, &id).await.unwrap().writable_layer.unwrap();
    let used = value(layer.used_bytes);
    assert!((5 * MEBIBYTE..6 * MEBIBYTE).contains(&used), "{layer:?}");
    let upper = berth.path().join("root/containers").join(&id).join("upper");
    let du = std::process::Command::new("du").args(["-s", "--inodes"]).arg(upper).output().unwrap();
    let expected = String::from_utf8(du.stdout).unwrap();
    assert_eq!(value(layer.inodes_used).to_string(), expected.split_whitespace().next().unwrap());
    let info = berth.images.image_fs_info(v1::ImageFsInfoRequest {}).await.unwrap().into_inner();
    let (images, containers) = (&info.image_filesystems[0], &info.container_filesystems[0]);
    assert_eq!(value(containers.used_bytes), used);
    assert!(value(images.used_bytes) > 0);
    // Images and containers are on one file system here.
    assert_eq!((&images.fs_id, &containers.fs_id), (&layer.fs_id, &layer.fs_id));
    berth.stop_container(&id, 0).await.unwrap();
    let after = stats(&mut berth, &id).await.unwrap();
    assert_eq!((after.cpu, after.memory), (None, None));
    assert_eq!(value(after.writable_layer.unwrap().used_bytes), used);
    assert!(list(&mut berth, None).await.unwrap().is_empty(), "only live containers are listed");
    berth.stop_pod(&pod).await.unwrap();
    let stopped = pod_stats(&mut berth, &pod).await.unwrap();
    assert_eq!(stopped.attributes.unwrap().id, pod);
    assert_eq!(stopped.linux.unwrap(), v1::LinuxPodSandboxStats::default());
    assert!(list_pods(&mut berth, None).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_traffic_is_counted_for_the_pod_that_it_belongs_to() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let serve = "dd if=/dev/zero of=/tmp/file bs=1M count=4; exec httpd -f -p 80 -h /tmp";
    let (server, _) = berth.run_alone("server", &image, serve).await;
    let (client, id) = berth.run_alone("client", &image, "exec sleep 1000").await;
    let ip = berth.pod_status(&server).await.unwrap().network.unwrap().ip;
    let before = traffic(&mut berth, &client).await;
    let script =
        format!("for i in $(seq 100); do wget -q -O /dev/null http://{ip}/file && break; sleep 0.1; done");
    berth.shell(&id, &script).await;
    let (of_client, of_server) = (traffic(&mut berth, &client).await, traffic(&mut berth, &server).await);
    assert!(value(of_client.rx_bytes) > value(before.rx_bytes) + 4 * MEBIBYTE, "{of_client:?}");
    assert!(value(of_server.tx_bytes) > 4 * MEBIBYTE && value(of_server.rx_bytes) < 4 * MEBIBYTE);
    assert_eq!(
        (of_client.name.as_str(), value(of_client.rx_errors), value(of_client.tx_errors)),
        ("eth0", 0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pod_on_the_hosts_network_has_no_traffic_of_its_own() {
    let mut berth = Berth::start().await;
    let mut sandbox = pod(&berth, "hostnet");
    let options = v1::NamespaceOption { network: v1::NamespaceMode::Node.into(), ..Default::default() };
    sandbox.linux.as_mut().unwrap().security_context =
        Some(v1::LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() });
    let pod = berth.run(&sandbox).await.unwrap();
    let linux = pod_stats(&mut berth, &pod).await.unwrap().linux.unwrap();
    assert_eq!(linux.network, None);
    assert!(linux.cpu.is_some() && linux.memory.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pod_shows_its_processes_and_its_live_containers() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "many");
    let pod = berth.run(&sandbox).await.unwrap();
    let mut ids = HashSet::new();
    for name in ["a", "b"] {
        let config = shell(name, &image, "sleep 1000 & sleep 1000 & exec sleep 1000");
        let id = berth.create(&pod, &sandbox, config).await.unwrap();
        berth.start_container(&id).await.unwrap();
        ids.insert(id);
    }
    let ended = berth.create(&pod, &sandbox, shell("ended", &image, "true")).await.unwrap();
    berth.start_container(&ended).await.unwrap();
    berth.ended(&ended).await;
    let processes = |stats: &v1::PodSandboxStats| {
        value(stats.linux.as_ref().unwrap().process.as_ref().unwrap().process_count)
    };
    let mut stats = pod_stats(&mut berth, &pod).await.unwrap();
    while processes(&stats) != 6 {
        stats = pod_stats(&mut berth, &pod).await.unwrap();
    }
    let containers = stats.linux.unwrap().containers;
    let seen: HashSet<_> = containers.into_iter().map(|one| one.attributes.unwrap().id).collect();
    assert_eq!(seen, ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_every_condition_of_a_filter_must_hold() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (one, first) = labelled(&mut berth, "one", &image, &[("app", "web"), ("tier", "front")]).await;
    let (two, second) = labelled(&mut berth, "two", &image, &[("app", "web")]).await;
    let both = || vec![first.clone(), second.clone()];
    let filter = |id: &str, pod: &str, selector: &[(&str, &str)]| v1::ContainerStatsFilter {
        id: id.into(),
        pod_sandbox_id: pod.into(),
        label_selector: labels(selector),
    };
    for (filter, wanted) in [
        (filter("", "", &[]), both()),
        (filter(&first, "", &[]), vec![first.clone()]),
        (filter(&second[..12], "", &[]), vec![second.clone()]),
        (filter("", &one, &[]), vec![first.clone()]),
        (filter("", &two[..12], &[]), vec![second.clone()]),
        (filter(&first, &two, &[]), vec![]),
        (filter("", "", &[("app", "web")]), both()),
        (filter("", "", &[("app", "web"), ("tier", "front")]), vec![first.clone()]),
        (filter(&second, "", &[("tier", "front")]), vec![]),
        (filter("", "", &[("app", "other")]), vec![]),
        (filter("absent", "", &[]), vec![]),
    ] {
        let seen: HashSet<_> =
            list(&mut berth, Some(filter.clone())).await.unwrap().into_iter().map(id_of).collect();
        assert_eq!(seen, wanted.into_iter().collect(), "{filter:?}");
    }
    assert_eq!(list(&mut berth, None).await.unwrap().len(), 2);
    for (id, selector, wanted) in [
        ("", labels(&[]), vec![&one, &two]),
        (&one[..10], labels(&[]), vec![&one]),
        ("", labels(&[("tier", "front")]), vec![&one]),
        (&two, labels(&[("tier", "front")]), vec![]),
    ] {
        let filter = v1::PodSandboxStatsFilter { id: id.into(), label_selector: selector };
        let seen = list_pods(&mut berth, Some(filter)).await.unwrap();
        let seen: HashSet<_> = seen.into_iter().map(|pod| pod.attributes.unwrap().id).collect();
        assert_eq!(seen, wanted.into_iter().cloned().collect());
    }
    assert_eq!(list_pods(&mut berth, None).await.unwrap().len(), 2);
    let attributes = stats(&mut berth, &first).await.unwrap().attributes.unwrap();
    assert_eq!(attributes.metadata.unwrap().name, "one");
    assert_eq!(attributes.labels, labels(&[("app", "web"), ("tier", "front")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn root_containers_that_come_and_go_meanwhile_are_no_error() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, stays) = berth.run_alone("stays", &image, "exec sleep 1000").await;
    let mut client = berth.runtime.clone();
    let watched = stays.clone();
    let watcher = tokio::spawn(async move {
        let mut rounds = 0;
        while rounds < 1000 {
            let listed = client.list_container_stats(v1::ListContainerStatsRequest::default()).await?;
            assert!(listed.into_inner().stats.into_iter().map(id_of).any(|id| id == watched));
            client.list_pod_sandbox_stats(v1::ListPodSandboxStatsRequest::default()).await?;
            client.list_pod_sandbox_metrics(v1::ListPodSandboxMetricsRequest {}).await?;
            rounds += 1;
        }
        Ok::<_, Status>(rounds)
    });
    for round in 0..15 {
        let (pod, id) = berth.run_alone(&format!("goes{round}"), &image, "exec sleep 1000").await;
        berth.remove_container(&id).await.unwrap();
        berth.remove_pod(&pod).await.unwrap();
    }
    watcher.abort();
    assert!(watcher.await.is_err_and(|error| error.is_cancelled()), "a list failed");
    assert_eq!(list(&mut berth, None).await.unwrap().into_iter().map(id_of).collect::<Vec<_>>(), [stays]);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_numbers_go_on_growing_when_the_daemon_was_killed() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = berth.run_alone("survivor", &image, "while :; do :; done").await;
    let before = stats(&mut berth, &id).await.unwrap().cpu.unwrap();
    berth.kill();
    berth.restart().await;
    let after = stats(&mut berth, &id).await.unwrap();
    assert!(value(after.cpu.unwrap().usage_core_nano_seconds) > value(before.usage_core_nano_seconds));
    assert!(after.writable_layer.is_some());
    traffic(&mut berth, &pod).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_every_metric_that_this_kernel_can_tell_has_a_value() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = limited(&mut berth, "metrics", &image, "exec sleep 1000").await;
    berth.shell(&id, "dd if=/dev/zero of=/file bs=1M count=2 conv=fsync").await;
    let described = berth.runtime.list_metric_descriptors(v1::ListMetricDescriptorsRequest {}).await.unwrap();
    let described = described.into_inner().descriptors;
    assert_eq!(described.len(), 56);
    let metrics = metrics_of(&mut berth, &pod).await;
    for descriptor in &described {
        let values = metrics.get(&descriptor.name).map(Vec::as_slice).unwrap_or_default();
        assert!(!values.is_empty() || cannot_be_told(&descriptor.name), "{}", descriptor.name);
        assert!(values.iter().all(|one| one.label_values.len() == descriptor.label_keys.len()), "{values:?}");
    }
    assert!(metrics.keys().all(|name| described.iter().any(|one| one.name == *name)));
    let number = |name: &str| value(metrics[name][0].value);
    assert_eq!(number("container_spec_memory_limit_bytes"), 64 * MEBIBYTE);
    assert_eq!((number("container_spec_cpu_quota"), number("container_spec_cpu_shares")), (20_000, 1024));
    assert_eq!((number("container_processes"), number("container_sockets")), (1, 0));
    assert!((3..10).contains(&number("container_file_descriptors")));
    assert!(number("container_fs_usage_bytes") >= 2 * MEBIBYTE);
    assert!(number("container_fs_limit_bytes") > number("container_fs_usage_bytes"));
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!(number("container_last_seen").abs_diff(now) < 10);
    assert!(number("container_start_time_seconds").abs_diff(now) < 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_process_killed_for_lack_of_memory_is_counted() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (pod, id) = limited(&mut berth, "oom", &image, "exec sleep 1000").await;
    assert_eq!(value(metrics_of(&mut berth, &pod).await["container_oom_events_total"][0].value), 0);
    berth.shell(&id, "dd if=/dev/zero of=/dev/null bs=200M count=1").await;
    let metrics = metrics_of(&mut berth, &pod).await;
    assert!(value(metrics["container_oom_events_total"][0].value) > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_does_not_exist_is_not_found_and_an_empty_id_is_refused() {
    let mut berth = Berth::start().await;
    for (id, code) in [("absent", Code::NotFound), ("", Code::InvalidArgument)] {
        assert_eq!(stats(&mut berth, id).await.unwrap_err().code(), code);
        assert_eq!(pod_stats(&mut berth, id).await.unwrap_err().code(), code);
    }
    assert!(list(&mut berth, None).await.unwrap().is_empty());
    assert!(list_pods(&mut berth, None).await.unwrap().is_empty());
}

fn value(value: Option<v1::UInt64Value>) -> u64 {
    value.expect("a number").value
}

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn id_of(stats: v1::ContainerStats) -> String {
    stats.attributes.unwrap().id
}

async fn stats(berth: &mut Berth, id: &str) -> Result<v1::ContainerStats, Status> {
    let request = v1::ContainerStatsRequest { container_id: id.into() };
    Ok(berth.runtime.container_stats(request).await?.into_inner().stats.unwrap())
}

async fn pod_stats(berth: &mut Berth, id: &str) -> Result<v1::PodSandboxStats, Status> {
    let request = v1::PodSandboxStatsRequest { pod_sandbox_id: id.into() };
    Ok(berth.runtime.pod_sandbox_stats(request).await?.into_inner().stats.unwrap())
}

async fn list(
    berth: &mut Berth,
    filter: Option<v1::ContainerStatsFilter>,
) -> Result<Vec<v1::ContainerStats>, Status> {
    let request = v1::ListContainerStatsRequest { filter };
    Ok(berth.runtime.list_container_stats(request).await?.into_inner().stats)
}

async fn list_pods(
    berth: &mut Berth,
    filter: Option<v1::PodSandboxStatsFilter>,
) -> Result<Vec<v1::PodSandboxStats>, Status> {
    let request = v1::ListPodSandboxStatsRequest { filter };
    Ok(berth.runtime.list_pod_sandbox_stats(request).await?.into_inner().stats)
}

/// Traffic of a pod's default interface, which is its only one.
async fn traffic(berth: &mut Berth, pod: &str) -> v1::NetworkInterfaceUsage {
    let network = pod_stats(berth, pod).await.unwrap().linux.unwrap().network.unwrap();
    assert_eq!(network.interfaces.len(), 1);
    network.default_interface.unwrap()
}

/// Metrics of a pod and of its containers, by name.
async fn metrics_of(berth: &mut Berth, pod: &str) -> HashMap<String, Vec<v1::Metric>> {
    let all = berth.runtime.list_pod_sandbox_metrics(v1::ListPodSandboxMetricsRequest {}).await.unwrap();
    let mut all = all.into_inner().pod_metrics.into_iter();
    let found = all.find(|one| one.pod_sandbox_id == pod).expect("metrics of the pod");
    let containers = found.container_metrics.into_iter().flat_map(|container| container.metrics);
    let mut metrics = HashMap::<String, Vec<v1::Metric>>::new();
    for metric in found.metrics.into_iter().chain(containers) {
        metrics.entry(metric.name.clone()).or_default().push(metric);
    }
    metrics
}

/// Whether this host's kernel cannot provide a metric. Only cgroup v2 has pressure, and only v1 the highest use of huge
/// pages; newer kernels count disk traffic on v1 only while it is limited.
fn cannot_be_told(name: &str) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let is_v1 = |controller: &str| {
        mounts.lines().any(|line| line.contains(" cgroup ") && line.contains(&format!(",{controller} ")))
    };
    let v1 = ["memory", "cpu", "pids"].iter().any(|controller| is_v1(controller));
    match name {
        _ if name.contains("_pressure_") => v1,
        "container_hugetlb_usage_bytes" => v1 && !is_v1("hugetlb"),
        "container_hugetlb_max_usage_bytes" => !is_v1("hugetlb"),
        "container_blkio_device_usage_total" => v1,
        _ => v1 && (name.contains("_fs_reads_") || name.contains("_fs_writes_")),
    }
}

async fn labelled(berth: &mut Berth, name: &str, image: &str, pairs: &[(&str, &str)]) -> (String, String) {
    let sandbox = v1::PodSandboxConfig { labels: labels(pairs), ..pod(berth, name) };
    let pod = berth.run(&sandbox).await.unwrap();
    let config = v1::ContainerConfig { labels: labels(pairs), ..shell(name, image, "exec sleep 1000") };
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    (pod, id)
}

/// Runs a container with limits of processor and memory. Returns the ids of pod and container.
async fn limited(berth: &mut Berth, name: &str, image: &str, script: &str) -> (String, String) {
    let sandbox = pod(berth, name);
    let pod = berth.run(&sandbox).await.unwrap();
    let mut config = shell(name, image, script);
    config.linux.as_mut().unwrap().resources = Some(v1::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 20_000,
        cpu_shares: 1024,
        memory_limit_in_bytes: (64 * MEBIBYTE).cast_signed(),
        memory_swap_limit_in_bytes: (64 * MEBIBYTE).cast_signed(),
        ..Default::default()
    });
    let id = berth.create(&pod, &sandbox, config).await.unwrap();
    berth.start_container(&id).await.unwrap();
    (pod, id)
}
