//! The device nodes of a container, and the rules for opening them.

use std::path::Path;

use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

pub use self::lookup::{Devices, find};
use super::{Error, Inputs, mounts};

mod lookup;

/// Numbers of the character devices that every container may use: null, zero, full, random, urandom, tty, console,
/// ptmx, and the pseudoterminals of ptmx. The shim makes their nodes.
const DEFAULT_DEVICES: [(i64, Option<i64>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Paths of the default nodes and links, which the shim makes. The host's nodes must not replace them.
const DEFAULT_PATHS: [&str; 13] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
    "/dev/fd",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
    "/dev/core",
];

/// A device node that a container asked for, as found on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundDevice {
    /// The node, with its path in the container.
    pub node: LinuxDevice,
    /// Some of `r`, `w` and `m`.
    pub permissions: String,
}

/// Returns the nodes to make: the requested ones, and for a privileged container the host's, except where the shim
/// makes a node.
pub(crate) fn nodes(inputs: &Inputs<'_>) -> Result<Vec<LinuxDevice>, Error> {
    let mut nodes = inputs.devices.asked.iter().map(placed).collect::<Result<Vec<_>, _>>()?;
    if inputs.container.security.privileged {
        let asked: Vec<_> = nodes.iter().map(|node| node.path().clone()).collect();
        let is_default = |path: &Path| DEFAULT_PATHS.iter().any(|known| path == Path::new(known));
        let host = inputs.devices.of_host.iter();
        nodes.extend(host.filter(|node| !asked.contains(node.path()) && !is_default(node.path())).cloned());
    }
    Ok(nodes)
}

fn placed(found: &FoundDevice) -> Result<LinuxDevice, Error> {
    let path = mounts::clean("device container_path", &found.node.path().to_string_lossy())?;
    if path == "/" {
        return Err(Error::invalid("device container_path", path, "is the root itself"));
    }
    let mut node = found.node.clone();
    node.set_path(path.into());
    Ok(node)
}

/// Returns the rules of the device cgroup; the last rule that matches decides. mknod is allowed for all, since a node
/// is harmless without the right to open it.
pub(crate) fn rules(inputs: &Inputs<'_>) -> Result<Vec<LinuxDeviceCgroup>, Error> {
    use LinuxDeviceType::{A, B, C};
    if inputs.container.security.privileged {
        return Ok(vec![rule(true, A, (None, None), "rwm")]);
    }
    let mut rules = vec![
        rule(false, A, (None, None), "rwm"),
        rule(true, C, (None, None), "m"),
        rule(true, B, (None, None), "m"),
    ];
    rules.extend(DEFAULT_DEVICES.map(|(major, minor)| rule(true, C, (Some(major), minor), "rwm")));
    for found in &inputs.devices.asked {
        if !matches!(found.node.typ(), B | C) {
            continue; // named pipes are not subject to the device controller
        }
        let numbers = (Some(found.node.major()), Some(found.node.minor()));
        rules.push(rule(true, found.node.typ(), numbers, permissions(found)?));
    }
    Ok(rules)
}

fn permissions(found: &FoundDevice) -> Result<&str, Error> {
    let asked = found.permissions.as_str();
    match !asked.is_empty() && asked.chars().all(|letter| "rwm".contains(letter)) {
        true => Ok(asked),
        false => Err(Error::invalid("device permissions", asked, "is not made of r, w and m")),
    }
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    (major, minor): (Option<i64>, Option<i64>),
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow)
        .set_typ(Some(kind))
        .set_major(major)
        .set_minor(minor)
        .set_access(Some(access.to_owned()));
    rule
}

#[cfg(test)]
mod tests;
