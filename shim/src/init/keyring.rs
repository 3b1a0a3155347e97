//! The session keyring: each container has its own, so that it finds no key of the host or of other containers.

use super::error::At;
use super::{Error, Step};
use crate::sys;
use rustix::fs::stat;
use std::ffi::CString;
use std::path::Path;

/// The possessor may do everything except change these permissions (setattr); the owner may only search the keyring,
/// which an exec needs to join it, and for that must know its name. So root of another container, who is the owner too,
/// can neither see the keyring nor link it by its number, and thereby get its keys.
const PERMISSIONS: u32 = 0x1f00_0000 | 0x0008_0000;

/// The name of a container's keyring.
#[derive(Debug)]
pub(super) struct Keyring(CString);

impl Keyring {
    /// The name for this container id and bundle. The bundle's inode distinguishes it from other containers that have,
    /// or had, the same id: with equal names they would share one keyring.
    pub(super) fn of(id: &str, bundle: &Path) -> Result<Self, Error> {
        let directory = stat(bundle).at(Step::Keyring, || format!("look at {}", bundle.display()))?;
        let name = CString::new(format!("{id}:{:x}:{:x}", directory.st_dev, directory.st_ino));
        name.map(Self).map_err(|_| Error::invalid(Step::Keyring, format!("id {id:?} has a NUL byte")))
    }

    /// Creates it as the session keyring of the calling process and its descendants.
    pub(super) fn make(&self) -> Result<(), Error> {
        let what = || format!("share {:?}", self.0);
        let Some(found) = self.joined()? else { return Ok(()) };
        match sys::set_key_permissions(found, PERMISSIONS) {
            // EACCES: the keyring of a container that has just ended, with its permissions already fixed. A revoked one
            // is not found again.
            Err(settled) if settled.raw_os_error() == Some(libc::EACCES) => {
                sys::revoke_key(found).at(Step::Keyring, what)?;
                let made = self.joined()?.map(|made| sys::set_key_permissions(made, PERMISSIONS));
                made.unwrap_or(Ok(())).at(Step::Keyring, what)
            }
            other => other.at(Step::Keyring, what),
        }
    }

    /// Joins it in the calling process, which must be root.
    pub(super) fn join(&self) -> Result<(), Error> {
        self.joined().map(drop)
    }

    /// `None` where the kernel has no keyrings, or a seccomp filter on the shim forbids them: the container has none either.
    fn joined(&self) -> Result<Option<i32>, Error> {
        match sys::join_session_keyring(&self.0) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(None),
            other => other.map(Some).at(Step::Keyring, || format!("join {:?}", self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::sync::Barrier;

    /// Runs in threads, each of which starts with the session keyring of the test.
    #[test]
    fn a_keyring_is_made_anew_whoever_had_one_of_its_name() {
        let bundle = tempfile::tempdir().unwrap();
        let keyring = Keyring::of("made-anew", bundle.path()).unwrap();
        let number = || std::thread::scope(|scope| scope.spawn(|| keyring.joined().unwrap()).join().unwrap());
        let (made, over) = (Barrier::new(2), Barrier::new(2));
        let numbers = std::thread::scope(|scope| {
            scope.spawn(|| {
                let kept = keyring.make();
                made.wait();
                over.wait();
                kept.unwrap();
            });
            made.wait();
            let found = [number(), number()];
            let again = scope.spawn(|| keyring.make()).join();
            let numbers = (found, number());
            over.wait();
            again.unwrap().unwrap();
            numbers
        });
        let ([first, second], later) = numbers;
        assert_eq!(first, second, "who joins finds it");
        assert_ne!(first, later, "what was revoked is not found");
        let other = tempfile::tempdir().unwrap();
        assert_ne!(Keyring::of("made-anew", other.path()).unwrap().0, keyring.0);
    }
}
