//! Watches the host for other networks and firewalls that disturb pods. They may appear at any time, so the host is
//! examined again, after a while, when the status is asked for; answers come from memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Bridge;
use super::steps::Core;
use super::{forward, neighbours};
use crate::NotReady;

/// Age at which the findings are refreshed, which takes several runs of nft.
const MAX_FINDINGS_AGE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 30_000 });

/// The last findings.
#[derive(Debug, Default)]
pub(super) struct Surroundings(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// When the last look ended; none before the first.
    looked: Option<Instant>,
    is_looking: bool,
    /// Another network that overlaps with the pods' subnet.
    intruder: Option<String>,
    /// The firewall rule or policy that drops the pods' packets.
    blocker: Option<String>,
}

impl Surroundings {
    /// Whether a look is due; if so, the caller must do it and call `replace`.
    fn is_due(&self) -> bool {
        self.with(|seen| {
            let is_due = !seen.is_looking && seen.looked.is_none_or(|when| when.elapsed() >= MAX_FINDINGS_AGE);
            seen.is_looking |= is_due;
            is_due
        })
    }

    fn replace(&self, intruder: Option<String>, blocker: Option<String>) {
        self.with(|seen| {
            for (new, old) in [(&intruder, &seen.intruder), (&blocker, &seen.blocker)] {
                if let Some(new) = new.as_ref().filter(|new| Some(*new) != old.as_ref()) {
                    tracing::warn!("the pods' network is disturbed: {new}");
                }
            }
            *seen = Seen { looked: Some(Instant::now()), is_looking: false, intruder, blocker };
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Seen) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Bridge {
    /// Fails when another network overlaps with the subnet and no pod is attached. Otherwise an overlap only disturbs.
    pub(crate) fn ready(self: &Arc<Self>) -> Result<(), NotReady> {
        self.look_around();
        let intruder = self.surroundings.with(|seen| seen.intruder.clone());
        match intruder.filter(|_| self.core.leases().is_empty()) {
            Some(message) => Err(NotReady { reason: "SubnetInUse", message }),
            None => Ok(()),
        }
    }

    /// Returns what disturbs attached pods.
    pub(crate) fn disturbance(self: &Arc<Self>) -> Option<NotReady> {
        self.look_around();
        let disturbance = |reason| move |message| NotReady { reason, message };
        self.surroundings.with(|seen| {
            let blocked = seen.blocker.clone().map(disturbance("ForwardingBlocked"));
            blocked.or_else(|| seen.intruder.clone().map(disturbance("SubnetInUse")))
        })
    }

    pub(super) fn look_around(self: &Arc<Self>) {
        if !self.surroundings.is_due() {
            return;
        }
        let bridge = self.clone();
        tokio::spawn(async move {
            let seen = bridge.blocking("look at other networks", |core| Ok(core.look())).await;
            let (intruder, blocker) = seen.unwrap_or_default();
            bridge.surroundings.replace(intruder, blocker);
        });
    }
}

impl Core {
    /// Looks for an overlapping network and a blocking firewall. A look that fails finds nothing: attaching reports
    /// errors.
    fn look(&self) -> (Option<String>, Option<String>) {
        let intruder = self
            .netlink()
            .and_then(|mut netlink| neighbours::intruder(&self.config, self.subnet, &mut netlink));
        let blocker = forward::blocker(&self.config.name, &self.table.name());
        for error in [intruder.as_ref().err(), blocker.as_ref().err()].into_iter().flatten() {
            tracing::debug!(error = error.chain(), "could not look at the host's other networks");
        }
        (intruder.ok().flatten().map(|error| error.to_string()), blocker.ok().flatten())
    }
}
