//! Processes of a container and their open files, from /proc.

use std::{fs, mem::MaybeUninit};

use rustix::{
    fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw},
    io::Errno,
};

/// Size of the buffer for entries of /proc/PID/fd, in bytes.
const BUFFER_BYTES: usize = 16 << 10;

/// The processes of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processes {
    /// Number of processes; threads are not counted.
    pub count: u64,
    /// Number of open descriptors of all processes.
    pub descriptors: u64,
    /// Number of those that are sockets.
    pub sockets: u64,
    /// Soft limit of open files of the first process; `None` when it has ended or has no limit.
    pub descriptor_limit: Option<u64>,
}

impl Processes {
    /// Reads the processes with these pids. A process that has ended meanwhile is counted, but has no descriptors.
    /// `first` is the container's first process.
    pub(super) fn look_at(pids: &[u32], first: Option<u32>) -> Self {
        let mut all = Self { count: pids.len() as u64, ..Self::default() };
        for pid in pids {
            // Fails for a process that has ended, which has no descriptors.
            let (descriptors, sockets) = open_in(*pid).unwrap_or_default();
            all.descriptors += descriptors;
            all.sockets += sockets;
        }
        all.descriptor_limit = first.and_then(descriptor_limit);
        all
    }
}

/// Returns the number of descriptors, and of sockets among them. Only the links are read: opening their targets may
/// block.
fn open_in(pid: u32) -> Result<(u64, u64), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, format!("/proc/{pid}/fd"), flags, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
    let mut entries = RawDir::new(&directory, &mut buffer);
    let (mut descriptors, mut sockets) = (0, 0);
    while let Some(entry) = entries.next() {
        let mut target = [MaybeUninit::uninit(); 8];
        // Fails for `.` and `..`, and for descriptors that were closed meanwhile.
        if let Ok((start, _)) = readlinkat_raw(&directory, entry?.file_name(), &mut target) {
            descriptors += 1;
            sockets += u64::from(start.starts_with(b"socket:"));
        }
    }
    Ok((descriptors, sockets))
}

fn descriptor_limit(pid: u32) -> Option<u64> {
    parse_limit(&fs::read_to_string(format!("/proc/{pid}/limits")).ok()?)
}

/// Parses the line `Max open files            1024                 524288               files`.
fn parse_limit(limits: &str) -> Option<u64> {
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    soft.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_soft_limit_is_the_first_number() {
        let real = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max cpu time              unlimited            unlimited            seconds   \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(parse_limit(real), Some(1024));
        assert_eq!(
            parse_limit("Max open files            unlimited            unlimited            files\n"),
            None
        );
        assert_eq!(parse_limit(""), None);
    }

    #[test]
    fn sockets_are_told_apart_and_a_process_that_is_gone_has_nothing() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(
                std::os::unix::net::UnixStream::pair().unwrap().0,
            )))
            .spawn()
            .unwrap();
        let seen = Processes::look_at(&[child.id(), u32::MAX], Some(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!((seen.count, seen.sockets), (2, 1));
        assert!(seen.descriptors >= 3 && seen.descriptor_limit.is_some(), "{seen:?}");
    }
}
