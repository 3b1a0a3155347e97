//! Resource limits and the OOM score adjustment.

use super::error::At;
use super::{Error, Step};
use crate::{descriptors, spec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::CapabilitySet;
use std::io::ErrorKind;

/// Sets the limits. Without one for RLIMIT_NOFILE the shim's original limit is restored.
pub(super) fn set(limits: &[spec::Rlimit]) -> Result<(), Error> {
    // Only then: a process without CAP_SYS_RESOURCE could not raise the hard limit again.
    if !limits.iter().any(|limit| limit.kind == "RLIMIT_NOFILE") {
        descriptors::restore();
    }
    limits.iter().try_for_each(|limit| {
        set_one(limit, Rlimit { current: finite(limit.soft), maximum: finite(limit.hard) })
    })
}

/// Raises hard limits that are lower than asked for, and nothing else: for a process that will lose CAP_SYS_RESOURCE.
pub(super) fn raise(limits: &[spec::Rlimit]) -> Result<(), Error> {
    for limit in limits {
        let now = getrlimit(resource_of(limit)?);
        if now.maximum.is_some_and(|ceiling| ceiling < limit.hard) {
            set_one(limit, Rlimit { maximum: finite(limit.hard), ..now })?;
        }
    }
    Ok(())
}

fn set_one(limit: &spec::Rlimit, value: Rlimit) -> Result<(), Error> {
    setrlimit(resource_of(limit)?, value)
        .at(Step::Rlimit, || format!("set {} to soft {} hard {}", limit.kind, limit.soft, limit.hard))
}

fn resource_of(limit: &spec::Rlimit) -> Result<Resource, Error> {
    resource(&limit.kind).ok_or_else(|| Error::invalid(Step::Rlimit, format!("type {:?}", limit.kind)))
}

fn finite(value: u64) -> Option<u64> {
    (value != u64::MAX).then_some(value)
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name.strip_prefix("RLIMIT_")? {
        "AS" => Resource::As,
        "CORE" => Resource::Core,
        "CPU" => Resource::Cpu,
        "DATA" => Resource::Data,
        "FSIZE" => Resource::Fsize,
        "LOCKS" => Resource::Locks,
        "MEMLOCK" => Resource::Memlock,
        "MSGQUEUE" => Resource::Msgqueue,
        "NICE" => Resource::Nice,
        "NOFILE" => Resource::Nofile,
        "NPROC" => Resource::Nproc,
        "RSS" => Resource::Rss,
        "RTPRIO" => Resource::Rtprio,
        "RTTIME" => Resource::Rttime,
        "SIGPENDING" => Resource::Sigpending,
        "STACK" => Resource::Stack,
        _ => return None,
    })
}

/// Sets the calling process's oom_score_adj, which its children inherit. Without `CAP_SYS_RESOURCE` a score below the
/// current one cannot be set; the current one then stays.
pub(super) fn set_oom_score(score: Option<i32>) -> Result<(), Error> {
    let Some(score) = score else { return Ok(()) };
    const FILE: &str = "/proc/self/oom_score_adj";
    match std::fs::write(FILE, score.to_string()) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && may_not_lower(score) => Ok(()),
        other => other.at(Step::OomScore, || format!("set to {score}")),
    }
}

fn may_not_lower(score: i32) -> bool {
    let privileged = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    let current = std::fs::read_to_string("/proc/self/oom_score_adj").ok();
    let current = current.and_then(|text| text.trim().parse::<i32>().ok());
    !privileged && current.is_some_and(|current| score < current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_limit_is_named() {
        let limit = spec::Rlimit { kind: "RLIMIT_FUN".into(), hard: 1, soft: 1 };
        assert_eq!(set(&[limit]), Err(Error::invalid(Step::Rlimit, "type \"RLIMIT_FUN\"")));
    }
}
