use std::{fs, time::Duration};

use berth_cri::v1;
use berth_tests::{
    berth::Berth,
    nri::Plugin,
    pod::{pod, shell},
};
use serde_json::json;
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn root_a_plugin_is_told_of_the_whole_life_of_a_pod_in_order() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let plugin = Plugin::connect(&berth, "recorder", "10-log", json!({})).await;
    let (pod, id) = berth.run_alone("life", &image, "exec sleep 1000").await;
    update(&mut berth, &id).await;
    berth.stop_container(&id, 0).await.unwrap();
    berth.stop_container(&id, 0).await.unwrap();
    berth.remove_container(&id).await.unwrap();
    for _ in 0..2 {
        berth.stop_pod(&pod).await.unwrap();
    }
    for _ in 0..2 {
        berth.remove_pod(&pod).await.unwrap();
    }
    assert_eq!(
        plugin.short_events(),
        [
            "RunPodSandbox life",
            "CreateContainer life",
            "PostCreateContainer life",
            "StartContainer life",
            "PostStartContainer life",
            "UpdateContainer life",
            "PostUpdateContainer life",
            "StopContainer life",
            "RemoveContainer life",
            "StopPodSandbox life",
            "RemovePodSandbox life",
        ]
    );
    let run = plugin.wait_for_event("RunPodSandbox", "").await.all;
    assert_eq!((&run["pod"]["id"], &run["pod"]["uid"]), (&json!(pod), &json!("uid-life")));
    assert_eq!((&run["pod"]["namespace"], &run["pod"]["labels"]["name"]), (&json!("tests"), &json!("life")));
    assert!(run["pod"]["ips"][0].as_str().unwrap().starts_with("10."), "{run}");
    assert_eq!(run["pod"]["linux"]["namespaces"][0]["type"], "network", "{run}");
    let created = plugin.wait_for_event("CreateContainer", "").await.all;
    assert_eq!(
        (&created["container"]["id"], &created["container"]["pod_sandbox_id"]),
        (&json!(id), &json!(pod))
    );
    assert_eq!(created["container"]["args"], json!(["sh", "-c", "exec sleep 1000"]));
    let started = plugin.wait_for_event("PostStartContainer", "").await.all;
    assert_eq!(started["container"]["state"], 3, "running: {started}");
    assert!(started["container"]["pid"].as_u64().unwrap() > 0);
    let stopped = plugin.wait_for_event("StopContainer", "").await.all;
    assert_eq!(
        (&stopped["container"]["state"], &stopped["container"]["exit_code"]),
        (&json!(4), &json!(137))
    );
    let updated = plugin.wait_for_event("UpdateContainer", "").await.all;
    assert_eq!(updated["resources"]["cpu"]["shares"]["value"], 512);
    let updated = plugin.wait_for_event("PostUpdateContainer", "").await.all;
    assert_eq!(updated["container"]["linux"]["resources"]["cpu"]["shares"]["value"], 512);
}

