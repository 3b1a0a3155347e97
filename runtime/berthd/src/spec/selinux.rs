//! Labels of SELinux, for containers that name one. Berth hands out no categories of its own: a container without options
//! runs as confined as the daemon's policy has it.

use std::path::Path;

use berth_image::tree;

use super::{Error, Host};
use crate::container::config::{ContainerConfig, Selinux};

const ATTRIBUTE: &str = "security.selinux";
/// What files of a container are to a policy, whatever its processes are.
const FILE_ROLE: &str = "object_r";
const FILE_TYPE: &str = "container_file_t";

/// Places whose label the host depends on, and which no container may take over.
const UNTOUCHABLE: [&str; 14] = [
    "/", "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/proc", "/root", "/run", "/sbin",
    "/sys", "/usr",
];

/// The label of the processes, where the host has SELinux and the container names one.
pub(crate) fn process_label(options: Option<&Selinux>, host: &Host) -> Option<String> {
    let options = options.filter(|_| host.selinux)?;
    Some(format!("{}:{}:{}:{}", options.user, options.role, options.kind, options.level))
}

/// The label of what they write.
pub(crate) fn mount_label(options: Option<&Selinux>, host: &Host) -> Option<String> {
    let options = options.filter(|_| host.selinux)?;
    Some(format!("{}:{FILE_ROLE}:{FILE_TYPE}:{}", options.user, options.level))
}

/// Gives the mounts that ask for it the container's label, with all that is in them.
///
/// Touches paths that the caller chose, and as many files as there are: not for a thread that others wait for.
pub fn relabel(container: &ContainerConfig, host: &Host) -> Result<(), Error> {
    let Some(label) = mount_label(container.security.selinux.as_ref(), host) else { return Ok(()) };
    for mount in container.mounts.iter().filter(|mount| mount.selinux_relabel) {
        let path = Path::new(&mount.host_path);
        let fail = |reason: String| Error::invalid("mount selinux_relabel", &mount.host_path, reason);
        let real = path.canonicalize().map_err(|error| fail(error.to_string()))?;
        if UNTOUCHABLE.iter().any(|place| real == Path::new(place)) {
            return Err(fail("is a directory of the host itself".to_owned()));
        }
        tree::label(&real, ATTRIBUTE, label.as_bytes()).map_err(|error| fail(error.to_string()))?;
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
        for path in ["/usr", "/usr/bin/..", "/"] {
            let mount = Mount { host_path: path.to_owned(), selinux_relabel: true, ..Default::default() };
            container.mounts = vec![mount];
            assert!(relabel(&container, &host(true)).is_err(), "{path}");
            assert_eq!(relabel(&container, &host(false)), Ok(()));
        }
    }
}
