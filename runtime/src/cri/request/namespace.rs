//! Which namespaces are whose, as far as pods and containers ask for it alike.

use berth_cri::v1::{self, NamespaceMode};

use super::field::{invalid, known, unsupported};
use crate::{
    error::Result,
    pod::config::{Namespaces, PidMode},
};

/// Whether a network or IPC namespace is the host's; the pod's is the only other choice.
pub(super) fn is_host(field: &str, mode: i32) -> Result<bool> {
    match known(field, mode)? {
        NamespaceMode::Pod => Ok(false),
        NamespaceMode::Node => Ok(true),
        NamespaceMode::Container => Err(invalid(field, "CONTAINER", "must be POD or NODE")),
        NamespaceMode::Target => Err(invalid(field, "TARGET", "must be POD or NODE")),
    }
}

/// User namespaces other than the host's are refused.
pub(super) fn check_user(field: &str, options: Option<v1::UserNamespace>) -> Result<()> {
    let Some(options) = options else { return Ok(()) };
    let field = format!("{field}.userns_options");
    match known(&format!("{field}.mode"), options.mode)? {
        NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => Ok(()),
        NamespaceMode::Node => Err(invalid(&field, options, "mode NODE takes no mappings")),
        NamespaceMode::Pod => Err(unsupported(&format!("{field}.mode"), "POD")),
        NamespaceMode::Container => {
            Err(invalid(&format!("{field}.mode"), "CONTAINER", "must be POD or NODE"))
        }
        NamespaceMode::Target => Err(invalid(&format!("{field}.mode"), "TARGET", "must be POD or NODE")),
    }
}

/// The PID namespace of a container: what it asks for, else what its pod was run with. Network and IPC are the
/// pod's; asking for the host's in a pod that has its own is refused.
pub(super) fn of_container(
    field: &str,
    options: Option<v1::NamespaceOption>,
    pod: &Namespaces,
) -> Result<PidMode> {
    let Some(options) = options else { return Ok(pod.pid.clone()) };
    check_user(field, options.userns_options)?;
    for (name, mode, host) in
        [("network", options.network, pod.host_network), ("ipc", options.ipc, pod.host_ipc)]
    {
        let field = format!("{field}.{name}");
        if is_host(&field, mode)? && !host {
            return Err(invalid(&field, "NODE", "the pod was not run with it"));
        }
    }
    pid(field, options.pid, options.target_id)
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
