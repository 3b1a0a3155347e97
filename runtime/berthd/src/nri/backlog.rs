//! Events that happen while a slow plugin takes in the state: queued, and delivered once it has.
//!
//! Calls do not wait for such a plugin, so its answers come late. Limits that it wants are set afterwards, like those
//! of any update; adjustments that only a new container can get, and refusals, are logged.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use berth_nri::nri::{
    Container, ContainerAdjustment, ContainerEviction, ContainerUpdate, CreateContainerRequest,
    CreateContainerResponse, Event, LinuxContainerAdjustment, PodSandbox, StopContainerRequest,
    UpdateContainerRequest, UpdatePodSandboxRequest,
};

use super::plugin::Plugin;
use crate::error::{Error, Kind, Result};

/// Limit of queued events for one plugin; each takes some kilobytes.
const MAX_QUEUED_EVENTS: usize = 4096;

/// A queued event.
#[derive(Clone)]
pub(super) enum QueuedEvent {
    Notification(Event, Box<PodSandbox>, Option<Box<Container>>),
    Created(CreateContainerRequest),
    Updated(UpdateContainerRequest),
    PodUpdated(UpdatePodSandboxRequest),
    Stopped(StopContainerRequest),
}

/// Requests of a plugin in answer to queued events.
#[derive(Default)]
pub(super) struct LateRequests {
    pub updates: Vec<ContainerUpdate>,
    pub evictions: Vec<ContainerEviction>,
}

/// Events queued for one plugin; `None` when it gets events as they happen.
#[derive(Default)]
pub(super) struct Backlog(Mutex<Option<VecDeque<QueuedEvent>>>);

impl Backlog {
    /// Starts queueing.
    pub fn open(&self) {
        self.with(|events| *events = Some(VecDeque::new()));
    }

    /// Whether events are queued.
    pub fn is_open(&self) -> bool {
        self.with(|events| events.is_some())
    }

    /// Ends the queueing if the queue is empty; returns whether it was.
    pub fn close_if_empty(&self) -> bool {
        self.with(|events| {
            let is_empty = events.as_ref().is_none_or(VecDeque::is_empty);
            if is_empty {
                *events = None;
            }
            is_empty
        })
    }

    /// Queues an event if queueing is on; returns false when the queue is full.
    fn push(&self, event: impl FnOnce() -> QueuedEvent) -> bool {
        self.with(|events| match events {
            Some(events) if events.len() < MAX_QUEUED_EVENTS => {
                events.push_back(event());
                true
            }
            Some(_) => false,
            None => true,
        })
    }

