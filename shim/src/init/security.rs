//! AppArmor profiles and SELinux labels, which take effect at execve.

use super::error::At;
use super::proc::Proc;
use super::{Error, Step};
use crate::spec::{Process, Spec};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// File systems that belong to the container alone and take one label for all files.
const LABELLED: &[&str] = &["tmpfs", "devpts", "ramfs"];

/// Adds the SELinux label to the container's own file systems. The root's label is in the options of its mount.
pub(super) fn label_mounts(spec: &mut Spec) {
    if spec.linux.mount_label.is_empty() {
        return;
    }
    for mount in spec.mounts.iter_mut().filter(|mount| LABELLED.contains(&mount.kind.as_str())) {
        mount.options.push(format!("context={}", spec.linux.mount_label));
    }
}

/// Sets the label that the process takes on at execve; its children inherit it. The host's `/proc` must be in sight:
/// the container's could be covered by another mount.
pub(super) fn label_self(process: &Process) -> Result<(), Error> {
    let (apparmor, selinux) = (process.apparmor_profile.as_str(), process.selinux_label.as_str());
    match (apparmor, selinux) {
        ("" | "unconfined", "") => Ok(()),
        ("" | "unconfined", label) => {
            let proc = Proc::open(Step::Security)?;
            // The container's session keyring gets the label, too.
            write(&proc, &["keycreate"], label)?;
            write(&proc, &["exec"], label)
        }
        (profile, _) => {
            write(&Proc::open(Step::Security)?, &["apparmor/exec", "exec"], &format!("exec {profile}"))
        }
    }
}

/// Writes to the first of `files` that exists.
fn write(proc: &Proc, files: &[&str], label: &str) -> Result<(), Error> {
    let open = |file: &&str| proc.write_to(&Path::new("self/attr").join(file));
    let absent = |opened: &Result<File, Errno>| matches!(opened, Err(Errno::NOENT));
    let opened = files.iter().map(open).find(|opened| !absent(opened)).unwrap_or(Err(Errno::NOENT));
    let mut file = opened.at(Step::Security, || format!("open attr/{} for {label:?}", files[0]))?;
    file.write_all(label.as_bytes()).at(Step::Security, || format!("set the label {label:?}"))
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
