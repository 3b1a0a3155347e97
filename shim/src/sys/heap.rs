//! Giving memory back to the kernel.

/// Returns what the allocator holds but nobody uses. Worth it after a burst in a process that then idles for days.
pub(crate) fn trim() {
    // SAFETY: malloc_trim takes a plain number, may be called at any time and keeps every allocation in place.
    unsafe {
        libc::malloc_trim(0);
    }
}
