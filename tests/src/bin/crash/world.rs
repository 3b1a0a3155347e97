//! The daemon of the whole run, and a bystander: a pod that no case may touch.

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
    host_state::{HostState, processes},
    report::Report,
};

/// Limit of the work that goes on in the background after a call, on a busy machine.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const BYSTANDER: &str = "bystander";

/// The daemon under test, its failpoints and the bystander.
pub(crate) struct TestNode {
    pub(crate) berth: Berth,
    pub(crate) failpoints: Failpoints,
    /// Image that each life pulls and removes.
    pub(crate) image: String,
    host_state: HostState,
    /// Pid of the bystander's process, and its start time in clock ticks after boot: proc_pid_stat(5).
    bystander: (i32, String),
    /// Everything of the bystander on the host.
    base: BTreeSet<String>,
    /// Leftovers of earlier cases, which were reported already.
    reported: BTreeSet<String>,
    /// Lines of `berthd check` about those leftovers.
    known_findings: BTreeSet<String>,
    /// Pids of the bystander's shim processes.
    shims: BTreeSet<i32>,
}

impl TestNode {
    /// Starts the daemon and the bystander.
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
        let host_state = HostState { directory: berth.path().into(), bridge };
        let bystander = bystander().expect("the bystander runs");
        let (base, shims) = (host_state.everything(), host_state.shims());
        let (reported, known_findings) = (BTreeSet::new(), BTreeSet::new());
        Self { berth, failpoints, image, host_state, bystander, base, reported, known_findings, shims }
    }

    /// Starts the daemon again, if it has ended, until it answers. Returns how often it had ended.
    pub(crate) async fn revive(&mut self) -> usize {
        let mut ends = 0;
        while self.berth.has_ended() {
            ends += 1;
            assert!(ends < 10, "berthd ends again and again: {}", self.berth.log());
            self.berth.try_restart().await;
        }
        ends
    }

    /// Everything that was not there before the first life, after background work had up to
    /// [`CLEANUP_TIMEOUT`] to remove it.
    pub(crate) async fn left_behind(&mut self) -> Vec<String> {
        let begun = Instant::now();
        loop {
            // A failpoint may kill the daemon in its background work.
            self.revive().await;
            let mut left: Vec<_> = self.host_state.everything().into_iter().collect();
            left.retain(|one| !self.base.contains(one) && !self.reported.contains(one));
            if left.is_empty() || begun.elapsed() > CLEANUP_TIMEOUT {
                return left;
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Checks that the bystander's process and resources are unchanged, and that it still prints.
    pub(crate) async fn bystander_is_well(&self) -> Result<(), Failure> {
        let now = bystander().map_err(|why| format!("the bystander: {why}"))?;
        if now != self.bystander {
            return Err(format!("the bystander was {:?} and is {now:?}", self.bystander));
        }
        let gone: Vec<_> = self.base.difference(&self.host_state.everything()).cloned().collect();
        if !gone.is_empty() {
            return Err(format!("of the bystander's there is no more {gone:?}"));
        }
        let (before, begun) = (self.printed().len(), Instant::now());
        while self.printed().len() == before {
            if begun.elapsed() > CLEANUP_TIMEOUT {
                return Err("the bystander prints no more".into());
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Checks that the bystander's log has all its lines, each once and in order.
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

    /// Accepts what was left behind, so that each leak is reported once. Kills shims that are not the bystander's.
    pub(crate) fn forgive(&mut self) {
        for pid in self.host_state.shims().difference(&self.shims) {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        self.reported = self.host_state.everything();
        self.known_findings = self.checked();
    }

    /// Removes the pods and the image of a life that failed, so that the next life begins with none.
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

    /// Fails if `berthd check`, run beside the daemon, prints a line that is not known yet.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let new: Vec<_> = self.checked().difference(&self.known_findings).cloned().collect();
        if new.is_empty() { Ok(()) } else { Err(format!("berthd check: {new:#?}")) }
    }

    fn checked(&self) -> BTreeSet<String> {
        self.berth.check(&[]).into_iter().collect()
    }

    /// Removes the bystander, after which nothing may be left.
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

/// Script of the bystander, which counts on its standard output.
fn prints() -> String {
    format!("i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done; : {}", mark())
}

/// Part of the bystander's command line that differs between runs of this program.
fn mark() -> String {
    format!("bystander-of-crash-{}", process::id())
}

/// Pid and start time of the bystander's shell: the oldest process with its command line, since a forked child has the
/// same one until its execve.
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

/// Pushes an image with two layers that no other image has.
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

/// Config of a life's pod, with one published port.
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
