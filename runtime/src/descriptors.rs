//! How many descriptors the daemon may have open: as many as it is allowed. Containers get what the daemon was given.

use std::io;

use oci_spec::runtime::{PosixRlimit, PosixRlimitBuilder, PosixRlimitType};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, and returns the limit of before. A program that waits with select(2), or closes
/// all descriptors that there may be, wants the low soft limit of old, so that a container is not to inherit the high one.
pub fn raise_limit() -> io::Result<PosixRlimit> {
    let given = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: given.maximum, maximum: given.maximum })?;
    as_oci(given)
}

fn as_oci(limit: Rlimit) -> io::Result<PosixRlimit> {
    PosixRlimitBuilder::default()
        .typ(PosixRlimitType::RlimitNofile)
        .soft(limit.current.unwrap_or(u64::MAX))
        .hard(limit.maximum.unwrap_or(u64::MAX))
        .build()
        .map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one_and_the_former_is_told() {
        let hard = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some(1000), maximum: hard }).unwrap();
        let former = raise_limit().unwrap();
        assert_eq!((former.soft(), former.hard()), (1000, hard.unwrap_or(u64::MAX)));
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
