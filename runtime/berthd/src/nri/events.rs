//! Events of pods and containers, reported here by the code that causes them. When no plugin is connected every
//! function returns at once, except that creation waits for the plugins that are being started.

use std::sync::Arc;

use berth_nri::nri::{Event, PodSandbox};
use oci_spec::runtime::Spec;

use super::{
    apply, convert,
    dispatch::Dispatch,
    reported_ends::EndStage,
    unpublished::{Announcement, UnpublishedObject},
    updates,
};
use crate::{
    container::{Container, config::Resources},
    error::Result,
    pod::Pod,
    runtime::Shared,
    table::Entry,
};

/// A container as plugins have adjusted it.
pub(crate) struct Adjusted {
    /// The container with the limits and the cgroup that plugins want.
    pub container: Container,
    /// Its OCI spec.
    pub spec: Arc<Spec>,
    /// CDI devices that plugins add.
    pub cdi_devices: Vec<String>,
    /// To be confirmed once the container is in its table.
    pub announced: Announcement,
}

/// Reports that a pod is about to be shown. An error fails the pod.
pub(crate) async fn run_pod(shared: &Shared, pod: &Pod) -> Result<Announcement> {
    if !shared.nri.config().enabled {
        return Ok(Announcement::none());
    }
    shared.nri.wait_until_launched().await;
    let object = UnpublishedObject::Pod(Arc::new(pod.clone()));
    let dispatch = match announce(shared, &object).await {
        Ok(announced) => return Ok(announced),
        Err(dispatch) => dispatch,
    };
    let seen = convert::pod(pod);
    if let Err(error) = dispatch.request_approval(Event::RUN_POD_SANDBOX, &seen, None).await {
        dispatch.report_pod_gone(seen).await;
        return Err(error);
    }
    Ok(Announcement::new(&shared.nri, &mut shared.nri.unpublished_state(), object))
}

/// Reports, once, that a pod has stopped. It still has its network.
pub(crate) async fn pod_stopped(shared: &Shared, pod: &Pod) {
    let Some(dispatch) = shared.nri.dispatch().await else { return };
    if shared.nri.reported_ends().record_first(&pod.id, EndStage::Stopped) {
        dispatch.notify(Event::STOP_POD_SANDBOX, &convert::pod(pod), None).await;
    }
}

/// Reports, once, that a pod is about to be removed.
pub(crate) async fn pod_removed(shared: &Shared, pod: &Pod) {
    if let Some(dispatch) = shared.nri.dispatch().await
        && shared.nri.reported_ends().record_first(&pod.id, EndStage::Removed)
    {
        dispatch.notify(Event::REMOVE_POD_SANDBOX, &convert::pod(pod), None).await;
    }
}

/// Asks for approval of new limits of a pod, which may be in effect already. An error is a plugin's refusal.
pub(crate) async fn update_pod(
    shared: &Shared,
    pod: &Pod,
    overhead: &Resources,
    resources: &Resources,
) -> Result<()> {
    let Some(dispatch) = shared.nri.dispatch().await else { return Ok(()) };
    let (overhead, resources) = (convert::resources_asked(overhead), convert::resources_asked(resources));
    dispatch.update_pod(&convert::pod(pod), &overhead, &resources).await
}

/// Reports that the limits of a pod have changed.
pub(crate) async fn pod_updated(shared: &Shared, pod: &Pod) {
    if let Some(dispatch) = shared.nri.dispatch().await {
        dispatch.notify(Event::POST_UPDATE_POD_SANDBOX, &convert::pod(pod), None).await;
    }
}

/// Lets plugins adjust a container before anything of it is made. An error fails the container.
pub(crate) async fn create_container(
    shared: &Arc<Shared>,
    pod: &Pod,
    container: Container,
    spec: Spec,
) -> Result<Adjusted> {
    let (spec, cdi_devices, announced) = (Arc::new(spec), Vec::new(), Announcement::none());
    let mut adjusted = Adjusted { container, spec, cdi_devices, announced };
    if !shared.nri.config().enabled {
        return Ok(adjusted);
    }
    shared.nri.wait_until_launched().await;
    match announce(shared, &adjusted.unpublished()).await {
        Ok(announced) => adjusted.announced = announced,
        Err(dispatch) => adjust(shared, dispatch, pod, &mut adjusted).await?,
    }
    Ok(adjusted)
}

impl Adjusted {
    fn unpublished(&self) -> UnpublishedObject {
        UnpublishedObject::Container(Arc::new(self.container.clone()), Arc::clone(&self.spec))
    }
}

async fn adjust(shared: &Arc<Shared>, dispatch: Dispatch, pod: &Pod, adjusted: &mut Adjusted) -> Result<()> {
    let seen = convert::container(&adjusted.container, &adjusted.spec);
    let creation = match dispatch.create(convert::pod(pod), seen.clone()).await {
        Ok(creation) => creation,
        Err(error) => {
            dispatch.report_container_gone(seen).await;
            return Err(error);
        }
    };
    let spec = Arc::make_mut(&mut adjusted.spec);
    match apply::apply(&creation.adjustment, &shared.host, &mut adjusted.container, spec) {
        Ok(cdi_devices) => adjusted.cdi_devices = cdi_devices,
        Err(error) => {
            dispatch.report_container_gone(seen).await;
            return Err(error);
        }
    }
    adjusted.announced =
        Announcement::new(&shared.nri, &mut shared.nri.unpublished_state(), adjusted.unpublished());
    drop(dispatch);
    updates::evict(shared, creation.evictions).await;
    updates::apply(shared, creation.changes.updates()).await;
    Ok(())
}

