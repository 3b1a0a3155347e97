//! The namespaces of a container's own.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};

use super::host::Cgroups;

/// The PID namespace of a container, as looked up by the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PidNamespace {
    /// A new one, in which the container's first process is pid 1.
    #[default]
    New,
    /// The host's.
    Host,
    /// An existing one: of the pod's first process as `/proc/PID/ns/pid`, or of another container as `container:ID`,
    /// which the shim resolves.
    Path(PathBuf),
}

/// Network, IPC and UTS namespaces are the pod's and therefore absent. A cgroup namespace hides the host's hierarchy.
/// On v1 there is none, since it would show paths that other tools cannot find; nor for a privileged container, which
/// is to see the host as it is.
pub(crate) fn build(pid: &PidNamespace, cgroups: Cgroups, privileged: bool) -> Vec<LinuxNamespace> {
    let mut namespaces = vec![namespace(LinuxNamespaceType::Mount, None)];
    match pid {
        PidNamespace::New => namespaces.push(namespace(LinuxNamespaceType::Pid, None)),
        PidNamespace::Path(path) => namespaces.push(namespace(LinuxNamespaceType::Pid, Some(path.clone()))),
        PidNamespace::Host => {}
    }
    if cgroups == Cgroups::V2 && !privileged {
        namespaces.push(namespace(LinuxNamespaceType::Cgroup, None));
    }
    namespaces
}

fn namespace(kind: LinuxNamespaceType, path: Option<PathBuf>) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind).set_path(path);
    namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_the_namespaces_that_are_not_the_pods() {
        use LinuxNamespaceType::{Cgroup, Mount, Pid};
        let target = PidNamespace::Path("/proc/7/ns/pid".into());
        let cases: [(&str, PidNamespace, Cgroups, bool, &[LinuxNamespaceType]); 6] = [
            ("its own processes on v1", PidNamespace::New, Cgroups::V1, false, &[Mount, Pid]),
            ("its own processes on v2", PidNamespace::New, Cgroups::V2, false, &[Mount, Pid, Cgroup]),
            ("the host's processes", PidNamespace::Host, Cgroups::V1, false, &[Mount]),
            ("the pod's processes", target, Cgroups::V1, false, &[Mount, Pid]),
            ("privileged on v1", PidNamespace::New, Cgroups::V1, true, &[Mount, Pid]),
            ("privileged on v2 sees the host's cgroups", PidNamespace::New, Cgroups::V2, true, &[Mount, Pid]),
        ];
        for (name, pid, cgroups, privileged, expected) in cases {
            let kinds: Vec<_> = build(&pid, cgroups, privileged).iter().map(LinuxNamespace::typ).collect();
            assert_eq!(kinds, expected, "{name}");
        }
    }

    #[test]
    fn only_a_joined_pid_namespace_has_a_path() {
        let joined = build(&PidNamespace::Path("/proc/7/ns/pid".into()), Cgroups::V2, false);
        let paths: Vec<_> = joined.iter().filter_map(|namespace| namespace.path().clone()).collect();
        assert_eq!(paths, [PathBuf::from("/proc/7/ns/pid")]);
    }
}
