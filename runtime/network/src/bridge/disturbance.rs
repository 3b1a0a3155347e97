//! Watches the host for other networks and firewalls that disturb pods. They may appear at any time, so the host is
//! examined again, after a while, when the status is asked for; answers come from memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Bridge;
use super::steps::Core;
use super::{forward, host_networks};
use crate::NotReady;

/// Age at which the findings are refreshed, which takes several runs of nft.
const MAX_FINDINGS_AGE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 30_000 });

/// The last findings.
#[derive(Debug, Default)]
pub(super) struct DisturbanceCache(Mutex<Findings>);

#[derive(Debug, Default)]
struct Findings {
    /// When the last look ended; none before the first.
    refreshed: Option<Instant>,
    is_refreshing: bool,
    /// Another network that overlaps with the pods' subnet.
    overlapping: Option<String>,
    /// The firewall rule or policy that drops the pods' packets.
    blocker: Option<String>,
}

impl DisturbanceCache {
    /// Whether a look is due; if so, the caller must do it and call `replace`.
    fn is_due(&self) -> bool {
        self.with(|findings| {
            let is_due = !findings.is_refreshing
                && findings.refreshed.is_none_or(|when| when.elapsed() >= MAX_FINDINGS_AGE);
            findings.is_refreshing |= is_due;
            is_due
        })
    }

    fn replace(&self, overlapping: Option<String>, blocker: Option<String>) {
        self.with(|findings| {
            for (new, old) in [(&overlapping, &findings.overlapping), (&blocker, &findings.blocker)] {
                if let Some(new) = new.as_ref().filter(|new| Some(*new) != old.as_ref()) {
                    tracing::warn!("the pods' network is disturbed: {new}");
                }
            }
            *findings =
                Findings { refreshed: Some(Instant::now()), is_refreshing: false, overlapping, blocker };
        });
    }

    fn with<T>(&self, work: impl FnOnce(&mut Findings) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Bridge {
    /// Fails when another network overlaps with the subnet and no pod is attached. Otherwise an overlap only disturbs.
    pub(crate) fn ready(self: &Arc<Self>) -> Result<(), NotReady> {
        self.refresh_disturbance();
        let overlapping = self.disturbance.with(|findings| findings.overlapping.clone());
        match overlapping.filter(|_| self.core.leases().is_empty()) {
            Some(message) => Err(NotReady { reason: "SubnetInUse", message }),
            None => Ok(()),
        }
    }

    /// Returns what disturbs attached pods.
    pub(crate) fn disturbance(self: &Arc<Self>) -> Option<NotReady> {
        self.refresh_disturbance();
        let disturbance = |reason| move |message| NotReady { reason, message };
        self.disturbance.with(|findings| {
            let blocked = findings.blocker.clone().map(disturbance("ForwardingBlocked"));
            blocked.or_else(|| findings.overlapping.clone().map(disturbance("SubnetInUse")))
        })
    }

    pub(super) fn refresh_disturbance(self: &Arc<Self>) {
        if !self.disturbance.is_due() {
            return;
        }
        let bridge = self.clone();
        tokio::spawn(async move {
            let findings =
                bridge.blocking("look at other networks", |core| Ok(core.find_disturbance())).await;
            let (overlapping, blocker) = findings.unwrap_or_default();
            bridge.disturbance.replace(overlapping, blocker);
        });
    }
}

impl Core {
    /// Looks for an overlapping network and a blocking firewall. A look that fails finds nothing: attaching reports
    /// errors.
    fn find_disturbance(&self) -> (Option<String>, Option<String>) {
        let overlapping = self
            .netlink()
            .and_then(|mut netlink| host_networks::overlapping(&self.config, self.subnet, &mut netlink));
        let blocker = forward::blocker(&self.config.name, &self.table.name());
        for error in [overlapping.as_ref().err(), blocker.as_ref().err()].into_iter().flatten() {
            tracing::debug!(error = error.chain(), "could not look at the host's other networks");
        }
        (overlapping.ok().flatten().map(|error| error.to_string()), blocker.ok().flatten())
    }
}