/// Reports that a container is created and shown.
pub(crate) async fn container_created(shared: &Shared, container: &Container) {
    notify(shared, Event::POST_CREATE_CONTAINER, container).await;
}

/// Reports that a container is about to be started. An error prevents the start.
pub(crate) async fn start_container(shared: &Shared, container: &Container) -> Result<()> {
    let Some(dispatch) = shared.nri.dispatch().await else { return Ok(()) };
    let seen = convert::stored_container(shared, container);
    dispatch.request_approval(Event::START_CONTAINER, &pod_of(shared, container), Some(&seen)).await
}

/// Reports that a container runs.
pub(crate) async fn container_started(shared: &Shared, container: &Container) {
    notify(shared, Event::POST_START_CONTAINER, container).await;
}

/// Lets plugins change the update of a container. An error fails the update.
pub(crate) async fn update_container(
    shared: &Arc<Shared>,
    container: &Container,
    wanted: Resources,
) -> Result<Resources> {
    let Some(dispatch) = shared.nri.dispatch().await else { return Ok(wanted) };
    let seen = convert::stored_container(shared, container);
    let update = dispatch.update(pod_of(shared, container), seen, convert::resources_asked(&wanted)).await?;
    drop(dispatch);
    updates::evict(shared, update.evictions).await;
    updates::apply(shared, update.changes.updates()).await;
    convert::changed_limits(update.request.linux_resources.get_or_default())
}

/// Reports that a container was updated.
pub(crate) async fn container_updated(shared: &Shared, container: &Container) {
    notify(shared, Event::POST_UPDATE_CONTAINER, container).await;
}

/// Notes that a container is about to be shown as exited, so that its end is reported.
pub(crate) fn container_ends(shared: &Shared, id: &str) {
    // The end of a removed container is not reported, and an entry for it would never be forgotten.
    if shared.nri.has_plugins() && shared.containers.has(id) {
        shared.nri.reported_ends().record_first(id, EndStage::Due);
    }
}

/// Reports the end of a container that is shown as exited, if that is still due, before anything else is done with it.
pub(crate) async fn settle_end(shared: &Arc<Shared>, entry: &Entry<Container>) {
    if shared.nri.has_plugins() && shared.nri.reported_ends().is_due(&entry.get().id) {
        container_stopped(shared, entry).await;
    }
}

/// Reports, once, that a container has exited, after all other operations on it. Returns when that is reported.
pub(crate) async fn container_stopped(shared: &Arc<Shared>, entry: &Entry<Container>) {
    if !shared.nri.has_plugins() {
        return;
    }
    let entry_lock = entry.lock().await;
    let Some(dispatch) = shared.nri.dispatch().await else { return };
    let container = entry.get();
    // A removal meanwhile has reported the end, and its entry is forgotten.
    let exists = shared.containers.has(&container.id);
    if !exists || !shared.nri.reported_ends().record_first(&container.id, EndStage::Stopped) {
        return;
    }
    let seen = convert::stored_container(shared, &container);
    let changes = dispatch.stop(&pod_of(shared, &container), &seen).await;
    drop((dispatch, entry_lock));
    updates::apply(shared, changes).await;
}

/// Reports, once, that a container is about to be removed.
pub(crate) async fn container_removed(shared: &Shared, container: &Container) {
    let Some(dispatch) = shared.nri.dispatch().await else { return };
    if shared.nri.reported_ends().record_first(&container.id, EndStage::Removed) {
        let seen = convert::stored_container(shared, container);
        dispatch.notify(Event::REMOVE_CONTAINER, &pod_of(shared, container), Some(&seen)).await;
    }
}

/// Forgets the reported ends of a pod or container that is gone.
pub(crate) fn forget(shared: &Shared, id: &str) {
    shared.nri.reported_ends().forget(id);
}

/// Without plugins, adds the object to those that new ones are shown; otherwise returns the dispatch in which to report
/// it.
async fn announce(shared: &Shared, object: &UnpublishedObject) -> Result<Announcement, Dispatch> {
    let nri = &shared.nri;
    {
        let mut state = nri.unpublished_state();
        if !state.has_plugins {
            return Ok(Announcement::new(nri, &mut state, object.clone()));
        }
    }
    Err(nri.lock_plugins().await)
}

async fn notify(shared: &Shared, event: Event, container: &Container) {
    let Some(dispatch) = shared.nri.dispatch().await else { return };
    let seen = convert::stored_container(shared, container);
    dispatch.notify(event, &pod_of(shared, container), Some(&seen)).await;
}

/// Returns the pod of a container, or only its id when the pod is gone.
fn pod_of(shared: &Shared, container: &Container) -> PodSandbox {
    match shared.pods.find(&container.pod_id) {
        Ok(entry) => convert::pod(&entry.get()),
        Err(_) => PodSandbox { id: container.pod_id.clone(), ..Default::default() },
    }
}
