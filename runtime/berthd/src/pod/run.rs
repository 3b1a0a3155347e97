//! Running a pod, in phases. The record of a pod that is being made is `Starting`, so that this daemon or the next can
//! undo it.
//!
//! ```text
//! reserve --> sandbox --> network --> start, files, plugins --> publish (the pod is Ready)
//!     \_________\____________\____________\_______________ failed: stop::undo
//! ```

use std::{collections::HashMap, path::Path, sync::Arc};

use berth_failpoint::{failpoint, killpoint};
use berth_shim_proto::berth_shim::{IdMapping, SandboxOptions};

use super::{
    Pod, PodState, cgroup_of,
    config::{IdRange, PidMode, PodConfig},
    existing, files_of, step, stop, sysctls,
};
use crate::{
    clock,
    error::{Error, Kind, Result, of_network},
    ids,
    layout::make_private,
    nri::{Announcement, events},
    runtime::Shared,
    shim::{SandboxRequest, Shim, ShimAddress},
    spec, watch,
};
use berth_work::progress;

/// Runs the pod, or returns the id of the existing one.
pub(super) async fn run(shared: Arc<Shared>, config: PodConfig) -> Result<String> {
    if let Some(entry) = existing(&shared, &config.metadata) {
        return resume(&entry.get());
    }
    check(&shared, &config)?;
    let mut pod = reserve(&shared, config)?;
    shared.state.put(&pod).await?;
    match start(&shared, &mut pod).await {
        Ok((shim, announced)) => publish(&shared, pod, shim, announced).await,
        Err(error) => {
            let error = error.during(step(&pod, "run"));
            stop::undo(&shared, pod).await;
            Err(error)
        }
    }
}

/// A repeated call returns the existing pod. A stopped pod cannot be run again.
fn resume(pod: &Pod) -> Result<String> {
    match pod.state {
        PodState::Ready => Ok(pod.id.clone()),
        PodState::Starting | PodState::NotReady => Err(Error::new(
            Kind::AlreadyExists,
            format!("{} again: it was stopped; remove it, or ask for another attempt", step(pod, "run")),
        )),
    }
}

fn check(shared: &Shared, config: &PodConfig) -> Result<()> {
    let features = shared.handlers.features(&config.handler)?;
    if config.namespaces.users.is_some() && !features.user_namespaces {
        return Err(Error::new(
            Kind::FailedPrecondition,
            "userns_options.mode = \"POD\": needs Berth's own shim, Linux 6.3 and user.max_user_namespaces above 0",
        ));
    }
    if config.namespaces.host_network {
        return Ok(());
    }
    shared
        .network
        .ready()
        .map_err(|reason| Error::new(Kind::Unavailable, format!("the network is not ready: {reason}")))
}

/// Makes the pod's id and first record. It names everything that later phases make, so that a later daemon can undo
/// them.
fn reserve(shared: &Shared, config: PodConfig) -> Result<Pod> {
    let id = ids::generate()?;
    let netns = (!config.namespaces.host_network).then(|| shared.layout.netns(&id));
    Ok(Pod {
        cgroup: cgroup_of(&config, &shared.options.cgroup_root, &id),
        created_at: clock::now(),
        state: PodState::Starting,
        attachment: None,
        shim: Some(ShimAddress { socket: shared.launcher.socket(&id), pid: 0 }),
        config,
        netns,
        id,
    })
}

/// Runs the phases that make the pod. What they made is in `pod` even when one fails.
async fn start(shared: &Shared, pod: &mut Pod) -> Result<(Shim, Announcement)> {
    failpoint!(POD_RECORDED)?;
    let bundle = shared.layout.sandbox(&pod.id);
    make_private(&bundle)?;
    failpoint!(POD_BUNDLE_MADE)?;
    let shim = make_sandbox(shared, pod, &bundle).await?;
    attach(shared, pod).await?;
    failpoint!(POD_ATTACHED)?;
    start_sandbox(pod, &shim).await?;
    failpoint!(SANDBOX_STARTED)?;
    files_of(&shared.layout, &pod.id).write(pod, &shared.hostname_of(&pod.config))?;
    failpoint!(POD_FILES_WRITTEN)?;
    progress::at("ask the NRI plugins");
    let announced = events::run_pod(shared, pod).await?;
    Ok((shim, announced))
}

