//! Finds a firewall that drops what the host forwards for pods, as Docker, firewalld and ufw may set one up.
//!
//! A packet must be accepted by every table that sees it: no rule of ours can override the drop of another table, and
//! Berth does not edit tables of others. So their rules are read and evaluated for the two packets that matter (out of
//! a pod, and to a published port), and the rule that drops one is reported. Conditions that are not understood count
//! in the packet's favour.

mod iptables;
mod json;

use std::collections::HashMap;
use std::fs;

use crate::Error;

/// A table's chains by name.
type Chains = HashMap<String, Vec<Rule>>;

/// Limit of nested jumps; the kernel's own limit is the same.
const MAX_JUMP_DEPTH: usize = 16;

/// A packet that opens a connection.
#[derive(Debug, Clone, Copy)]
struct Packet<'a> {
    iif: &'a str,
    /// None when the host has no default route.
    oif: Option<&'a str>,
    /// Its destination was rewritten, as a published port's is.
    is_published: bool,
}

/// Whether a rule matches a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    Unknown,
    Yes,
}

/// Effect of a rule on a packet that it matches.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Accept,
    Drop,
    Jump(String),
    Goto(String),
    Return,
    Nothing,
}

#[derive(Debug, PartialEq, Eq)]
struct Rule {
    fit: Fit,
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Accepted,
    Dropped,
    /// The chain has no verdict.
    Through,
}

/// Describes the rule or policy that drops the pods' packets; none when none is found.
pub(super) fn blocker(bridge: &str, own_table: &str) -> Result<Option<String>, Error> {
    let uplink = uplink();
    let out = Packet { iif: bridge, oif: uplink.as_deref(), is_published: false };
    let inward = Packet { iif: uplink.as_deref().unwrap_or("?"), oif: Some(bridge), is_published: true };
    for (packet, what) in
        [(out, "what pods send to other networks"), (inward, "what comes for published ports")]
    {
        let by = match iptables::legacy_blocker(packet)? {
            None => json::blocker(packet, own_table)?,
            by => by,
        };
        if let Some(by) = by {
            return Ok(Some(format!("{by} drops {what}: allow interface {bridge} there")));
        }
    }
    Ok(None)
}

/// Returns the interface of the default route.
fn uplink() -> Option<String> {
    let routes = fs::read_to_string("/proc/thread-self/net/route").ok()?;
    routes.lines().skip(1).find_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let leads_everywhere = words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000");
        leads_everywhere.then(|| words[0].to_owned())
    })
}

/// Evaluates the chain `name` for the packet that the rules of `chains` were read for.
fn walk(chains: &Chains, name: &str, depth: usize) -> Outcome {
    let rules = chains.get(name).filter(|_| depth < MAX_JUMP_DEPTH);
    for Rule { fit, action } in rules.into_iter().flatten().filter(|rule| rule.fit != Fit::No) {
        let is_sure = *fit == Fit::Yes;
        let outcome = match action {
            Action::Accept => Outcome::Accepted,
            Action::Drop => Outcome::Dropped,
            Action::Return if is_sure => return Outcome::Through,
            Action::Jump(target) => walk(chains, target, depth + 1),
            Action::Goto(target) => match walk(chains, target, depth + 1) {
                Outcome::Through if is_sure => return Outcome::Through,
                outcome => outcome,
            },
            _ => Outcome::Through,
        };
        match outcome {
            Outcome::Accepted => return Outcome::Accepted,
            Outcome::Dropped if is_sure => return Outcome::Dropped,
            _ => {}
        }
    }
    Outcome::Through
}

impl Fit {
    fn of(holds: bool) -> Fit {
        if holds { Fit::Yes } else { Fit::No }
    }

    fn negated(self) -> Fit {
        match self {
            Fit::Yes => Fit::No,
            Fit::No => Fit::Yes,
            Fit::Unknown => Fit::Unknown,
        }
    }

    /// Combines two conditions of one rule.
    fn and(self, other: Fit) -> Fit {
        self.min(other)
    }
}

impl Packet<'_> {
    fn leaves_through(&self, pattern: &str) -> Fit {
        self.oif.map_or(Fit::Unknown, |oif| Fit::of(is_named(oif, pattern)))
    }

    fn comes_through(&self, pattern: &str) -> Fit {
        Fit::of(is_named(self.iif, pattern))
    }
}

/// Patterns end in `*` (nft) or `+` (iptables) when more may follow.
fn is_named(interface: &str, pattern: &str) -> bool {
    match pattern.strip_suffix(['*', '+']) {
        Some(beginning) => interface.starts_with(beginning),
        None => interface == pattern,
    }
}
