//! Kernel parameters of the namespaces the process is in. They are written through the host's `/proc`, because mounts
//! may have covered the container's own.

use super::error::At;
use super::proc::Proc;
use super::{Error, Step};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Which namespaces are not the host's.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Owned {
    pub(super) net: bool,
    pub(super) ipc: bool,
    pub(super) uts: bool,
}

impl Owned {
    /// Whether a parameter belongs to one of these namespaces; all others affect the whole host.
    fn covers(self, name: &str) -> bool {
        const IPC: &[&str] = &["fs/mqueue/", "kernel/shm", "kernel/msg", "kernel/sem"];
        const UTS: &[&str] = &["kernel/hostname", "kernel/domainname"];
        (self.net && name.starts_with("net/"))
            || (self.ipc && IPC.iter().any(|prefix| name.starts_with(prefix)))
            || (self.uts && UTS.contains(&name))
    }
}

/// Writes the parameters; names use dots or slashes. Refuses those that would change the host.
pub(super) fn write<'a>(
    parameters: impl Iterator<Item = (&'a str, &'a str)>,
    owned: Owned,
) -> Result<(), Error> {
    let mut parameters = parameters.peekable();
    if parameters.peek().is_none() {
        return Ok(());
    }
    let proc = Proc::open(Step::Sysctl)?;
    for (name, value) in parameters {
        let what = || format!("set {name} to {value:?}");
        let mut file = proc.write_to(&path_of(name, owned)?).at(Step::Sysctl, what)?;
        file.write_all(value.as_bytes()).at(Step::Sysctl, what)?;
    }
    Ok(())
}

/// The path of a parameter in `/proc`. Fails if it would be the host's.
fn path_of(name: &str, owned: Owned) -> Result<PathBuf, Error> {
    let refused = |why: &str| Err(Error::invalid(Step::Sysctl, format!("{name:?} {why}")));
    let slashed = slashed(name);
    if slashed.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return refused("is not the name of a kernel parameter");
    }
    if !owned.covers(&slashed) {
        return refused("is in no namespace of its own: it would change the host");
    }
    Ok(Path::new("sys").join(slashed))
}

/// Converts a name as sysctl(8) does: the first separator, dot or slash, divides; the other one is part of a name.
fn slashed(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'.' => name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ALL: Owned = Owned { net: true, ipc: true, uts: true };

    #[test]
    fn parameters_of_namespaces_shared_with_the_host_are_refused() {
        let owned = Owned { net: false, ..ALL };
        assert!(path_of("net.ipv4.ip_forward", owned).is_err());
        assert!(path_of("kernel.shm_rmid_forced", owned).is_ok());
        assert!(path_of("kernel.shm_rmid_forced", Owned::default()).is_err());
    }

    #[test]
    fn dots_divide_and_slashes_stand_for_dots_in_names() {
        let path = path_of("net.ipv4.conf.eth0/100.forwarding", ALL).unwrap();
        assert_eq!(path, Path::new("sys/net/ipv4/conf/eth0.100/forwarding"));
        assert_eq!(path_of("net/ipv4/ip_forward", ALL).unwrap(), Path::new("sys/net/ipv4/ip_forward"));
    }

    #[test]
    fn parameters_of_the_whole_host_and_tricks_are_refused() {
        for name in
            ["vm.swappiness", "kernel.panic", "net...kernel.panic", "net/../vm/swappiness", "", "/net/x"]
        {
            assert!(matches!(path_of(name, ALL), Err(Error::Invalid { step: Step::Sysctl, .. })), "{name}");
        }
    }
}
