//! Delivers one event to all plugins that want it, one after the other.

use std::sync::Arc;

use berth_nri::nri::{
    Container, ContainerUpdate, CreateContainerRequest, Empty, Event, LinuxResources, PluginInstance,
    PodSandbox, StopContainerRequest, UpdateContainerRequest, UpdatePodSandboxRequest,
    ValidateContainerAdjustmentRequest,
};
use futures::future::join_all;
use tokio::sync::OwnedMutexGuard;
use ttrpc::Code;

use super::{
    Nri,
    adjust::{Changes, Creation, Update},
    backlog::QueuedEvent,
    plugin::Plugin,
};
use crate::error::{Error, Kind, Result};

/// The right to deliver an event. No other event is delivered meanwhile.
pub(super) struct Dispatch {
    nri: Nri,
    plugins: OwnedMutexGuard<Vec<Arc<Plugin>>>,
}

impl Dispatch {
    pub fn new(nri: &Nri, plugins: OwnedMutexGuard<Vec<Arc<Plugin>>>) -> Self {
        Self { nri: nri.clone(), plugins }
    }

    /// Adds a plugin, behind those of the same index.
    pub fn add_plugin(&mut self, plugin: Arc<Plugin>) {
        let place = self.plugins.partition_point(|one| one.identity.index <= plugin.identity.index);
        self.plugins.insert(place, plugin);
    }

    /// Sends all plugins a shutdown and disconnects them.
    pub async fn shut_down_plugins(&mut self) {
        let goodbyes = self.plugins.iter().map(|plugin| async {
            // A plugin that does not answer is disconnected anyway.
            let _ = plugin.client.shutdown(plugin.deadline(), &Empty::new()).await;
            plugin.close();
        });
        join_all(goodbyes).await;
        self.plugins.clear();
    }

    fn ready_subscribers(&self, event: Event) -> impl Iterator<Item = &Arc<Plugin>> {
        self.subscribers(event).filter(|plugin| !plugin.backlog.is_open())
    }

    fn subscribers(&self, event: Event) -> impl Iterator<Item = &Arc<Plugin>> {
        self.plugins.iter().filter(move |plugin| plugin.wants(event) && !plugin.is_closed())
    }

    /// Queues the event for plugins that are still taking in the state.
    fn defer(&self, event: Event, queued: impl Fn() -> QueuedEvent) {
        self.subscribers(event).for_each(|plugin| plugin.defer(&queued));
    }

    fn defer_notification(&self, event: Event, pod: &PodSandbox, container: Option<&Container>) {
        self.defer(event, || {
            QueuedEvent::Notification(
                event,
                Box::new(pod.clone()),
                container.map(|container| Box::new(container.clone())),
            )
        });
    }

    /// Delivers an event that plugins may refuse; the first refusal ends it.
    pub async fn request_approval(
        &self,
        event: Event,
        pod: &PodSandbox,
        container: Option<&Container>,
    ) -> Result<()> {
        self.defer_notification(event, pod, container);
        for plugin in self.ready_subscribers(event) {
            plugin.notify(event, pod, container).await?;
        }
        Ok(())
    }

    /// Delivers an event that has happened: an error is logged, and the other plugins get the event all the same.
    pub async fn notify(&self, event: Event, pod: &PodSandbox, container: Option<&Container>) {
        self.defer_notification(event, pod, container);
        for plugin in self.ready_subscribers(event) {
            if let Err(error) = plugin.notify(event, pod, container).await {
                tracing::warn!(%error, "an NRI plugin did not like what it was told");
            }
        }
    }

    /// Reports stop and removal of a pod that was announced and never came to be.
    pub async fn report_pod_gone(&self, pod: PodSandbox) {
        self.notify(Event::STOP_POD_SANDBOX, &pod, None).await;
        self.notify(Event::REMOVE_POD_SANDBOX, &pod, None).await;
    }

    /// Reports stop and removal of a container that was announced and never came to be. Updates in answer are dropped.
    pub async fn report_container_gone(&self, container: Container) {
        let pod = PodSandbox { id: container.pod_sandbox_id.clone(), ..Default::default() };
        let request = stop_request(&pod, &container);
        self.defer(Event::STOP_CONTAINER, || QueuedEvent::Stopped(request.clone()));
        for plugin in self.ready_subscribers(Event::STOP_CONTAINER) {
            let answer = plugin.client.stop_container(plugin.deadline(), &request).await;
            if let Err(error) = plugin.answer("StopContainer", answer) {
                tracing::warn!(%error, "an NRI plugin did not like what it was told");
            }
        }
        self.notify(Event::REMOVE_CONTAINER, &pod, Some(&container)).await;
    }

    /// Asks plugins to approve new limits of a pod; the first refusal ends it.
    pub async fn update_pod(
        &self,
        pod: &PodSandbox,
        overhead: &LinuxResources,
        resources: &LinuxResources,
    ) -> Result<()> {
        let request = UpdatePodSandboxRequest {
            pod: Some(pod.clone()).into(),
            overhead_linux_resources: Some(overhead.clone()).into(),
            linux_resources: Some(resources.clone()).into(),
            ..Default::default()
        };
        self.defer(Event::UPDATE_POD_SANDBOX, || QueuedEvent::PodUpdated(request.clone()));
        for plugin in self.ready_subscribers(Event::UPDATE_POD_SANDBOX) {
            let answer = plugin.client.update_pod_sandbox(plugin.deadline(), &request).await;
            plugin.answer("UpdatePodSandbox", answer)?;
        }
        Ok(())
    }

