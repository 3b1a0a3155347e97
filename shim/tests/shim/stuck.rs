//! Creations that hang because a volume does: they are given up, and leave no process that continues later.

use crate::dead_fs::DeadFs;
use crate::fixture::*;
use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use ttrpc::Code;
use ttrpc::context::with_duration;

/// A bundle that mounts this directory as a volume.
fn bundle_on(shim: &mut Shim, id: &str, volume: &Path) -> std::path::PathBuf {
    let volume = volume.join("data").display().to_string();
    shim.bundle(id, "true", |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        mounts.push(json!({"destination": "/data", "type": "bind", "source": volume, "options": ["rbind"]}));
    })
}

async fn create(shim: &Shim, id: &str, bundle: &Path, limit: Duration) -> ttrpc::Result<u32> {
    let bundle = bundle.display().to_string();
    let request = CreateTaskRequest { id: id.into(), bundle, ..Default::default() };
    Ok(shim.task.create(with_duration(limit), &request).await?.pid)
}

#[tokio::test]
async fn root_a_creation_that_hangs_is_given_up_in_time_and_says_where_it_hung() {
    let mut shim = Shim::with_sandbox(|_| {}).await;
    let volume = shim.path("volume");
    for (kind, dead) in [("silent", DeadFs::unread as fn(&Path) -> DeadFs), ("deaf", DeadFs::unanswered)] {
        let dead = dead(&volume);
        let (id, other) = (format!("hangs-{kind}"), format!("other-{kind}"));
        let bundle = bundle_on(&mut shim, &id, &volume);
        let begun = Instant::now();
        let error = create(&shim, &id, &bundle, Duration::from_secs(3)).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        let text = error.to_string();
        assert!(text.contains("given up while it waited to open") && text.contains("volume/data"), "{text}");
        assert_eq!(code(error), Code::DEADLINE_EXCEEDED);
        shim.run(&other, "sleep 1000").await;
        shim.kill(&other, 9).await.unwrap();
        shim.wait(&other).await;
        shim.delete(&other).await.unwrap();
        drop(dead);
        until(|| shim.children().is_empty()).await;
    }
    shim.shutdown().await;
}

/// Starts the creation of a container with a volume on `volume`.
fn begin_creation(shim: &mut Shim, volume: &Path) -> JoinHandle<ttrpc::Result<CreateTaskResponse>> {
    let bundle = bundle_on(shim, "hangs", volume).display().to_string();
    let task = shim.task.clone();
    tokio::spawn(async move {
        let request = CreateTaskRequest { id: "hangs".into(), bundle, ..Default::default() };
        task.create(soon(), &request).await
    })
}

#[tokio::test]
async fn root_what_a_creation_hangs_on_is_told_while_it_hangs() {
    let mut shim = Shim::with_sandbox(|_| {}).await;
    let volume = shim.path("volume");
    let dead = DeadFs::unread(&volume);
    let creation = begin_creation(&mut shim, &volume);
    let step = loop {
        let known = shim.berth.containers(soon(), &Default::default()).await.unwrap();
        assert!(known.containers.is_empty());
        match known.creations.into_iter().next() {
            Some(creation) if creation.step.contains("volume/data") => break creation.step,
            _ => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    };
    assert!(step.starts_with("open "), "{step}");
    drop(dead);
    assert!(creation.await.unwrap().is_err(), "the volume is gone");
    assert!(shim.berth.containers(soon(), &Default::default()).await.unwrap().creations.is_empty());
    shim.shutdown().await;
}

#[tokio::test]
async fn root_a_pod_is_stopped_while_a_creation_hangs_and_its_shim_leaves_when_that_is_gone() {
    let mut shim = Shim::with_sandbox(|_| {}).await;
    let volume = shim.path("volume");
    let dead = DeadFs::unanswered(&volume);
    let creation = begin_creation(&mut shim, &volume);
    let hangs = async || {
        let known = shim.berth.containers(soon(), &Default::default()).await.unwrap();
        known.creations.iter().any(|creation| creation.step.contains("volume/data"))
    };
    while !hangs().await {}
    let begun = Instant::now();
    shim.stop_sandbox().await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert!(creation.await.unwrap().is_err());
    assert!(!shim.netns().exists());
    until(|| shim.cgroups().is_empty()).await;
    assert_eq!(shim.children().len(), 1, "the one that cannot be killed");
    drop(dead);
    shim.shutdown().await;
}
