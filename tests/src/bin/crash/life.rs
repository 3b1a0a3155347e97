//! The life of a pod, from the pull of its image to the removal of both, driven as kubelet does it: a failed call is
//! repeated, and a pod that died is replaced.

use std::time::Duration;

use berth_cri::v1;
use berth_tests::{crictl, pod};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use tonic::{Code, Status};

use crate::{
    Failure,
    leftovers::processes,
    random::Kill,
    world::{World, sandbox},
};

/// Tries of one call before the life has failed.
const CALL_ATTEMPTS: usize = 4;
/// Pods that may die in one life.
const MAX_POD_DEATHS: u32 = 4;
/// Limit of one call: longer than any may take, so that a hanging call is reported.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Exit code of the container that ends by itself.
const CODE: i32 = 7;

/// A kind of call that changes the host, or of time in which it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Pull,
    Run,
    Create,
    Start,
    ExecSync,
    Exec,
    Update,
    UpdatePod,
    UpdateNode,
    ReopenLog,
    /// A container ends by itself.
    End,
    /// A question, which changes nothing: no kill is due in it.
    Look,
    StopContainer,
    RemoveContainer,
    StopPod,
    RemovePod,
    RemoveImage,
}

impl Step {
    /// All kinds in which kills are due, in the order of a life.
    pub(crate) const ALL: [Self; 16] = [
        Self::Pull,
        Self::Run,
        Self::Create,
        Self::Start,
        Self::ExecSync,
        Self::Exec,
        Self::Update,
        Self::UpdatePod,
        Self::UpdateNode,
        Self::ReopenLog,
        Self::End,
        Self::StopContainer,
        Self::RemoveContainer,
        Self::StopPod,
        Self::RemovePod,
        Self::RemoveImage,
    ];

    /// Whether the pod, and with it its shim, is there before and after the call.
    pub(crate) fn is_within_a_pod(self) -> bool {
        !matches!(self, Self::Pull | Self::Run | Self::StopPod | Self::RemovePod | Self::RemoveImage)
    }
}

/// Counts, errors and times of one life.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) daemon_kills: usize,
    pub(crate) shim_kills: usize,
    pub(crate) retries: usize,
    /// Errors answered by a live daemon.
    pub(crate) errors: Vec<String>,
    /// Duration of each call that succeeded, in order.
    pub(crate) took: Vec<(Step, Duration)>,
}

/// Why a step has failed for good.
enum Stop {
    /// The pod died without being stopped; the life goes on with a successor.
    PodDied,
    Failed(Failure),
}

/// A life in progress.
pub(crate) struct Life<'a> {
    world: &'a mut World,
    name: String,
    attempt: u32,
    outcome: Outcome,
    /// The kill that is still to come.
    kill: Option<Kill>,
    /// The kill in progress.
    killing: Option<JoinHandle<()>>,
}

impl<'a> Life<'a> {
    pub(crate) fn new(world: &'a mut World, name: &str, kill: Option<Kill>) -> Self {
        Self { world, name: name.into(), attempt: 0, outcome: Outcome::default(), kill, killing: None }
    }

    /// Runs the life: everything it makes, it also removes.
    ///
    /// # Errors
    ///
    /// A call hangs or fails [`CALL_ATTEMPTS`] times, an answer is wrong, or too many pods die.
    pub(crate) async fn live(mut self) -> (Outcome, Result<(), Failure>) {
        let lived = self.all().await;
        if let Some(killing) = self.killing.take() {
            let _ = killing.await;
        }
        self.outcome.daemon_kills += self.world.revive().await;
        (self.outcome, lived)
    }

