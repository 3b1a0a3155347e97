//! Events of pods and containers, reported here by the code that causes them. When no plugin is connected every
//! function returns at once, except that creation waits for the plugins that are being started.

use std::sync::Arc;

use berth_nri::nri::{Event, PodSandbox};
use oci_spec::runtime::Spec;

use super::{
    apply, convert,
    drafts::{Announced, Draft},
    once::End,
    turn::Turn,
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
    /// To be kept once the container is in its table.
    pub announced: Announced,
}

/// Reports that a pod is about to be shown. An error fails the pod.
pub(crate) async fn run_pod(shared: &Shared, pod: &Pod) -> Result<Announced> {
    if !shared.nri.config().enabled {
        return Ok(Announced::nothing());
    }
    shared.nri.launched().await;
    let draft = Draft::Pod(Arc::new(pod.clone()));
    let turn = match announce(shared, &draft).await {
        Ok(announced) => return Ok(announced),
        Err(turn) => turn,
    };
    let seen = convert::pod(pod);
    if let Err(error) = turn.ask(Event::RUN_POD_SANDBOX, &seen, None).await {
        turn.pod_is_gone(seen).await;
        return Err(error);
    }
    Ok(Announced::new(&shared.nri, &mut shared.nri.known(), draft))
}

/// Reports, once, that a pod has stopped. It still has its network.
pub(crate) async fn pod_stopped(shared: &Shared, pod: &Pod) {
    let Some(turn) = shared.nri.turn().await else { return };
    if shared.nri.told().is_first(&pod.id, End::Stopped) {
        turn.tell(Event::STOP_POD_SANDBOX, &convert::pod(pod), None).await;
    }
}

/// Reports, once, that a pod is about to be removed.
pub(crate) async fn pod_removed(shared: &Shared, pod: &Pod) {
    if let Some(turn) = shared.nri.turn().await
        && shared.nri.told().is_first(&pod.id, End::Removed)
    {
        turn.tell(Event::REMOVE_POD_SANDBOX, &convert::pod(pod), None).await;
    }
}

/// Asks for approval of new limits of a pod, which may be in effect already. An error is a plugin's refusal.
pub(crate) async fn update_pod(
    shared: &Shared,
    pod: &Pod,
    overhead: &Resources,
    resources: &Resources,
) -> Result<()> {
    let Some(turn) = shared.nri.turn().await else { return Ok(()) };
    let (overhead, resources) = (convert::resources_asked(overhead), convert::resources_asked(resources));
    turn.update_pod(&convert::pod(pod), &overhead, &resources).await
}

/// Reports that the limits of a pod have changed.
pub(crate) async fn pod_updated(shared: &Shared, pod: &Pod) {
    if let Some(turn) = shared.nri.turn().await {
        turn.tell(Event::POST_UPDATE_POD_SANDBOX, &convert::pod(pod), None).await;
    }
}

/// Lets plugins adjust a container before anything of it is made. An error fails the container.
pub(crate) async fn create_container(
    shared: &Arc<Shared>,
    pod: &Pod,
    container: Container,
    spec: Spec,
) -> Result<Adjusted> {
    let (spec, cdi_devices, announced) = (Arc::new(spec), Vec::new(), Announced::nothing());
    let mut adjusted = Adjusted { container, spec, cdi_devices, announced };
    if !shared.nri.config().enabled {
        return Ok(adjusted);
    }
    shared.nri.launched().await;
    match announce(shared, &adjusted.draft()).await {
        Ok(announced) => adjusted.announced = announced,
        Err(turn) => adjust(shared, turn, pod, &mut adjusted).await?,
    }
    Ok(adjusted)
}

impl Adjusted {
    fn draft(&self) -> Draft {
        Draft::Container(Arc::new(self.container.clone()), Arc::clone(&self.spec))
    }
}

async fn adjust(shared: &Arc<Shared>, turn: Turn, pod: &Pod, adjusted: &mut Adjusted) -> Result<()> {
    let seen = convert::container(&adjusted.container, &adjusted.spec);
    let creation = match turn.create(convert::pod(pod), seen.clone()).await {
        Ok(creation) => creation,
        Err(error) => {
            turn.container_is_gone(seen).await;
            return Err(error);
        }
    };
    let spec = Arc::make_mut(&mut adjusted.spec);
    match apply::apply(&creation.adjustment, &shared.host, &mut adjusted.container, spec) {
        Ok(cdi_devices) => adjusted.cdi_devices = cdi_devices,
        Err(error) => {
            turn.container_is_gone(seen).await;
            return Err(error);
        }
    }
    adjusted.announced = Announced::new(&shared.nri, &mut shared.nri.known(), adjusted.draft());
    drop(turn);
    updates::evict(shared, creation.evictions).await;
    updates::apply(shared, creation.changes.updates()).await;
    Ok(())
}

