//! The C library's allocator.

/// In bytes. Less than the messages that leave much behind, more than the buffers of a pull.
const LARGE: i32 = 1 << 20;

/// Has every block from 1 MiB on mapped by itself, so that its memory goes back to the kernel when it is freed. By default glibc
/// raises the threshold to the size of what was freed, and keeps the next ones of that size: docs/decisions/allocator.md. To be
/// called before threads are started.
pub fn give_large_blocks_back() {
    // SAFETY: mallopt takes two plain numbers and touches no block; nobody allocates beside it.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}
