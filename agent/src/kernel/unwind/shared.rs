//! An array of the kernel side, mapped: values are written to it without a system call each.

use std::io;
use std::marker::PhantomData;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;

use agent_common::Wire;
use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A mapped array of `T`.
#[derive(Debug)]
pub(in crate::kernel) struct Shared<T> {
    base: NonNull<T>,
    len: usize,
    of: PhantomData<T>,
    /// Kept: a program that is loaded later refers to the map by this descriptor.
    _map: MapData,
}

// SAFETY: the mapping belongs to this value alone, and goes where it goes.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T: Wire> Shared<T> {
    /// Maps the array `map`.
    pub(in crate::kernel) fn map(map: MapData) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8), "the kernel keeps values at multiples of 8 bytes") };
        let len = map.info().map_err(io::Error::other)?.max_entries();
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at a place that the kernel chooses.
        let base = unsafe { mmap(std::ptr::null_mut(), len * size_of::<T>(), prot, flags, map.fd().as_fd(), 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len, of: PhantomData, _map: map })
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Writes `values` from index `start` on; false when they do not fit, and nothing is written.
    pub(super) fn write(&mut self, start: usize, values: &[T]) -> bool {
        if start.checked_add(values.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        for (value, index) in values.iter().zip(start..) {
            // SAFETY: inside the mapping, as was just seen. The kernel side reads it at any time and never takes half of
            // a change for a reference: at the worst one frame is wrong for a moment.
            unsafe { self.base.add(index).write_volatile(*value) };
        }
        true
    }

    /// The values in `start .. start + len`, as far as there are any.
    pub(super) fn read(&self, start: usize, len: usize) -> &[T] {
        let start = start.min(self.len);
        let len = len.min(self.len - start);
        // SAFETY: inside the mapping. Only this value writes, which takes it by `&mut`.
        unsafe { std::slice::from_raw_parts(self.base.add(start).as_ptr(), len) }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing refers to it any more.
        if let Err(errno) = unsafe { munmap(self.base.as_ptr().cast(), self.len * size_of::<T>()) } {
            tracing::debug!(%errno, "unmap an array of the kernel side");
        }
    }
}
