use std::{fs, process::Command};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    nri::Plugin,
    pod::{pod, shell},
    waiting::until,
};
use serde_json::{Value, json};

/// Starts a plugin that adjusts the container `c`.
async fn adjuster(berth: &Berth, identity: &str, adjust: Value) -> Plugin {
    Plugin::connect(berth, "adjuster", identity, json!({"adjust": {"c": adjust}})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_plugins_adjust_is_seen_inside() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let shared = berth.path().join("shared");
    fs::create_dir_all(&shared).unwrap();
    fs::write(shared.join("file"), "from a plugin").unwrap();
    let _first = adjuster(
        &berth,
        "10-first",
        json!({
            "annotations": {"plugin.example/first": "yes"},
            "env": [{"key": "COLOUR", "value": "red"}, {"key": "-UNWANTED"}],
            "mounts": [
                {"destination": "/shared", "type": "bind", "source": shared, "options": ["rbind", "ro"]},
                {"destination": "-/removed"},
            ],
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 321, "soft": 123}],
            "linux": {
                "devices": [
                    {"path": "/dev/zero2", "type": "c", "major": 1, "minor": 5, "file_mode": {"value": 0o640}},
                ],
            },
        }),
    )
    .await;
    let _second = adjuster(
        &berth,
        "20-second",
        json!({
            "env": [{"key": "-COLOUR"}, {"key": "COLOUR", "value": "blue"}],
            "linux": {
                "oom_score_adj": {"value": 700},
                "io_priority": {"class": 2, "priority": 7},
                "scheduler": {"policy": 4, "nice": 5},
                "sysctl": {"kernel.domainname": "from-a-plugin"},
                "namespaces": [{"type": "uts"}],
                "resources": {"memory": {"limit": {"value": 50 << 20}}, "cpu": {"shares": {"value": 512}}},
            },
        }),
    )
    .await;
    let log = Plugin::connect(&berth, "recorder", "30-log", json!({})).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let mut config = shell("c", &image, "exec sleep 1000");
    config.envs.push(v1::KeyValue { key: "UNWANTED".into(), value: b"1".to_vec() });
    let removed = v1::Mount {
        container_path: "/removed".into(),
        host_path: shared.display().to_string(),
        ..Default::default()
    };
    config.mounts.push(removed);
    let own_processes =
        v1::NamespaceOption { pid: v1::NamespaceMode::Container.into(), ..Default::default() };
    config.linux.as_mut().unwrap().security_context = Some(v1::LinuxContainerSecurityContext {
        namespace_options: Some(own_processes),
        ..Default::default()
    });
    let container = berth.create(&id, &sandbox, config).await.unwrap();
    berth.start_container(&container).await.unwrap();

    assert_eq!(
        berth.shell(&container, "cat /shared/file; touch /shared/x 2>&1 | grep -c Read-only").await,
        "from a plugin1\n"
    );
    assert_eq!(berth.shell(&container, "ls -A /removed 2>/dev/null").await, "");
    let environment = berth.shell(&container, "env").await;
    assert!(environment.contains("COLOUR=blue\n") && !environment.contains("red"), "{environment}");
    assert!(!environment.contains("UNWANTED"), "{environment}");
    assert_eq!(
        berth.shell(&container, "grep 'open files' /proc/1/limits | tr -s ' '").await,
        "Max open files 123 321 files \n"
    );
    assert_eq!(
        berth.shell(&container, "stat -c '%a %t:%T' /dev/zero2; head -c 2 /dev/zero2 | wc -c").await,
        "640 1:5\n2\n"
    );
    assert_eq!(berth.shell(&container, "cat /proc/1/oom_score_adj").await, "700\n");
    assert_eq!(berth.shell(&container, "cat /proc/sys/kernel/domainname").await, "from-a-plugin\n");
    let started = log.wait_for("PostStartContainer", "c").await.all;
    assert_eq!(
        scheduling(started["container"]["pid"].as_u64().unwrap()),
        (5, 3),
        "SCHED_BATCH, as the kernel counts"
    );
    let resources = berth.status(&container).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!((resources.memory_limit_in_bytes, resources.cpu_shares), (50 << 20, 512));

    let seen = log.wait_for("CreateContainer", "c").await.all;
    assert!(seen["container"]["env"].as_array().unwrap().contains(&json!("COLOUR=blue")), "{seen}");
    let created = log.wait_for("PostCreateContainer", "c").await.all;
    assert_eq!(created["container"]["annotations"]["plugin.example/first"], "yes", "{created}");
    assert_eq!(created["container"]["linux"]["resources"]["memory"]["limit"]["value"], 50 << 20);
}

