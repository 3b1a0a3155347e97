//! What containerd is told without asking.

use crate::fixture::*;
use async_trait::async_trait;
use containerd_shim_protos::api::*;
use containerd_shim_protos::events::task::TaskExit;
use containerd_shim_protos::protobuf::Message;
use containerd_shim_protos::shim_async::{Events, create_events};
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

#[tokio::test]
async fn root_events_reach_the_daemon_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("events").display().to_string();
    let daemon = Arc::new(Daemon::default());
    let mut server = Server::new()
        .bind(&format!("unix://{socket}"))
        .unwrap()
        .register_service(create_events(daemon.clone()));
    server.start().await.unwrap();
    let mut shim = Shim::start_with_events(&socket).await;
    let pid = shim.run("c", "exit 8").await;
    shim.wait("c").await;
    shim.delete("c").await.unwrap();
    until(|| daemon.0.lock().unwrap().len() == 4).await;
    let told = daemon.0.lock().unwrap();
    let topics: Vec<&str> = told.iter().map(|request| request.envelope.topic.as_str()).collect();
    assert_eq!(topics, ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"]);
    assert!(told.iter().all(|request| request.envelope.namespace == "berth-test"));
    let exit = &told[2].envelope.event;
    assert_eq!(exit.type_url, "containerd.events.TaskExit");
    let exit = TaskExit::parse_from_bytes(&exit.value).unwrap();
    assert_eq!(
        (exit.container_id.as_str(), exit.id.as_str(), exit.pid, exit.exit_status),
        ("c", "c", pid, 8)
    );
}

#[tokio::test]
async fn root_a_daemon_that_is_not_there_delays_nothing() {
    let mut shim = Shim::start_with_events("/nosuch/events").await;
    shim.run("c", "exit 1").await;
    assert_eq!(shim.wait("c").await, 1);
    shim.delete("c").await.unwrap();
}
