//! How a new plugin learns what exists, so that it hears of everything exactly once: it is told the state and enters the
//! list of plugins in one turn, in which no event goes out.
//!
//! ```text
//! shown in the tables, or announced before its event could reach the plugin  ->  Synchronize
//! everything after that                                                      ->  its own event
//! ```

use std::sync::Arc;

use berth_nri::nri::{self, ContainerUpdate, SynchronizeRequest};
use protobuf::Message;

use super::{convert, drafts::Draft, plugin::Plugin, updates};
use crate::{
    blocking,
    error::{Error, Kind, Result},
    runtime::Shared,
};

/// How long a message of the state may become; ttrpc carries 4 MiB.
const MESSAGE: u64 = 3 << 20;

/// Brings a configured plugin in.
pub(super) async fn join(shared: &Arc<Shared>, plugin: Plugin) -> Result<()> {
    let failed =
        |error: Error, who: &Plugin| error.during(format!("synchronize NRI plugin {}", who.identity));
    let mut turn = shared.nri.turn_of_newcomer().await;
    let state = state_of(shared).await.map_err(|error| failed(error, &plugin))?;
    let updates = synchronize(&plugin, state).await.map_err(|error| failed(error, &plugin))?;
    tracing::info!(plugin = %plugin.identity, "an NRI plugin takes part");
    turn.admit(plugin);
    drop(turn);
    updates::apply(shared, updates).await;
    Ok(())
}

/// Pods and containers.
type State = (Vec<nri::PodSandbox>, Vec<nri::Container>);

/// What the plugin is told of: all pods, and the containers that have not ended.
async fn state_of(shared: &Arc<Shared>) -> Result<State> {
    let shared = Arc::clone(shared);
    // The descriptions of the containers are read from disk.
    blocking::run("gather the state", move || {
        // In this order: what is shown in between is then in both, not in none.
        let drafts = shared.nri.drafts();
        let mut state = (Vec::new(), Vec::new());
        for draft in drafts {
            match draft {
                Draft::Pod(pod) if !is_shown(&shared.pods.find(&pod.id)) => state.0.push(convert::pod(&pod)),
                Draft::Container(container, spec) if !is_shown(&shared.containers.find(&container.id)) => {
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

/// Tells the plugin the state and returns what it wants changed.
async fn synchronize(plugin: &Plugin, state: State) -> Result<Vec<ContainerUpdate>> {
    let mut messages = split(state).into_iter().peekable();
    let mut updates = Vec::new();
    while let Some(mut message) = messages.next() {
        message.more = messages.peek().is_some();
        let answer = plugin.client.synchronize(plugin.deadline(), &message).await;
        let answer = answer.map_err(|error| Error::caused(Kind::Unavailable, "tell it the state", error))?;
        if message.more && !(answer.more && answer.update.is_empty()) {
            let text = "it does not take a state that is longer than one message";
            return Err(Error::new(Kind::Unimplemented, text));
        }
        updates = answer.update;
    }
    Ok(updates)
}

/// The state in messages that can be sent: at least one.
fn split((pods, containers): State) -> Vec<SynchronizeRequest> {
    let mut messages = vec![SynchronizeRequest::new()];
    let mut length = 0;
    for pod in pods {
        room(&mut messages, &mut length, pod.compute_size()).pods.push(pod);
    }
    for container in containers {
        room(&mut messages, &mut length, container.compute_size()).containers.push(container);
    }
    messages
}

/// The last message, or a new one when it has no room for `more` bytes.
fn room<'a>(
    messages: &'a mut Vec<SynchronizeRequest>,
    length: &mut u64,
    more: u64,
) -> &'a mut SynchronizeRequest {
    // Tag and length of an item take some bytes too.
    *length += more + 8;
    if *length > MESSAGE {
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
