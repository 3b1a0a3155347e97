//! Pods and containers that are being made: not shown yet, but possibly known to plugins.
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

/// Something that is being made.
#[derive(Clone)]
pub(super) enum Draft {
    /// A pod with its addresses.
    Pod(Arc<Pod>),
    /// A container and its description, as adjusted.
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

/// Everything that is being made, and whether any plugin is there to be told: both under one lock, so that a new plugin
/// finds what was announced to nobody.
#[derive(Default)]
pub(super) struct Drafts(Mutex<Known>);

#[derive(Default)]
pub(super) struct Known {
    pub by_id: HashMap<String, Draft>,
    pub listeners: bool,
}

impl Drafts {
    pub fn lock(&self) -> MutexGuard<'_, Known> {
        // Nothing can panic while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds a draft among the known ones; to be [`kept`](Announced::kept) once it is shown.
#[must_use]
pub(crate) struct Announced {
    held: Option<(Nri, Draft)>,
}

impl Announced {
    pub(crate) fn nothing() -> Self {
        Self { held: None }
    }

    /// Makes it known to plugins to come.
    pub(super) fn new(nri: &Nri, known: &mut Known, draft: Draft) -> Self {
        known.by_id.insert(draft.id().to_owned(), draft.clone());
        Self { held: Some((nri.clone(), draft)) }
    }

    /// It is shown from now on.
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

/// Tells those who may know of it that it is gone.
async fn take_back(nri: &Nri, draft: &Draft) {
    let Some(turn) = nri.turn().await else { return };
    match draft {
        Draft::Pod(pod) => turn.pod_is_gone(convert::pod(pod)).await,
        Draft::Container(container, spec) => {
            turn.container_is_gone(convert::container(container, spec)).await;
        }
    }
}