    async fn all(&mut self) -> Result<(), Failure> {
        let image = self.world.image.clone();
        self.settled(Step::Pull, "", async |world| world.berth.pull(&image).await).await?;
        loop {
            match self.pod().await {
                Ok(()) => break,
                Err(Stop::Failed(why)) => return Err(why),
                Err(Stop::PodDied) if self.attempt < MAX_POD_DEATHS => self.remove_dead_pods().await?,
                Err(Stop::PodDied) => {
                    return Err(format!("{} pods died one after the other", MAX_POD_DEATHS + 1));
                }
            }
        }
        self.settled(Step::RemoveImage, "", async |world| remove_image(world, &image).await).await
    }

    /// Runs one pod with its containers, from the first call to the last.
    async fn pod(&mut self) -> Result<(), Stop> {
        let config = sandbox(&self.world.berth, &self.name, self.attempt);
        let pod = self.call(Step::Run, "", async |world| world.berth.run(&config).await).await?;
        let stays = self.container(&pod, &config, "stays", "exec sleep 1000").await?;
        self.use_it(&pod, &stays).await?;
        let ends = self.container(&pod, &config, "ends", &format!("echo begun; exit {CODE}")).await?;
        self.see_the_end(&pod, &ends).await?;
        for id in [&ends, &stays] {
            self.call(Step::StopContainer, &pod, async |world| world.berth.stop_container(id, 0).await)
                .await?;
            self.call(Step::RemoveContainer, &pod, async |world| world.berth.remove_container(id).await)
                .await?;
        }
        // This container is removed by the removal of its pod.
        self.container(&pod, &config, "last", "exec sleep 1000").await?;
        self.call(Step::StopPod, "", async |world| world.berth.stop_pod(&pod).await).await?;
        self.call(Step::RemovePod, "", async |world| world.berth.remove_pod(&pod).await).await
    }

    async fn container(
        &mut self,
        pod: &str,
        config: &v1::PodSandboxConfig,
        name: &str,
        script: &str,
    ) -> Result<String, Stop> {
        let image = self.world.image.clone();
        let wanted = pod::shell(name, &image, script);
        let create = async |world: &mut World| world.berth.create(pod, config, wanted.clone()).await;
        let id = self.call(Step::Create, pod, create).await?;
        self.call(Step::Start, pod, async |world| start(world, &id).await).await?;
        Ok(id)
    }

    async fn use_it(&mut self, pod: &str, id: &str) -> Result<(), Stop> {
        let said =
            self.call(Step::ExecSync, pod, async |world| world.berth.exec(id, &["echo", "hi"]).await).await?;
        if (said.exit_code, said.stdout.as_slice()) != (0, b"hi\n".as_slice()) {
            return Err(Stop::Failed(format!("a command that says hi: {said:?}")));
        }
        self.call(Step::Exec, pod, async |world| exec(world, id)).await?;
        self.call(Step::Update, pod, async |world| update(world, id).await).await?;
        self.call(Step::UpdatePod, pod, async |world| update_pod(world, pod).await).await?;
        self.call(Step::UpdateNode, pod, update_node).await?;
        self.call(Step::ReopenLog, pod, async |world| reopen_log(world, id).await).await
    }

