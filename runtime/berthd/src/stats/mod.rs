//! Resource usage of containers and pods: processor, memory, disk, network.
//!
//! A call reads the kernel's files directly, a few small ones per container. It starts no process, calls no shim, and
//! takes no lock that changes of pods or containers take. Only two things are kept between calls: the last processor
//! time of each cgroup, for its rate, and the sizes of writable layers, which are expensive to count.

mod cgroup;
mod disk;
mod network;
mod process;
mod rate;
mod usage;

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc, time::Instant};

use futures::future::join_all;

use self::{cgroup::Cgroups, disk::DiskUsageCache, rate::Rates};
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

/// Resource usage of one container.
#[derive(Clone, Debug)]
pub struct ContainerStats {
    /// The container's snapshot at the time of the reading.
    pub container: Arc<Container>,
    /// Usage of its cgroup; `None` when it has ended.
    pub usage: Option<Usage>,
    /// Size of its writable layer; `None` when it could not be counted yet.
    pub disk: Option<DiskUsage>,
}

/// Resource usage of one pod.
#[derive(Clone, Debug)]
pub struct PodStats {
    /// The pod's snapshot at the time of the reading.
    pub pod: Arc<Pod>,
    /// Usage of its cgroup, which the caller may share between pods; `None` unless the pod is ready.
    pub usage: Option<Usage>,
    /// Number of tasks in its cgroup; every thread is one.
    pub tasks: Option<u64>,
    /// Its interfaces except loopback; empty on the host's network.
    pub interfaces: Vec<Interface>,
    /// Its containers that have not ended.
    pub containers: Vec<ContainerStats>,
}

/// All measurements of a container.
#[derive(Clone, Debug)]
pub struct ContainerDetails {
    /// The values that statistics report.
    pub stats: ContainerStats,
    /// The values that only metrics report.
    pub details: Details,
    /// Its processes, and their open files.
    pub processes: Processes,
}

/// All measurements of a pod.
#[derive(Clone, Debug)]
pub struct PodDetails {
    /// The pod's snapshot at the time of the reading.
    pub pod: Arc<Pod>,
    /// Its interfaces except loopback; empty on the host's network.
    pub interfaces: Vec<Interface>,
    /// Its containers that have not ended.
    pub containers: Vec<ContainerDetails>,
}

/// Reads resource usage. Clones share the values that are kept between calls.
#[derive(Clone)]
pub struct Stats {
    shared: Arc<Shared>,
    cgroups: Arc<Cgroups>,
    rates: Arc<Rates>,
    disks: Arc<DiskUsageCache>,
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

    /// Returns the usage of one container. One that has ended has only its disk usage.
    pub async fn container(&self, container: Arc<Container>) -> Result<ContainerStats> {
        let mut all = self.gather(vec![container]).await?;
        all.pop().ok_or_else(|| Error::new(Kind::Internal, "read what a container uses"))
    }

    /// Returns the usage of the containers that have not ended, and do not end during the call.
    pub async fn containers(&self, mut wanted: Vec<Arc<Container>>) -> Result<Vec<ContainerStats>> {
        self.forget_removed();
        wanted.retain(|container| !container.state.is_exited());
        let mut all = self.gather(wanted).await?;
        all.retain(|stats| stats.usage.is_some());
        Ok(all)
    }

    /// Returns the usage of one pod, which has no values unless the pod is ready.
    pub async fn pod(&self, pod: Arc<Pod>) -> Result<PodStats> {
        let mut all = self.pods(vec![pod]).await?;
        all.pop().ok_or_else(|| Error::new(Kind::Internal, "read what a pod uses"))
    }

    /// Returns the usage of these pods, in the same order.
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

    /// Returns all measurements of the pods that are ready.
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

    /// Returns the disk usage of all writable layers together, including those of ended containers.
    pub async fn writable_layers(&self) -> DiskUsage {
        self.forget_removed();
        let each = self.disks_of(&self.shared.containers.list()).await;
        each.into_iter().flatten().fold(DiskUsage::none(), DiskUsage::and)
    }

    /// Returns the file system of the writable layers.
    pub async fn file_system(&self) -> Result<FileSystem> {
        let directory = self.shared.layout.writable_layers();
        read(move || FileSystem::of(&directory)).await?
    }

    /// Returns the directory of the writable layers.
    pub fn writable_layers_directory(&self) -> PathBuf {
        self.shared.layout.writable_layers()
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
        let until = Instant::now() + disk::COUNT_TIMEOUT;
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

    /// Forgets the values of containers and pods that were removed.
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
