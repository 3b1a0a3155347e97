//! Returning heap memory to the kernel.

use rustix::mm::{Advice, madvise};

unsafe extern "C" {
    /// End of the program's data, end(3); the heap begins somewhere behind it.
    #[link_name = "end"]
    static DATA_END: u8;
}

/// Returns free memory that the allocator holds. Worth calling after a burst in a process that then idles for days.
pub(crate) fn trim() {
    // SAFETY: malloc_trim takes a plain number, may be called at any time and keeps every allocation in place.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Sleeps until a signal ends the process. For a fork that only has to exist: its copy of the heap, a third of its
/// memory, is returned to the kernel, with everything written there.
pub(crate) fn sleep_without_heap() -> ! {
    // Not rustix's, which before Linux 6.4 reads /proc/self/auxv: a pod's first process has no /proc.
    // SAFETY: sysconf takes a number, and has the size of a page in the C library's data.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let begin = (&raw const DATA_END).cast_mut();
    let begin = begin.wrapping_add(begin.align_offset(page));
    // SAFETY: with an increment of 0, sbrk only returns the end of the heap.
    let end = unsafe { libc::sbrk(0) };
    let length = end.addr().saturating_sub(begin.addr());
    // SAFETY: between the program's data and the break is the heap and nothing else, brk(2). Nothing in it is used from
    // here on, nor the thread-local data that a static program keeps there: the remaining system calls are made without
    // the C library, and no signal has a handler.
    let _ = unsafe { madvise(begin.cast(), length, Advice::LinuxDontNeed) };
    loop {
        rustix::event::pause();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::Pid;
    use std::fs;
    use std::time::{Duration, Instant};

    const TRIM_TIMEOUT: Duration = Duration::from_secs(30);

    /// Resident size of the heap in KiB; proc_pid_smaps(5).
    fn heap_of(pid: u32) -> u64 {
        let maps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
        let heaps = maps.split("VmFlags:").filter(|map| map.contains("[heap]"));
        let resident = heaps.filter_map(|map| map.lines().find_map(|line| line.strip_prefix("Rss:")));
        resident.map(|size| size.trim().trim_end_matches(" kB").parse::<u64>().unwrap()).sum()
    }

    #[test]
    fn a_sleeper_has_no_heap_and_goes_by_a_signal() {
        let sleeper = crate::sys::fork(|| sleep_without_heap()).unwrap();
        let begun = Instant::now();
        while heap_of(sleeper) > 0 && begun.elapsed() < TRIM_TIMEOUT {
            std::thread::yield_now();
        }
        let heaps = [sleeper, std::process::id()].map(heap_of);
        let pid = Pid::from_raw(sleeper.cast_signed());
        kill(pid, Signal::SIGUSR1).unwrap();
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Signaled(pid, Signal::SIGUSR1, false));
        assert!(heaps[0] == 0 && heaps[1] > 0, "{heaps:?}");
    }
}
