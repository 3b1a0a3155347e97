//! The services of Berth's shim, answered through a foreign one. Calls with an exec id are passed through unchanged,
//! because an exec's FIFOs are the daemon's.

use super::client::{QUICK, SLOW, WAITING};
use super::exec_sync::exec_sync;
use super::guest::Guest;
use super::pod::ForeignPod;
use crate::container::Phase;
use crate::error::Error;
use crate::events::timestamp;
use crate::exec_sync::Caller;
use crate::process::KILL_TIMEOUT;
use crate::service::{described, message, stop_timeout, run_to_completion, unless_closed};
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

struct Serving(Arc<ForeignPod>);

/// All services of a pod.
pub(super) fn all(pod: &Arc<ForeignPod>) -> [HashMap<String, Service>; 4] {
    let serving = Arc::new(Serving(Arc::clone(pod)));
    [
        create_task(serving.clone()),
        create_sandbox(serving.clone()),
        create_shim(serving.clone()),
        create_events(serving),
    ]
}

impl Serving {
    /// Passes a call about a container through unchanged.
    async fn pass<A: Message>(
        &self,
        method: &str,
        id: &str,
        request: &impl Message,
        limit: Duration,
    ) -> ttrpc::Result<A> {
        self.0.guest(id)?;
        let home = self.0.home()?;
        home.shim.tasks.call(method, request, limit).await
    }
}

#[async_trait]
impl Task for Serving {
    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        let pod = Arc::clone(&self.0);
        let pid = run_to_completion(async move { Ok(pod.create_guest(request).await?.pid) }).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        if !request.exec_id.is_empty() {
            return self.pass("Start", &request.id, &request, SLOW).await;
        }
        let guest = self.0.guest(&request.id)?;
        let pid = run_to_completion(async move { guest.start().await }).await?;
        Ok(StartResponse { pid, ..Default::default() })
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        if !request.exec_id.is_empty() {
            return self.pass("Delete", &request.id, &request, SLOW).await;
        }
        let (pod, guest) = (Arc::clone(&self.0), self.0.guest(&request.id)?);
        let pid = guest.pid;
        let exit = run_to_completion(async move {
            let exit = guest.delete().await?;
            pod.remove(&guest.id);
            Ok(exit)
        })
        .await?;
        let exited_at = MessageField::some(timestamp(exit.finished_at));
        Ok(DeleteResponse { pid, exit_status: exit.code, exited_at, ..Default::default() })
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        if request.exec_id.is_empty() && matches!(self.0.guest(&request.id)?.phase(), Phase::Stopped(_)) {
            let id = request.id;
            return Err(Error::NotFound { what: "process of container", id }.into());
        }
        self.pass("Kill", &request.id, &request, QUICK).await
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        self.pass("Exec", &request.id, &request, QUICK).await
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        if !request.exec_id.is_empty() {
            return self.pass("Wait", &request.id, &request, WAITING).await;
        }
        let guest = self.0.guest(&request.id)?;
        let exit = unless_closed(self.0.closed(), guest.wait()).await?;
        let exited_at = MessageField::some(timestamp(exit.finished_at));
        Ok(WaitResponse { exit_status: exit.code, exited_at, ..Default::default() })
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        if !request.exec_id.is_empty() {
            return self.pass("CloseIO", &request.id, &request, QUICK).await;
        }
        self.0.guest(&request.id)?.close_stdin();
        Ok(Empty::default())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        self.pass("ResizePty", &request.id, &request, QUICK).await
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        self.pass("Update", &request.id, &request, QUICK).await
    }
}

#[async_trait]
impl Sandbox for Serving {
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
impl Shim for Serving {
    async fn containers(&self, _: &TtrpcContext, _: ContainersRequest) -> ttrpc::Result<ContainersResponse> {
        let described =
            |guest: &Arc<Guest>| described(&guest.id, guest.pid, guest.started_at(), guest.phase());
        Ok(ContainersResponse {
            containers: self.0.guests().iter().map(described).collect(),
            pod_init_pid: self.0.init_pid().unwrap_or(0),
            ..Default::default()
        })
    }

    async fn wait_container(&self, _: &TtrpcContext, request: WaitContainerRequest) -> ttrpc::Result<Exit> {
        let guest = self.0.guest(&request.id)?;
        unless_closed(self.0.closed(), guest.wait()).await.map(|exit| message(&exit))
    }

    async fn exec_sync(
        &self,
        _: &TtrpcContext,
        request: ExecSyncRequest,
        caller: Caller,
    ) -> ttrpc::Result<()> {
        let guest = self.0.guest(&request.container_id)?;
        let home = self.0.home()?;
        Ok(exec_sync(&home.shim, &guest, &request, &caller).await?)
    }

    async fn attach(&self, _: &TtrpcContext, request: AttachRequest) -> ttrpc::Result<AttachResponse> {
        self.0.guest(&request.id)?.attach(&request.stdout, &request.stderr)?;
        Ok(AttachResponse::default())
    }

    async fn reopen_log(
        &self,
        _: &TtrpcContext,
        request: ReopenLogRequest,
    ) -> ttrpc::Result<ReopenLogResponse> {
        self.0.guest(&request.id)?.reopen_log()?;
        Ok(ReopenLogResponse::default())
    }
}

/// Events of the foreign shim. Only OOM kills are used; all else is available by calls.
#[async_trait]
impl Events for Serving {
    async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
        if request.envelope.topic == "/tasks/oom"
            && let Ok(event) = TaskOOM::parse_from_bytes(&request.envelope.event.value)
            && let Ok(guest) = self.0.guest(&event.container_id)
        {
            guest.oom_killed();
        }
        Ok(Empty::default())
    }
}