/// Nice value and scheduling policy of a process: proc_pid_stat(5).
fn scheduling(pid: u64) -> (i64, i64) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[16].parse().unwrap(), fields[38].parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn root_two_plugins_that_set_the_same_thing_fail_the_container_by_name() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let _one = adjuster(&berth, "10-one", json!({"env": [{"key": "COLOUR", "value": "red"}]})).await;
    let _two = adjuster(&berth, "20-two", json!({"env": [{"key": "COLOUR", "value": "blue"}]})).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let failed = berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap_err();
    let message = failed.message();
    assert!(message.contains("20-two and 10-one both tried to set Env COLOUR"), "{message}");
    berth.create(&id, &sandbox, shell("other", &image, "true")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_berth_cannot_do_for_a_plugin_is_refused_by_name() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    for (number, (adjust, word)) in [
        (json!({"linux": {"resources": {"rdt_class": {"value": "gold"}}}}), "rdt_class"),
        (json!({"linux": {"net_devices": {"eth7": {"name": "eth8"}}}}), "network devices"),
        (json!({"linux": {"memory_policy": {"mode": 2, "nodes": "0"}}}), "memory policy"),
        (json!({"rlimits": [{"type": "RLIMIT_NONSENSE", "hard": 1, "soft": 1}]}), "RLIMIT_NONSENSE"),
    ]
    .into_iter()
    .enumerate()
    {
        let _plugin = adjuster(&berth, &format!("1{number}-greedy"), adjust).await;
        let failed = berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap_err();
        assert!(failed.message().contains(word), "{}", failed.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_validator_rejects_what_others_adjust() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let _judge = Plugin::connect(&berth, "adjuster", "90-judge", json!({"reject": "no colours here"})).await;
    let _one = adjuster(&berth, "10-one", json!({"env": [{"key": "COLOUR", "value": "red"}]})).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let failed = berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap_err();
    assert!(failed.message().contains("no colours here"), "{}", failed.message());
    berth.create(&id, &sandbox, shell("plain", &image, "true")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_plugin_changes_an_update_and_later_updates_build_on_what_was_adjusted() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let config = json!({
        "adjust": {"c": {"linux": {"resources": {"memory": {"limit": {"value": 60 << 20}}}}}},
        "on_update": {"cpu": {"shares": {"value": 700}}},
    });
    let _plugin = Plugin::connect(&berth, "adjuster", "10-one", config).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let container = berth.create(&id, &sandbox, shell("c", &image, "exec sleep 1000")).await.unwrap();
    berth.start_container(&container).await.unwrap();
    let request = v1::UpdateContainerResourcesRequest {
        container_id: container.clone(),
        linux: Some(v1::LinuxContainerResources { cpu_shares: 300, ..Default::default() }),
        ..Default::default()
    };
    berth.runtime.update_container_resources(request).await.unwrap();
    let resources = berth.status(&container).await.unwrap().resources.unwrap().linux.unwrap();
    assert_eq!((resources.cpu_shares, resources.memory_limit_in_bytes), (700, 60 << 20));
}

/// Content of a file of a container's cgroup in the v1 memory hierarchy.
fn memory_controller(container: &str, file: &str) -> String {
    let found = Command::new("find").args(["/sys/fs/cgroup/memory", "-name", container]).output().unwrap();
    let directory = String::from_utf8(found.stdout).unwrap();
    fs::read_to_string(format!("{}/{file}", directory.trim())).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_swappiness_and_the_oom_killer_are_set_at_creation_and_by_updates_where_the_kernel_can() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let memory = |swappiness: u64, disable: bool| json!({"memory": {"swappiness": {"value": swappiness}, "disable_oom_killer": {"value": disable}}});
    let config =
        json!({"adjust": {"c": {"linux": {"resources": memory(7, true)}}}, "on_update": memory(9, false)});
    let _plugin = Plugin::connect(&berth, "adjuster", "10-one", config).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let created = berth.create(&id, &sandbox, shell("c", &image, "exec sleep 1000")).await;
    if !fs::exists("/sys/fs/cgroup/memory").unwrap() {
        let refused = created.unwrap_err();
        assert!(refused.message().contains("memory_swappiness"), "{}", refused.message());
        return;
    }
    let container = created.unwrap();
    let seen = || {
        (
            memory_controller(&container, "memory.swappiness"),
            memory_controller(&container, "memory.oom_control"),
        )
    };
    let (swappiness, oom) = seen();
    assert!(swappiness == "7\n" && oom.starts_with("oom_kill_disable 1"), "{swappiness} {oom}");
    let request = v1::UpdateContainerResourcesRequest {
        container_id: container.clone(),
        linux: Some(v1::LinuxContainerResources { cpu_shares: 300, ..Default::default() }),
        ..Default::default()
    };
    berth.runtime.update_container_resources(request).await.unwrap();
    let (swappiness, oom) = seen();
    assert!(swappiness == "9\n" && oom.starts_with("oom_kill_disable 0"), "{swappiness} {oom}");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_what_cannot_be_changed_of_a_container_is_refused_by_name() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, container) = berth.run_alone("c", &image, "exec sleep 1000").await;
    for (number, (update, word)) in [
        (json!({"devices": [{"allow": true, "type": "c", "access": "rwm"}]}), "device rules"),
        (json!({"memory": {"use_hierarchy": {"value": false}}}), "memory.use_hierarchy"),
        (json!({"memory": {"kernel": {"value": 1 << 20}}}), "memory.kernel"),
        (json!({"blockio_class": {"value": "slow"}}), "blockio_class"),
    ]
    .into_iter()
    .enumerate()
    {
        let _plugin =
            Plugin::connect(&berth, "adjuster", &format!("1{number}-greedy"), json!({"on_update": update}))
                .await;
        let request = v1::UpdateContainerResourcesRequest {
            container_id: container.clone(),
            linux: Some(v1::LinuxContainerResources { cpu_shares: 300, ..Default::default() }),
            ..Default::default()
        };
        let refused = berth.runtime.update_container_resources(request).await.unwrap_err();
        assert!(refused.message().contains(word), "{}", refused.message());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_plugin_updates_and_evicts_other_containers() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let (_, updated) = berth.run_alone("updated", &image, "exec sleep 1000").await;
    let (_, evicted) = berth.run_alone("evicted", &image, "exec sleep 1000").await;
    let limits = |shares: u64| json!({"resources": {"cpu": {"shares": {"value": shares}}}});
    let asking = berth.path().join("ask");
    let config = json!({
        "update": {"c": [
            {"container_id": updated, "linux": limits(456)},
            {"container_id": "no-such-container", "linux": limits(5), "ignore_failure": true},
        ]},
        "evict": {"c": [{"container_id": evicted, "reason": "test"}]},
        "unsolicited": asking,
    });
    let _plugin = Plugin::connect(&berth, "adjuster", "10-one", config).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap();
    let shares = async |berth: &mut Berth| {
        berth.status(&updated).await.unwrap().resources.unwrap().linux.unwrap().cpu_shares
    };
    assert_eq!(shares(&mut berth).await, 456);
    let status = berth.status(&evicted).await.unwrap();
    assert_eq!((status.state(), status.exit_code), (v1::ContainerState::ContainerExited, 137));

    let asked = json!([
        {"container_id": updated, "linux": limits(789)},
        {"container_id": "no-such-container", "linux": limits(5)},
    ]);
    fs::write(berth.path().join("ask.part"), asked.to_string()).unwrap();
    fs::rename(berth.path().join("ask.part"), &asking).unwrap();
    let answer = berth.path().join("ask.failed");
    until("the plugin got its answer", || answer.exists()).await;
    let failed: Value = serde_json::from_str(&fs::read_to_string(&answer).unwrap()).unwrap();
    assert_eq!(
        (failed.as_array().unwrap().len(), &failed[0]["container_id"]),
        (1, &json!("no-such-container"))
    );
    assert_eq!(shares(&mut berth).await, 789);
}
