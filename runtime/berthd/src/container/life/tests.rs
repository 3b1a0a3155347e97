//! Containers whose shim does not answer as it should.
#![allow(clippy::unwrap_used)]
use std::{
    future::pending,
    sync::{Mutex, PoisonError},
};

use async_trait::async_trait;
use berth_shim_proto::{
    berth_shim::{Exit, WaitContainerRequest},
    berth_shim_ttrpc::{self, create_shim},
};
use containerd_shim_protos::{
    api::{DeleteRequest, DeleteResponse, Empty, KillRequest, StartRequest, StartResponse},
    shim_async::{Task, create_task},
};
use tokio::net::UnixListener;
use ttrpc::{Code, asynchronous::TtrpcContext, get_status};

use super::*;
use crate::{
    cri::samples,
    pod::{Pod, PodState},
    runtime::Runtime,
    shim::{ShimAddress, testing::serve},
};

/// Never answers that a container was started, or that it has ended.
#[derive(Default)]
struct UnresponsiveShim(Mutex<Vec<String>>);

impl UnresponsiveShim {
    fn note(&self, call: &str, id: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{call} {id}"));
    }

    fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl Task for UnresponsiveShim {
    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        self.note("start", &request.id);
        pending().await
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        self.note("kill", &request.id);
        Ok(Empty::new())
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        self.note("delete", &request.id);
        Err(ttrpc::Error::RpcStatus(get_status(Code::FAILED_PRECONDITION, "it runs")))
    }
}

#[async_trait]
impl berth_shim_ttrpc::Shim for UnresponsiveShim {
    async fn wait_container(&self, _: &TtrpcContext, _: WaitContainerRequest) -> ttrpc::Result<Exit> {
        pending().await
    }
}

/// Returns a daemon with one container, `c`, in a pod with such a shim.
async fn stuck(state: ContainerState) -> (Runtime, tempfile::TempDir, Arc<UnresponsiveShim>) {
    let (runtime, directory) = samples::runtime().await;
    let shared = &runtime.containers.shared;
    let (socket, shim) = (directory.path().join("shim.sock"), Arc::new(UnresponsiveShim::default()));
    let (listener, served) = (UnixListener::bind(&socket).unwrap(), Arc::clone(&shim));
    tokio::spawn(async move {
        let mut servers = Vec::new();
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let mut services = create_task(Arc::clone(&served) as Arc<_>);
            services.extend(create_shim(Arc::clone(&served) as Arc<_>));
            servers.push(serve(connection, services).await);
        }
    });
    let address = Some(ShimAddress { socket: socket.display().to_string(), pid: 0 });
    shared.pods.insert("p", Pod { shim: address, ..samples::pod("p", PodState::Ready) });
    shared.containers.insert("c", samples::container("c", "p", state));
    (runtime, directory, shim)
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_start_is_not_answered_is_killed() {
    let (runtime, _directory, shim) = stuck(ContainerState::Created { pid: 1 }).await;
    let error = runtime.containers.start("c").await.unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    assert!(runtime.containers.get("c").unwrap().state.is_exited());
    assert_eq!(shim.calls(), ["start c", "kill c"]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ended_by_its_record_alone_is_not_removed_before_it_has() {
    let state = ContainerState::Exited {
        started_at: 0,
        finished_at: 1,
        code: START_ERROR_CODE,
        reason: "StartError".into(),
        message: String::new(),
    };
    let (runtime, _directory, shim) = stuck(state).await;
    let error = runtime.containers.remove("c").await.unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded, "its end is not waited for for ever: {error}");
    assert!(runtime.containers.get("c").is_ok(), "nor is it forgotten");
    assert_eq!(shim.calls(), ["delete c", "kill c"]);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_repeated_joins_the_one_under_way() {
    let (runtime, _directory, shim) = stuck(ContainerState::Created { pid: 1 }).await;
    let (first, second) = tokio::join!(runtime.containers.start("c"), runtime.containers.start("c"));
    for answer in [first, second] {
        assert_eq!(answer.unwrap_err().kind(), Kind::DeadlineExceeded);
    }
    assert_eq!(shim.calls(), ["start c", "kill c"]);
}

#[tokio::test]
async fn a_start_whose_answer_was_lost_may_be_repeated_while_the_container_runs() {
    let (runtime, _directory, shim) = stuck(ContainerState::Running { pid: 1, started_at: 5 }).await;
    runtime.containers.start("c").await.unwrap();
    assert!(shim.calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_has_ended_is_not_started_again() {
    let (runtime, _directory, _shim) = stuck(ContainerState::Created { pid: 1 }).await;
    let first = runtime.containers.start("c").await.unwrap_err();
    let again = runtime.containers.start("c").await.unwrap_err();
    assert_eq!(again.kind(), Kind::FailedPrecondition);
    assert!(again.to_string().contains(&first.to_string()), "{again}");
}
