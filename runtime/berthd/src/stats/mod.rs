//! What containers and pods use: processor, memory, disk, network.
//!
//! The kernel is asked when a caller asks, with a few small reads per container: no process, no shim, no lock that a
//! change of a pod or container takes. Only two things are remembered between calls: the last processor time of each
//! cgroup, to tell how fast it grows, and the size of writable layers, which is dear to find out.

mod cgroup;
mod disk;
mod network;
mod process;
mod rate;
mod usage;

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc, time::Instant};

use futures::future::join_all;

use self::{cgroup::Cgroups, disk::Disks, rate::Rates};
use crate::{
    blocking,
    container::Container,
    error::{Error, Kind, Result},
    pod::{Pod, PodState},
    runtime::Shared,
};

pub use disk::{DiskUsage, FileSystem};
pub use network::{Interface, Traffic};
pub use process::Processes;
pub use usage::{Cpu, Details, DeviceIo, HugePages, Memory, Pressure, Stall, Swap, Tasks, Throttling, Usage};

/// What one container uses.
#[derive(Clone, Debug)]
pub struct ContainerStats {
    /// The container as it was when it was looked at.
    pub container: Arc<Container>,
    /// `None` when it has ended.
    pub usage: Option<Usage>,
    /// What it wrote over its image; `None` when that takes longer to count than a caller should wait.
    pub disk: Option<DiskUsage>,
}

/// What one pod uses.
#[derive(Clone, Debug)]
pub struct PodStats {
    /// The pod as it was when it was looked at.
    pub pod: Arc<Pod>,
    /// Of all that runs in its cgroup, which may be one that the caller shares between pods; `None` when it is stopped.
    pub usage: Option<Usage>,
    /// Tasks in its cgroup, each thread counted.
    pub tasks: Option<u64>,
    /// Its interfaces but loopback; none on the host's network.
    pub interfaces: Vec<Interface>,
    /// Its containers that have not ended.
    pub containers: Vec<ContainerStats>,
}

/// Everything that is known of what a container uses.
#[derive(Clone, Debug)]
pub struct ContainerDetails {
    /// What the statistics have too.
    pub stats: ContainerStats,
    /// What only metrics tell.
    pub details: Details,
    /// Its processes and what they hold open.
    pub processes: Processes,
}

/// Everything that is known of what a pod uses.
#[derive(Clone, Debug)]
pub struct PodDetails {
    /// The pod as it was when it was looked at.
    pub pod: Arc<Pod>,
    /// Its interfaces but loopback; none on the host's network.
    pub interfaces: Vec<Interface>,
    /// Its containers that have not ended.
    pub containers: Vec<ContainerDetails>,
}

/// The one who asks the kernel. Clones share what is remembered.
#[derive(Clone)]
pub struct Stats {
    shared: Arc<Shared>,
    cgroups: Arc<Cgroups>,
    rates: Arc<Rates>,
    disks: Arc<Disks>,
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stats").field("cgroups", &self.cgroups).finish_non_exhaustive()
    }
}

