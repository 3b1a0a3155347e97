//! Socket addresses of shims. An address follows from the pod's id, so the daemon finds a shim even if it never
//! received its answer to `start`.

use std::path::{Path, PathBuf};

/// Returns the socket path of the shim for `id`, a pod or a container without one, in `directory`. The name is a hash
/// because socket paths must be short, unix(7).
pub fn socket(directory: &Path, namespace: &str, id: &str) -> PathBuf {
    directory.join(format!("{:032x}.sock", fnv1a_128(&[namespace, "/", id])))
}

/// Returns the directory of the shims' sockets: `s`, beside the daemon's own socket `address`.
pub fn directory(address: &str) -> PathBuf {
    let path = Path::new(address.strip_prefix("unix://").unwrap_or(address));
    path.parent().unwrap_or(Path::new("/run/berth")).join("s")
}

/// FNV-1a: the same in every version, and with 128 bits too wide for collisions by chance.
fn fnv1a_128(parts: &[&str]) -> u128 {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = parts.iter().flat_map(|part| part.bytes());
    bytes.fold(BASIS, |hash, byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
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
        let path = socket(Path::new("/run/berth/s"), "berth", &"f".repeat(64));
        assert!(path.as_os_str().len() < 100);
    }
}
