//! Kills plugins that an earlier daemon started and could not wait for, because it was killed itself.
//!
//! Such a plugin goes on with its command, which may be an ADD that this daemon undoes at the same time. It is
//! identified by CNI_CONTAINERID in its environment, which names one of our pods; pod ids are never reused.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use futures::future::join_all;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{sleep, timeout};

/// How long to wait, in total, for the killed plugins to be gone.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit of the search. Reading /proc/PID/environ takes the lock of the process's memory map, and hangs while the
/// process holds that lock and waits for a file system that does not answer.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two checks whether a plugin is gone.
const EXIT_POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Kills every process whose environment names one of `pods`: plugins, and the children that inherited it.
pub(crate) async fn kill_plugins(pods: HashSet<String>) {
    if pods.is_empty() {
        return;
    }
    let kill_all = move || pids().filter_map(|pid| kill(pid, &pods)).collect::<Vec<_>>();
    let Ok(Ok(killed)) = timeout(SEARCH_TIMEOUT, tokio::task::spawn_blocking(kill_all)).await else {
        return tracing::error!("not all plugins of an earlier daemon could be looked for");
    };
    // A plugin that sleeps uninterruptibly is left behind.
    let _ = timeout(EXIT_TIMEOUT, join_all(killed.into_iter().map(wait_until_gone))).await;
}

async fn wait_until_gone((pid, pod): (Pid, String)) {
    while pod_of(pid).as_deref() == Some(pod.as_str()) {
        sleep(EXIT_POLL_INTERVAL).await;
    }
}

fn pids() -> impl Iterator<Item = Pid> {
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    names.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
}

/// Kills through a pidfd. The pid may be reused before `pidfd_open`, so the environment is read again after it.
fn kill(pid: Pid, pods: &HashSet<String>) -> Option<(Pid, String)> {
    let pod = pod_of(pid).filter(|pod| pods.contains(pod))?;
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    if pod_of(pid).as_deref() != Some(pod.as_str()) {
        return None;
    }
    tracing::warn!(
        pid = pid.as_raw_nonzero(),
        pod,
        "a network plugin of an earlier daemon still runs: it is ended"
    );
    pidfd_send_signal(&process, Signal::KILL).ok()?;
    Some((pid, pod))
}

/// Reads the pod's id from the environment of a process.
fn pod_of(pid: Pid) -> Option<String> {
    let environment = fs::read(format!("/proc/{}/environ", pid.as_raw_nonzero())).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let pod = variables.find_map(|variable| variable.strip_prefix(b"CNI_CONTAINERID="))?;
    String::from_utf8(pod.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_plugin_that_works_for_one_of_our_pods_is_ended_and_no_other() {
        let plugin =
            |pod: &str| Command::new("sleep").arg("1000").env("CNI_CONTAINERID", pod).spawn().unwrap();
        let own = format!("ours-{}", std::process::id());
        let (mut ours, mut others) = (plugin(&own), plugin(&format!("{own}-others")));
        kill_plugins(HashSet::from([own])).await;
        assert_eq!(ours.wait().unwrap().signal(), Some(9));
        assert!(others.try_wait().unwrap().is_none());
        others.kill().unwrap();
        others.wait().unwrap();
    }
}
