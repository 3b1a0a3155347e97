//! One daemon for the whole run, and a pod that no case may touch.

use std::{
    collections::BTreeSet,
    fs, process,
    time::{Duration, Instant},
};

use berth_cri::v1::{ImageSpec, ListPodSandboxRequest, PodSandbox, RemoveImageRequest};
use berth_tests::{
    berth::Berth,
    image::{Image, Layer, Tar},
    pod,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::sleep;

use crate::{
    Failure,
    failpoints::Failpoints,
    left::{Places, processes},
    report::Report,
};

/// How long what goes on behind a call may take, on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
const BYSTANDER: &str = "bystander";

/// The daemon under test with what belongs to it.
pub(crate) struct World {
    pub(crate) berth: Berth,
    pub(crate) failpoints: Failpoints,
    /// Image of the lives, which is pulled and removed with each of them.
    pub(crate) image: String,
    places: Places,
    /// Process of the bystander, with the time of its start.
    bystander: (i32, String),
    /// What belongs to the bystander.
    base: BTreeSet<String>,
    /// What cases have left that were told of.
    forgiven: BTreeSet<String>,
    /// What `berthd check` said of that.
    told: BTreeSet<String>,
    /// Processes of shims that belong to the bystander.
    shims: BTreeSet<i32>,
}

impl World {
    /// With the bystander running.
    pub(crate) async fn start() -> Self {
        let failpoints = Failpoints::given();
        let own = process::id() % 200;
        let bridge = format!("bcrash{}", process::id() % 100_000);
        let mut berth = Berth::with_network(&format!(
            "provider = \"bridge\"\n[network.bridge]\nname = {bridge:?}\nsubnet = \"10.39.{own}.0/24\"\n\
             remove_when_empty = true\n",
        ))
        .await;
        let busybox = berth.busybox().await;
        let image = push(&berth).await;
        berth.run_alone(BYSTANDER, &busybox, &prints()).await;
        let places = Places { directory: berth.path().into(), bridge };
        let bystander = bystander().expect("the bystander runs");
        let (base, shims) = (places.everything(), places.shims());
        let (forgiven, told) = (BTreeSet::new(), BTreeSet::new());
        Self { berth, failpoints, image, places, bystander, base, forgiven, told, shims }
    }

    /// Starts the daemon again until it answers, if it has ended. Returns how often it had.
    pub(crate) async fn revive(&mut self) -> usize {
        let mut ends = 0;
        while self.berth.has_ended() {
            ends += 1;
            assert!(ends < 10, "berthd ends again and again: {}", self.berth.log());
            self.berth.try_restart().await;
        }
        ends
    }

    /// What is there that was not before any life, once all that goes on behind the calls has had its time.
    pub(crate) async fn left_behind(&mut self) -> Vec<String> {
        let begun = Instant::now();
        loop {
            // It may be killed in what goes on behind the calls.
            self.revive().await;
            let mut left: Vec<_> = self.places.everything().into_iter().collect();
            left.retain(|one| !self.base.contains(one) && !self.forgiven.contains(one));
            if left.is_empty() || begun.elapsed() > PATIENCE {
                return left;
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether the bystander is as it was.
    pub(crate) async fn bystander_is_well(&self) -> Result<(), Failure> {
        let now = bystander().map_err(|why| format!("the bystander: {why}"))?;
        if now != self.bystander {
            return Err(format!("the bystander was {:?} and is {now:?}", self.bystander));
        }
        let gone: Vec<_> = self.base.difference(&self.places.everything()).cloned().collect();
        if !gone.is_empty() {
            return Err(format!("of the bystander's there is no more {gone:?}"));
        }
        let (before, begun) = (self.printed().len(), Instant::now());
        while self.printed().len() == before {
            if begun.elapsed() > PATIENCE {
                return Err("the bystander prints no more".into());
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Whether the log of the bystander has all its lines, each once and in order.
    pub(crate) fn bystander_printed_all(&self) -> Result<(), Failure> {
        let lines = self.printed();
        match lines.iter().zip(1..).find(|(line, number)| **line != number.to_string()) {
            Some((line, number)) => Err(format!("line {number} is {line:?}")),
            None => Ok(()),
        }
    }

    fn printed(&self) -> Vec<String> {
        self.berth.log_of(BYSTANDER, BYSTANDER).into_iter().map(|(_, line)| line).collect()
    }

    /// Takes what was left behind for given, so that each leak is told of once. Shims that nobody knows are ended.
    pub(crate) fn forgive(&mut self) {
        for pid in self.places.shims().difference(&self.shims) {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        self.forgiven = self.places.everything();
        self.told = self.checked();
    }

    /// After a life that did not come to its end: removes its pods and its image, so that the next one begins anew.
    pub(crate) async fn clear(&mut self) -> Result<(), Failure> {
        self.revive().await;
        let all = self.berth.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await;
        let pods = all.map_err(|status| status.to_string())?.into_inner().items;
        let is_bystander =
            |pod: &PodSandbox| pod.metadata.as_ref().is_some_and(|metadata| metadata.name == BYSTANDER);
        for pod in pods.into_iter().filter(|pod| !is_bystander(pod)) {
            self.berth.remove_pod(&pod.id).await.map_err(|status| format!("clear: {status}"))?;
        }
        let image = Some(ImageSpec { image: self.image.clone(), ..Default::default() });
        let removed = self.berth.images.remove_image(RemoveImageRequest { image }).await;
        removed.map(drop).map_err(|status| format!("clear: {status}"))
    }

    /// What `berthd check`, which runs beside the daemon, has to say that it did not say before.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let new: Vec<_> = self.checked().difference(&self.told).cloned().collect();
        if new.is_empty() { Ok(()) } else { Err(format!("berthd check: {new:#?}")) }
    }

    fn checked(&self) -> BTreeSet<String> {
        self.berth.check(&[]).into_iter().collect()
    }

    /// Removes the bystander; nothing at all may be left then.
    pub(crate) async fn end(mut self, report: &mut Report) {
        self.failpoints.disarm();
        self.revive().await;
        self.berth.remove_all_pods().await;
        self.shims.clear();
        self.base.retain(|one| ["file", "row"].iter().any(|kind| one.starts_with(kind)));
        let left = self.left_behind().await;
        let nothing = if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:#?}")) };
        report.case("nothing is left at the end", nothing);
        self.forgive();
    }
}

/// Counts on its standard output.
fn prints() -> String {
    format!("i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done; : {}", mark())
}

/// By which its command line is told from those of other runs.
fn mark() -> String {
    format!("bystander-of-crash-{}", process::id())
}

/// Its only process that lives for ever.
/// The oldest of its command line: a child that it forks has the same until its execve.
fn bystander() -> Result<(i32, String), Failure> {
    let found = processes().filter(|(_, line)| line.starts_with("sh -c i=0;") && line.contains(&mark()));
    let started = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(19)?.parse::<u64>().ok()
    };
    let oldest = found.filter_map(|(pid, _)| Some((started(pid)?, pid))).min();
    let (started, pid) = oldest.ok_or("there is no such process")?;
    Ok((pid, started.to_string()))
}

/// An image of two layers that nothing else has.
async fn push(berth: &Berth) -> String {
    let mut image = Image::busybox();
    let own = format!("of {}", process::id());
    image.layers = vec![
        Layer::gzip(Tar::default().directory("own", 0o755).file("own/first", 0o644, own.as_bytes())),
        image.layers.remove(0),
        Layer::gzip(Tar::default().file("own/last", 0o644, own.as_bytes())),
    ];
    berth.registry.push("crash:1", &image).await
}

/// A pod's config for a life.
pub(crate) fn sandbox(berth: &Berth, name: &str, attempt: u32) -> berth_cri::v1::PodSandboxConfig {
    let mut config = pod::pod(berth, name);
    if let Some(metadata) = &mut config.metadata {
        metadata.attempt = attempt;
    }
    config.port_mappings = vec![berth_cri::v1::PortMapping {
        container_port: 80,
        host_port: 30_000 + process::id() as i32 % 20_000,
        ..Default::default()
    }];
    config
}
