use std::time::{Duration, Instant};

use berth_tests::{
    berth::Berth,
    nri::Plugin,
    pod::{pod, shell},
    waiting::until,
};
use serde_json::json;

/// The default timeout of one request to a plugin.
const ONE_TIMEOUT: Duration = Duration::from_secs(2);
const SOME: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn root_a_plugin_that_hangs_holds_a_request_up_once_and_is_let_go() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    for (number, event) in
        ["RunPodSandbox", "CreateContainer", "StartContainer", "StopContainer", "StopPodSandbox"]
            .into_iter()
            .enumerate()
    {
        let identity = format!("1{number}-misfit");
        let _misfit =
            Plugin::connect(&berth, "misfit", &identity, json!({"misbehave": {event: "hang"}})).await;
        let log = Plugin::connect(&berth, "recorder", &format!("2{number}-log"), json!({})).await;
        let begun = Instant::now();
        let name = event.to_lowercase();
        let (pod, _) = berth.run_alone(&name, &image, "exec sleep 1000").await;
        berth.remove_pod(&pod).await.unwrap();
        let took = begun.elapsed();
        assert!((ONE_TIMEOUT..ONE_TIMEOUT + SOME).contains(&took), "{event}: {took:?}");
        log.wait_for("RemovePodSandbox", &name).await;
        assert_eq!(log.short_events().len(), 9, "the other plugin misses nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_plugin_that_dies_or_talks_nonsense_holds_nothing_up() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    for (number, (event, how)) in [
        ("RunPodSandbox", "die"),
        ("CreateContainer", "die"),
        ("StopContainer", "die"),
        ("RunPodSandbox", "garbage"),
        ("StartContainer", "garbage"),
    ]
    .into_iter()
    .enumerate()
    {
        let config = json!({"misbehave": {event: how}});
        let _misfit = Plugin::connect(&berth, "misfit", &format!("1{number}-misfit"), config).await;
        let begun = Instant::now();
        let (pod, id) = berth.run_alone(&format!("p{number}"), &image, "exec sleep 1000").await;
        assert_eq!(berth.shell(&id, "echo fine").await, "fine\n");
        berth.remove_pod(&pod).await.unwrap();
        assert!(begun.elapsed() < ONE_TIMEOUT, "{event}, {how}: {:?}", begun.elapsed());
    }
    assert!(!berth.log().contains("panicked"), "{}", berth.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_plugin_that_asks_for_it_fails_the_requests_that_it_does_not_answer_and_may_stay() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let config = json!({
        "misbehave": {"CreateContainer": "hang"}, "fail_request": true, "keep_connected": true,
    });
    let mut misfit = Plugin::connect(&berth, "misfit", "10-misfit", config).await;
    let sandbox = pod(&berth, "p");
    let id = berth.run(&sandbox).await.unwrap();
    for _ in 0..2 {
        let failed = berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap_err();
        assert!(
            failed.message().contains("10-misfit did not answer CreateContainer"),
            "{}",
            failed.message()
        );
    }
    assert!(misfit.is_alive());
    drop(misfit);
    berth.create(&id, &sandbox, shell("c", &image, "true")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn root_a_plugin_that_hangs_while_it_learns_the_state_does_not_take_part() {
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    berth.terminate();
    let file = berth.path().join("berth.toml");
    let config = std::fs::read_to_string(&file).unwrap();
    let hurried = config.replace("[nri]\n", "[nri]\nsynchronization_timeout_seconds = 4\n");
    std::fs::write(&file, hurried).unwrap();
    berth.restart().await;
    let _misfit =
        Plugin::start(&berth, "misfit", "10-misfit", json!({"misbehave": {"Synchronize": "hang"}})).await;
    until("the misfit was told the state", || {
        std::fs::read_to_string(berth.path().join("10-misfit.events")).is_ok_and(|text| text.contains("Sync"))
    })
    .await;
    let begun = Instant::now();
    let (_, id) = berth.run_alone("p", &image, "exec sleep 1000").await;
    assert!(begun.elapsed() < ONE_TIMEOUT + SOME);
    assert_eq!(berth.shell(&id, "echo fine").await, "fine\n");
    until("it is told in the log", || berth.log().contains("synchronize NRI plugin 10-misfit")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_who_connects_and_says_nothing_or_nonsense_disturbs_nobody() {
    use std::{io::Write, os::unix::net::UnixStream};
    let mut berth = Berth::start().await;
    let image = berth.busybox().await;
    let socket = berth.path().join("nri.sock");
    let _silent = UnixStream::connect(&socket).unwrap();
    let mut nonsense = UnixStream::connect(&socket).unwrap();
    nonsense.write_all(&[0xff; 4096]).unwrap();
    let begun = Instant::now();
    let (_, id) = berth.run_alone("p", &image, "exec sleep 1000").await;
    assert!(begun.elapsed() < ONE_TIMEOUT, "{:?}", begun.elapsed());
    assert_eq!(berth.shell(&id, "echo fine").await, "fine\n");
    until("the silent one is let go", || berth.log().contains("connected and did not register")).await;
}
