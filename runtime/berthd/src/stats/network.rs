//! Traffic of a pod's network interfaces, read inside its network namespace.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{During, Result};

/// Statistics of the calling thread's network namespace.
const NET_DEV_PATH: &str = "/proc/thread-self/net/dev";

/// A network interface, with its traffic since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Name inside the pod.
    pub name: String,
    /// Received traffic.
    pub received: Traffic,
    /// Sent traffic.
    pub sent: Traffic,
}

/// Traffic in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes transferred.
    pub bytes: u64,
    /// Packets transferred.
    pub packets: u64,
    /// Packets with errors.
    pub errors: u64,
    /// Packets dropped, mostly for lack of buffer space.
    pub dropped: u64,
}

/// Returns the interfaces except loopback in each of the pinned namespaces; none for a namespace that does not exist.
///
/// A single thread enters them in turn and then ends, so that no other work runs in a pod's namespace and no thread
/// keeps it alive.
pub(super) fn interfaces_in(namespaces: &[Option<PathBuf>]) -> Result<Vec<Vec<Interface>>> {
    let read = |namespace: &Option<PathBuf>| {
        namespace.as_ref().map(|path| interfaces(path)).and_then(io::Result::ok).unwrap_or_default()
    };
    if namespaces.iter().all(Option::is_none) {
        return Ok(vec![Vec::new(); namespaces.len()]);
    }
    let read_all = || namespaces.iter().map(read).collect();
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, read_all)?;
        thread.join().map_err(|_| io::Error::other("the thread inside the namespaces panicked"))
    })
    .during(|| "read the traffic of pods")
}

fn interfaces(namespace: &Path) -> io::Result<Vec<Interface>> {
    let namespace = File::open(namespace)?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    let mut interfaces = parse(&std::fs::read_to_string(NET_DEV_PATH)?);
    interfaces.retain(|interface| interface.name != "lo");
    Ok(interfaces)
}

/// Parses the file: two title lines, then one line per interface.
fn parse(devices: &str) -> Vec<Interface> {
    devices.lines().skip(2).filter_map(interface).collect()
}

fn interface(line: &str) -> Option<Interface> {
    // An interface's name may contain a colon; the numbers do not.
    let (name, numbers) = line.rsplit_once(':')?;
    let numbers: Vec<u64> =
        numbers.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
    let traffic = |from: usize| {
        let [bytes, packets, errors, dropped] = *numbers.get(from..from + 4)?.first_chunk()?;
        Some(Traffic { bytes, packets, errors, dropped })
    };
    Some(Interface { name: name.trim().into(), received: traffic(0)?, sent: traffic(8)? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const REAL: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:   89210     912    0    0    0     0          0         0    89210     912    0    0    0     0       0          0
  eth0: 1234567    4321    1    2    3     4          5         6 7654321    1234    7    8    9    10      11         12
net:1.5:      1       2    3    4    5     6          7         8       9      10   11   12   13    14      15         16
";

    #[test]
    fn the_kernels_table_is_read_column_by_column() {
        let all = parse(REAL);
        assert_eq!(all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["lo", "eth0", "net:1.5"]);
        assert_eq!(all[1].received, Traffic { bytes: 1_234_567, packets: 4321, errors: 1, dropped: 2 });
        assert_eq!(all[1].sent, Traffic { bytes: 7_654_321, packets: 1234, errors: 7, dropped: 8 });
    }

    #[test]
    fn what_is_no_table_has_no_interfaces() {
        for text in ["", "a\nb\n", "a\nb\neth0: 1 2 3\n", "a\nb\neth0 without numbers\n", "a\nb\neth0: x y\n"]
        {
            assert_eq!(parse(text), [], "{text:?}");
        }
    }

    #[test]
    fn root_the_hosts_namespace_has_interfaces_and_a_file_that_is_none_has_not() {
        let host = Some(PathBuf::from("/proc/self/ns/net"));
        let file = Some(PathBuf::from("/proc/self/status"));
        let read = interfaces_in(&[file, None, host, Some("/absent".into())]).unwrap();
        assert_eq!(read.iter().map(Vec::is_empty).collect::<Vec<_>>(), [true, true, false, true]);
    }
}
