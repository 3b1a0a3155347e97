//! Converts a container's configuration to the OCI runtime specification for its shim. Pure: everything that is looked
//! up on the host or in the image comes in with [`Inputs`], so that each rule can be tested by a table; [`probe`] and
//! [`devices::find`] do the looking up.
//!
//! Where the OCI specification leaves a choice, the container gets what containerd would choose; docs/decisions lists
//! the exceptions and their reasons.

pub mod accounts;
pub(crate) mod annotations;
pub mod apparmor;
mod capabilities;
pub mod devices;
mod environment;
mod error;
pub mod host;
mod mounts;
mod namespaces;
pub mod probe;
mod process;
pub mod resolv;
pub mod resources;
pub mod seccomp;
pub mod selinux;
pub mod signal;
pub mod user;

use std::path::PathBuf;

use berth_image::Part;
use oci_spec::runtime::{Linux, LinuxPids, LinuxResources, Root, Spec};

pub use self::{
    accounts::Accounts,
    devices::{Devices, FoundDevice},
    error::Error,
    host::{Cgroups, Defaults, Host, HostFeatures},
    namespaces::PidNamespace,
    signal::Signal,
    user::ResolvedUser,
};
use crate::{
    container::config::{ContainerConfig, ImageMount},
    pod::config::PodConfig,
};

/// Version of the OCI runtime specification that is followed.
const OCI_VERSION: &str = "1.3.0";

/// Inputs of a container's specification.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// The container's configuration. Its `devices` are not read; see the field `devices` below.
    pub container: &'a ContainerConfig,
    /// The configuration of its pod.
    pub pod: &'a PodConfig,
    /// Defaults from its image.
    pub image: &'a ImageDefaults,
    /// User of its processes, from [`user::resolve`].
    pub user: &'a ResolvedUser,
    /// Features of the host.
    pub host: &'a Host,
    /// Defaults of the daemon's configuration.
    pub defaults: &'a Defaults,
    /// The host name that its processes see.
    pub hostname: &'a str,
    /// The pod's files to mount in /etc.
    pub files: &'a PodFiles,
    /// Image volumes.
    pub volumes: &'a [ImageVolume],
    /// Its devices on the host, from [`devices::find`].
    pub devices: &'a Devices,
    /// Its seccomp profile, if that is in a file, from [`seccomp::read`].
    pub seccomp: Option<&'a seccomp::Profile>,
    /// Path of its cgroup below the root of each hierarchy, such as `/a/b/ID`.
    pub cgroup_path: &'a str,
    /// Its PID namespace.
    pub pid: PidNamespace,
}

/// An image mounted as a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageVolume {
    /// Place and options of the mount.
    pub mount: ImageMount,
    /// The part of the image to mount.
    pub part: Part,
}

/// Defaults that an image sets for its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    /// Environment, `NAME=value` each.
    pub env: Vec<String>,
    /// Command.
    pub entrypoint: Vec<String>,
    /// Arguments of the entrypoint, or the command when there is no entrypoint.
    pub cmd: Vec<String>,
    /// Working directory.
    pub working_dir: String,
}

/// Host paths of the files that a pod's containers see in /etc. `None` leaves the image's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFiles {
    /// For /etc/resolv.conf.
    pub resolv_conf: Option<PathBuf>,
    /// For /etc/hosts.
    pub hosts: Option<PathBuf>,
    /// For /etc/hostname.
    pub hostname: Option<PathBuf>,
}

/// Makes the OCI runtime specification of a container, or says what is wrong with its configuration.
///
/// Network, IPC and UTS namespaces, host name and sysctls are the pod's and not part of it.
pub fn build(inputs: &Inputs<'_>) -> Result<Spec, Error> {
    let security = &inputs.container.security;
    if security.privileged && !inputs.pod.privileged {
        return Err(Error::Unprivileged(inputs.container.metadata.name.clone()));
    }
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(security.readonly_rootfs));
    let mut spec = Spec::default();
    spec.set_version(OCI_VERSION.to_owned())
        .set_root(Some(root))
        .set_process(Some(process::build(inputs)?))
        .set_hostname(None)
        .set_annotations(Some(annotations::build(inputs)))
        .set_mounts(Some(mounts::build(inputs)?))
        .set_linux(Some(linux(inputs)?));
    Ok(spec)
}

fn linux(inputs: &Inputs<'_>) -> Result<Linux, Error> {
    let security = &inputs.container.security;
    let propagation = mounts::root_propagation(&inputs.container.mounts).map(str::to_owned);
    let mut linux = Linux::default();
    linux
        .set_namespaces(Some(namespaces::build(&inputs.pid, inputs.host.cgroups, security.privileged)))
        .set_devices(Some(devices::nodes(inputs)?))
        .set_resources(Some(limits(inputs)?))
        .set_cgroups_path(Some(inputs.cgroup_path.into()))
        .set_rootfs_propagation(propagation)
        .set_seccomp(seccomp::build(inputs)?)
        .set_mount_label(selinux::mount_label(security.selinux.as_ref(), inputs.host))
        .set_masked_paths(Some(hidden(inputs, "masked_paths", &security.masked_paths)?))
        .set_readonly_paths(Some(hidden(inputs, "readonly_paths", &security.readonly_paths)?));
    Ok(linux)
}

fn limits(inputs: &Inputs<'_>) -> Result<LinuxResources, Error> {
    let mut limits = resources::to_oci(&inputs.container.resources, inputs.host)?;
    limits.set_devices(Some(devices::rules(inputs)?));
    if let (Some(limit), None) = (inputs.defaults.pids_limit, limits.pids()) {
        let mut pids = LinuxPids::default();
        pids.set_limit(limit);
        limits.set_pids(Some(pids));
    }
    Ok(limits)
}

/// Returns the masked or read-only paths exactly as the caller listed them: Kubernetes sends the usual ones itself, and
/// an empty list for `procMount: Unmasked`. Privileged containers have none.
fn hidden(inputs: &Inputs<'_>, field: &'static str, paths: &[String]) -> Result<Vec<String>, Error> {
    if inputs.container.security.privileged {
        return Ok(Vec::new());
    }
    paths.iter().map(|path| mounts::clean(field, path)).collect()
}

#[cfg(test)]
mod tests;
