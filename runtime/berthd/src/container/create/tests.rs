#![allow(clippy::unwrap_used)]
use std::sync::Mutex;

use async_trait::async_trait;
use berth_shim_proto::{
    berth_shim::{Exit, WaitContainerRequest},
    berth_shim_ttrpc::{self, create_shim},
};
use containerd_shim_protos::{
    api::{DeleteRequest, DeleteResponse, Empty, KillRequest},
    shim_async::{Task, create_task},
};
use ttrpc::asynchronous::TtrpcContext;

use super::*;
use crate::{
    cri::samples,
    shim::{ShimAddress, testing::serve},
};

/// Acknowledges every kill and delete.
#[derive(Default)]
struct AcknowledgingShim(Mutex<Vec<String>>);

impl AcknowledgingShim {
    fn note(&self, call: &str, id: &str) {
        self.0.lock().unwrap().push(format!("{call} {id}"));
    }
}

#[async_trait]
impl Task for AcknowledgingShim {
    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        self.note("kill", &request.id);
        Ok(Empty::new())
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        self.note("delete", &request.id);
        Ok(DeleteResponse::new())
    }
}

#[async_trait]
impl berth_shim_ttrpc::Shim for AcknowledgingShim {
    async fn wait_container(&self, _: &TtrpcContext, _: WaitContainerRequest) -> ttrpc::Result<Exit> {
        Ok(Exit::new())
    }
}

#[tokio::test]
async fn a_container_that_is_made_while_its_pod_is_stopped_is_taken_back() {
    let (runtime, directory) = samples::runtime().await;
    let shared = Arc::clone(&runtime.containers.shared);
    let (socket, shim_calls) = (directory.path().join("shim.sock"), Arc::new(AcknowledgingShim::default()));
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let socket = socket.display().to_string();
    let shim = Shim::connect(&socket).await.unwrap();
    let mut services = create_task(Arc::clone(&shim_calls) as Arc<_>);
    services.extend(create_shim(Arc::clone(&shim_calls) as Arc<_>));
    let _server = serve(listener.accept().await.unwrap().0, services).await;
    let address = Some(ShimAddress { socket, pid: 0 });
    let pod = shared.pods.insert("p", Pod { shim: address, ..samples::pod("p", PodState::Ready) });

    let stopping = pod.lock().await;
    let container = samples::container("c", "p", ContainerState::Created { pid: 0 });
    let overlay = RootfsOverlay {
        lower: Vec::new(),
        upper: String::new(),
        work: String::new(),
        users: None,
        label: None,
    };
    let (id, bundle, stdin, output) = ("c".into(), String::new(), String::new(), String::new());
    let task = ContainerTask { id, bundle, rootfs: overlay, terminal: false, stdin, output };
    let prepared = Prepared { task, container, announced: Announcement::none() };
    let publishing = Plan::publish(&shared, &pod, shim, prepared, 7);
    tokio::pin!(publishing);
    assert!(futures::poll!(&mut publishing).is_pending(), "it waits for the pod's lock");
    pod.change(&shared.state, |pod| Pod { state: PodState::NotReady, shim: None, ..pod.clone() })
        .await
        .unwrap();
    drop(stopping);

    let error = publishing.await.unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    assert!(shared.containers.list().is_empty());
    assert!(shared.state.load::<Container>().unwrap().records.is_empty());
    assert_eq!(*shim_calls.0.lock().unwrap(), ["kill c", "delete c"]);
}
