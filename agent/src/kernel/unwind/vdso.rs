//! The image of the vDSO: code that the kernel maps into every process, without a file. Read from this process's own memory.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use procfs::process::{MMapPath, Process};

/// Most bytes of an image; it has two pages or three.
const MOST: u64 = 1 << 20;

/// The bytes of the image, `None` where there is none.
pub(super) fn image() -> Option<Vec<u8>> {
    let maps = Process::myself().ok()?.maps().ok()?;
    let (begin, end) = maps.into_iter().find(|map| map.pathname == MMapPath::Vdso)?.address;
    let len = end.checked_sub(begin).filter(|len| *len <= MOST)?;
    let mut bytes = vec![0; usize::try_from(len).ok()?];
    File::open("/proc/self/mem").ok()?.read_exact_at(&mut bytes, begin).ok()?;
    Some(bytes)
}
