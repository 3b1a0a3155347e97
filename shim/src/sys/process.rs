//! Creating processes, and what must be done in them before anything else runs.

use rustix::fd::{AsRawFd, BorrowedFd};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The kernel's constant; the C library's binding has 0.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of the kernel, version 2.
#[derive(Default)]
#[repr(C, align(8))]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Runs `child` in a fork, which exits with the code it returns. Returns the child's pid.
///
/// `child` must not wait for another thread of the caller: a fork has only one. It may allocate, since the C library
/// resets the allocator's locks in the child.
pub(crate) fn fork(child: impl FnOnce() -> u8) -> io::Result<u32> {
    // SAFETY: the child runs nothing of the caller's but `child` and leaves by _exit, without unwinding or returning into
    // frames it shares a copy of; see `finish`.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => finish(child),
        pid => Ok(pid as u32),
    }
}

/// Runs `child` in a new process that is a sibling of the caller (CLONE_PARENT), made with the `CLONE_NEW*` of `namespaces`,
/// in the v2 cgroup given by a descriptor of its directory. The caller must have one thread only, as a fork of [`fork`] has.
pub(crate) fn clone_sibling(
    namespaces: libc::c_int,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> u8,
) -> io::Result<u32> {
    let mut args = CloneArgs { flags: (libc::CLONE_PARENT | namespaces) as u64, ..CloneArgs::default() };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    clone(&args, child)
}

/// Runs `child` in a child of the caller, made with the `CLONE_NEW*` of `namespaces`. The caller must have one thread only.
pub(crate) fn clone_child(namespaces: libc::c_int, child: impl FnOnce() -> u8) -> io::Result<u32> {
    let args =
        CloneArgs { flags: namespaces as u64, exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    clone(&args, child)
}

/// System call number and flags that [`legacy_clone_sibling`] uses, to test seccomp filters with.
pub(crate) const LEGACY_CLONE: (libc::c_long, u64) = (libc::SYS_clone, libc::CLONE_PARENT as u64);

/// Runs `child` in a new sibling without new namespaces, by clone(2): seccomp filters can allow it by its flags, but
/// cannot look into the struct that clone3 takes. The caller must have one thread only, as a fork of [`fork`] has.
pub(crate) fn legacy_clone_sibling(child: impl FnOnce() -> u8) -> io::Result<u32> {
    let (call, flags) = LEGACY_CLONE;
    // SAFETY: as in `clone`; the flags are the first argument on all supported architectures, the others are unused.
    match unsafe { libc::syscall(call, flags, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        0 => finish(child),
        pid => Ok(pid as u32),
    }
}

fn clone(args: &CloneArgs, child: impl FnOnce() -> u8) -> io::Result<u32> {
    // SAFETY: without CLONE_VM and without a stack of its own the new process runs on a copy of this one's memory, as
    // after fork; with one thread in the caller no lock can be held by a thread that is missing in the copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args as *const CloneArgs, size_of::<CloneArgs>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => finish(child),
        pid => Ok(pid as u32),
    }
}

/// Exits with the code of `child`, or aborts if it panics: a forked process must never unwind into a copy of its parent's stack.
fn finish(child: impl FnOnce() -> u8) -> ! {
    struct Abort;
    impl Drop for Abort {
        fn drop(&mut self) {
            std::process::abort();
        }
    }
    let guard = Abort;
    let code = child();
    std::mem::forget(guard);
    leave(code)
}

/// Exits a forked process at once: nothing is dropped, no exit handler of its parent runs.
pub(crate) fn leave(code: u8) -> ! {
    // SAFETY: _exit takes a number and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Sets every signal to its default action and blocks none, so that neither the shim's handlers nor the signals that
/// Rust's runtime ignores are passed on to the container.
pub(crate) fn reset_signals() {
    // The kernel's own struct sigaction on any architecture, all zeroes: the default action. The C library's call would
    // leave out the signals it reserves.
    let default = [0u64; 8];
    let no_old = std::ptr::null_mut::<u64>();
    for signal in 1..=64 {
        // SAFETY: the kernel reads at most the array; the default action involves no code of ours.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), no_old, size_of::<u64>()) };
    }
    // SAFETY: a sigset_t is plain data for which all zeroes is the empty set on Linux.
    let none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` lives through the call, and the old mask is not asked for.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) };
}

/// Ignores SIGCHLD, so that the kernel reaps children, own and inherited ones, by itself.
pub(crate) fn exit_quietly_on_children() {
    // SAFETY: ignoring a signal involves no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Duplicates `fd` as descriptor `number`, not close-on-exec, closing what was there.
///
/// For the standard streams of a process about to execve; Rust's own handles to them own nothing.
pub(crate) fn place(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 touches descriptors only, and by this function's contract no value owns `number`.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Closes every descriptor but the standard streams and `kept`, which is returned as a new descriptor, close-on-exec.
///
/// For a process that will only execve or [`leave`]: nothing in it may use, or drop, any other descriptor afterwards.
pub(crate) fn keep_only(kept: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const FIRST: RawFd = 3;
    if kept.as_raw_fd() != FIRST {
        // SAFETY: dup3 touches descriptors only, and by this function's contract no value owns number 3.
        if unsafe { libc::dup3(kept.as_raw_fd(), FIRST, libc::O_CLOEXEC) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    close_range(FIRST + 1, RawFd::MAX)?;
    // SAFETY: number 3 is open, and by this function's contract its previous owner never touches it again.
    Ok(unsafe { OwnedFd::from_raw_fd(FIRST) })
}

/// Closes every descriptor but the standard streams and those in `kept`, which keep their numbers.
///
/// For a fork that drops nothing: the owner of a descriptor closed here must never touch it again.
pub(crate) fn close_others(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut numbers: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
    numbers.sort_unstable();
    let mut first: RawFd = 3;
    for number in numbers.into_iter().filter(|number| *number >= 3) {
        if first < number {
            close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    close_range(first, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: close_range touches descriptors only; by the contracts of its callers nothing owns these any longer.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves the calling process into namespaces of the kinds `kinds`. `fd` is a namespace, or a pidfd of a process in them.
pub(crate) fn setns(fd: BorrowedFd<'_>, kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: setns takes two numbers. It changes what paths and names mean to the process, not its memory.
    match unsafe { libc::setns(fd.as_raw_fd(), kinds) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves the calling process into new namespaces of the kinds `kinds` (only `CLONE_NEW*`).
pub(crate) fn unshare(kinds: libc::c_int) -> io::Result<()> {
    // SAFETY: as for setns; descriptors and memory stay shared as they are, for no such flag is passed.
    match unsafe { libc::unshare(kinds) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Closes every descriptor, including the standard streams.
pub(crate) fn close_all() {
    // SAFETY: close_range touches descriptors only; the caller, which never returns, uses none of them.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
}
