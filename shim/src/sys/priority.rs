//! Scheduling, I/O priority and personality of the calling process.

use std::io;

/// `struct sched_attr` of the kernel, its first version.
#[derive(Debug, Default, Clone, Copy)]
#[repr(C)]
pub(crate) struct SchedAttr {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// Sets the scheduling policy, sched_setattr(2).
pub(crate) fn sched_setattr(attributes: SchedAttr) -> io::Result<()> {
    let attributes = SchedAttr { size: size_of::<SchedAttr>() as u32, ..attributes };
    // SAFETY: the kernel reads `size` bytes of the struct, which lives through the call.
    match unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the I/O priority, ioprio_set(2): class and level as one number.
pub(crate) fn ioprio_set(value: i32) -> io::Result<()> {
    const PROCESS: i32 = 1;
    // SAFETY: the call takes three numbers.
    match unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, 0, value) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets the personality, personality(2).
pub(crate) fn set_personality(value: u32) -> io::Result<()> {
    // SAFETY: the call takes a number; a personality takes effect at execve or only changes what the kernel reports, uname(2).
    match unsafe { libc::personality(value.into()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
