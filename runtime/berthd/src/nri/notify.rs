//! Events to which a plugin can answer only with an error.

use berth_nri::nri::{self, Container, Event, PodSandbox, StateChangeEvent};
use ttrpc::{Code, Error};

use super::plugin::Plugin;
use crate::error::Result;

impl Plugin {
    /// Delivers `event`; a plugin without a method for it gets the older StateChange.
    pub(super) async fn notify(
        &self,
        event: Event,
        pod: &PodSandbox,
        container: Option<&Container>,
    ) -> Result<()> {
        let told = match self.call(event, pod, container).await {
            Err(Error::RpcStatus(status)) if status.code() == Code::UNIMPLEMENTED => {
                self.state_change(event, pod, container).await
            }
            told => told,
        };
        self.answer(name(event), told).map(drop)
    }

    async fn call(&self, event: Event, pod: &PodSandbox, container: Option<&Container>) -> ttrpc::Result<()> {
        macro_rules! call {
            ($method:ident, $request:ident { $($field:ident),* }) => {{
                let request = nri::$request { $($field: Some($field.clone()).into(),)* ..Default::default() };
                self.client.$method(self.deadline(), &request).await.map(drop)
            }};
        }
        match (event, container) {
            (Event::RUN_POD_SANDBOX, _) => call!(run_pod_sandbox, RunPodSandboxRequest { pod }),
            (Event::POST_UPDATE_POD_SANDBOX, _) => {
                call!(post_update_pod_sandbox, PostUpdatePodSandboxRequest { pod })
            }
            (Event::STOP_POD_SANDBOX, _) => call!(stop_pod_sandbox, StopPodSandboxRequest { pod }),
            (Event::REMOVE_POD_SANDBOX, _) => call!(remove_pod_sandbox, RemovePodSandboxRequest { pod }),
            (Event::POST_CREATE_CONTAINER, Some(container)) => {
                call!(post_create_container, PostCreateContainerRequest { pod, container })
            }
            (Event::START_CONTAINER, Some(container)) => {
                call!(start_container, StartContainerRequest { pod, container })
            }
            (Event::POST_START_CONTAINER, Some(container)) => {
                call!(post_start_container, PostStartContainerRequest { pod, container })
            }
            (Event::POST_UPDATE_CONTAINER, Some(container)) => {
                call!(post_update_container, PostUpdateContainerRequest { pod, container })
            }
            (Event::REMOVE_CONTAINER, Some(container)) => {
                call!(remove_container, RemoveContainerRequest { pod, container })
            }
            _ => self.state_change(event, pod, container).await,
        }
    }

    async fn state_change(
        &self,
        event: Event,
        pod: &PodSandbox,
        container: Option<&Container>,
    ) -> ttrpc::Result<()> {
        let request = StateChangeEvent {
            event: event.into(),
            pod: Some(pod.clone()).into(),
            container: container.cloned().into(),
            ..Default::default()
        };
        self.client.state_change(self.deadline(), &request).await.map(drop)
    }
}

/// Returns the name of the event's method, as upstream has it.
fn name(event: Event) -> &'static str {
    match event {
        Event::RUN_POD_SANDBOX => "RunPodSandbox",
        Event::POST_UPDATE_POD_SANDBOX => "PostUpdatePodSandbox",
        Event::STOP_POD_SANDBOX => "StopPodSandbox",
        Event::REMOVE_POD_SANDBOX => "RemovePodSandbox",
        Event::POST_CREATE_CONTAINER => "PostCreateContainer",
        Event::START_CONTAINER => "StartContainer",
        Event::POST_START_CONTAINER => "PostStartContainer",
        Event::POST_UPDATE_CONTAINER => "PostUpdateContainer",
        Event::REMOVE_CONTAINER => "RemoveContainer",
        _ => "StateChange",
    }
}
