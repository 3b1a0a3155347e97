//! Pods and containers that are being created: not in their tables yet, but possibly known to plugins.
//!
//! ```text
//! announced ---- shown in its table: kept, and forgotten here
//!     '--------- failed: plugins that may know of it are told that it stopped and is gone
//! ```

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use oci_spec::runtime::Spec;

use super::{Nri, convert};
use crate::{container::Container, pod::Pod};

/// A pod or container that is being created.
#[derive(Clone)]
pub(super) enum Draft {
    /// A pod with its addresses.
    Pod(Arc<Pod>),
    /// A container and its OCI spec, as adjusted.
    Container(Arc<Container>, Arc<Spec>),
}

impl Draft {
    fn id(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.id,
            Self::Container(container, _) => &container.id,
        }
    }
}

/// All drafts, and whether there is any plugin. Both are under one lock, so that a new plugin finds the drafts that
/// were announced while there was none.
#[derive(Default)]
pub(super) struct Drafts(Mutex<Known>);

#[derive(Default)]
pub(super) struct Known {
    pub by_id: HashMap<String, Draft>,
    pub listeners: bool,
}

impl Drafts {
    pub fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing can panic while the lock is held, so a poisoned one is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A draft among the known ones: [`kept`](Announced::kept) once it is in its table, reported as gone when dropped.
#[must_use]
pub(crate) struct Announced {
    held: Option<(Nri, Draft)>,
}

impl Announced {
    pub(crate) fn nothing() -> Self {
        Self { held: None }
    }

    /// Adds the draft to those that new plugins are shown.
    pub(super) fn new(nri: &Nri, known: &mut Known, draft: Draft) -> Self {
        known.by_id.insert(draft.id().to_owned(), draft.clone());
        Self { held: Some((nri.clone(), draft)) }
    }

    /// Forgets the draft, which is in its table from now on.
    pub(crate) fn kept(mut self) {
        if let Some((nri, draft)) = self.held.take() {
            nri.known().by_id.remove(draft.id());
        }
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        let Some((nri, draft)) = self.held.take() else { return };
        nri.known().by_id.remove(draft.id());
        if nri.has_listeners() {
            tokio::spawn(async move { take_back(&nri, &draft).await });
        }
    }
}

/// Tells plugins that may know of the draft that it is gone.
async fn take_back(nri: &Nri, draft: &Draft) {
    let Some(turn) = nri.turn().await else { return };
    match draft {
        Draft::Pod(pod) => turn.pod_is_gone(convert::pod(pod)).await,
        Draft::Container(container, spec) => {
            turn.container_is_gone(convert::container(container, spec)).await;
        }
    }
}
