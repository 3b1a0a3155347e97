//! How a new plugin learns the state and then hears of everything exactly once: it gets the state and enters the list
//! of plugins under one lock, during which no event is delivered.
//!
//! ```text
//! shown in the tables, or announced before its event could reach the plugin  ->  Synchronize
//! everything after that                                                      ->  its own event
//! ```
//! A plugin that takes longer than the time limit of a request does not hold up the node: the lock ends, and events are
//! queued for it until it has taken in the state (`backlog`).

use std::{pin::pin, sync::Arc};

use berth_nri::nri::{self, ContainerUpdate, SynchronizeRequest};
use protobuf::Message;
use tokio::time::timeout;
use ttrpc::context;

use super::{
    Config, backlog::LateRequests, convert, plugin::Plugin, unpublished::UnpublishedObject, updates,
};
use crate::{
    blocking,
    error::{Error, Kind, Result},
    runtime::Shared,
};

/// Largest message of the state in bytes; ttrpc carries 4 MiB.
const MAX_STATE_MESSAGE_BYTES: u64 = 3 << 20;

/// How often queued events are delivered while new ones may come, before the lock of the plugins holds
/// those up for the rest.
const MAX_CATCH_UP_ROUNDS: usize = 8;

/// Gives a configured plugin the state and lets it take part.
pub(super) async fn join(shared: &Arc<Shared>, plugin: Plugin) -> Result<()> {
    let plugin = Arc::new(plugin);
    let joined = synchronize_and_add(shared, &plugin).await;
    if joined.is_err() {
        plugin.close();
        shared.nri.forget_closed().await;
    }
    let updates =
        joined.map_err(|error| error.during(format!("synchronize NRI plugin {}", plugin.identity)))?;
    tracing::info!(plugin = %plugin.identity, "an NRI plugin takes part");
    updates::apply(shared, updates).await;
    Ok(())
}

/// Gives the plugin the state and adds it to the list. Returns the updates that it wants.
async fn synchronize_and_add(shared: &Arc<Shared>, plugin: &Arc<Plugin>) -> Result<Vec<ContainerUpdate>> {
    let mut dispatch = shared.nri.lock_plugins_to_add().await;
    let state = state_of(shared).await?;
    let config = shared.nri.config();
    let mut synchronizing =
        pin!(timeout(config.synchronization_timeout(), synchronize(plugin, state, config)));
    let late = |_| Error::new(Kind::DeadlineExceeded, "it did not take in the state in time");
    let synchronized = match timeout(config.request_timeout(), &mut synchronizing).await {
        Ok(synchronized) => {
            let updates = synchronized.map_err(late)??;
            dispatch.add_plugin(Arc::clone(plugin));
            return Ok(updates);
        }
        Err(_) => {
            tracing::info!(plugin = %plugin.identity, "an NRI plugin takes its time to learn the state");
            plugin.backlog.open();
            dispatch.add_plugin(Arc::clone(plugin));
            drop(dispatch);
            synchronizing.await.map_err(late)??
        }
    };
    updates::apply(shared, synchronized).await;
    catch_up(shared, plugin).await?;
    Ok(Vec::new())
}

/// Delivers the queued events until none is left and the plugin gets events as they happen.
async fn catch_up(shared: &Arc<Shared>, plugin: &Plugin) -> Result<()> {
    for _ in 0..MAX_CATCH_UP_ROUNDS {
        apply_late(shared, plugin.catch_up().await?).await;
        let _dispatch = shared.nri.lock_plugins().await;
        if plugin.backlog.close_if_empty() {
            return Ok(());
        }
    }
    let dispatch = shared.nri.lock_plugins().await;
    let wanted = plugin.catch_up().await?;
    plugin.backlog.close_if_empty();
    drop(dispatch);
    apply_late(shared, wanted).await;
    Ok(())
}

async fn apply_late(shared: &Arc<Shared>, wanted: LateRequests) {
    updates::evict(shared, wanted.evictions).await;
    updates::apply(shared, wanted.updates).await;
}

