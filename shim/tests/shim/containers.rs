//! The life of a container.

use crate::fixture::*;
use berth_shim_proto::berth_shim::{ContainersRequest, WaitContainerRequest, container};
use containerd_shim_protos::api::*;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use serde_json::{Value, json};
use std::fs;
use ttrpc::Code;

#[tokio::test]
async fn root_a_container_is_created_runs_ends_and_is_forgotten() {
    let mut shim = Shim::start().await;
    let pid = shim.create("c", "echo $GREETING; exit 7").await;
    assert_eq!(shim.status("c").await, Status::CREATED);
    assert!(shim.log("c").is_empty(), "it runs before it is started");
    assert_eq!(shim.start_task("c").await.unwrap(), pid);
    assert_eq!(shim.wait("c").await, 7);
    assert_eq!(shim.log("c"), ["stdout F hello"]);
    assert_eq!(shim.status("c").await, Status::STOPPED);
    let record: Value = serde_json::from_slice(&fs::read(shim.path("c/exit.json")).unwrap()).unwrap();
    assert_eq!((&record["code"], &record["oom_killed"]), (&json!(7), &json!(false)));
    let deleted = shim.delete("c").await.unwrap();
    assert_eq!((deleted.pid, deleted.exit_status), (pid, 7));
    assert_eq!(code(shim.delete("c").await.unwrap_err()), Code::NOT_FOUND);
    assert!(shim.cgroups().iter().all(|group| !group.join("c").exists()));
    shim.task.shutdown(soon(), &ShutdownRequest::default()).await.unwrap();
}

