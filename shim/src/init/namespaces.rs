//! Which namespaces a container joins, creates, or shares with the host.

use super::error::At;
use super::idmap::IdMappings;
use super::sysctl::Owned;
use super::userns::UserNamespace;
use super::{Error, Neighbour, PodNamespaces, Step};
use crate::spec::{Linux, Namespace, NamespaceKind};
use crate::sys;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Prefix of a container id in the place of a path: the PID namespace of that container in the same pod.
pub const CONTAINER_PREFIX: &str = "container:";

/// The plan, with the namespaces to join already open.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    join: Vec<(OwnedFd, NamespaceKind)>,
    /// Entered last, so that new namespaces belong to it.
    pub(super) user: Option<UserNamespace>,
    /// `CLONE_NEW*` for the container's first process.
    pub(super) new: libc::c_int,
    /// Whether to make a cgroup namespace; only after the process has entered its cgroup.
    pub(super) new_cgroup: bool,
    /// Which namespaces are not the host's.
    pub(super) owned: Owned,
}

impl Namespaces {
    /// Makes the plan from the spec, the pod and the containers in it.
    pub(super) fn plan(
        linux: &Linux,
        pod: &PodNamespaces,
        neighbours: &[Neighbour<'_>],
    ) -> Result<Self, Error> {
        let listed = &linux.namespaces;
        let user = user_namespace(linux, pod)?;
        let mut plan = Self { new: libc::CLONE_NEWNS, user, ..Self::default() };
        for namespace in listed {
            plan.add(namespace, pod, neighbours)?;
        }
        let of_pod = [
            (NamespaceKind::Network, &pod.net),
            (NamespaceKind::Ipc, &pod.ipc),
            (NamespaceKind::Uts, &pod.uts),
        ];
        for (kind, namespace) in of_pod {
            if let Some(namespace) = namespace
                && !listed.iter().any(|listed| listed.kind == kind)
            {
                let namespace =
                    namespace.try_clone().at(Step::Namespace, || format!("the pod's {kind:?}"))?;
                plan.join(namespace, kind);
            }
        }
        Ok(plan)
    }

    fn add(
        &mut self,
        namespace: &Namespace,
        pod: &PodNamespaces,
        neighbours: &[Neighbour<'_>],
    ) -> Result<(), Error> {
        let kind = namespace.kind;
        match (kind, namespace.path.as_str()) {
            (NamespaceKind::User, _) => {}
            (NamespaceKind::Time, _) => {
                return Err(Error::Unsupported(format!("{kind:?} namespaces are").to_lowercase()));
            }
            (NamespaceKind::Mount, "") => {}
            (NamespaceKind::Mount, _) => {
                return Err(Error::Unsupported("joining a mount namespace is".into()));
            }
            (NamespaceKind::Cgroup, "") => self.new_cgroup = true,
            (_, "") => {
                self.new |= flag(kind);
                self.mark_owned(kind);
            }
            (NamespaceKind::Pid, path) => match find_process(path, pod, neighbours)? {
                Some(process) => self.join(process, kind),
                None => self.join(open_namespace(path, kind)?, kind),
            },
            (_, path) => self.join(open_namespace(path, kind)?, kind),
        }
        Ok(())
    }

    fn join(&mut self, namespace: OwnedFd, kind: NamespaceKind) {
        self.mark_owned(kind);
        self.join.push((namespace, kind));
    }

    fn mark_owned(&mut self, kind: NamespaceKind) {
        match kind {
            NamespaceKind::Network => self.owned.net = true,
            NamespaceKind::Ipc => self.owned.ipc = true,
            NamespaceKind::Uts => self.owned.uts = true,
            _ => {}
        }
    }

    /// Joins the existing namespaces. Processes made afterwards are in all of them.
    pub(super) fn enter(&self) -> Result<(), Error> {
        for (namespace, kind) in &self.join {
            sys::setns(namespace.as_fd(), flag(*kind)).at(Step::Namespace, || format!("join {kind:?}"))?;
        }
        self.user.as_ref().map_or(Ok(()), UserNamespace::enter)
    }
}

fn open_namespace(path: &str, kind: NamespaceKind) -> Result<OwnedFd, Error> {
    openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .at(Step::Namespace, || format!("open {kind:?} {path:?}"))
}

/// The process of the pod that a path names, to be joined by its pidfd: its pid may have been reused. One that has
/// ended cannot be joined.
fn find_process(
    path: &str,
    pod: &PodNamespaces,
    neighbours: &[Neighbour<'_>],
) -> Result<Option<OwnedFd>, Error> {
    let found = match path.strip_prefix(CONTAINER_PREFIX) {
        Some(id) => {
            let found = neighbours.iter().find(|neighbour| neighbour.id == id);
            let absent = || Error::invalid(Step::Namespace, format!("container {id:?} is not in this pod"));
            Some(found.ok_or_else(absent)?.process)
        }
        None => pid_in_path(path).and_then(|pid| find_process_by_pid(pid, pod, neighbours)),
    };
    found
        .map(|process| process.try_clone_to_owned())
        .transpose()
        .at(Step::Namespace, || format!("join {path}"))
}

fn pid_in_path(path: &str) -> Option<u32> {
    path.strip_prefix("/proc/")?.strip_suffix("/ns/pid")?.parse().ok()
}

fn find_process_by_pid<'a>(
    pid: u32,
    pod: &'a PodNamespaces,
    neighbours: &[Neighbour<'a>],
) -> Option<BorrowedFd<'a>> {
    let of_neighbour = || neighbours.iter().find(|neighbour| neighbour.pid == pid);
    pod.init()
        .filter(|(init, _)| *init == pid)
        .map(|(_, process)| process)
        .or_else(|| Some(of_neighbour()?.process))
}

/// The container's own or the pod's; `None` is the host's.
fn user_namespace(linux: &Linux, pod: &PodNamespaces) -> Result<Option<UserNamespace>, Error> {
    let mappings = IdMappings { uids: linux.uid_mappings.clone(), gids: linux.gid_mappings.clone() };
    let listed = linux.namespaces.iter().find(|listed| listed.kind == NamespaceKind::User);
    match (listed.map(|listed| listed.path.as_str()), &pod.user) {
        (Some(""), _) => UserNamespace::create(&mappings).map(Some),
        (Some(path), _) => UserNamespace::open(path, &mappings).map(Some),
        (None, Some(user)) => user.try_clone().map(Some),
        (None, None) if mappings.is_empty() => Ok(None),
        (None, None) => Err(Error::invalid(Step::Namespace, "uidMappings without a user namespace")),
    }
}

fn flag(kind: NamespaceKind) -> libc::c_int {
    match kind {
        NamespaceKind::Pid => libc::CLONE_NEWPID,
        NamespaceKind::Network => libc::CLONE_NEWNET,
        NamespaceKind::Mount => libc::CLONE_NEWNS,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC,
        NamespaceKind::Uts => libc::CLONE_NEWUTS,
        NamespaceKind::User => libc::CLONE_NEWUSER,
        NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
        NamespaceKind::Time => 0x80,
    }
}
