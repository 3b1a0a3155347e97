//! From what a container is asked to be to the OCI runtime specification that a shim acts on. Pure: everything that has
//! to be looked up on the host or in the image comes in with [`Inputs`], so that every rule here is a line in a table of
//! tests; what looks it up is in [`probe`] and [`devices::find`].
//!
//! Where the OCI specification leaves a choice, the container gets what containerd would give it; docs/decisions tells
//! where and why not.

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

/// Version of the OCI runtime specification that the result keeps to.
const OCI_VERSION: &str = "1.3.0";

/// Everything a container's description follows from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// What the container is asked to be. Its `devices` are not read: see the field below.
    pub container: &'a ContainerConfig,
    /// The pod it belongs to.
    pub pod: &'a PodConfig,
    /// What its image says.
    pub image: &'a ImageDefaults,
    /// Whom it runs as, by [`user::resolve`].
    pub user: &'a ResolvedUser,
    /// What the host can do.
    pub host: &'a Host,
    /// What the daemon gives to every container.
    pub defaults: &'a Defaults,
    /// The host name that its processes see.
    pub hostname: &'a str,
    /// The pod's files that are shown in /etc.
    pub files: &'a PodFiles,
    /// Images that are mounted as volumes.
    pub volumes: &'a [ImageVolume],
    /// What its devices are on the host, by [`devices::find`].
    pub devices: &'a Devices,
    /// The system call filter that it names, where that is in a file, by [`seccomp::read`].
    pub seccomp: Option<&'a seccomp::Profile>,
    /// Below each cgroup hierarchy's root, as `/a/b/ID`.
    pub cgroup_path: &'a str,
    /// Where its processes are numbered.
    pub pid: PidNamespace,
}

/// An image that is mounted as a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageVolume {
    /// Where, and how.
    pub mount: ImageMount,
    /// What of the image that is.
    pub part: Part,
}

/// What an image says about the containers made from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDefaults {
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// What runs.
    pub entrypoint: Vec<String>,
    /// Its arguments, or what runs when there is no entrypoint.
    pub cmd: Vec<String>,
    /// Where it runs.
    pub working_dir: String,
}

/// Paths on the host of what a pod's containers find in /etc. `None` leaves the image's file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFiles {
    /// For /etc/resolv.conf.
    pub resolv_conf: Option<PathBuf>,
    /// For /etc/hosts.
    pub hosts: Option<PathBuf>,
    /// For /etc/hostname.
    pub hostname: Option<PathBuf>,
}

/// Describes a container to its shim, or says what is wrong with it.
///
/// Network, IPC and UTS namespaces, the host name and sysctls are the pod's and not repeated here.
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

/// Masked and read-only paths are exactly the caller's, since no other list can say "none": Kubernetes sends the usual
/// ones itself and an empty list for `procMount: Unmasked`. From a privileged container nothing is hidden.
fn hidden(inputs: &Inputs<'_>, field: &'static str, paths: &[String]) -> Result<Vec<String>, Error> {
    if inputs.container.security.privileged {
        return Ok(Vec::new());
    }
    paths.iter().map(|path| mounts::clean(field, path)).collect()
}

#[cfg(test)]
mod tests;
