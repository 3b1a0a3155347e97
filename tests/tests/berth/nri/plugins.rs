use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    nri::{self, Plugin},
    pod::{pod, shell},
    waiting::{eventually, until},
};
use serde_json::{Value, json};

/// Sorted names of the pods or containers (`what`) in a Synchronize event.
fn names(synchronized: &Value, what: &str) -> Vec<String> {
    let empty = Vec::new();
    let all = synchronized[what].as_array().unwrap_or(&empty);
    let mut names: Vec<_> = all.iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_plugin_that_comes_late_is_told_what_exists() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    for name in ["a", "b"] {
        berth.run_alone(name, &image, "exec sleep 1000").await;
    }
    let (_, ended) = berth.run_alone("ended", &image, "true").await;
    berth.ended(&ended).await;
    let plugin = Plugin::connect(&berth, "recorder", "10-late", json!({})).await;
    let told = plugin.wait_for("Synchronize", "").await.all;
    assert_eq!(names(&told, "pods"), ["a", "b", "ended"]);
    assert_eq!(names(&told, "containers"), ["a", "b"], "what has ended is not told");
    assert_eq!(told["containers"][0]["state"], 3);
    assert!(plugin.short_events().is_empty());
    assert_eq!(
        plugin.wait_for("Configure", "").await.all["runtime"].as_str().unwrap().split(' ').next(),
        Some("berth")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_created_while_a_plugin_learns_the_state_is_told_of_by_its_own_event() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let gate = berth.path().join("go");
    let plugin = Plugin::start(&berth, "recorder", "10-late", json!({"hold": {"Synchronize": gate}})).await;
    plugin.wait_for("Synchronize", "").await;
    let (mut other, pod_id) = (berth.runtime.clone(), id.clone());
    let config = Some(shell("meanwhile", &image, "true"));
    let creating = tokio::spawn(async move {
        let request =
            v1::CreateContainerRequest { pod_sandbox_id: pod_id, config, sandbox_config: Some(sandbox) };
        other.create_container(request).await
    });
    fs::write(&gate, "").unwrap();
    creating.await.unwrap().unwrap();
    plugin.wait_for("PostCreateContainer", "meanwhile").await;
    assert_eq!(plugin.short_events(), ["CreateContainer meanwhile", "PostCreateContainer meanwhile"]);
    assert!(names(&plugin.wait_for("Synchronize", "").await.all, "containers").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_plugin_that_learns_the_state_slowly_holds_nobody_up_and_misses_nothing() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    berth.run_alone("before", &image, "exec sleep 1000").await;
    let gate = berth.path().join("go");
    let log = Plugin::start(&berth, "recorder", "10-slow", json!({"hold": {"Synchronize": gate}})).await;
    log.wait_for("Synchronize", "").await;
    until("it is known to be slow", || {
        berth.log().contains("takes its time to learn the state plugin=10-slow")
    })
    .await;

    let (pod_id, id) = berth.run_alone("meanwhile", &image, "exec sleep 1000").await;
    let (gone, _) = berth.run_alone("gone", &image, "exec sleep 1000").await;
    berth.remove_pod(&gone).await.unwrap();
    assert!(log.short_events().is_empty(), "{:?}", log.short_events());
    assert!(!berth.log().contains("takes part plugin=10-slow"));
    fs::write(&gate, "").unwrap();
    until("it takes part", || berth.log().contains("takes part plugin=10-slow")).await;
    berth.stop_container(&id, 0).await.unwrap();
    log.wait_for("StopContainer", "meanwhile").await;
    let life = |name: &'static str| {
        let events = [
            "RunPodSandbox",
            "CreateContainer",
            "PostCreateContainer",
            "StartContainer",
            "PostStartContainer",
        ];
        events.map(|event| format!("{event} {name}"))
    };
    let ends = ["StopContainer", "StopPodSandbox", "RemoveContainer", "RemovePodSandbox"];
    let told = log.short_events();
    assert_eq!(told[..5], life("meanwhile"));
    assert_eq!(told[5..10], life("gone"));
    let mut last = told[10..14].to_vec();
    last.sort();
    let mut expected = ends.map(|event| format!("{event} gone"));
    expected.sort();
    assert_eq!(last, expected);
    assert_eq!(told[14..], ["StopContainer meanwhile"]);
    assert_eq!(names(&log.wait_for("Synchronize", "").await.all, "containers"), ["before"]);
    berth.remove_pod(&pod_id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_every_container_is_told_of_exactly_once_however_many_are_created_while_plugins_come() {
    const CONTAINERS: usize = 30;
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let creating: Vec<_> = (0..CONTAINERS)
        .map(|number| {
            let (mut runtime, pod_id, sandbox) = (berth.runtime.clone(), id.clone(), sandbox.clone());
            let config = Some(shell(&format!("c{number}"), &image, "exec sleep 1000"));
            tokio::spawn(async move {
                let request = v1::CreateContainerRequest {
                    pod_sandbox_id: pod_id,
                    config,
                    sandbox_config: Some(sandbox),
                };
                let created = runtime.create_container(request).await.unwrap().into_inner();
                let request = v1::StartContainerRequest { container_id: created.container_id };
                runtime.start_container(request).await.unwrap();
            })
        })
        .collect();
    let mut plugins = Vec::new();
    for number in 0..5 {
        plugins.push(Plugin::connect(&berth, "recorder", &format!("1{number}-late"), json!({})).await);
    }
    for one in creating {
        one.await.unwrap();
    }
    for plugin in &plugins {
        let mut known: BTreeMap<String, usize> = BTreeMap::new();
        let told = plugin.events();
        let state = told.iter().find(|told| told.event == "Synchronize").unwrap();
        let created =
            told.iter().filter(|told| told.event == "CreateContainer").map(|told| told.subject().to_owned());
        for name in names(&state.all, "containers").into_iter().chain(created) {
            *known.entry(name).or_default() += 1;
        }
        assert_eq!(known.len(), CONTAINERS, "none is missing");
        assert!(known.values().all(|times| *times == 1), "{known:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_plugins_of_the_directory_are_started_with_their_configuration_and_end_with_the_daemon() {
    let mut berth = Berth::start().await;
    until("the daemon has started what there was", || berth.path().join("nri.sock").exists()).await;
    let record = |name: &str| berth.path().join(format!("{name}.events"));
    let (plugins, configs) = (berth.path().join("nri/plugins"), berth.path().join("nri/conf.d"));
    for directory in [&plugins, &configs] {
        fs::create_dir_all(directory).unwrap();
    }
    for name in ["20-b", "10-a"] {
        fs::copy(nri::binary("recorder"), plugins.join(name)).unwrap();
    }
    fs::write(plugins.join("30-broken"), "#!/bin/false\n").unwrap();
    fs::set_permissions(plugins.join("30-broken"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(configs.join("10-a.conf"), json!({"record": record("10-a")}).to_string()).unwrap();
    fs::write(configs.join("b.conf"), json!({"record": record("20-b")}).to_string()).unwrap();
    let (a, b) = (record("10-a"), record("20-b"));
    berth.terminate();
    berth.restart().await;
    let sandbox = pod(&berth, "p");
    berth.run(&sandbox).await.unwrap();
    for record in [&a, &b] {
        let told: Vec<_> = nri::received_events(record).iter().map(nri::ReceivedEvent::short).collect();
        assert_eq!(told, ["Configure", "Synchronize", "RunPodSandbox p"]);
    }
    assert!(berth.log().contains("30-broken"), "a plugin that does not start is told in the log");
    berth.kill();
    until("its plugins end with it", || {
        !is_running(&plugins.join("10-a")) && !is_running(&plugins.join("20-b"))
    })
    .await;
    berth.restart().await;
    let again = nri::received_events(&a).into_iter().rfind(|told| told.event == "Synchronize").unwrap();
    assert_eq!(names(&again.all, "pods"), ["p"], "the next daemon's plugins are told what exists");
}

fn is_running(program: &std::path::Path) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|one| fs::read_link(one.path().join("exe")).is_ok_and(|exe| exe == program))
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_plugin_comes_back_to_a_daemon_that_was_killed() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let mut first = Plugin::connect(&berth, "recorder", "10-first", json!({})).await;
    let (pod, id) = berth.run_alone("stays", &image, "exec sleep 1000").await;
    berth.kill();
    berth.restart().await;
    eventually(async || first.is_alive(), |alive| !alive).await;
    let again = Plugin::connect(&berth, "recorder", "10-again", json!({})).await;
    let told = again.wait_for("Synchronize", "").await.all;
    assert_eq!(names(&told, "containers"), ["stays"]);
    assert_eq!(told["containers"][0]["args"], json!(["sh", "-c", "exec sleep 1000"]));
    berth.remove_container(&id).await.unwrap();
    berth.remove_pod(&pod).await.unwrap();
    assert_eq!(
        again.short_events(),
        ["StopContainer stays", "RemoveContainer stays", "StopPodSandbox stays", "RemovePodSandbox stays"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_daemon_that_is_asked_to_end_says_good_bye_to_its_plugins() {
    let mut berth = Berth::start().await;
    let plugin = Plugin::connect(&berth, "recorder", "10-log", json!({})).await;
    assert!(berth.terminate().success());
    plugin.wait_for("Shutdown", "").await;
    assert!(!berth.path().join("nri.sock").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_the_socket_is_roots_alone_and_a_second_daemon_leaves_it_to_the_first() {
    let berth = Berth::start().await;
    let socket = berth.path().join("nri.sock");
    until("the daemon listens for plugins", || socket.exists()).await;
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let _plugin = Plugin::connect(&berth, "recorder", "10-first", json!({})).await;
    let second = Berth::with_nri_socket(&socket).await;
    until("the second daemon says so", || second.log().contains("no NRI plugin can connect")).await;
    let _another = Plugin::connect(&berth, "recorder", "11-first", json!({})).await;
}
