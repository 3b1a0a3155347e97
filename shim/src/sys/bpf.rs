//! bpf(2), as far as device programs of cgroups need it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;

/// One instruction of eBPF, `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// Opcode.
    pub(crate) operation: u8,
    /// Destination register in the lower half, source register in the upper half.
    pub(crate) registers: u8,
    /// Jump distance, or offset of the load.
    pub(crate) offset: i16,
    /// Immediate operand.
    pub(crate) value: u32,
}

/// The part of `union bpf_attr` for BPF_PROG_LOAD.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
}

/// The part for BPF_PROG_ATTACH.
#[repr(C)]
struct Attach {
    group: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// The part for BPF_PROG_QUERY.
#[repr(C)]
struct Query {
    group: u32,
    kind: u32,
    flags: u32,
    attached_flags: u32,
    ids: u64,
    count: u32,
    /// The kernel demands zero.
    zero: u32,
}

/// The part for BPF_PROG_GET_FD_BY_ID.
#[repr(C)]
struct Open {
    id: u32,
    next: u32,
    flags: u32,
}

/// Loads a program that decides about access to devices; the kernel's verifier checks it.
pub(crate) fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut load = Load {
        kind: PROG_TYPE_CGROUP_DEVICE,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"berth_devices\0\0\0",
    };
    // SAFETY: instructions and licence live through the call, in the kernel's layout; the kernel only reads them.
    let fd = unsafe { bpf(PROG_LOAD, &mut load) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Returns the first device program attached to this cgroup itself, given by its directory.
pub(crate) fn device_program_of(group: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut ids = [0u32; 64];
    let mut query = Query {
        group: group.as_raw_fd() as u32,
        kind: CGROUP_DEVICE,
        flags: 0,
        attached_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: ids.len() as u32,
        zero: 0,
    };
    // SAFETY: the kernel writes at most `count` numbers, for which there is room, and into the structure itself.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    if query.count == 0 {
        return Ok(None);
    }
    // SAFETY: the structure holds no pointers.
    let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut Open { id: ids[0], next: 0, flags: 0 }) }?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Attaches a program to a cgroup, given by its directory. If `replaced` is given, replaces that program atomically.
pub(crate) fn attach_device_program(
    group: BorrowedFd<'_>,
    program: &OwnedFd,
    replaced: Option<&OwnedFd>,
) -> io::Result<()> {
    let mut attach = Attach {
        group: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced: replaced.map_or(0, |replaced| replaced.as_raw_fd() as u32),
    };
    // SAFETY: the structure holds no pointers, and descriptors that are open.
    unsafe { bpf(PROG_ATTACH, &mut attach) }.map(drop)
}

/// # Safety
///
/// `attributes` must be the kernel's part of `union bpf_attr` for `command`, and every pointer in it must be valid for
/// what the kernel does with it in this command.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<libc::c_int> {
    // SAFETY: by this function's contract; the size passed is that of the structure, and the kernel takes the rest of
    // its union for zero.
    match unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *mut T, size_of::<T>()) } {
        -1 => Err(io::Error::last_os_error()),
        fd => Ok(fd as libc::c_int),
    }
}
