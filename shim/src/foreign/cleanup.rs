//! Cleanup in a foreign shim after the process in between was killed.

use super::bundle::{pod_of, remove_cgroup, unmount_all};
use super::client::TaskClient;
use super::handler::{Address, Handler};
use super::launch::Launcher;
use crate::error::Error;
use crate::exit::Exit;
use crate::process::KILL_TIMEOUT;
use crate::sandbox::Record;
use crate::service::runtime;
use std::io;
use std::path::Path;

/// Ends the task `id` of this bundle; for a pod's sandbox also its shim. Returns its exit if the foreign shim reported
/// one. Does nothing for a bundle that was not a foreign shim's.
pub fn clean_up(id: &str, bundle: &Path, namespace: &str, daemon: &str) -> io::Result<Option<Exit>> {
    let (pod, is_pod) = match pod_of(bundle) {
        Some(pod) => (pod, false),
        None => (bundle.to_owned(), true),
    };
    let Some(handler) = Handler::read(&pod)? else { return Ok(None) };
    let exit = match Address::read(&pod)? {
        None => Ok(None),
        Some(address) => match runtime()?.block_on(end(id, is_pod, &address, namespace)) {
            Ok(exit) => Ok(Some(exit)),
            Err(_dead) => {
                let events = pod.join("none");
                let (namespace, daemon) = (namespace.to_owned(), daemon.to_owned());
                let left = Launcher { handler, namespace, daemon, events }.delete_blocking(id, bundle);
                left.map(|()| None).map_err(io::Error::other)
            }
        },
    };
    unmount_all(bundle);
    if let Some(record) = Record::read(bundle)? {
        remove_cgroup(&record.cgroup_path, id);
    }
    exit
}

/// Ends the task through the foreign shim, if that lives. With its pod the shim exits, even if the pod's task was never made.
async fn end(id: &str, is_pod: bool, address: &Address, namespace: &str) -> Result<Exit, Error> {
    let tasks = TaskClient::connect(address, namespace).await?;
    let ended = end_task(&tasks, id).await;
    if is_pod {
        tasks.shutdown(id).await;
    }
    ended
}

async fn end_task(tasks: &TaskClient, id: &str) -> Result<Exit, Error> {
    tasks.kill(id).await?;
    let end = tasks.wait(id, KILL_TIMEOUT).await?;
    tasks.delete(id).await?;
    Ok(Exit::now(end.exit_status, "the shim died"))
}
