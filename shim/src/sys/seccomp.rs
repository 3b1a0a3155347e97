//! seccomp(2).

use std::io;

/// One instruction of classic BPF, `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// Opcode.
    pub(crate) operation: u16,
    /// Instructions to skip when a comparison holds.
    pub(crate) if_true: u8,
    /// Instructions to skip when it does not.
    pub(crate) if_false: u8,
    /// Operand.
    pub(crate) value: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());

/// Installs a filter for the calling thread; it cannot be removed. `flags` are `SECCOMP_FILTER_FLAG_*` that concern
/// this thread only.
pub(crate) fn set_filter(program: &[Instruction], flags: u32) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr() as *mut libc::sock_filter };
    // SAFETY: the kernel copies `len` instructions, which the slice holds in the kernel's own layout (asserted above), and
    // checks them; it writes nothing. What a filter does to later calls of this thread concerns no memory.
    match unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
