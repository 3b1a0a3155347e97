//! Creating a container, in phases: each is a value that the next one consumes.
//!
//! ```text
//! Planned --image held, directories made--> Prepared --shim--> Created (shown and watched)
//!     \________________________________________\_____ failed: undone, from whatever phase
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
    blocking, cdi,
    error::{During, Error, Kind, Result, of_image, spec_error},
    identity,
    layout::{make_private, write_private},
    nri::{
        Announced,
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

/// The step in which whatever the container mounts is touched.
const SET_UP: &str = "set it up in its pod's shim, mounts included";
/// A creation that takes longer is asked what it is at.
const LONG: Duration = Duration::from_millis(500);
/// Longest /etc/passwd or /etc/group of an image that is read.
const MAX_ACCOUNTS: usize = 4 << 20;

/// Creates the container, or answers with the one that exists already.
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
    let plan = Plan { id: identity::generate()?, pod, image, config };
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

/// A container that nothing was made of yet.
struct Plan {
    id: String,
    pod: Arc<Pod>,
    image: Arc<Image>,
    config: ContainerConfig,
}

/// What the shim needs to make it, on disk and held.
struct Prepared {
    task: ContainerTask,
    container: Container,
    announced: Announced,
}

impl Plan {
    async fn carry_out(self, shared: &Arc<Shared>, pod: &Entry<Pod>) -> Result<()> {
        let shim = shared.shim_of(&self.pod.id).await?;
        let prepared = self.prepare(shared, &shim).await?;
        let made = set_up(&shim, &prepared.task).await;
        if made.as_ref().is_err_and(|error| error.kind() == Kind::DeadlineExceeded) {
            // A shim that was too slow to answer may go on with it.
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

    /// What the same container would hang on again, however often it is tried.
    fn cause(&self) -> String {
        format!("container {} of pod {}", self.config.metadata.name, self.pod.id)
    }

    /// Gives the container the CDI devices that plugins ask for besides.
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

    /// The container as it will be recorded, but for its first process.
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
            created_at: identity::now(),
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

    /// The PID namespace that the container asks for; one of a target is that of a running container of this pod.
    async fn pid_namespace(&self, shared: &Shared, shim: &Shim) -> Result<PidNamespace> {
        let path = |pid: u32| PidNamespace::Path(format!("/proc/{pid}/ns/pid").into());
        match &self.config.security.pid {
            PidMode::Container => Ok(PidNamespace::New),
            PidMode::Node => Ok(PidNamespace::Host),
            PidMode::Pod => Ok(shim.pod_init().await?.map_or(PidNamespace::New, path)),
            PidMode::Target(id) => {
                let target = shared.containers.find(id)?.get();
                match target.state.pid().filter(|_| target.pod_id == self.pod.id) {
                    // The pid may be somebody else's when the shim looks at it: it holds the process itself.
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
        found: &Found,
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

    /// A named pipe for whoever attaches. The shim keeps it open, so a container that reads waits for someone to come.
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
        // An image may have no layers, but overlayfs wants one.
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

    /// Records the container, then shows it: in the pod's turn, because a pod that is stopped or removed meanwhile
    /// takes along only what it has by then. A shim that holds a container without a record is told to forget it.
    async fn publish(
        shared: &Arc<Shared>,
        pod: &Entry<Pod>,
        shim: Shim,
        prepared: Prepared,
        pid: u32,
    ) -> Result<()> {
        let state = ContainerState::Created { pid };
        let container = Container { created_at: identity::now(), state, ..prepared.container };
        let copy = shared.layout.container_copy(&container.id);
        let _turn = pod.turn().await;
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
        prepared.announced.kept();
        watch::container(shared, entry, shim);
        Ok(())
    }
}

/// Has the shim set it up, and says what that waits for as soon as it takes long.
async fn set_up(shim: &Shim, task: &ContainerTask) -> Result<u32> {
    progress::at(SET_UP);
    let mut creation = pin!(shim.create(task.clone()));
    loop {
        if let Ok(created) = timeout(LONG, &mut creation).await {
            return created;
        }
        tokio::select! {
            created = &mut creation => return created,
            step = shim.creation_step(&task.id) => {
                step.into_iter().for_each(|step| progress::at(format!("{SET_UP}: {step}")));
            }
        }
    }
}

/// What failed first is what is told; a shim that has left, or is about to, took the container with it.
async fn forget(shim: &Shim, id: &str) {
    if let Err(error) = shim.discard(id).await
        && !matches!(error.kind(), Kind::NotFound | Kind::Unavailable | Kind::FailedPrecondition)
    {
        tracing::warn!(container = id, %error, "could not forget a container that was never recorded");
    }
}

/// What the paths in the container's description lead to on the host.
struct Found {
    devices: Devices,
    seccomp: Option<seccomp::Profile>,
}

async fn look_up(cause: &str, config: &ContainerConfig, host: &Host) -> Result<Found> {
    let (config, host) = (config.clone(), host.clone());
    let found = blocking::look_up("look its devices and profiles up", cause, move || {
        spec::apparmor::check(&config.security, &host, Path::new("/"))?;
        spec::selinux::relabel(&config, &host)?;
        Ok(Found { devices: spec::devices::find(&config)?, seccomp: seccomp::read(&config)? })
    });
    found.await?.map_err(spec_error)
}

/// The users and groups of the image.
fn accounts_of(layers: &Layers) -> Result<Accounts> {
    let read = |path| {
        let found = layers.read(path, MAX_ACCOUNTS);
        found.map_err(|error| Error::caused(Kind::InvalidArgument, "look up the image's users", error))
    };
    let (passwd, group) = (read("etc/passwd")?, read("etc/group")?);
    Ok(Accounts::parse(&passwd.unwrap_or_default(), &group.unwrap_or_default()))
}

/// The directory that the shim reads: config.json in the OCI runtime spec's form.
fn write_bundle(bundle: &Path, spec: &Spec) -> Result<()> {
    make_private(bundle)?;
    make_private(&bundle.join("rootfs"))?;
    let json = serde_json::to_vec(spec).during(|| "encode the OCI runtime spec")?;
    write_private(&bundle.join("config.json"), &json)
}

#[cfg(test)]
mod tests;
