//! The files of a pod that its containers see in /etc: resolv.conf, hosts, hostname.

use std::{
    fs, io,
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use super::{Pod, config::Users};
use crate::{
    error::{During, Result, spec_error},
    spec::resolv,
};

const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";
const HOST_HOSTS: &str = "/etc/hosts";

/// Where a pod's files lie on the host.
#[derive(Clone, Debug)]
pub struct Files {
    /// Mounted at /etc/resolv.conf.
    pub resolv_conf: PathBuf,
    /// Mounted at /etc/hosts.
    pub hosts: PathBuf,
    /// Mounted at /etc/hostname.
    pub hostname: PathBuf,
}

impl Files {
    pub(super) fn of(bundle: &Path) -> Self {
        Self {
            resolv_conf: bundle.join("resolv.conf"),
            hosts: bundle.join("hosts"),
            hostname: bundle.join("hostname"),
        }
    }

    /// Writes them for `pod`, whose bundle exists and whose addresses are known.
    pub(super) fn write(&self, pod: &Pod, hostname: &str) -> Result<()> {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let resolv_conf =
            resolv::resolv_conf(pod.config.dns.as_ref(), &read(HOST_RESOLV_CONF)).map_err(spec_error)?;
        let hosts = match pod.netns {
            Some(_) => resolv::hosts(hostname, pod.ips()),
            None => read(HOST_HOSTS),
        };
        let users = pod.config.namespaces.users;
        write(&self.resolv_conf, &resolv_conf, users)?;
        write(&self.hosts, &hosts, users)?;
        write(&self.hostname, &resolv::hostname(hostname).map_err(spec_error)?, users)
    }
}

/// For the pod's own root to change, as the files of an image are.
fn write(path: &Path, text: &str, users: Option<Users>) -> Result<()> {
    let written = fs::write(path, text).and_then(|()| own(path, users));
    written.during(|| format!("write {}", path.display()))
}

/// Gives a file or directory to the root of the pod.
pub(crate) fn own(path: &Path, users: Option<Users>) -> io::Result<()> {
    let Some(Users { uids, gids }) = users else { return Ok(()) };
    chown(path, Some(uids.host()), Some(gids.host()))
}
