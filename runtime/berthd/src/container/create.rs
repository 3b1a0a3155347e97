//! Creating a container, in phases. Until the record is written, a failure in any phase removes everything that was
//! made.
//!
//! ```text
//! Plan --image leased, bundle written--> Prepared --shim--> recorded, then shown and watched
//!     \____________________________________\_____ failed: traces removed
//! ```

use std::{
    fs,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use berth_failpoint::{failpoint, killpoint};
use berth_image::{Image, Layers};
use oci_spec::runtime::Spec;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::time::timeout;

use super::{
    Container, ContainerState,
    config::{ContainerConfig, ContainerMetadata},
    fifos::STDIN,
    image_volume,
    life::remove_traces,
    log,
};
use crate::{
    blocking, cdi, clock,
    error::{During, Error, Kind, Result, of_image, spec_error},
    ids,
    layout::{make_private, write_private},
    nri::{
        Announcement,
        events::{self, Adjusted},
    },
    pod::{Pod, PodState, config::PidMode, files_of, own},
    runtime::Shared,
    shim::{ContainerTask, RootfsOverlay, Shim},
    spec::{
        self, Accounts, Host, ImageDefaults, ImageVolume, PidNamespace, devices::Devices, seccomp,
        user::ResolvedUser,
    },
    table::Entry,
    watch,
};
use berth_work::progress;

/// The step in which the shim touches the paths that the container mounts.
const SET_UP_STEP: &str = "set it up in its pod's shim, mounts included";
/// Time after which the shim is asked which step a creation is at.
const STEP_QUERY_DELAY: Duration = Duration::from_millis(500);
/// Largest /etc/passwd or /etc/group of an image that is read, in bytes.
const MAX_ACCOUNTS_BYTES: usize = 4 << 20;

/// Creates the container, or returns the id of the existing one with the same metadata.
pub(super) async fn create(
    shared: Arc<Shared>,
    pod: Arc<Entry<Pod>>,
    mut config: ContainerConfig,
) -> Result<String> {
    let place = pod;
    let pod = place.get();
    if let Some(container) = existing(&shared, &pod.id, &config.metadata) {
        return Ok(container.get().id.clone());
    }
    must_be_ready(&pod)?;
    let image = find_image(&shared, &config.image)?;
    image_volume::resolve(&shared, &mut config)?;
    let plan = Plan { id: ids::generate()?, pod, image, config };
    let (id, name) = (plan.id.clone(), plan.config.metadata.name.clone());
    match plan.carry_out(&shared, &place).await {
        Ok(()) => Ok(id),
        Err(error) => {
            if let Err(left) = remove_traces(&shared, &id).await {
                tracing::warn!(container = id, error = %left, "could not undo a creation that failed");
            }
            Err(error.during(format!("create container {name}")))
        }
    }
}

fn must_be_ready(pod: &Pod) -> Result<()> {
    match pod.state {
        PodState::Ready => Ok(()),
        _ => Err(Error::new(Kind::FailedPrecondition, format!("pod {} is not ready", pod.id))),
    }
}

fn existing(shared: &Shared, pod_id: &str, metadata: &ContainerMetadata) -> Option<Arc<Entry<Container>>> {
    shared.containers_of(pod_id).into_iter().find(|entry| entry.get().config.metadata == *metadata)
}

pub(super) fn find_image(shared: &Shared, name: &str) -> Result<Arc<Image>> {
    if name.is_empty() {
        return Err(Error::new(Kind::InvalidArgument, "the container names no image"));
    }
    shared.images.get(name).ok_or_else(|| Error::not_found("image", name))
}

/// A container of which nothing has been made yet.
struct Plan {
    id: String,
    pod: Arc<Pod>,
    image: Arc<Image>,
    config: ContainerConfig,
}

/// A container that is ready for the shim: its directories are on disk and its image layers are leased.
struct Prepared {
    task: ContainerTask,
    container: Container,
    announced: Announcement,
}

impl Plan {
    async fn carry_out(self, shared: &Arc<Shared>, pod: &Entry<Pod>) -> Result<()> {
        let shim = shared.shim_of(&self.pod.id).await?;
        let prepared = self.prepare(shared, &shim).await?;
        let made = set_up(&shim, &prepared.task).await;
        if made.as_ref().is_err_and(|error| error.kind() == Kind::DeadlineExceeded) {
            // The shim answered too slowly and may still complete the creation.
            forget(&shim, &prepared.task.id).await;
        }
        let pid = made?;
        killpoint!(CONTAINER_CREATED);
        Self::publish(shared, pod, shim, prepared, pid).await
    }

    async fn prepare(&self, shared: &Arc<Shared>, shim: &Shim) -> Result<Prepared> {
        let stop_signal =
            spec::signal::stop_signal(self.config.stop_signal.as_deref(), &self.image.config.stop_signal);
        let stop_signal = stop_signal.map_err(spec_error)?;
        let log_path = log::path_of(&self.pod, &self.config)?;
        progress::at("hold the layers of its image");
        let leased = shared.images.lease(&self.image.id, &self.id).await;
        let layers = leased.map_err(|error| of_image("hold the layers of the image", error))?;
        failpoint!(IMAGE_LEASED)?;
        let accounts = accounts_of(&layers)?;
        let user = spec::user::resolve(&self.config.security, &self.image.config.user, &accounts)
            .map_err(spec_error)?;
        let cgroup = format!("{}/{}", self.pod.cgroup, self.id);
        let pid = self.pid_namespace(shared, shim).await?;
        progress::at("look its devices and profiles up");
        let found = look_up(&self.cause(), &self.config, &shared.host).await?;
        let volumes = image_volume::hold(shared, &self.id, &self.config.image_mounts).await?;
        let mut spec = self.spec(shared, &user, &found, &volumes, &cgroup, pid)?;
        cdi::inject(&shared.options.cdi_dirs, &self.config.cdi_devices, &mut spec).await?;
        let container = self.container(user, stop_signal.number(), log_path, cgroup);
        progress::at("ask the NRI plugins");
        let adjusted = events::create_container(shared, &self.pod, container, spec).await?;
        let Adjusted { container, mut spec, announced, cdi_devices } = adjusted;
        self.add_devices(shared, &cdi_devices, &mut spec).await?;
        let bundle = shared.layout.bundle(&self.id);
        write_bundle(&bundle, &spec)?;
        failpoint!(BUNDLE_WRITTEN)?;
        let task = ContainerTask {
            id: self.id.clone(),
            bundle: bundle.display().to_string(),
            rootfs: self.rootfs(shared, &layers.lower)?,
            terminal: self.config.tty,
            stdin: self.stdin(&bundle)?,
            output: self.output(shared, container.log_path.clone()).await?,
        };
        Ok(Prepared { task, container, announced })
    }

    /// Returns the key under which lookups for this container share a queue: every retry would hang on the same paths.
    fn cause(&self) -> String {
        format!("container {} of pod {}", self.config.metadata.name, self.pod.id)
    }

    /// Adds the CDI devices that plugins ask for.
    async fn add_devices(&self, shared: &Shared, names: &[String], spec: &mut Arc<Spec>) -> Result<()> {
        if names.is_empty() {
            return Ok(());
        }
        let parse = |name: &String| {
            let wrong = |why| format!("a plugin asks for the CDI device {name:?}: {why}");
            name.parse().map_err(|why| Error::new(Kind::FailedPrecondition, wrong(why)))
        };
        let mut devices = names.iter().map(parse).collect::<Result<Vec<_>>>()?;
        devices.retain(|device| !self.config.cdi_devices.contains(device));
        cdi::inject(&shared.options.cdi_dirs, &devices, Arc::make_mut(spec)).await
    }

    /// Returns the container as it will be recorded, with pid 0.
    fn container(
        &self,
        user: ResolvedUser,
        stop_signal: i32,
        log_path: Option<PathBuf>,
        cgroup: String,
    ) -> Container {
        Container {
            id: self.id.clone(),
            pod_id: self.pod.id.clone(),
            image_id: self.image.id.to_string(),
            image_ref: self.image.digests.first().unwrap_or(&self.config.image).clone(),
            config: self.config.clone(),
            created_at: clock::now(),
            state: ContainerState::Created { pid: 0 },
            log_path,
            user,
            stop_signal,
            cgroup,
        }
    }

    fn image_defaults(&self) -> ImageDefaults {
        let image = &self.image.config;
        ImageDefaults {
            env: image.env.clone(),
            entrypoint: image.entrypoint.clone(),
            cmd: image.cmd.clone(),
            working_dir: image.working_dir.clone(),
        }
    }

    /// Returns the PID namespace that the container asks for. A target must be a running container of the same pod.
    async fn pid_namespace(&self, shared: &Shared, shim: &Shim) -> Result<PidNamespace> {
        let path = |pid: u32| PidNamespace::Path(format!("/proc/{pid}/ns/pid").into());
        match &self.config.security.pid {
            PidMode::Container => Ok(PidNamespace::New),
            PidMode::Node => Ok(PidNamespace::Host),
            PidMode::Pod => Ok(shim.pod_init().await?.map_or(PidNamespace::New, path)),
            PidMode::Target(id) => {
                let target = shared.containers.find(id)?.get();
                match target.state.pid().filter(|_| target.pod_id == self.pod.id) {
                    // The pid may have been reused when the shim opens it. The shim holds a pidfd of the target.
                    Some(_) => Ok(PidNamespace::Path(format!("container:{}", target.id).into())),
                    None => Err(Error::new(
                        Kind::FailedPrecondition,
                        format!("target container {id} does not run in pod {}", self.pod.id),
                    )),
                }
            }
        }
    }

    fn spec(
        &self,
        shared: &Shared,
        user: &ResolvedUser,
        found: &HostLookup,
        volumes: &[ImageVolume],
        cgroup_path: &str,
        pid: PidNamespace,
    ) -> Result<Spec> {
        let files = files_of(&shared.layout, &self.pod.id);
        let inputs = spec::Inputs {
            container: &self.config,
            pod: &self.pod.config,
            image: &self.image_defaults(),
            user,
            host: &shared.host,
            defaults: &shared.defaults,
            hostname: &shared.hostname_of(&self.pod.config),
            files: &spec::PodFiles {
                resolv_conf: Some(files.resolv_conf),
                hosts: Some(files.hosts),
                hostname: Some(files.hostname),
            },
            volumes,
            devices: &found.devices,
            seccomp: found.seccomp.as_ref(),
            cgroup_path,
            pid,
        };
        spec::build(&inputs).map_err(spec_error)
    }

    async fn output(&self, shared: &Shared, log: Option<PathBuf>) -> Result<String> {
        log::uri_of(&self.pod, &self.cause(), log, shared.options.max_log_line).await
    }

    /// Makes the FIFO for attach and returns its path as the shim takes it; empty without stdin. The shim keeps it
    /// open, so a container that reads blocks until a client attaches.
    fn stdin(&self, bundle: &Path) -> Result<String> {
        if !self.config.stdin {
            return Ok(String::new());
        }
        let pipe = bundle.join(STDIN);
        let made = mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0);
        made.map_err(std::io::Error::from).during(|| format!("make the pipe {}", pipe.display()))?;
        Ok(format!("{}?once={}", pipe.display(), u8::from(self.config.stdin_once)))
    }

    fn rootfs(&self, shared: &Shared, lower: &[PathBuf]) -> Result<RootfsOverlay> {
        let writable = shared.layout.writable(&self.id);
        let (upper, work) = (writable.join("upper"), writable.join("work"));
        make_private(&writable)?;
        // overlayfs needs at least one lower layer, and an image may have none.
        let none = lower.is_empty().then(|| writable.join("empty"));
        for directory in [&upper, &work].into_iter().chain(&none) {
            fs::create_dir_all(directory).during(|| format!("create {}", directory.display()))?;
        }
        let users = self.pod.config.namespaces.users;
        own(&upper, users).during(|| format!("give {} to the pod's root", upper.display()))?;
        failpoint!(ROOTFS_MADE)?;
        Ok(RootfsOverlay {
            users,
            lower: lower.iter().chain(&none).map(|layer| layer.display().to_string()).collect(),
            upper: upper.display().to_string(),
            work: work.display().to_string(),
            label: spec::selinux::mount_label(self.config.security.selinux.as_ref(), &shared.host),
        })
    }

    /// Records the container, then shows it. Both happen under the pod's lock, because a stop or removal of the pod
    /// covers only the containers that are shown by then. On failure the shim is told to discard its container.
    async fn publish(
        shared: &Arc<Shared>,
        pod: &Entry<Pod>,
        shim: Shim,
        prepared: Prepared,
        pid: u32,
    ) -> Result<()> {
        let state = ContainerState::Created { pid };
        let container = Container { created_at: clock::now(), state, ..prepared.container };
        let copy = shared.layout.container_copy(&container.id);
        let _lock = pod.lock().await;
        let recorded = match must_be_ready(&pod.get()) {
            Ok(()) => shared.state.put_new(&container, copy).await,
            stopped => stopped,
        };
        if let Err(error) = recorded {
            forget(&shim, &container.id).await;
            return Err(error);
        }
        killpoint!(CONTAINER_RECORDED);
        let id = container.id.clone();
        events::container_created(shared, &container).await;
        let entry = shared.containers.insert(&id, container);
        prepared.announced.confirm();
        watch::container(shared, entry, shim);
        Ok(())
    }
}

