//! The socket a shim listens on: found by everyone who knows the daemon's address, the namespace and the pod's id.

use super::{Error, failed};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Who serves a pod.
#[derive(Debug)]
pub(super) enum Bound {
    /// Nobody did; now this process may.
    Mine(UnixListener),
    /// A living shim.
    Others,
}

/// Path of the socket for a pod. The name is a hash because paths of sockets must be short.
pub(super) fn path(directory: &Path, namespace: &str, id: &str) -> PathBuf {
    directory.join(format!("{:032x}.sock", fnv1a_128(&[namespace, "/", id])))
}

/// Beside the daemon's own socket.
pub(super) fn directory(address: &str) -> PathBuf {
    let path = Path::new(address.strip_prefix("unix://").unwrap_or(address));
    path.parent().unwrap_or(Path::new("/run/berth")).join("s")
}

/// Listens, unless a living shim does. A socket that a dead one left is replaced. Two that come at once take turns.
pub(super) fn bind(path: &Path) -> Result<Bound, Error> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let turn = open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| failed("open", directory)(error.into()))?;
    flock(&turn, FlockOperation::LockExclusive).map_err(|error| failed("lock", directory)(error.into()))?;
    match UnixListener::bind(path) {
        Ok(listener) => return Ok(Bound::Mine(listener)),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        Err(error) => return Err(failed("bind", path)(error)),
    }
    if !fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        return Err(failed("bind", path)(std::io::Error::other("there is something else than a socket")));
    }
    match UnixStream::connect(path) {
        Ok(_) => return Ok(Bound::Others),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
        Err(error) => return Err(failed("connect to", path)(error)),
    }
    fs::remove_file(path).map_err(failed("remove the dead", path))?;
    UnixListener::bind(path).map(Bound::Mine).map_err(failed("bind", path))
}

/// Fowler-Noll-Vo: stable for all time, and wide enough that names never meet by chance.
fn fnv1a_128(parts: &[&str]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = parts.iter().flat_map(|part| part.bytes());
    bytes.fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a_128(&[]), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv1a_128(&["a"]), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(fnv1a_128(&["foo", "bar"]), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }

    #[test]
    fn the_socket_is_beside_the_daemons() {
        for address in ["/run/berth/berth.sock", "unix:///run/berth/berth.sock"] {
            assert_eq!(directory(address), Path::new("/run/berth/s"));
        }
        let path = path(Path::new("/run/berth/s"), "berth", &"f".repeat(64));
        assert!(path.as_os_str().len() < 100);
    }

    #[test]
    fn a_living_shim_keeps_its_socket_and_a_dead_ones_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s/x.sock");
        let Bound::Mine(living) = bind(&path).unwrap() else { unreachable!() };
        assert!(matches!(bind(&path).unwrap(), Bound::Others));
        drop(living);
        assert!(matches!(bind(&path).unwrap(), Bound::Mine(_)));
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