    /// Waits until the container is reported with its own exit code. Whichever process is killed meanwhile, the code must not
    /// be lost as long as the pod lives.
    async fn see_the_end(&mut self, pod: &str, id: &str) -> Result<(), Stop> {
        let begun = Instant::now();
        self.kill_in(Step::End, pod);
        loop {
            let status = self.call(Step::Look, pod, async |world| world.berth.status(id).await).await?;
            match status.state() {
                v1::ContainerState::ContainerExited if status.exit_code == CODE => {
                    self.outcome.took.push((Step::End, begun.elapsed()));
                    return Ok(());
                }
                v1::ContainerState::ContainerExited if self.is_over(pod).await => return Err(Stop::PodDied),
                v1::ContainerState::ContainerExited => {
                    let text = format!("exited with {} ({}), not {CODE}", status.exit_code, status.message);
                    return Err(Stop::Failed(text));
                }
                _ if begun.elapsed() > CALL_TIMEOUT => {
                    return Err(Stop::Failed(format!("never ended: {status:?}")));
                }
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Removes a pod that died, as kubelet does before it runs the next attempt.
    async fn remove_dead_pods(&mut self) -> Result<(), Failure> {
        self.outcome.shim_kills += 1;
        self.attempt += 1;
        let name = self.name.clone();
        for pod in self.settled(Step::StopPod, "", async |world| pods(world, &name).await).await? {
            self.settled(Step::StopPod, "", async |world| world.berth.stop_pod(&pod).await).await?;
            self.settled(Step::RemovePod, "", async |world| world.berth.remove_pod(&pod).await).await?;
        }
        Ok(())
    }

    /// Makes a call in which the death of a pod is a failure.
    async fn settled<T>(
        &mut self,
        step: Step,
        pod: &str,
        call: impl AsyncFnMut(&mut World) -> Result<T, Status>,
    ) -> Result<T, Failure> {
        self.call(step, pod, call).await.map_err(|stop| match stop {
            Stop::Failed(why) => why,
            Stop::PodDied => format!("{step:?}: the pod died"),
        })
    }

    /// Makes a call up to [`CALL_ATTEMPTS`] times, restarting the daemon whenever it has ended. `pod` is the id of a pod
    /// that may die, or empty.
    async fn call<T>(
        &mut self,
        step: Step,
        pod: &str,
        mut call: impl AsyncFnMut(&mut World) -> Result<T, Status>,
    ) -> Result<T, Stop> {
        for again in 0..CALL_ATTEMPTS {
            self.outcome.daemon_kills += self.world.revive().await;
            self.outcome.retries += usize::from(again > 0);
            let begun = Instant::now();
            self.kill_in(step, pod);
            let Ok(answer) = timeout(CALL_TIMEOUT, call(&mut *self.world)).await else {
                return Err(Stop::Failed(format!("{step:?} has no answer after {CALL_TIMEOUT:?}")));
            };
            let status = match answer {
                Ok(answer) => {
                    self.outcome.took.push((step, begun.elapsed()));
                    return Ok(answer);
                }
                Err(status) => status,
            };
            if !self.has_lost_its_daemon(&status).await {
                self.outcome.errors.push(format!("{step:?}: {:?}: {}", status.code(), status.message()));
                if !pod.is_empty() && self.is_over(pod).await {
                    return Err(Stop::PodDied);
                }
            }
        }
        Err(Stop::Failed(format!("{step:?} failed {CALL_ATTEMPTS} times: {:?}", self.outcome.errors)))
    }

    /// Whether the call failed because the daemon has ended, not by an error it answered.
    async fn has_lost_its_daemon(&mut self, status: &Status) -> bool {
        // The connection may break before the process can be reaped.
        let soon = Instant::now() + Duration::from_millis(500);
        let broken = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled);
        while broken && !self.world.berth.has_ended() && Instant::now() < soon {
            sleep(Duration::from_millis(5)).await;
        }
        self.world.berth.has_ended()
    }

    /// Whether the pod is gone or not ready any more.
    async fn is_over(&mut self, pod: &str) -> bool {
        let begun = Instant::now();
        // The daemon may notice a shim's death only after the call to that shim has failed.
        while begun.elapsed() < Duration::from_secs(2) {
            self.outcome.daemon_kills += self.world.revive().await;
            match self.world.berth.pod_status(pod).await {
                Ok(status) if status.state() == v1::PodSandboxState::SandboxReady => {}
                Ok(_) => return true,
                Err(status) if status.code() == Code::NotFound => return true,
                Err(_) => {}
            }
            if shim_of(pod).is_some() {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Begins the kill, of the daemon or the pod's shim, if it is due in this call.
    fn kill_in(&mut self, step: Step, pod: &str) {
        if let Some(kill) = self.kill.take_if(|kill| kill.is_due_in(step)) {
            let shim = shim_of(pod).filter(|_| kill.shim);
            let daemon = i32::try_from(self.world.berth.pid()).unwrap();
            self.killing = Some(kill.soon(shim.unwrap_or(daemon)));
        }
    }
}

/// Pid of the pod's shim. The pod's first process has the same command line, and the shim as its parent.
fn shim_of(pod: &str) -> Option<i32> {
    if pod.is_empty() {
        return None;
    }
    let found: Vec<i32> = processes()
        .filter(|(_, line)| line.contains(pod) && line.contains("-bundle"))
        .map(|(pid, _)| pid)
        .collect();
    found.iter().copied().find(|pid| !found.contains(&parent(*pid)))
}

fn parent(pid: i32) -> i32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|pid| pid.trim().parse().ok()).unwrap_or(0)
}

/// Starts a container. One that runs or has run already counts as started, by an earlier try.
async fn start(world: &mut World, id: &str) -> Result<(), Status> {
    let refused = match world.berth.start_container(id).await {
        Err(refused) if refused.code() == Code::FailedPrecondition => refused,
        answer => return answer,
    };
    let status = world.berth.status(id).await?;
    let ran = status.state() == v1::ContainerState::ContainerExited
        && status.reason != "StartError"
        && status.exit_code == CODE;
    if ran || status.state() == v1::ContainerState::ContainerRunning { Ok(()) } else { Err(refused) }
}

/// Runs a command through crictl, so that it has a client at its streams.
fn exec(world: &mut World, id: &str) -> Result<(), Status> {
    let said = crictl::run(&mut crictl::crictl(&world.berth, "exec", "spdy", &[id, "echo", "hi"]), b"");
    match said.status.success() && said.stdout == b"hi\n" {
        true => Ok(()),
        false => Err(Status::unavailable(String::from_utf8_lossy(&said.stderr).into_owned())),
    }
}

async fn update(world: &mut World, id: &str) -> Result<(), Status> {
    let linux = v1::LinuxContainerResources { cpu_shares: 512, ..Default::default() };
    let request = v1::UpdateContainerResourcesRequest {
        container_id: id.into(),
        linux: Some(linux),
        ..Default::default()
    };
    world.berth.runtime.update_container_resources(request).await.map(drop)
}

async fn update_pod(world: &mut World, pod: &str) -> Result<(), Status> {
    let resources = v1::LinuxContainerResources { cpu_shares: 256, ..Default::default() };
    let request = v1::UpdatePodSandboxResourcesRequest {
        pod_sandbox_id: pod.into(),
        resources: Some(resources),
        ..Default::default()
    };
    world.berth.runtime.update_pod_sandbox_resources(request).await.map(drop)
}

/// Tells the daemon the node's range of pod addresses.
async fn update_node(world: &mut World) -> Result<(), Status> {
    let network_config = Some(v1::NetworkConfig { pod_cidr: "10.1.0.0/24".into() });
    let runtime_config = Some(v1::RuntimeConfig { network_config });
    world
        .berth
        .runtime
        .update_runtime_config(v1::UpdateRuntimeConfigRequest { runtime_config })
        .await
        .map(drop)
}

async fn reopen_log(world: &mut World, id: &str) -> Result<(), Status> {
    let request = v1::ReopenContainerLogRequest { container_id: id.into() };
    world.berth.runtime.reopen_container_log(request).await.map(drop)
}

async fn remove_image(world: &mut World, image: &str) -> Result<(), Status> {
    let image = Some(v1::ImageSpec { image: image.into(), ..Default::default() });
    world.berth.images.remove_image(v1::RemoveImageRequest { image }).await.map(drop)
}

async fn pods(world: &mut World, name: &str) -> Result<Vec<String>, Status> {
    let all =
        world.berth.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await?.into_inner().items;
    let of_life = |pod: &v1::PodSandbox| pod.metadata.as_ref().is_some_and(|metadata| metadata.name == name);
    Ok(all.into_iter().filter(of_life).map(|pod| pod.id).collect())
}
