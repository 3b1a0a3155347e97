//! A time limit for system calls that may block in the kernel.

/// Arms SIGALRM to interrupt whatever system call the calling process waits in after `seconds`, as far as the kernel
/// lets it be interrupted. For a process forked for one task, with no other use for the alarm.
pub(crate) fn interrupt_after(seconds: u32) {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: a sigaction is plain data for which all zeroes is a value: no flags, so that calls are not begun anew.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler does nothing at all, at whatever moment; the action lives through the call.
    unsafe { libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) };
    // SAFETY: alarm takes a number.
    unsafe { libc::alarm(seconds) };
}
