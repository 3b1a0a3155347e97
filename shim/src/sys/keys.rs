//! keyctl(2), as far as session keyrings need it.

use std::ffi::CStr;
use std::io;

const JOIN_SESSION_KEYRING: libc::c_int = 1;
const REVOKE: libc::c_int = 3;
const SETPERM: libc::c_int = 5;

/// Joins the session keyring `name`, or creates it if there is none. Returns its serial number.
pub(crate) fn join_session_keyring(name: &CStr) -> io::Result<i32> {
    // SAFETY: the kernel reads the name, a C string that is borrowed for the call.
    match unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) } {
        -1 => Err(io::Error::last_os_error()),
        keyring => Ok(keyring as i32),
    }
}

/// Sets the permissions of a key.
pub(crate) fn set_key_permissions(key: i32, permissions: u32) -> io::Result<()> {
    // SAFETY: the call takes three numbers.
    match unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, key, permissions) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Revokes a key: no process can use it any more.
pub(crate) fn revoke_key(key: i32) -> io::Result<()> {
    // SAFETY: the call takes two numbers.
    match unsafe { libc::syscall(libc::SYS_keyctl, REVOKE, key) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