/// Pods and containers.
type State = (Vec<nri::PodSandbox>, Vec<nri::Container>);

/// Gathers the state: all pods, and the containers that have not exited.
async fn state_of(shared: &Arc<Shared>) -> Result<State> {
    let shared = Arc::clone(shared);
    // Blocks: the OCI specs of the containers are read from disk.
    blocking::run("gather the state", move || {
        // Unpublished objects first: one that enters its table in between is then found in both, not in neither.
        let unpublished = shared.nri.unpublished();
        let mut state = (Vec::new(), Vec::new());
        for object in unpublished {
            match object {
                UnpublishedObject::Pod(pod) if !is_shown(&shared.pods.find(&pod.id)) => {
                    state.0.push(convert::pod(&pod))
                }
                UnpublishedObject::Container(container, spec)
                    if !is_shown(&shared.containers.find(&container.id)) =>
                {
                    state.1.push(convert::container(&container, &spec));
                }
                _ => {}
            }
        }
        state.0.extend(shared.pods.list().iter().map(|pod| convert::pod(pod)));
        let containers = shared.containers.list();
        let living = containers.iter().filter(|container| !container.state.is_exited());
        state.1.extend(living.map(|container| convert::stored_container(&shared, container)));
        state
    })
    .await
}

fn is_shown<T>(found: &Result<T>) -> bool {
    found.is_ok()
}

/// Sends the state to the plugin and returns the updates that it wants.
async fn synchronize(plugin: &Plugin, state: State, config: &Config) -> Result<Vec<ContainerUpdate>> {
    let limit = config.synchronization_timeout();
    let mut messages = split(state).into_iter().peekable();
    let mut updates = Vec::new();
    while let Some(mut message) = messages.next() {
        message.more = messages.peek().is_some();
        let answer = plugin.client.synchronize(context::with_duration(limit), &message).await;
        let answer = answer.map_err(|error| Error::caused(Kind::Unavailable, "tell it the state", error))?;
        if message.more && !(answer.more && answer.update.is_empty()) {
            let text = "it does not take a state that is longer than one message";
            return Err(Error::new(Kind::Unimplemented, text));
        }
        updates = answer.update;
    }
    Ok(updates)
}

/// Splits the state into messages that can be sent; at least one.
fn split((pods, containers): State) -> Vec<SynchronizeRequest> {
    let mut messages = vec![SynchronizeRequest::new()];
    let mut length = 0;
    for pod in pods {
        message_for(&mut messages, &mut length, pod.compute_size()).pods.push(pod);
    }
    for container in containers {
        message_for(&mut messages, &mut length, container.compute_size()).containers.push(container);
    }
    messages
}

/// Returns the last message, or a new one when that has no room for `more` bytes.
fn message_for<'a>(
    messages: &'a mut Vec<SynchronizeRequest>,
    length: &mut u64,
    more: u64,
) -> &'a mut SynchronizeRequest {
    // Tag and length of an item take some bytes, too.
    *length += more + 8;
    if *length > MAX_STATE_MESSAGE_BYTES {
        *length = more + 8;
        messages.push(SynchronizeRequest::new());
    }
    let last = messages.len() - 1;
    &mut messages[last]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(length: usize) -> nri::PodSandbox {
        nri::PodSandbox { name: "x".repeat(length), ..Default::default() }
    }

    #[test]
    fn nothing_is_told_in_one_message() {
        assert_eq!(split(State::default()).len(), 1);
    }

    #[test]
    fn a_long_state_is_split_and_each_part_can_be_sent() {
        let containers = vec![nri::Container { id: "c".repeat(1 << 20), ..Default::default() }; 3];
        let messages = split((vec![pod(1 << 20); 5], containers));
        assert!(messages.len() >= 3);
        assert!(messages.iter().all(|message| message.compute_size() < 4 << 20));
        assert_eq!(messages.iter().map(|message| message.pods.len()).sum::<usize>(), 5);
        assert_eq!(messages.iter().map(|message| message.containers.len()).sum::<usize>(), 3);
    }
}