impl Stats {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, cgroups: Arc::new(Cgroups::find()), rates: Arc::default(), disks: Arc::default() }
    }

    /// Of one container, which may have ended: then there is nothing but its disk usage.
    pub async fn container(&self, container: Arc<Container>) -> Result<ContainerStats> {
        let mut all = self.gather(vec![container]).await?;
        all.pop().ok_or_else(|| Error::new(Kind::Internal, "read what a container uses"))
    }

    /// Of those of the containers that have not ended, nor do while they are looked at.
    pub async fn containers(&self, mut wanted: Vec<Arc<Container>>) -> Result<Vec<ContainerStats>> {
        self.forget_removed();
        wanted.retain(|container| !container.state.is_exited());
        let mut all = self.gather(wanted).await?;
        all.retain(|stats| stats.usage.is_some());
        Ok(all)
    }

    /// Of one pod, which may be stopped: then there are no numbers.
    pub async fn pod(&self, pod: Arc<Pod>) -> Result<PodStats> {
        let mut all = self.pods(vec![pod]).await?;
        all.pop().ok_or_else(|| Error::new(Kind::Internal, "read what a pod uses"))
    }

    /// Of these pods, in this order.
    pub async fn pods(&self, wanted: Vec<Arc<Pod>>) -> Result<Vec<PodStats>> {
        let containers = self.live_containers_of(&wanted);
        let (containers, interfaces, usage) =
            tokio::try_join!(self.containers(containers), interfaces_of(&wanted), self.usage_of(&wanted))?;
        let mut containers = by_pod(containers, |stats| &stats.container);
        let each = wanted.into_iter().zip(interfaces).zip(usage);
        Ok(each
            .map(|((pod, interfaces), (usage, tasks))| {
                let containers = containers.remove(&pod.id).unwrap_or_default();
                PodStats { pod, usage, tasks, interfaces, containers }
            })
            .collect())
    }

    /// Everything, of all pods that are ready.
    pub async fn details(&self) -> Result<Vec<PodDetails>> {
        let pods: Vec<_> =
            self.shared.pods.list().into_iter().filter(|pod| pod.state == PodState::Ready).collect();
        let stats = self.containers(self.live_containers_of(&pods)).await?;
        let (containers, interfaces) = tokio::try_join!(self.details_of(stats), interfaces_of(&pods))?;
        let mut containers = by_pod(containers, |details| &details.stats.container);
        let each = pods.into_iter().zip(interfaces);
        Ok(each
            .map(|(pod, interfaces)| {
                let containers = containers.remove(&pod.id).unwrap_or_default();
                PodDetails { pod, interfaces, containers }
            })
            .collect())
    }

    /// What the writable layers of all containers take together, of those that ended too.
    pub async fn writable_layers(&self) -> DiskUsage {
        self.forget_removed();
        let each = self.disks_of(&self.shared.containers.list()).await;
        each.into_iter().flatten().fold(DiskUsage::none(), DiskUsage::and)
    }

    /// The file system that writable layers are on.
    pub async fn file_system(&self) -> Result<FileSystem> {
        let directory = self.shared.layout.writables();
        read(move || FileSystem::of(&directory)).await?
    }

    /// Where writable layers are: all of them below this directory.
    pub fn writables(&self) -> PathBuf {
        self.shared.layout.writables()
    }

    async fn gather(&self, containers: Vec<Arc<Container>>) -> Result<Vec<ContainerStats>> {
        let (cgroups, rates, looked_at) =
            (Arc::clone(&self.cgroups), Arc::clone(&self.rates), containers.clone());
        let read = read(move || {
            let mut reader = cgroups.reader();
            let usage = |container: Arc<Container>| {
                let live = !container.state.is_exited();
                live.then(|| reader.usage(&container.cgroup)).flatten().map(|u| rates.rated(&container.id, u))
            };
            looked_at.into_iter().map(usage).collect::<Vec<_>>()
        });
        let (usage, disks) = tokio::join!(read, self.disks_of(&containers));
        let each = containers.into_iter().zip(usage?).zip(disks);
        Ok(each.map(|((container, usage), disk)| ContainerStats { container, usage, disk }).collect())
    }

    async fn disks_of(&self, containers: &[Arc<Container>]) -> Vec<Option<DiskUsage>> {
        let until = Instant::now() + disk::PATIENCE;
        let upper = |container: &Container| self.shared.layout.writable(&container.id).join("upper");
        join_all(containers.iter().map(|one| self.disks.usage(&one.id, upper(one), until))).await
    }

    async fn usage_of(&self, pods: &[Arc<Pod>]) -> Result<Vec<(Option<Usage>, Option<u64>)>> {
        let (cgroups, rates, pods) = (Arc::clone(&self.cgroups), Arc::clone(&self.rates), pods.to_vec());
        read(move || {
            let mut reader = cgroups.reader();
            let of_pod = |pod: Arc<Pod>| match pod.state {
                PodState::Ready => {
                    let usage = reader.usage(&pod.cgroup).map(|usage| rates.rated(&pod.id, usage));
                    (usage, reader.tasks(&pod.cgroup).map(|tasks| tasks.current))
                }
                PodState::Starting | PodState::NotReady => (None, None),
            };
            pods.into_iter().map(of_pod).collect()
        })
        .await
    }

    async fn details_of(&self, all: Vec<ContainerStats>) -> Result<Vec<ContainerDetails>> {
        let cgroups = Arc::clone(&self.cgroups);
        read(move || {
            let mut reader = cgroups.reader();
            let details = |stats: ContainerStats| {
                let container = &stats.container;
                let details = reader.details(&container.cgroup);
                let processes =
                    Processes::look_at(&reader.processes(&container.cgroup), container.state.pid());
                ContainerDetails { stats, details, processes }
            };
            all.into_iter().map(details).collect()
        })
        .await
    }

    fn live_containers_of(&self, pods: &[Arc<Pod>]) -> Vec<Arc<Container>> {
        let mut containers = self.shared.containers.list();
        let wanted: std::collections::HashSet<&str> = pods.iter().map(|pod| pod.id.as_str()).collect();
        containers.retain(|one| wanted.contains(one.pod_id.as_str()) && !one.state.is_exited());
        containers.sort_by_key(|one| one.created_at);
        containers
    }

    /// Forgets what is remembered of containers and pods that are no more.
    fn forget_removed(&self) {
        let exists = |id: &str| self.shared.containers.has(id) || self.shared.pods.has(id);
        self.rates.retain(exists);
        self.disks.retain(exists);
    }
}

async fn interfaces_of(pods: &[Arc<Pod>]) -> Result<Vec<Vec<Interface>>> {
    let ready = |pod: &Arc<Pod>| pod.netns.clone().filter(|_| pod.state == PodState::Ready);
    let namespaces: Vec<Option<PathBuf>> = pods.iter().map(ready).collect();
    read(move || network::interfaces_in(&namespaces)).await?
}

fn by_pod<T>(all: Vec<T>, container: impl Fn(&T) -> &Container) -> HashMap<String, Vec<T>> {
    let mut pods = HashMap::<String, Vec<T>>::new();
    for one in all {
        pods.entry(container(&one).pod_id.clone()).or_default().push(one);
    }
    pods
}

async fn read<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    blocking::run("read what containers use", work).await
}
