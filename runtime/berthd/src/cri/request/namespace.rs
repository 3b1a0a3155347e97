//! Namespace options that pods and containers share.

use berth_cri::v1::{self, NamespaceMode};

use super::field::{check, invalid, known};
use crate::{
    error::Result,
    pod::config::{IdRange, Namespaces, PidMode, Users},
};

/// Whether a network or IPC namespace is the host's. The only other valid mode is POD.
pub(super) fn is_host(field: &str, mode: i32) -> Result<bool> {
    match known(field, mode)? {
        NamespaceMode::Pod => Ok(false),
        NamespaceMode::Node => Ok(true),
        NamespaceMode::Container => Err(invalid(field, "CONTAINER", "must be POD or NODE")),
        NamespaceMode::Target => Err(invalid(field, "TARGET", "must be POD or NODE")),
    }
}

/// Returns the requested user namespace; `None` is the host's.
pub(super) fn users(field: &str, options: Option<v1::UserNamespace>) -> Result<Option<Users>> {
    let Some(options) = options else { return Ok(None) };
    let field = format!("{field}.userns_options");
    match known(&format!("{field}.mode"), options.mode)? {
        NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => Ok(None),
        NamespaceMode::Node => Err(invalid(&field, options, "mode NODE takes no mappings")),
        NamespaceMode::Pod => Ok(Some(Users {
            uids: range(&format!("{field}.uids"), options.uids)?,
            gids: range(&format!("{field}.gids"), options.gids)?,
        })),
        NamespaceMode::Container => {
            Err(invalid(&format!("{field}.mode"), "CONTAINER", "must be POD or NODE"))
        }
        NamespaceMode::Target => Err(invalid(&format!("{field}.mode"), "TARGET", "must be POD or NODE")),
    }
}

/// Returns the single mapping, which must begin at id 0 of the container.
pub(super) fn range(field: &str, mappings: Vec<v1::IdMapping>) -> Result<IdRange> {
    let [mapping] = mappings[..] else { return Err(invalid(field, mappings, "must be exactly one mapping")) };
    let first = mapping.container_id;
    check(first == 0, &format!("{field}[0].container_id"), first, "must be 0, or root would not be mapped")?;
    let range = IdRange::new(mapping.host_id, mapping.length);
    range.ok_or_else(|| invalid(&format!("{field}[0]"), mapping, "must hold ids, the last below 4294967295"))
}

/// Refuses the host's namespace for a pod with a user namespace, which has no privileges over it.
pub(super) fn check_host(field: &str, users: Option<Users>, host: bool) -> Result<()> {
    check(users.is_none() || !host, field, "NODE", "not in a user namespace").map(drop)
}

/// Returns the PID namespace of a container: the requested one, else the pod's. Network, IPC and user namespaces are
/// the pod's; a request for the host's in a pod that has its own is refused.
pub(super) fn of_container(
    field: &str,
    options: Option<v1::NamespaceOption>,
    pod: &Namespaces,
) -> Result<PidMode> {
    let Some(options) = options else { return Ok(pod.pid.clone()) };
    let asked = options.userns_options.clone();
    if asked.is_some() && users(field, asked)? != pod.users {
        let asked = options.userns_options;
        return Err(invalid(&format!("{field}.userns_options"), asked, "the pod was not run with it"));
    }
    for (name, mode, host) in
        [("network", options.network, pod.host_network), ("ipc", options.ipc, pod.host_ipc)]
    {
        let field = format!("{field}.{name}");
        if is_host(&field, mode)? && !host {
            return Err(invalid(&field, "NODE", "the pod was not run with it"));
        }
    }
    let pid = pid(field, options.pid, options.target_id)?;
    check_host(&format!("{field}.pid"), pod.users, pid == PidMode::Node)?;
    Ok(pid)
}

fn pid(field: &str, mode: i32, target: String) -> Result<PidMode> {
    let mode = known(&format!("{field}.pid"), mode)?;
    match mode {
        NamespaceMode::Target if target.is_empty() => {
            Err(invalid(&format!("{field}.target_id"), target, "pid TARGET needs the id of a container"))
        }
        NamespaceMode::Target => Ok(PidMode::Target(target)),
        _ if !target.is_empty() => {
            Err(invalid(&format!("{field}.target_id"), target, "only with pid TARGET"))
        }
        NamespaceMode::Pod => Ok(PidMode::Pod),
        NamespaceMode::Container => Ok(PidMode::Container),
        NamespaceMode::Node => Ok(PidMode::Node),
    }
}
