//! The shim's socket. Its path follows from the daemon's address, the namespace and the pod's id.

use super::{Error, failed};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

pub(super) use berth_shim_proto::address::{directory, socket as path};

/// Result of binding the socket.
#[derive(Debug)]
pub(super) enum BindResult {
    /// Bound by this process.
    Bound(UnixListener),
    /// A living shim listens on it.
    InUse,
}

/// Binds the socket unless a living shim listens on it. Replaces the socket of a dead shim. Concurrent starts are
/// serialised by a lock on the directory.
pub(super) fn bind(path: &Path) -> Result<BindResult, Error> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let directory_lock = open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed("open", directory)(error.into()))?;
    flock(&directory_lock, FlockOperation::LockExclusive)
        .map_err(|error| failed("lock", directory)(error.into()))?;
    match UnixListener::bind(path) {
        Ok(listener) => return Ok(BindResult::Bound(listener)),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        Err(error) => return Err(failed("bind", path)(error)),
    }
    if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        return Err(failed("bind", path)(std::io::Error::other("there is something else than a socket")));
    }
    match UnixStream::connect(path) {
        Ok(_) => return Ok(BindResult::InUse),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        Err(error) => return Err(failed("connect to", path)(error)),
    }
    fs::remove_file(path).map_err(failed("remove the dead", path))?;
    UnixListener::bind(path).map(BindResult::Bound).map_err(failed("bind", path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_living_shim_keeps_its_socket_and_a_dead_ones_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s/x.sock");
        let BindResult::Bound(living) = bind(&path).unwrap() else { unreachable!() };
        assert!(matches!(bind(&path).unwrap(), BindResult::InUse));
        drop(living);
        assert!(matches!(bind(&path).unwrap(), BindResult::Bound(_)));
    }

    #[test]
    fn what_is_no_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert!(bind(&path).unwrap_err().line().contains("precious"));
        assert_eq!(fs::read(&path).unwrap(), b"data");
    }
}
