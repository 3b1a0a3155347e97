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
/// Lists the servers that systemd-resolved asks, for hosts whose own file names only its loopback stub.
const UPSTREAM_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";
const HOST_HOSTS: &str = "/etc/hosts";

/// Paths of a pod's files on the host.
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

    /// Writes the files for `pod`. Its bundle must exist, and its addresses must be known.
    pub(super) fn write(&self, pod: &Pod, hostname: &str) -> Result<()> {
        let resolv_conf =
            resolv::resolv_conf(pod.config.dns.as_ref(), &hosts_resolv_conf(pod)).map_err(spec_error)?;
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

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Returns the host's resolv.conf without servers that the pod cannot reach.
fn hosts_resolv_conf(pod: &Pod) -> String {
    let host = read(HOST_RESOLV_CONF);
    if pod.netns.is_none() || pod.config.dns.is_some() {
        return host;
    }
    let text = resolv::beyond_loopback(&host, || read(UPSTREAM_RESOLV_CONF));
    if !resolv::has_server(&text) {
        tracing::warn!(
            pod = pod.id,
            "the host has no name server that a pod could ask, and the pod names none"
        );
    }
    text
}

/// Writes a file, not atomically, owned by the pod's root, whose processes may change it.
fn write(path: &Path, text: &str, users: Option<Users>) -> Result<()> {
    let written = fs::write(path, text).and_then(|()| own(path, users));
    written.during(|| format!("write {}", path.display()))
}

/// Makes the pod's root the owner of a file or directory.
pub(crate) fn own(path: &Path, users: Option<Users>) -> io::Result<()> {
    let Some(Users { uids, gids }) = users else { return Ok(()) };
    chown(path, Some(uids.host()), Some(gids.host()))
}
