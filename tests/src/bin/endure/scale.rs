//! Many pods at once, against ten: the time of one more pod, of lists, and until a killed daemon lists everything again.

use std::{
    fmt,
    time::{Duration, Instant},
};

use berth_cri::v1;
use tokio::task::JoinSet;

use crate::{
    Score,
    client::{Client, Pod},
    node::Node,
    resource_counts::ResourceCounts,
};

const FEW: usize = 10;
const WORKERS: usize = 8;
const ROUNDS: usize = 11;
/// How long interfaces may take to go after their pods, and idle threads to exit.
const BEHIND: Duration = Duration::from_secs(60);

pub(crate) async fn endure(pods: usize, score: &mut Score) {
    for host_network in [true, false] {
        with_network(pods, host_network, score).await;
    }
}

async fn with_network(count: usize, host_network: bool, score: &mut Score) {
    let network = if host_network { "host network" } else { "bridge" };
    let mut node = Node::start().await;
    let mut client = Client::new(&mut node.berth).await;
    let empty = ResourceCounts::of(&node);
    let mut pods = run(&client, 0..FEW, host_network).await;
    let few = Figures::measure(&mut node, &mut client, FEW, host_network).await;
    pods.extend(run(&client, FEW..count, host_network).await);
    let many = Figures::measure(&mut node, &mut client, count, host_network).await;
    println!("scale, {network}: {FEW} pods: {few}");
    println!("scale, {network}: {count} pods: {many}");
    println!("scale, {network}: {count} pods: {}", ResourceCounts::of(&node));
    let running = client.running().await.unwrap();
    score.count(
        &format!("{count} pods run after the daemon was killed ({network})"),
        (running != count).then(|| format!("{running} do")),
    );
    let began = Instant::now();
    remove(&client, pods).await;
    println!("scale, {network}: {count} pods are removed in {:.1?}", began.elapsed());
    score.count(&format!("nothing is left of {count} pods ({network})"), left_since(&empty, &node).await);
}

/// What has grown since `before`, after background work had up to [`BEHIND`] to finish.
async fn left_since(before: &ResourceCounts, node: &Node) -> Option<String> {
    let begun = Instant::now();
    loop {
        let now = ResourceCounts::of(node);
        let left = now.grown_since(&before.with_room_of(&now));
        if left.is_none() || begun.elapsed() > BEHIND {
            return left;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Medians at one number of pods.
struct Figures {
    one_more: Duration,
    list: Duration,
    statistics: Duration,
    first_answer: Duration,
}

impl Figures {
    async fn measure(node: &mut Node, client: &mut Client, pods: usize, host_network: bool) -> Self {
        let one_more = one_more(client, host_network).await;
        let list = timed(async || {
            drop(client.cri.list_containers(v1::ListContainersRequest::default()).await.unwrap())
        })
        .await;
        let request = v1::ListContainerStatsRequest::default;
        let statistics =
            timed(async || drop(client.cri.list_container_stats(request()).await.unwrap())).await;
        node.berth.kill();
        let begun = Instant::now();
        node.berth.restart().await;
        while client.running().await.unwrap_or_default() < pods {
            assert!(
                begun.elapsed() < Duration::from_secs(60),
                "{pods} containers are not listed a minute after the kill"
            );
        }
        Self { one_more, list, statistics, first_answer: begun.elapsed() }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "one more pod with a container {:.1?}, list of containers {:.1?}, statistics {:.1?}, all listed after kill -9 {:.1?}",
            self.one_more, self.list, self.statistics, self.first_answer
        )
    }
}

async fn one_more(client: &mut Client, host_network: bool) -> Duration {
    let mut taken = Vec::new();
    for number in 0..ROUNDS {
        let begun = Instant::now();
        let pod = start(client, &format!("more{number}"), host_network).await;
        taken.push(begun.elapsed());
        client.remove(&pod).await.unwrap();
    }
    median(taken)
}

async fn timed(mut call: impl AsyncFnMut()) -> Duration {
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        call().await;
        taken.push(begun.elapsed());
    }
    median(taken)
}

fn median(mut taken: Vec<Duration>) -> Duration {
    taken.sort();
    taken[taken.len() / 2]
}

async fn start(client: &mut Client, name: &str, host_network: bool) -> Pod {
    let pod = client.run_pod(name, host_network).await.unwrap();
    client.start(&pod, &["sleep", "100000"], Vec::new()).await.unwrap();
    pod
}

async fn run(client: &Client, numbers: std::ops::Range<usize>, host_network: bool) -> Vec<Pod> {
    let (mut starting, mut pods) = (JoinSet::new(), Vec::new());
    for number in numbers {
        while starting.len() >= WORKERS {
            pods.extend(starting.join_next().await.map(Result::unwrap));
        }
        let mut client = client.clone();
        starting.spawn(async move { start(&mut client, &format!("scale{number}"), host_network).await });
    }
    pods.extend(starting.join_all().await);
    pods
}

async fn remove(client: &Client, pods: Vec<Pod>) {
    let mut ending = JoinSet::new();
    for pod in pods {
        while ending.len() >= WORKERS {
            ending.join_next().await.unwrap().unwrap();
        }
        let mut client = client.clone();
        ending.spawn(async move { client.remove(&pod).await.unwrap() });
    }
    ending.join_all().await;
}
