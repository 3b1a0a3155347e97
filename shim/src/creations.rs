//! Container creations under way: their current steps, and the signal to give up.

use crate::init::Slate;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// All creations under way.
#[derive(Debug)]
pub(crate) struct Creations {
    slates: Mutex<BTreeMap<String, Arc<Slate>>>,
    stopping: watch::Sender<bool>,
}

/// Registration of one creation; ends when dropped.
pub(crate) struct Noted<'a> {
    creations: &'a Creations,
    id: String,
}

impl Default for Creations {
    fn default() -> Self {
        Self { slates: Mutex::default(), stopping: watch::Sender::new(false) }
    }
}

impl Creations {
    /// Registers the creation of `id` until the result is dropped.
    pub(crate) fn note(&self, id: &str, slate: &Arc<Slate>) -> Noted<'_> {
        self.lock().insert(id.to_owned(), Arc::clone(slate));
        Noted { creations: self, id: id.to_owned() }
    }

    /// Ids and current steps.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        self.lock().iter().map(|(id, slate)| (id.clone(), slate.read())).collect()
    }

    /// Signals all creations, present and future, to give up.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Slate>>> {
        self.slates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Noted<'_> {
    /// Completes when the creation is to be given up.
    pub(crate) async fn stop(&self, deadline: Instant) {
        let mut stopping = self.creations.stopping.subscribe();
        tokio::select! {
            () = sleep_until(deadline) => {}
            // The sender lives as long as the pod.
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        self.creations.lock().remove(&self.id);
    }
}
