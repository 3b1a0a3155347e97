//! User namespaces. A child process makes one by being created in it, and ends as soon as a descriptor holds the namespace.

use super::channel;
use super::child::{kill_and_wait, pidfd_of};
use super::error::At;
use super::idmap::IdMappings;
use super::{Error, Step};
use crate::spec::IdMapping;
use crate::sys;
use rustix::fs::{Mode, OFlags, open};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};

/// A user namespace, held by a descriptor.
#[derive(Debug)]
pub(super) struct UserNamespace {
    pub(super) file: OwnedFd,
    pub(super) mappings: IdMappings,
}

impl UserNamespace {
    /// Creates one.
    pub(super) fn create(mappings: &IdMappings) -> Result<Self, Error> {
        NamespaceHolder::create(mappings, 0)?.user_namespace()
    }

    /// Opens an existing one; `mappings` must be its own.
    pub(super) fn open(path: &str, mappings: &IdMappings) -> Result<Self, Error> {
        let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .at(Step::Namespace, || format!("open User {path:?}"))?;
        Ok(Self { file, mappings: mappings.clone() })
    }

    pub(super) fn try_clone(&self) -> Result<Self, Error> {
        let file = self.file.try_clone().at(Step::Namespace, || "the pod's User".into())?;
        Ok(Self { file, mappings: self.mappings.clone() })
    }

    /// One with these mappings: `own` if it has them, otherwise a new one.
    pub(super) fn that_maps(mappings: &IdMappings, own: Option<&Self>) -> Result<Self, Error> {
        match own.filter(|own| own.mappings == *mappings) {
            Some(own) => own.try_clone(),
            None => Self::create(mappings),
        }
    }

    /// Moves the calling process into it. The process loses its privileges on the host and gets all in the namespace,
    /// but accesses files as the host's root until [`super::user::become_root`].
    pub(super) fn enter(&self) -> Result<(), Error> {
        sys::setns(self.file.as_fd(), libc::CLONE_NEWUSER).at(Step::Namespace, || "join User".into())
    }
}

/// A process that holds new namespaces until descriptors do. It ends when dropped, and with the process that made it.
pub(super) struct NamespaceHolder<'a> {
    pid: u32,
    pidfd: OwnedFd,
    mappings: &'a IdMappings,
    _lifeline: OwnedFd,
}

impl<'a> NamespaceHolder<'a> {
    /// Creates a user namespace and, owned by it, those of `others` (`CLONE_NEW*`).
    pub(super) fn create(mappings: &'a IdMappings, others: libc::c_int) -> Result<Self, Error> {
        if mappings.uids.is_empty() || mappings.gids.is_empty() {
            return Err(Error::invalid(
                Step::Namespace,
                "a user namespace needs uidMappings and gidMappings",
            ));
        }
        let (lifeline, theirs) = channel::pair()?;
        let stay = || match sys::keep_only(theirs.as_fd()) {
            Ok(lifeline) => u8::from(channel::wait_at_barrier(lifeline.as_fd())),
            Err(_) => 1,
        };
        let pid = sys::clone_child(libc::CLONE_NEWUSER | others, stay)
            .at(Step::Namespace, || "make User".into())?;
        let holder = Self { pid, pidfd: pidfd_of(pid)?, mappings, _lifeline: lifeline };
        holder.write("uid_map", &mappings.uids)?;
        holder.write("gid_map", &mappings.gids)?;
        Ok(holder)
    }

    fn write(&self, file: &str, ranges: &[IdMapping]) -> Result<(), Error> {
        let line = |range: &IdMapping| format!("{} {} {}\n", range.container_id, range.host_id, range.size);
        let text: String = ranges.iter().map(line).collect();
        fs::write(format!("/proc/{}/{file}", self.pid), &text)
            .at(Step::Namespace, || format!("write {file} {:?}", text.trim_end()))
    }

    /// Opens the user namespace.
    pub(super) fn user_namespace(&self) -> Result<UserNamespace, Error> {
        UserNamespace::open(&format!("/proc/{}/ns/user", self.pid), self.mappings)
    }

    /// Moves the calling process into those of the other namespaces.
    pub(super) fn join(&self, kinds: libc::c_int) -> Result<(), Error> {
        if kinds == 0 {
            return Ok(());
        }
        sys::setns(self.pidfd.as_fd(), kinds).at(Step::Namespace, || "join what was made".into())
    }
}

impl Drop for NamespaceHolder<'_> {
    fn drop(&mut self) {
        kill_and_wait(self.pidfd.as_fd());
    }
}

/// Whether a process is in the caller's own namespace of this kind, as named in `/proc/PID/ns`.
pub(super) fn is_own(pid: u32, kind: &str) -> std::io::Result<bool> {
    let of = |process: &str| fs::read_link(format!("/proc/{process}/ns/{kind}"));
    Ok(of("self")? == of(&pid.to_string())?)
}

/// The mappings of a process's user namespace; `None` when it is the caller's own.
pub(super) fn mappings_of(pid: u32) -> std::io::Result<Option<IdMappings>> {
    if is_own(pid, "user")? {
        return Ok(None);
    }
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).map(|text| ranges(&text));
    Ok(Some(IdMappings { uids: read("uid_map")?, gids: read("gid_map")? }))
}

/// Parses a map, user_namespaces(7).
fn ranges(text: &str) -> Vec<IdMapping> {
    let range = |line: &str| {
        let mut numbers = line.split_whitespace().map_while(|number| number.parse().ok());
        Some(IdMapping { container_id: numbers.next()?, host_id: numbers.next()?, size: numbers.next()? })
    };
    text.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_map_is_read_line_by_line() {
        let read = ranges("         0       1000     100000\n    100000          5          1\n");
        let expected = IdMappings::parse("0:1000:100000,100000:5:1", "0:0:1").unwrap().uids;
        assert_eq!(read, expected);
    }

    /// As when a stage is killed: its holder is not dropped.
    #[test]
    fn root_an_anchor_ends_with_the_process_that_made_it() {
        assert!(rustix::process::geteuid().is_root(), "needs root: sudo -E cargo test -p berth-shim root_");
        let (read, write) = rustix::pipe::pipe().unwrap();
        let maker = sys::fork(|| {
            let mappings = IdMappings::parse("0:7:1", "0:7:1").unwrap();
            let holder = NamespaceHolder::create(&mappings, 0).unwrap();
            let written = rustix::io::write(&write, holder.pid.to_string().as_bytes());
            std::mem::forget(holder);
            u8::from(written.is_err())
        });
        super::super::child::wait(pidfd_of(maker.unwrap()).unwrap().as_fd());
        drop(write);
        let mut pid = String::new();
        std::io::Read::read_to_string(&mut fs::File::from(read), &mut pid).unwrap();
        let holder = std::path::PathBuf::from(format!("/proc/{pid}/ns/user"));
        for _ in 0..1000 {
            if fs::read_link(&holder).is_err() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("process {pid} is still there");
    }

    #[test]
    fn a_process_is_in_its_own_namespaces() {
        assert!(is_own(std::process::id(), "user").unwrap());
        assert_eq!(mappings_of(std::process::id()).unwrap(), None);
        assert!(is_own(u32::MAX, "user").is_err());
    }
}
