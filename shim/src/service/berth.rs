//! `berth.shim.v1.Shim`: calls that shim v2 lacks.

use super::{run_to_completion, unless_closed};
use crate::container::{Container, Phase};
use crate::exec_sync::{Caller, exec_sync};
use crate::exit;
use crate::pod::Pod;
use async_trait::async_trait;
use berth_shim_proto::berth_shim::container::State;
use berth_shim_proto::berth_shim::{
    self, AttachRequest, AttachResponse, ContainersRequest, ContainersResponse, Creation, ExecSyncRequest,
    Exit, ReopenLogRequest, ReopenLogResponse, WaitContainerRequest,
};
use berth_shim_proto::berth_shim_ttrpc::{Shim, create_shim};
use containerd_shim_protos::protobuf::MessageField;
use std::collections::HashMap;
use std::sync::Arc;
use ttrpc::r#async::{Service, TtrpcContext};

struct Berth(Arc<Pod>);

pub(super) fn service(pod: &Arc<Pod>) -> HashMap<String, Service> {
    create_shim(Arc::new(Berth(Arc::clone(pod))))
}

#[async_trait]
impl Shim for Berth {
    async fn containers(&self, _: &TtrpcContext, _: ContainersRequest) -> ttrpc::Result<ContainersResponse> {
        let described = |container: &Arc<Container>| {
            described(container.id(), container.pid(), container.started_at(), container.phase())
        };
        Ok(ContainersResponse {
            containers: self.0.containers().iter().map(described).collect(),
            creations: self.0.creations().into_iter().map(|(id, step)| creation(id, step)).collect(),
            pod_init_pid: self.0.sandbox().init_pid().unwrap_or(0),
            ..Default::default()
        })
    }

    async fn wait_container(&self, _: &TtrpcContext, request: WaitContainerRequest) -> ttrpc::Result<Exit> {
        let container = self.0.container(&request.id)?;
        unless_closed(self.0.closed(), container.wait()).await.map(|exit| message(&exit))
    }

    async fn exec_sync(
        &self,
        _: &TtrpcContext,
        request: ExecSyncRequest,
        caller: Caller,
    ) -> ttrpc::Result<()> {
        let container = self.0.container(&request.container_id)?;
        exec_sync(&container, &request.args, request.timeout_ns, &caller).await?;
        Ok(())
    }

    async fn attach(&self, _: &TtrpcContext, request: AttachRequest) -> ttrpc::Result<AttachResponse> {
        self.0.container(&request.id)?.attach(&request.stdout, &request.stderr)?;
        Ok(AttachResponse::default())
    }

    async fn reopen_log(
        &self,
        _: &TtrpcContext,
        request: ReopenLogRequest,
    ) -> ttrpc::Result<ReopenLogResponse> {
        let container = self.0.container(&request.id)?;
        run_to_completion(async move { container.reopen_log() }).await?;
        Ok(ReopenLogResponse::default())
    }
}

fn creation(container_id: String, step: String) -> Creation {
    Creation { container_id, step, ..Default::default() }
}

/// A container as a message; `started_at` in nanoseconds since the Unix epoch.
pub(crate) fn described(id: &str, pid: u32, started_at: i64, phase: Phase) -> berth_shim::Container {
    let (state, pid, exit) = match phase {
        Phase::Created => (State::CREATED, pid, None),
        Phase::Running => (State::RUNNING, pid, None),
        Phase::Paused => (State::PAUSED, pid, None),
        Phase::Stopped(exit) => (State::STOPPED, 0, Some(message(&exit))),
    };
    berth_shim::Container {
        id: id.to_owned(),
        state: state.into(),
        pid,
        started_at,
        exit: MessageField::from_option(exit),
        ..Default::default()
    }
}

/// An exit as a message.
pub(crate) fn message(exit: &exit::Exit) -> Exit {
    Exit {
        code: exit.code,
        finished_at: exit.finished_at,
        oom_killed: exit.oom_killed,
        message: exit.message.clone(),
        ..Default::default()
    }
}
