//! Which namespaces a container joins, gets new, or shares with the host.

use super::error::At;
use super::sysctl::Owned;
use super::{Error, PodNamespaces, Step};
use crate::spec::{Namespace, NamespaceKind};
use crate::sys;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::{AsFd, OwnedFd};

/// The plan, with everything opened that is to be joined.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    join: Vec<(OwnedFd, NamespaceKind)>,
    /// `CLONE_NEW*` for the container's first process.
    pub(super) new: libc::c_int,
    /// A new cgroup namespace, which must wait until the process is in its cgroup.
    pub(super) new_cgroup: bool,
    /// Which are not the host's.
    pub(super) owned: Owned,
}

impl Namespaces {
    /// From the spec's list and the pod.
    pub(super) fn plan(listed: &[Namespace], pod: &PodNamespaces) -> Result<Self, Error> {
        let mut plan = Self { new: libc::CLONE_NEWNS, ..Self::default() };
        for namespace in listed {
            plan.add(namespace)?;
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

    fn add(&mut self, namespace: &Namespace) -> Result<(), Error> {
        let kind = namespace.kind;
        match (kind, namespace.path.as_str()) {
            (NamespaceKind::User | NamespaceKind::Time, _) => {
                return Err(Error::Unsupported(format!("{kind:?} namespaces are").to_lowercase()));
            }
            (NamespaceKind::Mount, "") => {}
            (NamespaceKind::Mount, _) => {
                return Err(Error::Unsupported("joining a mount namespace is".into()));
            }
            (NamespaceKind::Cgroup, "") => self.new_cgroup = true,
            (_, "") => {
                self.new |= flag(kind);
                self.own(kind);
            }
            (_, path) => {
                let flags = OFlags::RDONLY | OFlags::CLOEXEC;
                let opened = openat(CWD, path, flags, Mode::empty())
                    .at(Step::Namespace, || format!("open {kind:?} {path:?}"))?;
                self.join(opened, kind);
            }
        }
        Ok(())
    }

    fn join(&mut self, namespace: OwnedFd, kind: NamespaceKind) {
        self.own(kind);
        self.join.push((namespace, kind));
    }

    fn own(&mut self, kind: NamespaceKind) {
        match kind {
            NamespaceKind::Network => self.owned.net = true,
            NamespaceKind::Ipc => self.owned.ipc = true,
            NamespaceKind::Uts => self.owned.uts = true,
            _ => {}
        }
    }

    /// Enters those to be joined. What is made afterwards is in all of them.
    pub(super) fn enter(&self) -> Result<(), Error> {
        for (namespace, kind) in &self.join {
            sys::setns(namespace.as_fd(), flag(*kind)).at(Step::Namespace, || format!("join {kind:?}"))?;
        }
        Ok(())
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