#[tokio::test]
async fn root_everyone_who_waits_is_told_before_and_after() {
    let mut shim = Shim::start().await;
    shim.create("c", "exit 3").await;
    let request = WaitContainerRequest { id: "c".into(), ..Default::default() };
    let berth = || shim.berth.wait_container(soon(), &request);
    let (first, second, third, started) =
        tokio::join!(shim.wait("c"), shim.wait("c"), berth(), shim.start_task("c"));
    started.unwrap();
    assert_eq!((first, second, third.unwrap().code), (3, 3, 3));
    let exit = berth().await.unwrap();
    assert_eq!(exit.code, 3);
    assert!(exit.finished_at > 0);
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_signals_arrive_and_are_told_as_128_and_more() {
    let mut shim = Shim::start().await;
    shim.run("trapped", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done").await;
    shim.logged("trapped", "ready").await;
    shim.kill("trapped", 15).await.unwrap();
    assert_eq!(shim.wait("trapped").await, 5);
    assert_eq!(code(shim.kill("trapped", 15).await.unwrap_err()), Code::NOT_FOUND);
    shim.run("killed", "sleep 1000").await;
    shim.kill("killed", 9).await.unwrap();
    assert_eq!(shim.wait("killed").await, 137);
    for id in ["trapped", "killed"] {
        shim.delete(id).await.unwrap();
    }
}

#[tokio::test]
async fn root_kill_all_reaches_every_process() {
    let mut shim = Shim::start().await;
    let script = "trap '' USR1; (trap 'echo got it' USR1; echo ready; while :; do sleep 0.01; done) & wait";
    shim.run("c", script).await;
    shim.logged("c", "ready").await;
    let request = KillRequest { id: "c".into(), signal: 10, all: true, ..Default::default() };
    shim.task.kill(soon(), &request).await.unwrap();
    shim.logged("c", "got it").await;
    let request = KillRequest { signal: 9, ..request };
    shim.task.kill(soon(), &request).await.unwrap();
    assert_eq!(shim.wait("c").await, 137);
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_a_container_that_was_never_started_can_be_killed_or_deleted() {
    let mut shim = Shim::start().await;
    shim.create("killed", "echo no").await;
    shim.kill("killed", 9).await.unwrap();
    assert_eq!(shim.wait("killed").await, 137);
    assert_eq!(code(shim.start_task("killed").await.unwrap_err()), Code::FAILED_PRECONDITION);
    shim.delete("killed").await.unwrap();
    shim.create("deleted", "echo no").await;
    shim.delete("deleted").await.unwrap();
    assert!(shim.log("killed").is_empty() && shim.log("deleted").is_empty());
}

#[tokio::test]
async fn root_a_command_that_is_not_there_is_the_callers_mistake() {
    let mut shim = Shim::start().await;
    let bundle = shim.bundle("c", "", |config| config["process"]["args"] = json!(["nosuch"]));
    let error = match shim.create_in("c", &bundle, |_| {}).await {
        Err(error) => error,
        Ok(_) => shim.start_task("c").await.unwrap_err(),
    };
    assert!(error.to_string().contains("nosuch"), "{error}");
    assert_eq!(code(error), Code::INVALID_ARGUMENT);
    let _ = shim.delete("c").await;
    shim.run("next", "exit 0").await;
    assert_eq!(shim.wait("next").await, 0);
    shim.delete("next").await.unwrap();
}

#[tokio::test]
async fn root_a_failed_create_leaves_nothing_and_frees_its_id() {
    let mut shim = Shim::start().await;
    for (field, value) in
        [("stdout", "cri-log:///nosuch/directory/0.log"), ("stdout", "ftp://x"), ("stdin", "/nosuch")]
    {
        let error = shim
            .try_create("c", "true", |request| match field {
                "stdin" => request.stdin = value.into(),
                _ => request.stdout = value.into(),
            })
            .await
            .unwrap_err();
        assert!(error.to_string().contains(value.trim_start_matches("cri-log://")), "{error}");
        assert_eq!(code(error), Code::INVALID_ARGUMENT);
        fs::remove_dir_all(shim.path("c")).unwrap();
    }
    let missing = shim.path("missing");
    assert!(shim.create_in("c", &missing, |_| {}).await.is_err());
    assert!(shim.cgroups().iter().all(|group| !group.join("c").exists()));
    shim.run("c", "exit 0").await;
    let again = CreateTaskRequest { id: "c".into(), ..Default::default() };
    assert_eq!(code(shim.task.create(soon(), &again).await.unwrap_err()), Code::ALREADY_EXISTS);
    shim.wait("c").await;
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_pausing_stops_everything_until_resumed() {
    let mut shim = Shim::start().await;
    shim.run("c", "while :; do sleep 0.01; done").await;
    let pause = PauseRequest { id: "c".into(), ..Default::default() };
    shim.task.pause(soon(), &pause).await.unwrap();
    assert_eq!(shim.status("c").await, Status::PAUSED);
    assert_eq!(code(shim.task.pause(soon(), &pause).await.unwrap_err()), Code::FAILED_PRECONDITION);
    assert_eq!(
        code(shim.exec_args("c", &["true"], Default::default()).await.unwrap_err()),
        Code::FAILED_PRECONDITION
    );
    shim.task.resume(soon(), &ResumeRequest { id: "c".into(), ..Default::default() }).await.unwrap();
    assert_eq!(shim.status("c").await, Status::RUNNING);
    shim.task.pause(soon(), &pause).await.unwrap();
    shim.kill("c", 9).await.unwrap();
    assert_eq!(shim.wait("c").await, 137);
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_a_running_container_tells_its_processes_and_measures_and_takes_new_limits() {
    let mut shim = Shim::start().await;
    let pid = shim.run("c", "sleep 9012345 & wait").await;
    until(|| processes_with("sleep 9012345").len() == 1).await;
    let pids = shim.task.pids(soon(), &PidsRequest { id: "c".into(), ..Default::default() }).await.unwrap();
    assert_eq!(pids.processes.len(), 2);
    assert!(pids.processes.iter().any(|process| process.pid == pid));
    let value = json!({"pids": {"limit": 33}}).to_string().into_bytes();
    let update = UpdateTaskRequest {
        id: "c".into(),
        resources: MessageField::some(Any { value, ..Default::default() }),
        ..Default::default()
    };
    shim.task.update(soon(), &update).await.unwrap();
    let stats =
        shim.task.stats(soon(), &StatsRequest { id: "c".into(), ..Default::default() }).await.unwrap().stats;
    assert_eq!(stats.type_url, "io.containerd.cgroups.v2.Metrics");
    let metrics =
        containerd_shim_protos::cgroups_v2::metrics::Metrics::parse_from_bytes(&stats.value).unwrap();
    assert_eq!((metrics.pids.limit, metrics.pids.current), (33, 2));
    let wrong = UpdateTaskRequest {
        resources: MessageField::some(Any { value: b"{".to_vec(), ..Default::default() }),
        ..update
    };
    assert_eq!(code(shim.task.update(soon(), &wrong).await.unwrap_err()), Code::INVALID_ARGUMENT);
    assert_eq!(code(shim.delete("c").await.unwrap_err()), Code::FAILED_PRECONDITION);
    shim.kill("c", 9).await.unwrap();
    shim.wait("c").await;
    shim.delete("c").await.unwrap();
}

#[tokio::test]
async fn root_all_containers_are_listed_with_what_became_of_them() {
    let mut shim = Shim::start().await;
    shim.create("created", "true").await;
    shim.run("running", "sleep 1000").await;
    shim.run("stopped", "exit 4").await;
    shim.wait("stopped").await;
    let list = shim.berth.containers(soon(), &ContainersRequest::default()).await.unwrap().containers;
    let told: Vec<_> = list
        .iter()
        .map(|c| {
            (c.id.as_str(), c.state.unwrap(), c.pid != 0, c.started_at != 0, c.exit.as_ref().map(|e| e.code))
        })
        .collect();
    use container::State::*;
    assert_eq!(
        told,
        [
            ("created", CREATED, true, false, None),
            ("running", RUNNING, true, true, None),
            ("stopped", STOPPED, false, true, Some(4)),
        ]
    );
    shim.kill("running", 9).await.unwrap();
    shim.wait("running").await;
    for id in ["created", "running", "stopped"] {
        shim.delete(id).await.unwrap();
    }
}

#[tokio::test]
async fn root_many_containers_at_once_do_not_disturb_each_other() {
    let mut shim = Shim::start().await;
    let ids: Vec<String> = (0..12).map(|n| format!("c{n}")).collect();
    let bundles: Vec<_> = ids
        .iter()
        .enumerate()
        .map(|(n, id)| shim.bundle(id, &format!("echo {n}; exit {n}"), |_| {}))
        .collect();
    let shim = &shim;
    let lives = ids.iter().zip(&bundles).map(|(id, bundle)| async move {
        let log = shim.log_uri(id);
        shim.create_in(id, bundle, |request| request.stdout = log).await.unwrap();
        shim.start_task(id).await.unwrap();
        let code = shim.wait(id).await;
        shim.delete(id).await.unwrap();
        code
    });
    let mut tasks = Vec::new();
    for life in lives {
        tasks.push(Box::pin(life));
    }
    let codes = futures_join(tasks).await;
    assert_eq!(codes, (0..12).collect::<Vec<u32>>());
    for (n, id) in ids.iter().enumerate() {
        assert_eq!(shim.log(id), [format!("stdout F {n}")]);
    }
}

/// Polls all futures concurrently.
async fn futures_join<T>(mut futures: Vec<std::pin::Pin<Box<impl Future<Output = T>>>>) -> Vec<T> {
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results).filter(|(_, result)| result.is_none()) {
            if let std::task::Poll::Ready(value) = future.as_mut().poll(context) {
                *result = Some(value);
            }
        }
        if results.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    results.into_iter().flatten().collect()
}

#[tokio::test]
async fn root_a_container_that_the_kernel_kills_for_memory_says_so() {
    let mut shim = Shim::start().await;
    let script = "dd if=/dev/zero of=/dev/null bs=64M count=1";
    let bundle = shim.bundle("c", script, |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 16 << 20, "swap": 16 << 20}});
    });
    shim.create_in("c", &bundle, |_| {}).await.unwrap();
    shim.start_task("c").await.unwrap();
    let request = WaitContainerRequest { id: "c".into(), ..Default::default() };
    let exit = shim.berth.wait_container(soon(), &request).await.unwrap();
    assert_eq!((exit.code, exit.oom_killed), (137, true));
    shim.delete("c").await.unwrap();
}
