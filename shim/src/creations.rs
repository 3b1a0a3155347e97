//! Container creations under way: their current steps, and the signal to give up.

use crate::init::StepFile;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// All creations under way.
#[derive(Debug)]
pub(crate) struct Creations {
    step_files: Mutex<BTreeMap<String, Arc<StepFile>>>,
    stopping: watch::Sender<bool>,
}

/// Registration of one creation; ends when dropped.
pub(crate) struct Registration<'a> {
    creations: &'a Creations,
    id: String,
}

impl Default for Creations {
    fn default() -> Self {
        Self { step_files: Mutex::default(), stopping: watch::Sender::new(false) }
    }
}

impl Creations {
    /// Registers the creation of `id` until the result is dropped.
    pub(crate) fn register(&self, id: &str, step_file: &Arc<StepFile>) -> Registration<'_> {
        self.lock().insert(id.to_owned(), Arc::clone(step_file));
        Registration { creations: self, id: id.to_owned() }
    }

    /// Ids and current steps.
    pub(crate) fn steps(&self) -> Vec<(String, String)> {
        self.lock().iter().map(|(id, step_file)| (id.clone(), step_file.read())).collect()
    }

    /// Signals all creations, present and future, to give up.
    pub(crate) fn cancel_all(&self) {
        self.stopping.send_replace(true);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<StepFile>>> {
        self.step_files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registration<'_> {
    /// Completes when the creation is to be given up.
    pub(crate) async fn cancelled(&self, deadline: Instant) {
        let mut stopping = self.creations.stopping.subscribe();
        tokio::select! {
            () = sleep_until(deadline) => {}
            // The sender lives as long as the pod.
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
    }
}

impl Drop for Registration<'_> {
    fn drop(&mut self) {
        self.creations.lock().remove(&self.id);
    }
}