/// Reports that a container is created and shown.
pub(crate) async fn container_created(shared: &Shared, container: &Container) {
    tell(shared, Event::POST_CREATE_CONTAINER, container).await;
}

/// Reports that a container is about to be started. An error prevents the start.
pub(crate) async fn start_container(shared: &Shared, container: &Container) -> Result<()> {
    let Some(turn) = shared.nri.turn().await else { return Ok(()) };
    let seen = convert::stored_container(shared, container);
    turn.ask(Event::START_CONTAINER, &pod_of(shared, container), Some(&seen)).await
}

/// Reports that a container runs.
pub(crate) async fn container_started(shared: &Shared, container: &Container) {
    tell(shared, Event::POST_START_CONTAINER, container).await;
}

/// Lets plugins change the update of a container. An error fails the update.
pub(crate) async fn update_container(
    shared: &Arc<Shared>,
    container: &Container,
    wanted: Resources,
) -> Result<Resources> {
    let Some(turn) = shared.nri.turn().await else { return Ok(wanted) };
    let seen = convert::stored_container(shared, container);
    let update = turn.update(pod_of(shared, container), seen, convert::resources_asked(&wanted)).await?;
    drop(turn);
    updates::evict(shared, update.evictions).await;
    updates::apply(shared, update.changes.updates()).await;
    convert::changed_limits(update.request.linux_resources.get_or_default())
}

/// Reports that a container was updated.
pub(crate) async fn container_updated(shared: &Shared, container: &Container) {
    tell(shared, Event::POST_UPDATE_CONTAINER, container).await;
}

/// Notes that a container is about to be shown as exited, so that its end is reported.
pub(crate) fn container_ends(shared: &Shared, id: &str) {
    // The end of a removed container is not reported, and an entry for it would never be forgotten.
    if shared.nri.has_listeners() && shared.containers.has(id) {
        shared.nri.told().is_first(id, End::Due);
    }
}

/// Reports the end of a container that is shown as exited, if that is still due, before anything else is done with it.
pub(crate) async fn settle_end(shared: &Arc<Shared>, entry: &Entry<Container>) {
    if shared.nri.has_listeners() && shared.nri.told().is_due(&entry.get().id) {
        container_stopped(shared, entry).await;
    }
}

/// Reports, once, that a container has exited, after all other operations on it. Returns when that is reported.
pub(crate) async fn container_stopped(shared: &Arc<Shared>, entry: &Entry<Container>) {
    if !shared.nri.has_listeners() {
        return;
    }
    let in_turn = entry.turn().await;
    let Some(turn) = shared.nri.turn().await else { return };
    let container = entry.get();
    // A removal meanwhile has reported the end, and its entry is forgotten.
    let exists = shared.containers.has(&container.id);
    if !exists || !shared.nri.told().is_first(&container.id, End::Stopped) {
        return;
    }
    let seen = convert::stored_container(shared, &container);
    let changes = turn.stop(&pod_of(shared, &container), &seen).await;
    drop((turn, in_turn));
    updates::apply(shared, changes).await;
}

/// Reports, once, that a container is about to be removed.
pub(crate) async fn container_removed(shared: &Shared, container: &Container) {
    let Some(turn) = shared.nri.turn().await else { return };
    if shared.nri.told().is_first(&container.id, End::Removed) {
        let seen = convert::stored_container(shared, container);
        turn.tell(Event::REMOVE_CONTAINER, &pod_of(shared, container), Some(&seen)).await;
    }
}

/// Forgets the reported ends of a pod or container that is gone.
pub(crate) fn forget(shared: &Shared, id: &str) {
    shared.nri.told().forget(id);
}

/// Without plugins, adds the draft to the known ones; otherwise returns the turn in which to report it.
async fn announce(shared: &Shared, draft: &Draft) -> Result<Announced, Turn> {
    let nri = &shared.nri;
    {
        let mut known = nri.known();
        if !known.listeners {
            return Ok(Announced::new(nri, &mut known, draft.clone()));
        }
    }
    Err(nri.turn_anyway().await)
}

async fn tell(shared: &Shared, event: Event, container: &Container) {
    let Some(turn) = shared.nri.turn().await else { return };
    let seen = convert::stored_container(shared, container);
    turn.tell(event, &pod_of(shared, container), Some(&seen)).await;
}

/// Returns the pod of a container, or only its id when the pod is gone.
fn pod_of(shared: &Shared, container: &Container) -> PodSandbox {
    match shared.pods.find(&container.pod_id) {
        Ok(entry) => convert::pod(&entry.get()),
        Err(_) => PodSandbox { id: container.pod_id.clone(), ..Default::default() },
    }
}
