//! Memory that was freed goes back to the system. Changes nothing that is in use.

/// For whoever has just let go of much: the allocator would keep its pages for ever.
#[cfg(target_env = "gnu")]
pub(super) fn give_memory_back() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> i32;
    }
    // SAFETY: `malloc_trim` of the C library takes a number and changes nothing that is in use.
    unsafe {
        malloc_trim(0);
    }
}

/// Other allocators do it by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) fn give_memory_back() {}
