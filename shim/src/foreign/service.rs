//! The services of Berth's shim, answered through a foreign one. Calls with an exec id are passed through unchanged,
//! because an exec's FIFOs are the daemon's.

use super::client::{LONG_TIMEOUT, NO_TIMEOUT, SHORT_TIMEOUT};
use super::container::ForeignContainer;
use super::exec_sync::exec_sync;
use super::pod::ForeignPod;
use crate::container::Phase;
use crate::error::Error;
use crate::events::timestamp;
use crate::exec_sync::Caller;
use crate::process::KILL_TIMEOUT;
use crate::service::{described, message, run_to_completion, stop_timeout, unless_closed};
use async_trait::async_trait;
use berth_shim_proto::berth_shim::*;
use berth_shim_proto::berth_shim_ttrpc::{Shim, create_shim};
use containerd_shim_protos::api::*;
use containerd_shim_protos::events::task::TaskOOM;
use containerd_shim_protos::protobuf::{Message, MessageField};
use containerd_shim_protos::sandbox_api::*;
use containerd_shim_protos::sandbox_async::{Sandbox, create_sandbox};
use containerd_shim_protos::shim_async::{Events, Task, create_events, create_task};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use ttrpc::r#async::{Service, TtrpcContext};

struct ForeignService(Arc<ForeignPod>);

/// All services of a pod.
pub(super) fn services(pod: &Arc<ForeignPod>) -> [HashMap<String, Service>; 4] {
    let service = Arc::new(ForeignService(Arc::clone(pod)));
    [
        create_task(service.clone()),
        create_sandbox(service.clone()),
        create_shim(service.clone()),
        create_events(service),
    ]
}

impl ForeignService {
    /// Passes a call about a container through unchanged.
    async fn pass_through<A: Message>(
        &self,
        method: &str,
        id: &str,
        request: &impl Message,
        limit: Duration,
    ) -> ttrpc::Result<A> {
        self.0.container(id)?;
        let sandbox = self.0.sandbox()?;
        sandbox.shim.tasks.call(method, request, limit).await
    }
}

#[async_trait]
impl Task for ForeignService {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        let pod = Arc::clone(&self.0);
        let pid = run_to_completion(async move { Ok(pod.create_container(request).await?.pid) }).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        if !request.exec_id.is_empty() {
            return self.pass_through("Start", &request.id, &request, LONG_TIMEOUT).await;
        }
        let container = self.0.container(&request.id)?;
        let pid = run_to_completion(async move { container.start().await }).await?;
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        if !request.exec_id.is_empty() {
            return self.pass_through("Delete", &request.id, &request, LONG_TIMEOUT).await;
        }
        let (pod, container) = (Arc::clone(&self.0), self.0.container(&request.id)?);
        let pid = container.pid;
        let exit = run_to_completion(async move {
            let exit = container.delete().await?;
            pod.remove(&container.id);
            Ok(exit)
        })
        .await?;
        let exited_at = MessageField::some(timestamp(exit.finished_at));
        Ok(DeleteResponse { pid, exit_status: exit.code, exited_at, ..Default::default() })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        if request.exec_id.is_empty() && matches!(self.0.container(&request.id)?.phase(), Phase::Stopped(_)) {
            let id = request.id;
            return Err(Error::NotFound { what: "process of container", id }.into());
        }
        self.pass_through("Kill", &request.id, &request, SHORT_TIMEOUT).await
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        self.pass_through("Exec", &request.id, &request, SHORT_TIMEOUT).await
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        if !request.exec_id.is_empty() {
            return self.pass_through("Wait", &request.id, &request, NO_TIMEOUT).await;
        }
        let container = self.0.container(&request.id)?;
        let exit = unless_closed(self.0.closed(), container.wait()).await?;
        let exited_at = MessageField::some(timestamp(exit.finished_at));
        Ok(WaitResponse { exit_status: exit.code, exited_at, ..Default::default() })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        if !request.exec_id.is_empty() {
            return self.pass_through("CloseIO", &request.id, &request, SHORT_TIMEOUT).await;
        }
        self.0.container(&request.id)?.close_stdin();
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        self.pass_through("ResizePty", &request.id, &request, SHORT_TIMEOUT).await
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        self.pass_through("Update", &request.id, &request, SHORT_TIMEOUT).await
    }
}

#[async_trait]
impl Sandbox for ForeignService {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<CreateSandboxResponse> {
        let options = crate::sandbox::read_options(request.options.as_ref())?;
        let pod = Arc::clone(&self.0);
        run_to_completion(async move { pod.create(&request.netns_path, options).await }).await?;
        Ok(CreateSandboxResponse::default())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        _: StartSandboxRequest,
    ) -> ttrpc::Result<StartSandboxResponse> {
        let pod = Arc::clone(&self.0);
        let pid = run_to_completion(async move { pod.start().await }).await?;
        Ok(StartSandboxResponse { pid, ..Default::default() })
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: StopSandboxRequest,
    ) -> ttrpc::Result<StopSandboxResponse> {
        let pod = Arc::clone(&self.0);
        run_to_completion(async move { pod.stop(stop_timeout(&request)).await }).await?;
        Ok(StopSandboxResponse::default())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        _: WaitSandboxRequest,
    ) -> ttrpc::Result<WaitSandboxResponse> {
        unless_closed(self.0.closed(), self.0.wait()).await?;
        Ok(WaitSandboxResponse::default())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        _: ShutdownSandboxRequest,
    ) -> ttrpc::Result<ShutdownSandboxResponse> {
        let pod = Arc::clone(&self.0);
        run_to_completion(async move {
            pod.stop(KILL_TIMEOUT).await?;
            pod.close();
            Ok(())
        })
        .await?;
        Ok(ShutdownSandboxResponse::default())
    }
}

#[async_trait]
impl Shim for ForeignService {
    async fn containers(&self, _: &TtrpcContext, _: ContainersRequest) -> ttrpc::Result<ContainersResponse> {
        let described = |container: &Arc<ForeignContainer>| {
            described(&container.id, container.pid, container.started_at(), container.phase())
        };
        Ok(ContainersResponse {
            containers: self.0.containers().iter().map(described).collect(),
            pod_init_pid: self.0.init_pid().unwrap_or(0),
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
        let sandbox = self.0.sandbox()?;
        Ok(exec_sync(&sandbox.shim, &container, &request, &caller).await?)
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
        self.0.container(&request.id)?.reopen_log()?;
        Ok(ReopenLogResponse::default())
    }
}

/// Events of the foreign shim. Only OOM kills are used; all else is available by calls.
#[async_trait]
impl Events for ForeignService {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        if request.envelope.topic == "/tasks/oom"
            && let Ok(event) = TaskOOM::parse_from_bytes(&request.envelope.event.value)
            && let Ok(container) = self.0.container(&event.container_id)
        {
            container.oom_killed();
        }
        Ok(Empty::default())
    }
}
