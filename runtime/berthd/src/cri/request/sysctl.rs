//! Sysctls: only those that belong to a namespace of the pod, since others would change the host.

use std::collections::{BTreeMap, HashMap};

use super::field::{check, invalid};
use crate::{error::Result, pod::config::Namespaces};

/// Sysctls of the IPC namespace besides `fs.mqueue.*`.
const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
];

/// Checks each sysctl against the namespaces that are the pod's own.
pub(super) fn sysctls(
    field: &str,
    sysctls: HashMap<String, String>,
    namespaces: &Namespaces,
) -> Result<BTreeMap<String, String>> {
    sysctls.into_iter().map(|(name, value)| sysctl(field, name, value, namespaces)).collect()
}

fn sysctl(field: &str, name: String, value: String, namespaces: &Namespaces) -> Result<(String, String)> {
    let field = format!("{field}[{name:?}]");
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let bad = name.is_empty() || !name.chars().all(plain) || name.contains("..");
    let name = check(!bad, &field, name, "is no name of a sysctl")?;
    let value = check(!value.contains(['\0', '\n']), &field, value, "must be one line")?;
    let dotted = name.replace('/', ".");
    match () {
        () if dotted.starts_with("net.") => own(&field, &name, namespaces.host_network, "network")?,
        () if dotted.starts_with("fs.mqueue.") => own(&field, &name, namespaces.host_ipc, "IPC")?,
        () if IPC_SYSCTLS.contains(&dotted.as_str()) => own(&field, &name, namespaces.host_ipc, "IPC")?,
        () => {
            return Err(invalid(
                &field,
                value,
                "no namespace of a pod has this sysctl, it would change the host",
            ));
        }
    }
    Ok((name, value))
}

fn own(field: &str, name: &str, host: bool, namespace: &str) -> Result<()> {
    check(!host, field, name, &format!("the pod is in the host's {namespace} namespace")).map(|_| ())
}
