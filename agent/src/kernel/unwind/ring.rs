//! One perf ring, mapped: bytes that the kernel has written out, and the room given back. Nothing is interpreted here.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of a ring, a power of two: a thousand records.
const RING_BYTES: usize = 128 << 10;
/// Where the kernel's page keeps how far it has written, and how far we have read.
const HEAD_AT: usize = 1024;
const TAIL_AT: usize = 1032;

/// A mapped ring.
#[derive(Debug)]
pub(super) struct Ring {
    file: File,
    base: NonNull<u8>,
    page: usize,
}

// SAFETY: the mapping belongs to this value alone, and goes where it goes.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring of an open perf event.
    pub(super) fn map(file: File) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at a place that the kernel chooses.
        let base = unsafe { mmap(std::ptr::null_mut(), page + RING_BYTES, prot, flags, &file, 0) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { file, base, page })
    }

    /// Appends what has been written since the last time.
    pub(super) fn read(&mut self, bytes: &mut Vec<u8>) {
        let head = self.word(HEAD_AT).load(Ordering::Acquire);
        let tail = self.word(TAIL_AT).load(Ordering::Relaxed);
        let Ok(len) = usize::try_from(head.wrapping_sub(tail)) else { return };
        let len = len.min(RING_BYTES);
        let begin = usize::try_from(tail).unwrap_or(0) & (RING_BYTES - 1);
        let first = len.min(RING_BYTES - begin);
        // SAFETY: both parts lie in the ring, and the kernel does not write what has not been given back.
        unsafe {
            let data = self.base.add(self.page);
            bytes.extend_from_slice(std::slice::from_raw_parts(data.add(begin).as_ptr(), first));
            bytes.extend_from_slice(std::slice::from_raw_parts(data.as_ptr(), len - first));
        }
        self.word(TAIL_AT).store(head, Ordering::Release);
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        // SAFETY: an aligned word of the first page, which lives as long as `self`; the kernel writes it whole.
        unsafe { self.base.add(at).cast::<AtomicU64>().as_ref() }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing refers to it any more.
        if let Err(errno) = unsafe { munmap(self.base.as_ptr().cast(), self.page + RING_BYTES) } {
            tracing::debug!(%errno, "unmap a ring");
        }
    }
}
