//! AppArmor and SELinux: labels that take effect at execve.

use super::error::At;
use super::{Error, Step};
use crate::spec::{Process, Spec};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::BorrowedFd;

/// File systems that are the container's own and take a label as a whole.
const LABELLED: &[&str] = &["tmpfs", "devpts", "ramfs"];

/// Has the file systems that the container gets made with its SELinux label. The root's comes with its mount's options.
pub(super) fn label_mounts(spec: &mut Spec) {
    if spec.linux.mount_label.is_empty() {
        return;
    }
    for mount in spec.mounts.iter_mut().filter(|mount| LABELLED.contains(&mount.kind.as_str())) {
        mount.options.push(format!("context={}", spec.linux.mount_label));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Mount;

    #[test]
    fn own_file_systems_are_labelled_and_what_comes_from_elsewhere_is_not() {
        let mount =
            |kind: &str| Mount { kind: kind.into(), options: vec!["nosuid".into()], ..Mount::default() };
        let mounts = ["tmpfs", "bind", "proc", "devpts", "pod-shm"].map(mount).to_vec();
        let mut spec = Spec { mounts, ..Spec::default() };
        let labels = |spec: &Spec| {
            let last = |mount: &Mount| mount.options.last().cloned().unwrap_or_default();
            spec.mounts.iter().map(last).collect::<Vec<_>>()
        };
        label_mounts(&mut spec);
        assert_eq!(labels(&spec), ["nosuid"; 5]);
        spec.linux.mount_label = "system_u:object_r:container_file_t:s0:c1,c2".into();
        label_mounts(&mut spec);
        let label = "context=system_u:object_r:container_file_t:s0:c1,c2";
        assert_eq!(labels(&spec), [label, "nosuid", "nosuid", label, "nosuid"]);
    }
}
