//! The C library's allocator.

/// Threshold in bytes: below the messages whose memory is to be returned, above the buffers of a pull.
const MMAP_THRESHOLD_BYTES: i32 = 1 << 20;

/// Sets a fixed mmap threshold of 1 MiB, so that larger blocks are mapped separately and returned to the kernel when
/// they are freed. By default glibc raises the threshold to the size of freed blocks, and keeps later ones of that size
/// in its arenas: docs/decisions/allocator.md. Must be called before threads are started.
pub fn set_mmap_threshold() {
    // SAFETY: mallopt takes two integers by value, dereferences nothing and changes no allocated block. It runs before
    // other threads are started (see above), so none allocates concurrently.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES);
    }
}
