//! What happens to pods and containers, told to whoever listens, none left out and in the order in which it happens.
//!
//! Everything comes from the tables: they tell every change of a snapshot to this part, the only place that decides what
//! is an event. While nobody listens nothing is kept. A listener that does not keep up is sent away, for two reasons: what
//! waits for it must not grow, and what it hears must not have holes that it does not know of.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::{
    container::{Container, ContainerState},
    error::{Error, Kind, Result},
    identity,
    pod::{Pod, PodState},
    runtime::Shared,
};

/// How many events may wait for one listener: more than the start of a full node at once brings about.
const LONGEST_QUEUE: usize = 4096;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It was set up.
    Created,
    /// It began to run.
    Started,
    /// It ended, by itself or not.
    Stopped,
    /// It was removed.
    Deleted,
}

/// Something that happened, and how its pod was right after it.
#[derive(Debug)]
pub struct Event {
    /// The container, or the pod itself, that it happened to.
    pub id: String,
    /// What it was.
    pub what: Happening,
    /// Nanoseconds since the epoch. Events that are told later are never older.
    pub at: i64,
    /// The pod; `None` when a container outlived it.
    pub pod: Option<Arc<Pod>>,
    /// All containers of the pod.
    pub containers: Vec<Arc<Container>>,
}

/// Where events come together. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Events {
    listeners: Arc<Mutex<Listeners>>,
}

#[derive(Debug, Default)]
struct Listeners {
    queues: Vec<mpsc::Sender<Arc<Event>>>,
    closed: bool,
}

/// Hears every event from its making on.
#[derive(Debug)]
pub struct Listener {
    queue: mpsc::Receiver<Arc<Event>>,
    events: Events,
}

impl Events {
    /// Whoever holds the listener hears every event from now on.
    ///
    /// # Errors
    ///
    /// `Unavailable` when the daemon is stopping.
    pub fn listen(&self) -> Result<Listener> {
        let (sender, queue) = mpsc::channel(LONGEST_QUEUE);
        let mut listeners = self.lock();
        if listeners.closed {
            return Err(stopping());
        }
        // Those who left are noticed only when something is told, which may be never.
        listeners.queues.retain(|queue| !queue.is_closed());
        listeners.queues.push(sender);
        Ok(Listener { queue, events: self.clone() })
    }

    /// Sends all listeners away: the daemon stops.
    pub fn close(&self) {
        *self.lock() = Listeners { queues: Vec::new(), closed: true };
    }

    /// Tells everyone. The event is made while no other one can be, so that what it shows is never older than what the
    /// one before it shows; not at all when nobody listens.
    fn tell(&self, event: impl FnOnce() -> Event) {
        let mut listeners = self.lock();
        if listeners.queues.is_empty() {
            return;
        }
        let event = Arc::new(event());
        listeners.queues.retain(|queue| queue.try_send(Arc::clone(&event)).is_ok());
    }

    // A poisoned lock still holds a whole list: nothing can panic between its steps.
    fn lock(&self) -> MutexGuard<'_, Listeners> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// The next event; waits for it.
    ///
    /// # Errors
    ///
    /// The last thing that is heard: `ResourceExhausted` when events came faster than they were taken, `Unavailable` when
    /// the daemon stops.
    pub async fn next(&mut self) -> Result<Arc<Event>> {
        match self.queue.recv().await {
            Some(event) => Ok(event),
            None if self.events.lock().closed => Err(stopping()),
            None => {
                let text = format!(
                    "more than {LONGEST_QUEUE} events waited to be taken: what came after them was not kept, \
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

/// Has the tables tell their changes from now on.
pub(crate) fn observe(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    shared.pods.observe(move |was, is| {
        let Some((shared, pod)) = weak.upgrade().zip(is.or(was)) else { return };
        for &what in of_pod(was, is) {
            shared.events.tell(|| event(&shared, &pod.id, what, Some(Arc::clone(pod))));
        }
    });
    let weak = Arc::downgrade(shared);
    shared.containers.observe(move |was, is| {
        let Some((shared, container)) = weak.upgrade().zip(is.or(was)) else { return };
        let pod = || shared.pods.find(&container.pod_id).ok().map(|entry| entry.get());
        for &what in of_container(was, is) {
            shared.events.tell(|| event(&shared, &container.id, what, pod()));
        }
    });
}

fn of_pod(was: Option<&Arc<Pod>>, is: Option<&Arc<Pod>>) -> &'static [Happening] {
    match (was.map(|pod| pod.state), is.map(|pod| pod.state)) {
        (None, Some(PodState::Ready)) => &[Happening::Created, Happening::Started],
        (Some(PodState::Ready), Some(PodState::NotReady)) => &[Happening::Stopped],
        (Some(_), None) => &[Happening::Deleted],
        _ => &[],
    }
}

fn of_container(was: Option<&Arc<Container>>, is: Option<&Arc<Container>>) -> &'static [Happening] {
    match (was.map(|container| &container.state), is.map(|container| &container.state)) {
        (None, Some(_)) => &[Happening::Created],
        (Some(ContainerState::Created { .. }), Some(ContainerState::Running { .. })) => &[Happening::Started],
        (Some(was), Some(is)) if is.is_exited() && !was.is_exited() => &[Happening::Stopped],
        (Some(_), None) => &[Happening::Deleted],
        _ => &[],
    }
}

fn event(shared: &Shared, id: &str, what: Happening, pod: Option<Arc<Pod>>) -> Event {
    let of_pod = |pod: &Arc<Pod>| shared.containers_of(&pod.id).iter().map(|entry| entry.get()).collect();
    let containers = pod.as_ref().map(of_pod).unwrap_or_default();
    Event { id: id.to_owned(), what, at: identity::now(), pod, containers }
}

#[cfg(test)]
mod tests;
