//! Pods that come and go by the thousand. At the end the daemon must hold no more than after the first fifth of them.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tonic::Status;

use crate::{Score, client::Client, node::Node, resource_counts::ResourceCounts};

/// Pods at the same time.
const WORKERS: usize = 8;
/// After one in so many of all pods, everything that the daemon keeps for good is there.
const WARM_UP: usize = 5;

pub(crate) async fn endure(lifecycles: usize, score: &mut Score) {
    let mut node = Node::start().await;
    let client = Client::new(&mut node.berth).await;
    let begun = Instant::now();
    let (mut warm, mut wrong, mut done) = (None, Vec::new(), 0);
    while done < lifecycles {
        let until = (done + lifecycles / WARM_UP).min(lifecycles);
        wrong.extend(run_all(&client, done, until).await);
        done = until;
        let held = ResourceCounts::of(&node);
        println!("soak: {done} pods in {:.0?}: {held}", begun.elapsed());
        warm.get_or_insert(held);
    }
    let (pods, first) = (wrong.len(), wrong.into_iter().next());
    score.count(
        &format!("{lifecycles} pods come, do their work and go"),
        first.map(|first| format!("{pods} did not; the first: {first}")),
    );
    let warm = warm.unwrap_or_else(|| ResourceCounts::of(&node));
    score.count("what the daemon holds does not grow", ResourceCounts::of(&node).grown_since(&warm));
}

/// Runs the pods with these numbers, several at a time. Returns their failures.
async fn run_all(client: &Client, from: usize, until: usize) -> Vec<String> {
    let next = Arc::new(AtomicUsize::new(from));
    let workers = (0..WORKERS).map(|_| {
        let (mut client, next) = (client.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            let mut wrong = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= until {
                    return wrong;
                }
                if let Err(why) = lifecycle(&mut client, number).await {
                    wrong.push(format!("pod {number}: {why}"));
                }
            }
        })
    });
    let mut wrong = Vec::new();
    for worker in workers.collect::<Vec<_>>() {
        wrong.extend(worker.await.unwrap());
    }
    wrong
}

/// Runs and removes one pod. Every second pod has a network of its own; in turn the container logs, runs an exec, fails,
/// or cannot start.
async fn lifecycle(client: &mut Client, number: usize) -> Result<(), String> {
    let name = format!("soak{number}");
    let failed = |status: Status| status.to_string();
    let pod = client.run_pod(&name, number.is_multiple_of(2)).await.map_err(failed)?;
    let worked = match number / 2 % 4 {
        0 => logs(client, &pod, &name).await,
        1 => executes(client, &pod).await,
        2 => ends_with(client, &pod, "echo to be >&2; exit 7", 7).await,
        _ => cannot_start(client, &pod).await,
    };
    client.remove(&pod).await.map_err(failed)?;
    worked
}

async fn logs(client: &mut Client, pod: &crate::client::Pod, name: &str) -> Result<(), String> {
    ends_with(client, pod, "echo hello; seq 1 100", 0).await?;
    let log = fs::read_to_string(client.log(name)).map_err(|error| error.to_string())?;
    let lines = log.lines().count();
    if lines == 101 && log.contains(" stdout F hello") {
        Ok(())
    } else {
        Err(format!("{lines} lines: {log}"))
    }
}

async fn executes(client: &mut Client, pod: &crate::client::Pod) -> Result<(), String> {
    let id = client.shell(pod, "exec sleep 1000").await.map_err(|status| status.to_string())?;
    let said =
        client.exec(&id, "echo out; echo err >&2; exit 3").await.map_err(|status| status.to_string())?;
    match (said.stdout.as_slice(), said.stderr.as_slice(), said.exit_code) {
        (b"out\n", b"err\n", 3) => Ok(()),
        other => Err(format!("exec answered {other:?}")),
    }
}

async fn ends_with(
    client: &mut Client,
    pod: &crate::client::Pod,
    script: &str,
    wanted: i32,
) -> Result<(), String> {
    let ran = async {
        let id = client.shell(pod, script).await?;
        client.ended(&id).await
    };
    match ran.await {
        Ok(code) if code == wanted => Ok(()),
        other => Err(format!("{script:?} gave {other:?}")),
    }
}

async fn cannot_start(client: &mut Client, pod: &crate::client::Pod) -> Result<(), String> {
    match client.start(pod, &["/no/such/command"], Vec::new()).await {
        Err(status) if status.message().contains("/no/such/command") => Ok(()),
        other => Err(format!("a command that is not there gave {other:?}")),
    }
}
