//! Reads of kernel memory at places known at load time. A bad address gives `None`, never a fault.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;

use crate::offsets;

/// The value of type `T` that lies `offset` bytes after `base`.
#[inline(always)]
pub fn field<T: Copy>(base: *const c_void, offset: &'static u32) -> Option<T> {
    at(base, offsets::of(offset))
}

/// The value of type `T` that lies `bytes` after `base`.
#[inline(always)]
pub fn at<T: Copy>(base: *const c_void, bytes: usize) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper writes exactly size_of::<T>() bytes or zeroes them and fails.
    let failed = unsafe {
        bpf_probe_read_kernel(
            value.as_mut_ptr().cast(),
            size_of::<T>() as u32,
            base.cast::<u8>().wrapping_add(bytes).cast(),
        )
    };
    // SAFETY: the helper has initialised it.
    (failed == 0).then(|| unsafe { value.assume_init() })
}

/// The value of type `T` that lies `offset` bytes after `base`; zero where it cannot be read. For integers only.
///
/// Without an `Option` around it: where a read may fail inside a loop, the compiler puts anything that is at hand in place
/// of the value that is not there, a pointer too, and older verifiers refuse to see a pointer shifted.
#[inline(always)]
pub fn or_zero<T: Default + Copy>(base: *const c_void, offset: &'static u32) -> T {
    let mut value = T::default();
    // SAFETY: the helper writes exactly size_of::<T>() bytes, zeroes when it fails, and zero is an integer.
    unsafe {
        bpf_probe_read_kernel(
            (&raw mut value).cast(),
            size_of::<T>() as u32,
            base.cast::<u8>().wrapping_add(offsets::of(offset)).cast(),
        )
    };
    value
}

/// Copies into `target`; what cannot be read stays zero.
#[inline(always)]
pub fn copy<const N: usize>(target: &mut [u8; N], base: *const c_void) {
    // SAFETY: the helper writes at most N bytes into `target`, zeroes on failure.
    unsafe { bpf_probe_read_kernel(target.as_mut_ptr().cast(), N as u32, base) };
}