/// Starts the shim, which makes the namespaces and the cgroup.
async fn make_sandbox(shared: &Shared, pod: &Pod, bundle: &Path) -> Result<Shim> {
    progress::at("start its shim");
    shared.handlers.prepare(&pod.config.handler, bundle)?;
    shared.launcher.start(&pod.id, bundle).await?;
    failpoint!(SHIM_STARTED)?;
    let shim = pod.shim().await?;
    progress::at("make its namespaces and cgroup");
    shim.create_sandbox(request(shared, pod, bundle)).await?;
    failpoint!(SANDBOX_CREATED)?;
    Ok(shim)
}

fn request(shared: &Shared, pod: &Pod, bundle: &Path) -> SandboxRequest {
    let namespaces = &pod.config.namespaces;
    SandboxRequest {
        id: pod.id.clone(),
        bundle: bundle.display().to_string(),
        netns: pod.netns.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        options: SandboxOptions {
            hostname: if namespaces.host_network { String::new() } else { shared.hostname_of(&pod.config) },
            host_network: namespaces.host_network,
            host_ipc: namespaces.host_ipc,
            shared_pid: namespaces.pid == PidMode::Pod,
            sysctls: sysctls(&pod.config),
            cgroup_path: pod.cgroup.clone(),
            uid_mappings: namespaces.users.iter().map(|users| mapping(users.uids)).collect(),
            gid_mappings: namespaces.users.iter().map(|users| mapping(users.gids)).collect(),
            create_mount_sources: true,
            annotations: annotations(shared, pod),
            ..SandboxOptions::default()
        },
    }
}

/// Returns the annotations by which shims of other runtimes know the pod.
fn annotations(shared: &Shared, pod: &Pod) -> HashMap<String, String> {
    let passed = shared.handlers.passed(&pod.config.handler, &pod.config.annotations);
    passed.into_iter().chain(spec::annotations::of_pod(&pod.config.metadata)).collect()
}

fn mapping(range: IdRange) -> IdMapping {
    IdMapping { host_id: range.host(), length: range.length(), ..IdMapping::default() }
}

/// Attaches the pod to the network, which gives it addresses.
async fn attach(shared: &Shared, pod: &mut Pod) -> Result<()> {
    let Some(network) = pod.network() else { return Ok(()) };
    progress::at("attach to the network");
    let attached = shared.network.attach(&network).await;
    pod.attachment = Some(attached.map_err(|error| of_network("attach to the network", error))?);
    Ok(())
}

/// Starts the sandbox. Comes after the network, because the shim of a virtual machine takes over the interfaces that
/// exist by then.
async fn start_sandbox(pod: &mut Pod, shim: &Shim) -> Result<()> {
    progress::at("start its sandbox");
    let pid = shim.start_sandbox(&pod.id).await?;
    if let Some(address) = &mut pod.shim {
        address.pid = pid;
    }
    Ok(())
}

/// Records the pod as Ready, then shows it.
async fn publish(shared: &Arc<Shared>, mut pod: Pod, shim: Shim, announced: Announcement) -> Result<String> {
    progress::at("record it");
    pod.state = PodState::Ready;
    let copy = shared.layout.pod_copy(&pod.id);
    if let Err(error) = shared.state.put_new(&pod, copy).await {
        stop::undo(shared, pod).await;
        return Err(error);
    }
    killpoint!(POD_READY_RECORDED);
    let id = pod.id.clone();
    let entry = shared.pods.insert(&id, pod);
    announced.confirm();
    watch::pod(shared, entry, shim);
    Ok(id)
}