    fn next(&self) -> Option<QueuedEvent> {
        self.with(|events| events.as_mut()?.pop_front())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Option<VecDeque<QueuedEvent>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Plugin {
    /// Queues an event for a plugin that is still taking in the state. A plugin whose queue is full is disconnected.
    pub fn defer(&self, event: impl FnOnce() -> QueuedEvent) {
        if !self.backlog.push(event) {
            tracing::warn!(plugin = %self.identity, "{MAX_QUEUED_EVENTS} events wait for an NRI plugin: it is let go");
            self.close();
        }
    }

    /// Delivers the queued events until there are none. Returns what the plugin requests in answer.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the plugin has disconnected.
    pub async fn catch_up(&self) -> Result<LateRequests> {
        let mut wanted = LateRequests::default();
        while let Some(queued) = self.backlog.next() {
            if let Err(error) = self.deliver_queued(queued, &mut wanted).await {
                tracing::warn!(%error, "an NRI plugin did not like what it was told late");
            }
            if self.is_closed() {
                let text = format!("NRI plugin {} left before it took part", self.identity);
                return Err(Error::new(Kind::Unavailable, text));
            }
        }
        Ok(wanted)
    }

    async fn deliver_queued(&self, queued: QueuedEvent, wanted: &mut LateRequests) -> Result<()> {
        let deadline = self.deadline();
        match queued {
            QueuedEvent::Notification(event, pod, container) => {
                self.notify(event, &pod, container.as_deref()).await?
            }
            QueuedEvent::Created(request) => {
                let answer = self.client.create_container(deadline, &request).await;
                if let Some(answer) = self.answer("CreateContainer", answer)? {
                    self.adjust_late(&request.container.id, answer, wanted);
                }
            }
            QueuedEvent::Updated(request) => {
                let answer = self.client.update_container(deadline, &request).await;
                if let Some(answer) = self.answer("UpdateContainer", answer)? {
                    wanted.updates.extend(answer.update);
                    wanted.evictions.extend(answer.evict);
                }
            }
            QueuedEvent::PodUpdated(request) => {
                let answer = self.client.update_pod_sandbox(deadline, &request).await;
                self.answer("UpdatePodSandbox", answer)?;
            }
            QueuedEvent::Stopped(request) => {
                let answer = self.client.stop_container(deadline, &request).await;
                wanted.updates.extend(self.answer("StopContainer", answer)?.unwrap_or_default().update);
            }
        }
        Ok(())
    }

    fn adjust_late(&self, container: &str, answer: CreateContainerResponse, wanted: &mut LateRequests) {
        let (limits, all) = limits_of(container, answer.adjust.unwrap_or_default());
        if !all {
            let plugin = &self.identity;
            tracing::warn!(
                %plugin,
                container,
                "created before the NRI plugin took part: of what it adjusts only the limits are set"
            );
        }
        wanted.updates.extend(limits);
        wanted.updates.extend(answer.update);
        wanted.evictions.extend(answer.evict);
    }
}

/// Splits off the limits, all that an existing container can be given, and tells whether that is all of the adjustment.
fn limits_of(container: &str, mut adjustment: ContainerAdjustment) -> (Option<ContainerUpdate>, bool) {
    let mut linux = adjustment.linux.take().unwrap_or_default();
    let resources = linux.resources.take();
    let all = adjustment == ContainerAdjustment::default() && linux == LinuxContainerAdjustment::default();
    let limits = resources.map(|resources| {
        let mut update = ContainerUpdate { container_id: container.to_owned(), ..Default::default() };
        update.linux.mut_or_insert_default().resources = Some(resources).into();
        update
    });
    (limits, all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use berth_nri::nri::{KeyValue, LinuxResources};

    use super::*;

    fn event() -> QueuedEvent {
        QueuedEvent::Notification(Event::RUN_POD_SANDBOX, Box::default(), None)
    }

    #[test]
    fn events_wait_in_order_and_only_between_opening_and_closing() {
        let backlog = Backlog::default();
        assert!(backlog.push(|| unreachable!("nothing waits for a plugin that takes part")));
        backlog.open();
        assert!(backlog.push(event) && backlog.is_open() && !backlog.close_if_empty());
        assert!(matches!(backlog.next(), Some(QueuedEvent::Notification(Event::RUN_POD_SANDBOX, ..))));
        assert!(backlog.next().is_none());
        assert!(backlog.close_if_empty() && !backlog.is_open());
    }

    #[test]
    fn what_waits_has_a_limit() {
        let backlog = Backlog::default();
        backlog.open();
        for _ in 0..MAX_QUEUED_EVENTS {
            assert!(backlog.push(event));
        }
        assert!(!backlog.push(event));
    }

    #[test]
    fn limits_can_be_set_late_and_nothing_else() {
        let resources = LinuxContainerAdjustment {
            resources: Some(LinuxResources::default()).into(),
            ..Default::default()
        };
        let limits = ContainerAdjustment { linux: Some(resources).into(), ..Default::default() };
        let (update, all) = limits_of("c", limits.clone());
        assert!(all && update.unwrap().container_id == "c");
        let more = ContainerAdjustment { env: vec![KeyValue::default()], ..limits };
        assert!(!limits_of("c", more).1);
        assert!(limits_of("c", ContainerAdjustment::default()) == (None, true));
    }
}