/// Has the shim set the container up. After [`STEP_QUERY_DELAY`], reports the shim's own steps as progress.
async fn set_up(shim: &Shim, task: &ContainerTask) -> Result<u32> {
    progress::at(SET_UP_STEP);
    let mut creation = pin!(shim.create(task.clone()));
    loop {
        if let Ok(created) = timeout(STEP_QUERY_DELAY, &mut creation).await {
            return created;
        }
        tokio::select! {
            created = &mut creation => return created,
            step = shim.creation_step(&task.id) => {
                step.into_iter().for_each(|step| progress::at(format!("{SET_UP_STEP}: {step}")));
            }
        }
    }
}

/// Discards a container in the shim. Only logs a failure, because the caller returns its own error. A shim that has
/// exited took the container with it.
async fn forget(shim: &Shim, id: &str) {
    if let Err(error) = shim.discard(id).await
        && !matches!(error.kind(), Kind::NotFound | Kind::Unavailable | Kind::FailedPrecondition)
    {
        tracing::warn!(container = id, %error, "could not forget a container that was never recorded");
    }
}

/// Results of looking up on the host the paths that the container names.
struct HostLookup {
    devices: Devices,
    seccomp: Option<seccomp::Profile>,
}

async fn look_up(cause: &str, config: &ContainerConfig, host: &Host) -> Result<HostLookup> {
    let (config, host) = (config.clone(), host.clone());
    let found = blocking::look_up("look its devices and profiles up", cause, move || {
        spec::apparmor::check(&config.security, &host, Path::new("/"))?;
        spec::selinux::relabel(&config, &host)?;
        Ok(HostLookup { devices: spec::devices::find(&config)?, seccomp: seccomp::read(&config)? })
    });
    found.await?.map_err(spec_error)
}

/// Reads the users and groups of the image.
fn accounts_of(layers: &Layers) -> Result<Accounts> {
    let read = |path| {
        let found = layers.read(path, MAX_ACCOUNTS_BYTES);
        found.map_err(|error| Error::caused(Kind::InvalidArgument, "look up the image's users", error))
    };
    let (passwd, group) = (read("etc/passwd")?, read("etc/group")?);
    Ok(Accounts::parse(&passwd.unwrap_or_default(), &group.unwrap_or_default()))
}

/// Writes the bundle that the shim reads: config.json as the OCI runtime specification defines it, and an empty rootfs.
fn write_bundle(bundle: &Path, spec: &Spec) -> Result<()> {
    make_private(bundle)?;
    make_private(&bundle.join("rootfs"))?;
    let json = serde_json::to_vec(spec).during(|| "encode the OCI runtime spec")?;
    write_private(&bundle.join("config.json"), &json)
}

#[cfg(test)]
mod tests;