    /// Lets plugins adjust a container, each seeing the result of the ones before, and validators approve of it.
    pub async fn create(&self, pod: PodSandbox, container: Container) -> Result<Creation> {
        let request = CreateContainerRequest {
            pod: Some(pod).into(),
            container: Some(container).into(),
            ..Default::default()
        };
        let pristine =
            self.ready_subscribers(Event::VALIDATE_CONTAINER_ADJUSTMENT).next().map(|_| request.clone());
        let mut creation = Creation::new(request);
        for plugin in self.ready_subscribers(Event::CREATE_CONTAINER) {
            let answer = plugin.client.create_container(plugin.deadline(), &creation.request).await;
            if let Some(answer) = plugin.answer("CreateContainer", answer)? {
                creation.collect(answer, &plugin.identity.to_string())?;
            }
        }
        if let Some(pristine) = pristine {
            self.validate(pristine, &creation).await?;
        }
        self.defer(Event::CREATE_CONTAINER, || QueuedEvent::Created(creation.request.clone()));
        Ok(creation)
    }

    async fn validate(&self, pristine: CreateContainerRequest, creation: &Creation) -> Result<()> {
        let request = ValidateContainerAdjustmentRequest {
            pod: pristine.pod,
            container: pristine.container,
            adjust: Some(creation.adjustment.clone()).into(),
            update: creation.changes.updates(),
            owners: Some(creation.changes.owners()).into(),
            plugins: self.plugins.iter().map(|plugin| instance(plugin)).collect(),
            ..Default::default()
        };
        for plugin in self.ready_subscribers(Event::VALIDATE_CONTAINER_ADJUSTMENT) {
            let answer = plugin.client.validate_container_adjustment(plugin.deadline(), &request).await;
            check_approved(plugin, answer)?;
        }
        Ok(())
    }

    /// Lets plugins change the update of a container.
    pub async fn update(
        &self,
        pod: PodSandbox,
        container: Container,
        resources: LinuxResources,
    ) -> Result<Update> {
        let request = UpdateContainerRequest {
            pod: Some(pod).into(),
            container: Some(container).into(),
            linux_resources: Some(resources).into(),
            ..Default::default()
        };
        let mut update = Update::new(request);
        for plugin in self.ready_subscribers(Event::UPDATE_CONTAINER) {
            let answer = plugin.client.update_container(plugin.deadline(), &update.request).await;
            if let Some(answer) = plugin.answer("UpdateContainer", answer)? {
                update.collect(answer, &plugin.identity.to_string())?;
            }
        }
        self.defer(Event::UPDATE_CONTAINER, || QueuedEvent::Updated(update.request.clone()));
        Ok(update)
    }

    /// Reports that a container has exited. Returns the updates of others that plugins want; errors are logged.
    pub async fn stop(&self, pod: &PodSandbox, container: &Container) -> Vec<ContainerUpdate> {
        let request = stop_request(pod, container);
        self.defer(Event::STOP_CONTAINER, || QueuedEvent::Stopped(request.clone()));
        let mut changes = Changes::default();
        for plugin in self.ready_subscribers(Event::STOP_CONTAINER) {
            let answer = plugin.client.stop_container(plugin.deadline(), &request).await;
            let wanted = plugin.answer("StopContainer", answer).and_then(|answer| match answer {
                Some(answer) => changes.collect(answer.update, &plugin.identity.to_string()),
                None => Ok(()),
            });
            if let Err(error) = wanted {
                tracing::warn!(%error, "what an NRI plugin wanted after a container ended is left");
            }
        }
        changes.updates()
    }
}

/// Removes plugins that were disconnected meanwhile.
impl Drop for Dispatch {
    fn drop(&mut self) {
        self.plugins.retain(|plugin| !plugin.is_closed());
        self.nri.set_has_plugins(!self.plugins.is_empty());
    }
}

fn stop_request(pod: &PodSandbox, container: &Container) -> StopContainerRequest {
    StopContainerRequest {
        pod: Some(pod.clone()).into(),
        container: Some(container.clone()).into(),
        ..Default::default()
    }
}

fn instance(plugin: &Plugin) -> PluginInstance {
    PluginInstance {
        name: plugin.identity.name.clone(),
        index: plugin.identity.index.clone(),
        ..Default::default()
    }
}

/// Fails unless the validator approves. One without the method approves, one that does not answer does not.
fn check_approved(
    plugin: &Plugin,
    answer: ttrpc::Result<berth_nri::nri::ValidateContainerAdjustmentResponse>,
) -> Result<()> {
    if let Err(ttrpc::Error::RpcStatus(status)) = &answer
        && status.code() == Code::UNIMPLEMENTED
    {
        return Ok(());
    }
    let identity = &plugin.identity;
    match plugin.answer("ValidateContainerAdjustment", answer)? {
        Some(answer) if !answer.reject => Ok(()),
        Some(answer) => {
            let text = format!("NRI plugin {identity} rejects what others adjusted: {}", answer.reason);
            Err(Error::new(Kind::FailedPrecondition, text))
        }
        None => {
            let text = format!("NRI plugin {identity} did not approve what others adjusted");
            Err(Error::new(Kind::Unavailable, text))
        }
    }
}
