//! Time of the calls for the statistics of all containers and pods.

use std::time::Instant;

use berth_cri::v1::{ListContainerStatsRequest, ListPodSandboxMetricsRequest, ListPodSandboxStatsRequest};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use crate::{
    Result,
    density::{milliseconds, remove_all},
    report::{Report, Unit::Milliseconds},
    runtime::{Pod, Runtime},
};

/// Few enough for the subnet of either runtime.
const PODS: usize = 60;
const CONTAINERS_OF_A_POD: usize = 5;
const ROUNDS: usize = 5;
/// Pods started at once.
const WIDTH: usize = 4;

/// Measures the runtimes one after the other, each with 300 containers.
pub(crate) async fn measure(runtimes: &[Runtime], report: &mut Report) -> Result<()> {
    for runtime in runtimes {
        eprintln!("stats: {}", runtime.name);
        let pods = run_all(runtime).await?;
        for _ in 0..ROUNDS {
            of_300(runtime, report).await?;
        }
        remove_all(runtime, pods).await?;
    }
    Ok(())
}

/// Measures with the pods there are: 20 with one container each.
pub(crate) async fn of_20(runtime: &Runtime, report: &mut Report) -> Result<()> {
    let mut add = |row, time| report.add(row, Milliseconds, runtime, time);
    containers(runtime).await?.into_iter().for_each(|time| add("ListContainerStats of 20 containers", time));
    pods(runtime).await?.into_iter().for_each(|time| add("ListPodSandboxStats of 20 pods", time));
    Ok(())
}

async fn of_300(runtime: &Runtime, report: &mut Report) -> Result<()> {
    let mut add = |row, time| report.add(row, Milliseconds, runtime, time);
    containers(runtime).await?.into_iter().for_each(|time| add("ListContainerStats of 300 containers", time));
    let (stats, metrics) = (pods(runtime).await?, metrics(runtime).await?);
    stats.into_iter().for_each(|time| add("ListPodSandboxStats of 60 pods with 300 containers", time));
    metrics.into_iter().for_each(|time| add("ListPodSandboxMetrics of 60 pods with 300 containers", time));
    Ok(())
}

async fn run_all(runtime: &Runtime) -> Result<Vec<Pod>> {
    let (mut starting, mut pods) = (JoinSet::new(), Vec::new());
    for _ in 0..PODS {
        if starting.len() == WIDTH
            && let Some(started) = starting.join_next().await
        {
            pods.push(started??);
        }
        starting.spawn(run_one(runtime.clone()));
    }
    for started in starting.join_all().await {
        pods.push(started?);
    }
    Ok(pods)
}

async fn run_one(runtime: Runtime) -> Result<Pod> {
    let pod = runtime.run_pod().await?;
    for number in 0..CONTAINERS_OF_A_POD {
        runtime.start_container(&pod, &format!("c{number}"), &["sleep", "3600"], None).await?;
    }
    Ok(pod)
}

async fn containers(runtime: &Runtime) -> Result<Option<f64>> {
    let begin = Instant::now();
    taken(begin, runtime.cri().list_container_stats(ListContainerStatsRequest::default()).await.map(drop))
}

async fn pods(runtime: &Runtime) -> Result<Option<f64>> {
    let begin = Instant::now();
    taken(begin, runtime.cri().list_pod_sandbox_stats(ListPodSandboxStatsRequest::default()).await.map(drop))
}

async fn metrics(runtime: &Runtime) -> Result<Option<f64>> {
    let begin = Instant::now();
    taken(begin, runtime.cri().list_pod_sandbox_metrics(ListPodSandboxMetricsRequest {}).await.map(drop))
}

/// Milliseconds since `begin`, or `None` if the runtime does not implement the call.
fn taken(begin: Instant, answer: std::result::Result<(), Status>) -> Result<Option<f64>> {
    match answer {
        Ok(()) => Ok(Some(milliseconds(begin))),
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(status.into()),
    }
}
