//! `containerd.runtime.sandbox.v1.Sandbox`: the sandbox's calls.

use super::{run_to_completion, unless_closed};
use crate::error::Error;
use crate::events::timestamp;
use crate::pod::Pod;
use crate::process::KILL_TIMEOUT;
use crate::sandbox::{Phase, options};
use async_trait::async_trait;
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::sandbox_api::*;
use containerd_shim_protos::sandbox_async::{Sandbox, create_sandbox};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use ttrpc::r#async::{Service, TtrpcContext};

struct SandboxService(Arc<Pod>);

pub(super) fn service(pod: &Arc<Pod>) -> HashMap<String, Service> {
    create_sandbox(Arc::new(SandboxService(Arc::clone(pod))))
}

impl SandboxService {
    /// The pod, whose shim has this one sandbox. Fails for any other id.
    fn mine(&self, id: &str) -> Result<Arc<Pod>, Error> {
        if id != self.0.id() {
            return Err(Error::NotFound { what: "sandbox", id: id.to_owned() });
        }
        Ok(Arc::clone(&self.0))
    }

    fn pid(&self) -> u32 {
        self.0.sandbox().init_pid().unwrap_or_else(std::process::id)
    }
}

/// Time limit of a stop: that of the request, or a default.
pub(crate) fn stop_timeout(request: &StopSandboxRequest) -> Duration {
    match request.timeout_secs {
        0 => KILL_TIMEOUT,
        seconds => Duration::from_secs(seconds.into()),
    }
}

#[async_trait]
impl Sandbox for SandboxService {
    async fn create_sandbox(
        &self,
        _: &TtrpcContext,
        request: CreateSandboxRequest,
    ) -> ttrpc::Result<CreateSandboxResponse> {
        let pod = self.mine(&request.sandbox_id)?;
        let options = options(request.options.as_ref(), &request.netns_path)?;
        run_to_completion(async move { pod.create_sandbox(&options).await }).await?;
        Ok(CreateSandboxResponse::default())
    }

    async fn start_sandbox(
        &self,
        _: &TtrpcContext,
        request: StartSandboxRequest,
    ) -> ttrpc::Result<StartSandboxResponse> {
        let started_at = self.mine(&request.sandbox_id)?.sandbox().start(&request.sandbox_id)?;
        Ok(StartSandboxResponse {
            pid: self.pid(),
            created_at: MessageField::some(timestamp(started_at)),
            ..Default::default()
        })
    }

    async fn platform(&self, _: &TtrpcContext, request: PlatformRequest) -> ttrpc::Result<PlatformResponse> {
        self.mine(&request.sandbox_id)?;
        let mut response = PlatformResponse::default();
        let platform = response.platform.mut_or_insert_default();
        platform.os = "linux".into();
        platform.architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .into();
        Ok(response)
    }

    async fn stop_sandbox(
        &self,
        _: &TtrpcContext,
        request: StopSandboxRequest,
    ) -> ttrpc::Result<StopSandboxResponse> {
        let pod = self.mine(&request.sandbox_id)?;
        let stop_timeout = stop_timeout(&request);
        run_to_completion(async move { pod.stop_sandbox(stop_timeout).await }).await?;
        Ok(StopSandboxResponse::default())
    }

    async fn wait_sandbox(
        &self,
        _: &TtrpcContext,
        request: WaitSandboxRequest,
    ) -> ttrpc::Result<WaitSandboxResponse> {
        let pod = self.mine(&request.sandbox_id)?;
        let at = unless_closed(pod.closed(), pod.sandbox().wait()).await?;
        Ok(WaitSandboxResponse { exited_at: MessageField::some(timestamp(at)), ..Default::default() })
    }

    async fn sandbox_status(
        &self,
        _: &TtrpcContext,
        request: SandboxStatusRequest,
    ) -> ttrpc::Result<SandboxStatusResponse> {
        let pod = self.mine(&request.sandbox_id)?;
        let mut response =
            SandboxStatusResponse { sandbox_id: request.sandbox_id, pid: self.pid(), ..Default::default() };
        response.state = match pod.sandbox().phase() {
            Phase::Absent => return Err(Error::NotFound { what: "sandbox", id: response.sandbox_id }.into()),
            Phase::Created => "SANDBOX_NOTREADY",
            Phase::Ready { started_at } => {
                response.created_at = MessageField::some(timestamp(started_at));
                "SANDBOX_READY"
            }
            Phase::Stopped { at } => {
                response.exited_at = MessageField::some(timestamp(at));
                "SANDBOX_NOTREADY"
            }
        }
        .into();
        Ok(response)
    }

    async fn ping_sandbox(&self, _: &TtrpcContext, request: PingRequest) -> ttrpc::Result<PingResponse> {
        self.mine(&request.sandbox_id)?;
        Ok(PingResponse::default())
    }

    async fn shutdown_sandbox(
        &self,
        _: &TtrpcContext,
        request: ShutdownSandboxRequest,
    ) -> ttrpc::Result<ShutdownSandboxResponse> {
        let pod = self.mine(&request.sandbox_id)?;
        run_to_completion(async move {
            pod.stop_sandbox(KILL_TIMEOUT).await?;
            pod.close();
            Ok(())
        })
        .await?;
        Ok(ShutdownSandboxResponse::default())
    }

    async fn sandbox_metrics(
        &self,
        _: &TtrpcContext,
        request: SandboxMetricsRequest,
    ) -> ttrpc::Result<SandboxMetricsResponse> {
        let pod = self.mine(&request.sandbox_id)?;
        let stats = pod.sandbox().stats(&request.sandbox_id)?;
        let mut response = SandboxMetricsResponse::default();
        let metrics = response.metrics.mut_or_insert_default();
        metrics.timestamp = MessageField::some(timestamp(crate::exit::now()));
        metrics.id = request.sandbox_id;
        metrics.data = MessageField::some(super::stats::pack(&stats));
        Ok(response)
    }
}
