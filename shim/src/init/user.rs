//! Credentials of the process: ids, groups and capabilities, changed in the order that the kernel requires.

use super::capabilities::Sets;
use super::error::At;
use super::inroot::InRoot;
use super::{Error, Step};
use crate::spec;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::process::{Signal, set_parent_process_death_signal, umask};
use rustix::thread::{
    set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use std::io::Read;
use std::path::Path;

/// Maximum bytes read from `/etc/passwd`.
const MAX_PASSWD_BYTES: u64 = 1024 * 1024;

/// Changes from the shim's credentials to those of the spec.
pub(super) fn become_user(process: &spec::Process, capabilities: &Sets) -> Result<(), Error> {
    let user = &process.user;
    if process.no_new_privileges {
        set_no_new_privs(true).at(Step::Capabilities, || "set no_new_privs".into())?;
    }
    capabilities.bound()?;
    set_keep_capabilities(true).at(Step::Capabilities, || "keep capabilities".into())?;
    change_ids(user)
        .at(Step::User, || format!("become {}:{} {:?}", user.uid, user.gid, user.additional_gids))?;
    capabilities.enforce()?;
    set_keep_capabilities(false).at(Step::Capabilities, || "keep capabilities".into())?;
    umask(Mode::from_raw_mode(user.umask.unwrap_or(0o022) & 0o777));
    die_with_shim()
}

/// Becomes root of the user namespace just entered. Until then the process has no mapped ids there, but is the host's
/// root to files.
pub(super) fn become_root() -> Result<(), Error> {
    change_ids(&spec::User::default()).at(Step::User, || "become root of the user namespace".into())?;
    die_with_shim()
}

fn change_ids(user: &spec::User) -> Result<(), rustix::io::Errno> {
    let groups: Vec<_> = user.additional_gids.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    set_thread_groups(&groups)?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

/// Has the kernel kill this process when the shim dies. Repeat after each change of credentials, which clears it, prctl(2).
pub(super) fn die_with_shim() -> Result<(), Error> {
    set_parent_process_death_signal(Some(Signal::KILL)).at(Step::Process, || "tie life to the shim's".into())
}

/// Gives up all capabilities.
pub(super) fn give_up_capabilities() -> Result<(), Error> {
    Sets::parse(None)?.enforce()?;
    die_with_shim()
}

/// The home directory of `uid` in the container's `/etc/passwd`, or `/`.
pub(super) fn home_of(root: InRoot<'_>, uid: u32) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut text = Vec::new();
    if let Ok(file) = root.find(Path::new("/etc/passwd"), flags) {
        let _ = std::fs::File::from(file).take(MAX_PASSWD_BYTES).read_to_end(&mut text);
    }
    home_in(&String::from_utf8_lossy(&text), uid).unwrap_or("/").to_owned()
}

fn home_in(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.nth(2)?.parse() == Ok(uid);
        fields.nth(2).filter(|home| found && !home.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_the_sixth_field_of_the_first_line_with_the_uid() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbroken\nme:x:1000:1000::/home/me:/bin/sh\nother:x:1000:1:::\n";
        assert_eq!(home_in(passwd, 1000), Some("/home/me"));
        assert_eq!(home_in(passwd, 0), Some("/root"));
        assert_eq!(home_in(passwd, 7), None);
        assert_eq!(home_in("x:x:7:7:::\n", 7), None);
    }
}
