//! Pods and containers that are being created: not in their tables yet, but possibly known to plugins.
//!
//! ```text
//! announced ---- shown in its table: confirmed, and forgotten here
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
pub(super) enum UnpublishedObject {
    /// A pod with its addresses.
    Pod(Arc<Pod>),
    /// A container and its OCI spec, as adjusted.
    Container(Arc<Container>, Arc<Spec>),
}

impl UnpublishedObject {
    fn id(&self) -> &str {
        match self {
            Self::Pod(pod) => &pod.id,
            Self::Container(container, _) => &container.id,
        }
    }
}

/// All of them, and whether there is any plugin. Both are under one lock, so that a new plugin finds those that
/// were announced while there was none.
#[derive(Default)]
pub(super) struct UnpublishedObjects(Mutex<UnpublishedState>);

#[derive(Default)]
pub(super) struct UnpublishedState {
    pub by_id: HashMap<String, UnpublishedObject>,
    pub has_plugins: bool,
}

impl UnpublishedObjects {
    pub fn lock(&self) -> MutexGuard<'_, UnpublishedState> {
        // Nothing can panic while the lock is held, so a poisoned one is consistent.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An object that plugins may know of: to be [confirmed](Announcement::confirm) once it is in its table, reported as
/// gone when dropped.
#[must_use]
pub(crate) struct Announcement {
    announced: Option<(Nri, UnpublishedObject)>,
}

impl Announcement {
    pub(crate) fn none() -> Self {
        Self { announced: None }
    }

    /// Adds the object to those that new plugins are shown.
    pub(super) fn new(nri: &Nri, state: &mut UnpublishedState, object: UnpublishedObject) -> Self {
        state.by_id.insert(object.id().to_owned(), object.clone());
        Self { announced: Some((nri.clone(), object)) }
    }

    /// Forgets the object, which is in its table from now on.
    pub(crate) fn confirm(mut self) {
        if let Some((nri, object)) = self.announced.take() {
            nri.unpublished_state().by_id.remove(object.id());
        }
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let Some((nri, object)) = self.announced.take() else { return };
        nri.unpublished_state().by_id.remove(object.id());
        if nri.has_plugins() {
            tokio::spawn(async move { withdraw(&nri, &object).await });
        }
    }
}

/// Tells plugins that may know of the object that it is gone.
async fn withdraw(nri: &Nri, object: &UnpublishedObject) {
    let Some(dispatch) = nri.dispatch().await else { return };
    match object {
        UnpublishedObject::Pod(pod) => dispatch.report_pod_gone(convert::pod(pod)).await,
        UnpublishedObject::Container(container, spec) => {
            dispatch.report_container_gone(convert::container(container, spec)).await;
        }
    }
}
