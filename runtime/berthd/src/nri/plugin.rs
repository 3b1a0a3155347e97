//! One plugin that is connected, registered and configured: which events it wants, and how it is called.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use berth_nri::{
    nri::{self, Event, FailurePolicy},
    nri_ttrpc::PluginClient,
};
use tokio::task::AbortHandle;
use ttrpc::{Code, context, context::Context};

use super::backlog::Backlog;
use crate::error::{Error, Kind, Result};

/// Index, which orders the calls, and name of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    /// Two digits.
    pub index: String,
    /// Without the index.
    pub name: String,
}

/// A connected plugin.
pub(super) struct Plugin {
    pub identity: Identity,
    pub client: PluginClient,
    /// Bit N-1 is event N.
    events: i32,
    policy: FailurePolicy,
    timeout: Duration,
    link: ConnectionHandle,
    /// Events queued until it has taken in the state.
    pub backlog: Backlog,
}

/// Handle to the task that carries a plugin's bytes and owns its process. [`ConnectionHandle::disconnect`] ends
/// both; a drop does not.
#[derive(Clone)]
pub(super) struct ConnectionHandle {
    /// The carrying task.
    pub task: AbortHandle,
    /// Set when the connection has ended, before closed plugins are dropped.
    pub ended: Arc<AtomicBool>,
}

impl ConnectionHandle {
    /// Cuts the connection, and kills the plugin if the daemon started it.
    pub fn disconnect(&self) {
        self.ended.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

/// Bit mask of all events.
const ALL_EVENTS: i32 = (1 << (Event::LAST as i32 - 1)) - 1;

impl Identity {
    /// Fails unless `index` is two digits and `name` is made of letters, digits and `-_.+`.
    pub fn new(index: &str, name: &str) -> Result<Self> {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+".contains(&byte);
        let digits = index.len() == 2 && index.bytes().all(|byte| byte.is_ascii_digit());
        if digits && !name.is_empty() && name.bytes().all(known) {
            return Ok(Self { index: index.into(), name: name.into() });
        }
        let text = format!("a plugin cannot be called {index:?}-{name:?}: two digits and a name are needed");
        Err(Error::new(Kind::InvalidArgument, text))
    }

    /// Parses the name of a file in the directory of plugins.
    pub fn of_file(name: &str) -> Result<Self> {
        let (index, name) = name.split_once('-').unwrap_or((name, ""));
        Self::new(index, name)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.index, self.name)
    }
}

impl Plugin {
    /// Creates a plugin from its answer to Configure. Fails on events that do not exist.
    pub fn new(
        identity: Identity,
        client: PluginClient,
        wishes: nri::ConfigureResponse,
        timeout: Duration,
        link: ConnectionHandle,
    ) -> Result<Self> {
        let events = if wishes.events == 0 { ALL_EVENTS } else { wishes.events };
        if events & !ALL_EVENTS != 0 {
            let text = format!("plugin {identity} wants events that do not exist: {events:#x}");
            return Err(Error::new(Kind::InvalidArgument, text));
        }
        let policy = wishes.failure_policy.into_option().unwrap_or_default();
        Ok(Self { identity, client, events, policy, timeout, link, backlog: Backlog::default() })
    }

    /// Whether the plugin wants `event`.
    pub fn wants(&self, event: Event) -> bool {
        self.events & (1 << (event as i32 - 1)) != 0
    }

    /// Whether the plugin was disconnected.
    pub fn is_closed(&self) -> bool {
        self.link.ended.load(Ordering::Relaxed)
    }

    /// Disconnects the plugin, and kills it if the daemon started it.
    pub fn close(&self) {
        self.link.disconnect();
    }

    /// Returns the time limit of one request.
    pub fn deadline(&self) -> Context {
        context::with_duration(self.timeout)
    }

    /// Evaluates the answer of the plugin; `None` when there is none and the request goes on without it.
    ///
    /// # Errors
    ///
    /// The plugin's refusal, or a missing answer if the plugin asked for the request to fail then.
    pub fn answer<T>(&self, request: &'static str, answer: ttrpc::Result<T>) -> Result<Option<T>> {
        let error = match answer {
            Ok(answer) => return Ok(Some(answer)),
            Err(ttrpc::Error::RpcStatus(status)) if status.code() != Code::DEADLINE_EXCEEDED => {
                let text = format!("NRI plugin {} refused {request}: {}", self.identity, status.message());
                return Err(Error::new(kind_of(status.code()), text));
            }
            Err(error) => self.unanswered(request, error),
        };
        if self.policy.fail_request {
            return Err(error);
        }
        tracing::warn!(plugin = %self.identity, %error, "going on without the plugin");
        Ok(None)
    }

    /// Handles a missing answer: disconnects the plugin, unless it was only slow and asked to be kept.
    fn unanswered(&self, request: &'static str, error: ttrpc::Error) -> Error {
        let late = is_late(&error);
        if !(late && self.policy.keep_connected) {
            self.close();
        }
        let kind = if late { Kind::DeadlineExceeded } else { Kind::Unavailable };
        Error::caused(kind, format!("NRI plugin {} did not answer {request}", self.identity), error)
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "plugin {}", self.identity)
    }
}

/// Whether the deadline has passed. ttrpc says so only as text; a plugin may notice it first and return a status.
fn is_late(error: &ttrpc::Error) -> bool {
    match error {
        ttrpc::Error::RpcStatus(status) => status.code() == Code::DEADLINE_EXCEEDED,
        ttrpc::Error::Others(text) => text.contains("deadline elapsed"),
        _ => false,
    }
}

fn kind_of(code: Code) -> Kind {
    match code {
        Code::INVALID_ARGUMENT => Kind::InvalidArgument,
        Code::FAILED_PRECONDITION => Kind::FailedPrecondition,
        Code::PERMISSION_DENIED => Kind::PermissionDenied,
        Code::RESOURCE_EXHAUSTED => Kind::ResourceExhausted,
        Code::UNAVAILABLE => Kind::Unavailable,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_plugin_is_known_by_two_digits_and_a_name() {
        let identity = Identity::of_file("05-my-plugin.v1").unwrap();
        assert_eq!((identity.index.as_str(), identity.name.as_str()), ("05", "my-plugin.v1"));
        assert_eq!(identity.to_string(), "05-my-plugin.v1");
        for name in ["", "05", "05-", "5-a", "005-a", "ab-c", "05-a b", "05-a/b", "README"] {
            assert!(Identity::of_file(name).is_err(), "{name}");
        }
    }

    #[test]
    fn plugins_are_called_in_the_order_of_their_digits() {
        let mut all = ["20-a", "03-z", "10-b", "10-a"].map(|name| Identity::of_file(name).unwrap());
        all.sort();
        assert_eq!(all.map(|one| one.to_string()), ["03-z", "10-a", "10-b", "20-a"]);
    }
}
