//! Events of pods and containers, delivered to every listener, complete and in order.
//!
//! The tables report every change of a snapshot to this module, which alone decides what is an event. Without listeners
//! nothing is stored. A listener that reads too slowly is disconnected: its queue must not grow without bound, and
//! dropping single events would leave gaps that it does not know of.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::{
    clock,
    container::{Container, ContainerState},
    error::{Error, Kind, Result},
    pod::{Pod, PodState},
    runtime::Shared,
};

/// Longest queue of a listener: more events than the start of a full node causes at once.
const MAX_QUEUED_EVENTS: usize = 4096;

/// The kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// The container or pod was set up.
    Created,
    /// It was started.
    Started,
    /// It ended, by itself or not.
    Stopped,
    /// It was removed.
    Deleted,
}

/// An event, with the state of its pod right after it.
#[derive(Debug)]
pub struct Event {
    /// Id of the container, or of the pod itself.
    pub id: String,
    /// The kind of the event.
    pub kind: EventKind,
    /// Nanoseconds since the epoch. Later events have no earlier time, unless the clock was set back.
    pub at: i64,
    /// The pod; `None` when the container outlived it.
    pub pod: Option<Arc<Pod>>,
    /// All containers of the pod.
    pub containers: Vec<Arc<Container>>,
}

/// The hub between tables and listeners. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Events {
    listeners: Arc<Mutex<Listeners>>,
}

#[derive(Debug, Default)]
struct Listeners {
    queues: Vec<mpsc::Sender<Arc<Event>>>,
    closed: bool,
}

/// Receives every event from its creation on.
#[derive(Debug)]
pub struct Listener {
    queue: mpsc::Receiver<Arc<Event>>,
    events: Events,
}

impl Events {
    /// Returns a listener that receives every event from now on.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the daemon is stopping.
    pub fn listen(&self) -> Result<Listener> {
        let (sender, queue) = mpsc::channel(MAX_QUEUED_EVENTS);
        let mut listeners = self.lock();
        if listeners.closed {
            return Err(stopping());
        }
        // A listener that was dropped is otherwise noticed only at the next event, which may never come.
        listeners.queues.retain(|queue| !queue.is_closed());
        listeners.queues.push(sender);
        Ok(Listener { queue, events: self.clone() })
    }

    /// Disconnects all listeners, because the daemon stops.
    pub fn close(&self) {
        *self.lock() = Listeners { queues: Vec::new(), closed: true };
    }

    /// Sends an event to all listeners. It is made under the lock, so that its snapshots are never older than those of
    /// the event before; it is not made at all without listeners.
    fn publish(&self, event: impl FnOnce() -> Event) {
        let mut listeners = self.lock();
        if listeners.queues.is_empty() {
            return;
        }
        let event = Arc::new(event());
        listeners.queues.retain(|queue| queue.try_send(Arc::clone(&event)).is_ok());
    }

    // A poisoned lock still guards a consistent list: nothing can panic between the steps of a change.
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Waits for the next event.
    ///
    /// # Errors
    ///
    /// The error is the last item: `ResourceExhausted` when the queue overflowed, `Unavailable` when the daemon stops.
    pub async fn next(&mut self) -> Result<Arc<Event>> {
        match self.queue.recv().await {
            Some(event) => Ok(event),
            None if self.events.lock().closed => Err(stopping()),
            None => {
                let text = format!(
                    "more than {MAX_QUEUED_EVENTS} events waited to be taken: what came after them was not kept, \
                     list pods and containers to see how they are now"
                );
                Err(Error::new(Kind::ResourceExhausted, text))
            }
        }
    }
}

fn stopping() -> Error {
    Error::new(Kind::Unavailable, "the daemon is stopping")
}

/// Subscribes to the changes of the tables from now on.
pub(crate) fn observe(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    shared.pods.observe(move |was, is| {
        let Some((shared, pod)) = weak.upgrade().zip(is.or(was)) else { return };
        for &kind in of_pod(was, is) {
            shared.events.publish(|| event(&shared, &pod.id, kind, Some(Arc::clone(pod))));
        }
    });
    let weak = Arc::downgrade(shared);
    shared.containers.observe(move |was, is| {
        let Some((shared, container)) = weak.upgrade().zip(is.or(was)) else { return };
        let pod = || shared.pods.find(&container.pod_id).ok().map(|entry| entry.get());
        for &kind in of_container(was, is) {
            shared.events.publish(|| event(&shared, &container.id, kind, pod()));
        }
    });
}

fn of_pod(was: Option<&Arc<Pod>>, is: Option<&Arc<Pod>>) -> &'static [EventKind] {
    match (was.map(|pod| pod.state), is.map(|pod| pod.state)) {
        (None, Some(PodState::Ready)) => &[EventKind::Created, EventKind::Started],
        (Some(PodState::Ready), Some(PodState::NotReady)) => &[EventKind::Stopped],
        (Some(_), None) => &[EventKind::Deleted],
        _ => &[],
    }
}

fn of_container(was: Option<&Arc<Container>>, is: Option<&Arc<Container>>) -> &'static [EventKind] {
    match (was.map(|container| &container.state), is.map(|container| &container.state)) {
        (None, Some(_)) => &[EventKind::Created],
        (Some(ContainerState::Created { .. }), Some(ContainerState::Running { .. })) => &[EventKind::Started],
        (Some(was), Some(is)) if is.is_exited() && !was.is_exited() => &[EventKind::Stopped],
        (Some(_), None) => &[EventKind::Deleted],
        _ => &[],
    }
}

fn event(shared: &Shared, id: &str, kind: EventKind, pod: Option<Arc<Pod>>) -> Event {
    let of_pod = |pod: &Arc<Pod>| shared.containers_of(&pod.id).iter().map(|entry| entry.get()).collect();
    let containers = pod.as_ref().map(of_pod).unwrap_or_default();
    Event { id: id.to_owned(), kind, at: clock::now(), pod, containers }
}

#[cfg(test)]
mod tests;
