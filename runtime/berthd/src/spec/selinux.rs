//! SELinux labels, for containers that name one. Berth assigns no categories of its own: a container without options is
//! confined as the policy confines the daemon's children.

use std::path::Path;

use berth_image::tree;

use super::{Error, Host};
use crate::container::config::{ContainerConfig, Selinux};

const LABEL_XATTR: &str = "security.selinux";
/// Role and type of files in every container, whatever the type of its processes.
const FILE_ROLE: &str = "object_r";
const FILE_TYPE: &str = "container_file_t";

/// Paths whose label the host depends on. They are not relabelled.
const NEVER_RELABELLED: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
    "/var/log",
];

/// Returns the label of the processes, if the host has SELinux and the container names a label.
pub(crate) fn process_label(options: Option<&Selinux>, host: &Host) -> Option<String> {
    let options = options.filter(|_| host.selinux)?;
    Some(format!("{}:{}:{}:{}", options.user, options.role, options.kind, options.level))
}

/// Returns the label of the container's files.
pub(crate) fn mount_label(options: Option<&Selinux>, host: &Host) -> Option<String> {
    let options = options.filter(|_| host.selinux)?;
    Some(format!("{}:{FILE_ROLE}:{FILE_TYPE}:{}", options.user, options.level))
}

/// Relabels the mounts that ask for it, recursively.
///
/// Blocks on paths that the caller chose, for as long as the tree is large: it must not run on an async thread.
pub fn relabel(container: &ContainerConfig, host: &Host) -> Result<(), Error> {
    let Some(label) = mount_label(container.security.selinux.as_ref(), host) else { return Ok(()) };
    for mount in container.mounts.iter().filter(|mount| mount.selinux_relabel) {
        let path = Path::new(&mount.host_path);
        let fail = |reason: String| Error::invalid("mount selinux_relabel", &mount.host_path, reason);
        let real = path.canonicalize().map_err(|error| fail(error.to_string()))?;
        if NEVER_RELABELLED.iter().any(|place| real == Path::new(place)) {
            return Err(fail("belongs to the host itself".to_owned()));
        }
        tree::label(&real, LABEL_XATTR, label.as_bytes()).map_err(|error| fail(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::config::Mount;

    fn options() -> Selinux {
        Selinux {
            user: "system_u".to_owned(),
            role: "system_r".to_owned(),
            kind: "container_t".to_owned(),
            level: "s0:c1,c2".to_owned(),
        }
    }

    fn host(selinux: bool) -> Host {
        Host { selinux, ..Default::default() }
    }

    #[test]
    fn labels_are_given_only_where_they_mean_anything() {
        let options = options();
        for (options, host, process, mount) in [
            (None, host(true), None, None),
            (Some(&options), host(false), None, None),
            (
                Some(&options),
                host(true),
                Some("system_u:system_r:container_t:s0:c1,c2"),
                Some("system_u:object_r:container_file_t:s0:c1,c2"),
            ),
        ] {
            assert_eq!(process_label(options, &host).as_deref(), process);
            assert_eq!(mount_label(options, &host).as_deref(), mount);
        }
    }

    #[test]
    fn what_the_host_lives_from_is_not_relabelled() {
        let mut container = ContainerConfig::default();
        container.security.selinux = Some(options());
        for path in ["/usr", "/usr/bin/..", "/", "/tmp", "/var/lib", "/etc/passwd"] {
            let mount = Mount { host_path: path.to_owned(), selinux_relabel: true, ..Default::default() };
            container.mounts = vec![mount];
            assert!(relabel(&container, &host(true)).is_err(), "{path}");
            assert_eq!(relabel(&container, &host(false)), Ok(()));
        }
    }
}
