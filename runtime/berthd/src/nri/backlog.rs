//! What happens while a plugin that takes its time learns the state: kept for it, and told once it is done.
//!
//! Nobody waits for it then, so its say comes late: limits that it wants are set after the fact, like those of any update;
//! what can only be done to a container that is being created, or refused, is told in the log.

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

/// How many events may wait for one plugin; some kilobytes each.
const LIMIT: usize = 4096;

/// An event that a plugin is told later.
#[derive(Clone)]
pub(super) enum Missed {
    Told(Event, Box<PodSandbox>, Option<Box<Container>>),
    Created(CreateContainerRequest),
    Updated(UpdateContainerRequest),
    PodUpdated(UpdatePodSandboxRequest),
    Stopped(StopContainerRequest),
}

/// What a plugin wants done in answer to what it was told late.
#[derive(Default)]
pub(super) struct Wanted {
    pub updates: Vec<ContainerUpdate>,
    pub evictions: Vec<ContainerEviction>,
}

/// Events that wait for one plugin; `None` when it is told everything as it happens.
#[derive(Default)]
pub(super) struct Backlog(Mutex<Option<VecDeque<Missed>>>);

impl Backlog {
    /// From now on events wait.
    pub fn open(&self) {
        self.with(|events| *events = Some(VecDeque::new()));
    }

    /// Whether events wait.
    pub fn is_open(&self) -> bool {
        self.with(|events| events.is_some())
    }

    /// Ends the waiting if nothing waits; whether it did.
    pub fn close_if_empty(&self) -> bool {
        self.with(|events| {
            let is_empty = events.as_ref().is_none_or(VecDeque::is_empty);
            if is_empty {
                *events = None;
            }
            is_empty
        })
    }

    /// Whether there was room.
    fn push(&self, event: impl FnOnce() -> Missed) -> bool {
        self.with(|events| match events {
            Some(events) if events.len() < LIMIT => {
                events.push_back(event());
                true
            }
            Some(_) => false,
            None => true,
        })
    }

    fn next(&self) -> Option<Missed> {
        self.with(|events| events.as_mut()?.pop_front())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Option<VecDeque<Missed>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Plugin {
    /// Keeps an event for a plugin that is still being told the state. One that falls too far behind is let go.
    pub fn defer(&self, event: impl FnOnce() -> Missed) {
        if !self.backlog.push(event) {
            tracing::warn!(plugin = %self.identity, "{LIMIT} events wait for an NRI plugin: it is let go");
            self.close();
        }
    }

    /// Tells what has been waiting, until nothing does. Returns what the plugin wants.
    ///
    /// # Errors
    ///
    /// That the plugin is gone.
    pub async fn catch_up(&self) -> Result<Wanted> {
        let mut wanted = Wanted::default();
        while let Some(missed) = self.backlog.next() {
            if let Err(error) = self.tell_late(missed, &mut wanted).await {
                tracing::warn!(%error, "an NRI plugin did not like what it was told late");
            }
            if self.is_closed() {
                let text = format!("NRI plugin {} left before it took part", self.identity);
                return Err(Error::new(Kind::Unavailable, text));
            }
        }
        Ok(wanted)
    }

    async fn tell_late(&self, missed: Missed, wanted: &mut Wanted) -> Result<()> {
        let deadline = self.deadline();
        match missed {
            Missed::Told(event, pod, container) => self.notify(event, &pod, container.as_deref()).await?,
            Missed::Created(request) => {
                let answer = self.client.create_container(deadline, &request).await;
                if let Some(answer) = self.answer("CreateContainer", answer)? {
                    self.adjust_late(&request.container.id, answer, wanted);
                }
            }
            Missed::Updated(request) => {
                let answer = self.client.update_container(deadline, &request).await;
                if let Some(answer) = self.answer("UpdateContainer", answer)? {
                    wanted.updates.extend(answer.update);
                    wanted.evictions.extend(answer.evict);
                }
            }
            Missed::PodUpdated(request) => {
                let answer = self.client.update_pod_sandbox(deadline, &request).await;
                self.answer("UpdatePodSandbox", answer)?;
            }
            Missed::Stopped(request) => {
                let answer = self.client.stop_container(deadline, &request).await;
                wanted.updates.extend(self.answer("StopContainer", answer)?.unwrap_or_default().update);
            }
        }
        Ok(())
    }

    fn adjust_late(&self, container: &str, answer: CreateContainerResponse, wanted: &mut Wanted) {
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

/// The part of an adjustment that a container can be given later, and whether that is all of it.
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

    fn event() -> Missed {
        Missed::Told(Event::RUN_POD_SANDBOX, Box::default(), None)
    }

    #[test]
    fn events_wait_in_order_and_only_between_opening_and_closing() {
        let backlog = Backlog::default();
        assert!(backlog.push(|| unreachable!("nothing waits for a plugin that takes part")));
        backlog.open();
        assert!(backlog.push(event) && backlog.is_open() && !backlog.close_if_empty());
        assert!(matches!(backlog.next(), Some(Missed::Told(Event::RUN_POD_SANDBOX, ..))));
        assert!(backlog.next().is_none());
        assert!(backlog.close_if_empty() && !backlog.is_open());
    }

    #[test]
    fn what_waits_has_a_limit() {
        let backlog = Backlog::default();
        backlog.open();
        for _ in 0..LIMIT {
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
