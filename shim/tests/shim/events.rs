//! Events that containerd receives.

use crate::fixture::*;
use async_trait::async_trait;
use containerd_shim_protos::api::*;
use containerd_shim_protos::events::task::TaskExit;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::shim_async::{Events, create_events};
use serde_json::json;
use std::sync::{Arc, Mutex};
use ttrpc::r#async::{Server, TtrpcContext};

#[derive(Default)]
struct Daemon(Mutex<Vec<ForwardRequest>>);

#[async_trait]
impl Events for Daemon {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        self.0.lock().unwrap().push(request);
        Ok(Empty::default())
    }
}

impl Daemon {
    /// Listens at `socket` until the server is dropped.
    async fn listen(socket: &str) -> (Arc<Self>, Server) {
        let daemon = Arc::new(Self::default());
        let mut server = Server::new()
            .bind(&format!("unix://{socket}"))
            .unwrap()
            .register_service(create_events(daemon.clone()));
        server.start().await.unwrap();
        (daemon, server)
    }

    fn topics(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|request| request.envelope.topic.clone()).collect()
    }
}

#[tokio::test]
async fn root_events_reach_the_daemon_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("events").display().to_string();
    let (daemon, _server) = Daemon::listen(&socket).await;
    let mut shim = Shim::start_with_events(&socket).await;
    let pid = shim.run("c", "exit 8").await;
    shim.wait("c").await;
    shim.delete("c").await.unwrap();
    until(|| daemon.0.lock().unwrap().len() == 4).await;
    assert_eq!(daemon.topics(), ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    let told = daemon.0.lock().unwrap();
    assert!(told.iter().all(|request| request.envelope.namespace == "berth-test"));
    let exit = &told[2].envelope.event;
    assert_eq!(exit.type_url, "containerd.events.TaskExit");
    let exit = TaskExit::parse_from_bytes(&exit.value).unwrap();
    assert_eq!(
        (exit.container_id.as_str(), exit.id.as_str(), exit.pid, exit.exit_status),
        ("c", "c", pid, 8)
    );
}

async fn run_exec(shim: &Shim) {
    let (id, exec_id) = ("c".to_owned(), "e".to_owned());
    let spec = json!({"args": ["/bin/sh", "-c", "exit 4"], "cwd": "/", "user": {"uid": 0, "gid": 0}});
    let spec = MessageField::some(Any { value: spec.to_string().into_bytes(), ..Default::default() });
    let exec = ExecProcessRequest { id: id.clone(), exec_id: exec_id.clone(), spec, ..Default::default() };
    shim.task.exec(soon(), &exec).await.unwrap();
    let start = StartRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
    shim.task.start(soon(), &start).await.unwrap();
    let wait = WaitRequest { id: id.clone(), exec_id: exec_id.clone(), ..Default::default() };
    assert_eq!(shim.task.wait(soon(), &wait).await.unwrap().exit_status, 4);
    shim.task.delete(soon(), &DeleteRequest { id, exec_id, ..Default::default() }).await.unwrap();
}

#[tokio::test]
async fn root_an_exec_has_events_of_its_own_but_the_deletion_is_the_containers() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("events").display().to_string();
    let (daemon, _server) = Daemon::listen(&socket).await;
    let mut shim = Shim::start_with_events(&socket).await;
    shim.run("c", "exec sleep 1000").await;
    run_exec(&shim).await;
    shim.kill("c", 9).await.unwrap();
    shim.wait("c").await;
    shim.delete("c").await.unwrap();
    until(|| daemon.topics().last().is_some_and(|topic| topic == "/tasks/delete")).await;
    assert_eq!(
        daemon.topics(),
        [
            "/tasks/create",
            "/tasks/start",
            "/tasks/exec-added",
            "/tasks/exec-started",
            "/tasks/exit",
            "/tasks/exit",
            "/tasks/delete",
        ]
    );
}

/// The container's first process survives the OOM kill.
#[tokio::test]
async fn root_a_lack_of_memory_is_told_when_it_happens() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("events").display().to_string();
    let (daemon, _server) = Daemon::listen(&socket).await;
    let mut shim = Shim::start_with_events(&socket).await;
    let script = "dd if=/dev/zero of=/dev/null bs=100M count=1; echo over; exec sleep 1000";
    let bundle = shim.bundle("c", script, |config| {
        config["linux"]["resources"] = json!({"memory": {"limit": 16777216, "swap": 16777216}});
    });
    let log = shim.log_uri("c");
    shim.create_in("c", &bundle, |request| request.stdout = log).await.unwrap();
    shim.start_task("c").await.unwrap();
    shim.logged("c", "over").await;
    until(|| daemon.topics().len() == 3).await;
    assert_eq!(daemon.topics(), ["/tasks/create", "/tasks/start", "/tasks/oom"]);
    shim.kill("c", 9).await.unwrap();
    shim.wait("c").await;
    shim.delete("c").await.unwrap();
    until(|| daemon.topics().last().is_some_and(|topic| topic == "/tasks/delete")).await;
    assert_eq!(daemon.topics()[2..], ["/tasks/oom", "/tasks/exit", "/tasks/delete"], "told once");
}

#[tokio::test]
async fn root_a_daemon_that_is_not_there_delays_nothing() {
    let mut shim = Shim::start_with_events("/nosuch/events").await;
    shim.run("c", "exit 1").await;
    assert_eq!(shim.wait("c").await, 1);
    shim.delete("c").await.unwrap();
}