async fn update(berth: &mut Berth, id: &str) {
    let linux = v1::LinuxContainerResources { cpu_shares: 512, ..Default::default() };
    let request = v1::UpdateContainerResourcesRequest {
        container_id: id.into(),
        linux: Some(linux),
        ..Default::default()
    };
    berth.runtime.update_container_resources(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_plugins_are_asked_when_the_kubelet_resizes_a_pod() {
    let mut berth = Berth::start().await;
    let refusing = berth.path().join("refusing");
    let config = json!({"refuse": {"UpdatePodSandbox": "too much"}, "refusing": refusing});
    let plugin = Plugin::connect(&berth, "recorder", "10-log", config).await;
    let sandbox = pod(&berth, "resized");
    let id = berth.run(&sandbox).await.unwrap();
    let resize = |pod_sandbox_id: &str| v1::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod_sandbox_id.into(),
        overhead: None,
        resources: Some(v1::LinuxContainerResources { memory_limit_in_bytes: 9 << 20, ..Default::default() }),
    };
    berth.runtime.update_pod_sandbox_resources(resize(&id)).await.unwrap();
    let told = plugin.wait_for_event("UpdatePodSandbox", "resized").await.all;
    assert_eq!(told["resources"]["memory"]["limit"]["value"], 9 << 20);
    plugin.wait_for_event("PostUpdatePodSandbox", "resized").await;
    fs::write(&refusing, "").unwrap();
    let refused = berth.runtime.update_pod_sandbox_resources(resize(&id)).await.unwrap_err();
    assert!(refused.message().contains("too much"), "{}", refused.message());
    let unknown = berth.runtime.update_pod_sandbox_resources(resize("no-such-pod")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_ends_by_itself_is_told_of_in_order_and_removing_its_pod_tells_the_rest() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let plugin = Plugin::connect(&berth, "recorder", "10-log", json!({})).await;
    for (name, script, code) in [("fine", "exit 0", 0), ("failed", "exit 7", 7), ("quick", "true", 0)] {
        let (pod, id) = berth.run_alone(name, &image, script).await;
        berth.ended(&id).await;
        let stopped = plugin.wait_for_event("StopContainer", name).await.all;
        assert_eq!(stopped["container"]["exit_code"].as_i64().unwrap_or_default(), code);
        berth.remove_pod(&pod).await.unwrap();
        let told: Vec<_> = plugin.events().into_iter().filter(|told| told.subject() == name).collect();
        let order: Vec<_> = told.iter().map(|told| told.event.as_str()).collect();
        assert_eq!(
            order,
            [
                "RunPodSandbox",
                "CreateContainer",
                "PostCreateContainer",
                "StartContainer",
                "PostStartContainer",
                "StopContainer",
                "StopPodSandbox",
                "RemoveContainer",
                "RemovePodSandbox",
            ],
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_was_never_started_is_told_of_and_removed() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let plugin = Plugin::connect(&berth, "recorder", "10-log", json!({})).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let container = berth.create(&id, &sandbox, shell("idle", &image, "true")).await.unwrap();
    let removed = tokio::time::timeout(Duration::from_secs(10), berth.remove_container(&container)).await;
    removed.expect("it is removed within 10 s").unwrap();
    assert_eq!(
        plugin.short_events()[1..],
        ["CreateContainer idle", "PostCreateContainer idle", "StopContainer idle", "RemoveContainer idle"]
            .map(String::from)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn root_plugins_are_told_in_the_order_of_their_index() {
    let berth = Berth::start().await;
    let mut other = berth.runtime.clone();
    let gate = berth.path().join("go");
    let held = json!({"hold": {"RunPodSandbox": gate}});
    let second = Plugin::connect(&berth, "recorder", "20-second", json!({})).await;
    let first = Plugin::connect(&berth, "recorder", "05-first", held).await;
    let config = Some(pod(&berth, "order"));
    let running = tokio::spawn(async move {
        let request = v1::RunPodSandboxRequest { config, runtime_handler: String::new() };
        other.run_pod_sandbox(request).await
    });
    first.wait_for_event("RunPodSandbox", "order").await;
    assert!(second.short_events().is_empty(), "the second is told after the first");
    fs::write(&gate, "").unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(second.short_events(), ["RunPodSandbox order"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pod_is_not_shown_and_takes_no_container_before_plugins_were_told() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let gate = berth.path().join("go");
    let plugin =
        Plugin::connect(&berth, "recorder", "10-log", json!({"hold": {"RunPodSandbox": gate}})).await;
    let sandbox = pod(&berth, "hidden");
    let (mut other, config) = (berth.runtime.clone(), Some(sandbox.clone()));
    let running = tokio::spawn(async move {
        let request = v1::RunPodSandboxRequest { config, runtime_handler: String::new() };
        other.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    });
    let id =
        plugin.wait_for_event("RunPodSandbox", "hidden").await.all["pod"]["id"].as_str().unwrap().to_owned();
    assert_eq!(berth.pod_status(&id).await.unwrap_err().code(), Code::NotFound);
    let listed = berth.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
    assert!(listed.into_inner().items.is_empty());
    let refused = berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    fs::write(&gate, "").unwrap();
    assert_eq!(running.await.unwrap(), id);
    assert_eq!(berth.pod_status(&id).await.unwrap().state(), v1::PodSandboxState::SandboxReady);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_pod_that_a_plugin_refuses_leaves_nothing_and_can_be_run_again() {
    let mut berth = Berth::start().await;
    let refusing = berth.path().join("refusing");
    fs::write(&refusing, "").unwrap();
    let config = json!({"refuse": {"RunPodSandbox": "not today"}, "refusing": refusing});
    let plugin = Plugin::connect(&berth, "recorder", "10-log", config).await;
    let sandbox = pod(&berth, "again");
    let refused = berth.run(&sandbox).await.unwrap_err();
    assert!(refused.message().contains("10-log refused RunPodSandbox: not today"), "{}", refused.message());
    let listed = berth.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap();
    assert!(listed.into_inner().items.is_empty());
    assert!(is_empty(&berth, "run/sandboxes"), "its directory is gone");
    assert_eq!(
        plugin.short_events(),
        ["RunPodSandbox again", "StopPodSandbox again", "RemovePodSandbox again"]
    );
    fs::remove_file(&refusing).unwrap();
    let id = berth.run(&sandbox).await.unwrap();
    berth.remove_pod(&id).await.unwrap();
}

fn is_empty(berth: &Berth, directory: &str) -> bool {
    fs::read_dir(berth.path().join(directory)).unwrap().next().is_none()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_while_plugins_are_told_that_a_pod_stops_its_containers_have_ended_and_it_is_still_shown() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let gate = berth.path().join("go");
    let plugin =
        Plugin::connect(&berth, "recorder", "10-log", json!({"hold": {"StopPodSandbox": gate}})).await;
    let (pod, id) = berth.run_alone("stopping", &image, "exec sleep 1000").await;
    let (mut other, asked) = (berth.runtime.clone(), pod.clone());
    let stopping = tokio::spawn(async move {
        other.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: asked }).await
    });
    plugin.wait_for_event("StopPodSandbox", "stopping").await;
    assert_eq!(berth.status(&id).await.unwrap().state(), v1::ContainerState::ContainerExited);
    assert_eq!(berth.pod_status(&pod).await.unwrap().state(), v1::PodSandboxState::SandboxReady);
    let told = plugin.short_events();
    let stop = told.iter().position(|one| one == "StopContainer stopping").unwrap();
    assert!(stop < told.iter().position(|one| one == "StopPodSandbox stopping").unwrap());
    fs::write(&gate, "").unwrap();
    stopping.await.unwrap().unwrap();
    berth.stop_pod(&pod).await.unwrap();
    let again =
        berth.create(&pod, &berth_tests::pod::pod(&berth, "stopping"), shell("c", &image, "true")).await;
    assert_eq!(again.unwrap_err().code(), Code::FailedPrecondition, "a stopped pod is never used again");
    assert_eq!(plugin.short_events().iter().filter(|one| one.starts_with("StopPod")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_is_not_shown_before_plugins_were_told() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let gate = berth.path().join("go");
    let plugin =
        Plugin::connect(&berth, "recorder", "10-log", json!({"hold": {"CreateContainer": gate}})).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let (mut other, pod_id) = (berth.runtime.clone(), id.clone());
    let config = Some(shell("hidden", &image, "true"));
    let creating = tokio::spawn(async move {
        let request =
            v1::CreateContainerRequest { pod_sandbox_id: pod_id, config, sandbox_config: Some(sandbox) };
        other.create_container(request).await.unwrap().into_inner().container_id
    });
    let told = plugin.wait_for_event("CreateContainer", "hidden").await.all;
    let id = told["container"]["id"].as_str().unwrap();
    assert_eq!(berth.status(id).await.unwrap_err().code(), Code::NotFound);
    let listed = berth.runtime.list_containers(v1::ListContainersRequest::default()).await.unwrap();
    assert!(listed.into_inner().containers.is_empty());
    assert_eq!(berth.start_container(id).await.unwrap_err().code(), Code::NotFound);
    fs::write(&gate, "").unwrap();
    assert_eq!(creating.await.unwrap(), id);
    assert_eq!(berth.status(id).await.unwrap().state(), v1::ContainerState::ContainerCreated);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_a_plugin_refuses_leaves_nothing_and_can_be_created_again() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let refusing = berth.path().join("refusing");
    fs::write(&refusing, "").unwrap();
    let config = json!({"refuse": {"CreateContainer": "no room"}, "refusing": refusing});
    let plugin = Plugin::connect(&berth, "recorder", "10-log", config).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let refused = berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap_err();
    assert!(refused.message().contains("no room"), "{}", refused.message());
    assert!(is_empty(&berth, "run/containers") && is_empty(&berth, "root/containers"));
    assert_eq!(
        plugin.short_events()[1..],
        ["CreateContainer c", "StopContainer c", "RemoveContainer c"].map(String::from)
    );
    fs::remove_file(&refusing).unwrap();
    let container = berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap();
    berth.start_container(&container).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_container_that_fails_after_plugins_were_told_is_taken_back_there_too() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let plugin = Plugin::connect(&berth, "recorder", "10-log", json!({})).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let mut config = shell("broken", &image, "true");
    config.mounts.push(v1::Mount {
        container_path: "/x".into(),
        // Below a file there can be no directory.
        host_path: berth.path().join("log/below").display().to_string(),
        ..Default::default()
    });
    berth.create(&id, &sandbox, config).await.unwrap_err();
    plugin.wait_for_event("RemoveContainer", "broken").await;
    assert_eq!(
        plugin.short_events()[1..],
        ["CreateContainer broken", "StopContainer broken", "RemoveContainer broken"].map(String::from)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_start_that_a_plugin_refuses_ends_the_container_and_says_why() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let config = json!({"refuse": {"StartContainer": "too late"}});
    let plugin = Plugin::connect(&berth, "recorder", "10-log", config).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    let container = berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap();
    let refused = berth.start_container(&container).await.unwrap_err();
    assert!(refused.message().contains("too late"), "{}", refused.message());
    let status = berth.status(&container).await.unwrap();
    assert_eq!((status.state(), status.reason.as_str()), (v1::ContainerState::ContainerExited, "StartError"));
    assert!(status.message.contains("too late"));
    plugin.wait_for_event("StopContainer", "c").await;
    berth.remove_container(&container).await.unwrap();
    berth.remove_pod(&id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_an_update_that_a_plugin_refuses_changes_nothing() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let config = json!({"refuse": {"UpdateContainer": "no more"}});
    let plugin = Plugin::connect(&berth, "recorder", "10-log", config).await;
    let (_, id) = berth.run_alone("p", &image, "exec sleep 1000").await;
    let linux = v1::LinuxContainerResources { cpu_shares: 512, ..Default::default() };
    let request = v1::UpdateContainerResourcesRequest {
        container_id: id.clone(),
        linux: Some(linux),
        ..Default::default()
    };
    let refused = berth.runtime.update_container_resources(request).await.unwrap_err();
    assert!(refused.message().contains("no more"), "{}", refused.message());
    let resources = berth.status(&id).await.unwrap().resources.unwrap().linux.unwrap();
    assert_ne!(resources.cpu_shares, 512);
    assert!(!plugin.short_events().iter().any(|one| one.starts_with("PostUpdate")));
    tokio::time::timeout(Duration::from_secs(10), berth.stop_container(&id, 0)).await.unwrap().unwrap();
}
