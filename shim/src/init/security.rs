//! AppArmor and SELinux: labels that take effect at execve.

use super::error::At;
use super::{Error, Step};
use crate::spec::{Linux, Process};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::BorrowedFd;

/// What would change what a container may do, but is not built: refused by name rather than ignored.
pub(super) fn refuse_unsupported(linux: &Linux) -> Result<(), Error> {
    if !linux.mount_label.is_empty() {
        return Err(Error::Unsupported("SELinux mount labels are".into()));
    }
    Ok(())
}

/// A label with the file it goes to, opened in the host's `/proc`: a container's could be covered by something else.
#[derive(Debug, Default)]
pub(super) struct Label(Option<(File, String)>);

impl Label {
    /// To be called in the process that will execve; `proc` is open on the host's `/proc`.
    pub(super) fn open(process: &Process, proc: BorrowedFd<'_>) -> Result<Self, Error> {
        let label = match (process.apparmor_profile.as_str(), process.selinux_label.as_str()) {
            ("" | "unconfined", "") => return Ok(Self::default()),
            ("" | "unconfined", label) => label.to_owned(),
            (profile, _) => format!("exec {profile}"),
        };
        let open = |path| openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
        let file =
            if label.starts_with("exec ") { open("self/attr/apparmor/exec") } else { Err(Errno::NOENT) };
        let file = file.or_else(|_| open("self/attr/exec"));
        let file = file.at(Step::Security, || format!("open attr/exec for {label:?}"))?;
        Ok(Self(Some((file.into(), label))))
    }

    /// Has the label take effect at execve.
    pub(super) fn apply(&mut self) -> Result<(), Error> {
        let Some((file, label)) = &mut self.0 else { return Ok(()) };
        file.write_all(label.as_bytes()).at(Step::Security, || format!("set the label {label:?}"))
    }
}
