//! The settings page, both ends: values go in at the agent's, a consistent copy comes out at the pipeline's.
//! A writer that is killed at any instant leaves a reader neither a torn copy nor a wait. Never reads a clock.
//!
//! Two slots and a sequence: the writer fills the slot that is not in force, then raises the sequence by one. A page
//! that is half created never has the final name, and one that exists keeps its inode for life.

mod error;
mod lock;

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};

pub use error::PageError;
pub use lock::{LockError, OwnerLock};

use crate::abi::{
    ABI_VERSION, PAGE_BYTES, SETTINGS_ABI_AT, SETTINGS_MAGIC, SETTINGS_SEQ_AT, SETTINGS_SLOT_AT, SETTINGS_SLOT_BYTES,
    SETTINGS_VALUES,
};

/// Copies that a reader tries before it gives up until the next read. A copy fails only when a writer published within
/// its few nanoseconds, so one in a row is rare and this many do not happen.
const COPIES: u32 = 4096;
/// Everybody may read a settings page; the directory above it decides who gets there.
const PAGE_MODE: u32 = 0o644;

/// What a settings page said at one instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// End of the lease on the boot-time clock; 0 when there never was one.
    pub expires_boottime_ns: u64,
    /// Rises with every change; 0 for the pipeline's own defaults.
    pub generation: u64,
    /// The values in the order of the registration reply; those not in use are 0.
    pub values: [u64; SETTINGS_VALUES],
}

/// The agent's end: the only writer of a page, as long as it lives.
#[derive(Debug)]
pub struct PageWriter {
    page: Page,
    path: PathBuf,
    in_use: usize,
    /// Keeps a second writer off.
    _lock: OwnerLock,
}

impl PageWriter {
    /// Opens the page at `path`, or creates it with `initial` values, generation 0 and no lease.
    ///
    /// A page that exists keeps its inode, its generation and its values. One of another size, version or number of
    /// values is left alone and named in the error, as is a page that another process writes.
    pub fn open(path: &Path, initial: &[u64]) -> Result<Self, PageError> {
        if initial.is_empty() || initial.len() > SETTINGS_VALUES {
            return Err(PageError::ValueCount { path: path.into(), found: initial.len(), room: SETTINGS_VALUES });
        }
        let lock = OwnerLock::take(path).map_err(|error| match error {
            LockError::Held { lock: _ } => PageError::InUse { path: path.into() },
            LockError::Io { what, lock, cause } => PageError::io(what, &lock, cause),
        })?;
        let file = match open_page(path, Access::Write) {
            Err(PageError::Io { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
                create_page(path, initial)?;
                open_page(path, Access::Write)?
            }
            other => other?,
        };
        let page = Page::map_writable(&file).map_err(|e| PageError::io("map", path, e))?;
        let in_use = check_header(&page, path)?;
        if in_use != initial.len() {
            return Err(PageError::OtherValues { path: path.into(), found: in_use, wanted: initial.len() });
        }
        Ok(Self { page, path: path.into(), in_use, _lock: lock })
    }

    /// What the page says now: after [`PageWriter::open`] of an existing page, what its last writer said.
    pub fn snapshot(&self) -> Snapshot {
        copy_slot(&self.page, self.page.word(SETTINGS_SEQ_AT).load(Ordering::Acquire))
    }

    /// Puts new values in force until `expires_boottime_ns`.
    pub fn publish(&mut self, generation: u64, values: &[u64], expires_boottime_ns: u64) -> Result<(), PageError> {
        if values.len() != self.in_use {
            return Err(PageError::OtherValues { path: self.path.clone(), found: values.len(), wanted: self.in_use });
        }
        let mut next = Snapshot { expires_boottime_ns, generation, values: [0; SETTINGS_VALUES] };
        next.values[..values.len()].copy_from_slice(values);
        self.store(&next);
        Ok(())
    }

    /// Prolongs the lease of the values in force.
    pub fn renew(&mut self, expires_boottime_ns: u64) {
        self.store(&Snapshot { expires_boottime_ns, ..self.snapshot() });
    }

    /// Where the page lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn store(&mut self, next: &Snapshot) {
        let seq = self.page.word(SETTINGS_SEQ_AT);
        let raised = seq.load(Ordering::Relaxed).wrapping_add(1);
        // Orders the raise before this one with the words below: a reader that still copies this slot from the time when
        // it was in force, and sees one of these words, also sees that the sequence has moved on.
        fence(Ordering::Release);
        let at = slot_at(raised);
        self.page.word(at).store(next.expires_boottime_ns, Ordering::Relaxed);
        self.page.word(at + 8).store(next.generation, Ordering::Relaxed);
        for (i, value) in next.values.iter().enumerate() {
            self.page.word(at + 16 + 8 * i).store(*value, Ordering::Relaxed);
        }
        seq.store(raised, Ordering::Release);
    }
}

/// The pipeline's end: read-only, a few nanoseconds a read.
#[derive(Debug)]
pub struct PageReader {
    page: Page,
    file_id: (u64, u64),
}

impl PageReader {
    /// Opens the page at `path`. Refuses links, what is no plain file, and a page of another size or version.
    pub fn open(path: &Path) -> Result<Self, PageError> {
        let file = open_page(path, Access::Read)?;
        let meta = file.metadata().map_err(|e| PageError::io("stat", path, e))?;
        let page = Page::map_read_only(&file).map_err(|e| PageError::io("map", path, e))?;
        check_header(&page, path)?;
        Ok(Self { page, file_id: file_id(&meta) })
    }

    /// A consistent copy of the slot in force. `None` when a writer published during every one of 4096 tries: keep
    /// what was read before.
    #[inline]
    pub fn read(&self) -> Option<Snapshot> {
        self.copy(|before| copy_slot(&self.page, before))
    }

    /// As [`PageReader::read`], of the end of the lease, the generation and the two values at `first` and `second` only.
    #[inline]
    pub(crate) fn read_two(&self, first: usize, second: usize) -> Option<[u64; 4]> {
        self.copy(|before| {
            let word = |i: usize| self.page.word(slot_at(before) + 8 * i).load(Ordering::Relaxed);
            [word(0), word(1), word(2 + first), word(2 + second)]
        })
    }

    /// Copies from the slot in force until no publication came in between.
    #[inline]
    fn copy<T>(&self, copy: impl Fn(u64) -> T) -> Option<T> {
        let seq = self.page.word(SETTINGS_SEQ_AT);
        for _ in 0..COPIES {
            let before = seq.load(Ordering::Acquire);
            let copied = copy(before);
            fence(Ordering::Acquire);
            if seq.load(Ordering::Relaxed) == before {
                return Some(copied);
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Whether `other` shows the same file.
    pub fn same_file(&self, other: &Self) -> bool {
        self.file_id == other.file_id
    }
}

#[inline]
fn slot_at(seq: u64) -> usize {
    SETTINGS_SLOT_AT + usize::from(seq & 1 == 1) * SETTINGS_SLOT_BYTES
}

#[inline]
fn copy_slot(page: &Page, seq: u64) -> Snapshot {
    let at = slot_at(seq);
    let word = |i: usize| page.word(at + 8 * i).load(Ordering::Relaxed);
    Snapshot {
        expires_boottime_ns: word(0),
        generation: word(1),
        values: [word(2), word(3), word(4), word(5), word(6), word(7), word(8), word(9)],
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

/// Opens without following a link and without waiting for the other end of a pipe, and checks kind and size.
fn open_page(path: &Path, access: Access) -> Result<File, PageError> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).unwrap_or(0);
    let file = OpenOptions::new()
        .read(true)
        .write(access == Access::Write)
        .custom_flags(flags)
        .open(path)
        .map_err(|e| PageError::io("open", path, e))?;
    let meta = file.metadata().map_err(|e| PageError::io("stat", path, e))?;
    if !meta.is_file() {
        return Err(PageError::NotAFile { path: path.into() });
    }
    // A longer page belongs to a later version that keeps this one at its head; a writer takes its own size only.
    let fits = meta.len() == PAGE_BYTES as u64 || (access == Access::Read && meta.len() > PAGE_BYTES as u64);
    if fits { Ok(file) } else { Err(PageError::Size { path: path.into(), found: meta.len() }) }
}

/// Writes a whole page under a temporary name and gives it its own in one step; a page that appeared meanwhile stays.
fn create_page(path: &Path, initial: &[u64]) -> Result<(), PageError> {
    let mut bytes = [0_u8; PAGE_BYTES];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(0, &SETTINGS_MAGIC.to_ne_bytes());
    put(SETTINGS_ABI_AT, &ABI_VERSION.to_ne_bytes());
    put(SETTINGS_ABI_AT + 4, &u32::try_from(initial.len()).unwrap_or(0).to_ne_bytes());
    for (i, value) in initial.iter().enumerate() {
        put(SETTINGS_SLOT_AT + 16 + 8 * i, &value.to_ne_bytes());
    }
    let temporary = write_temporary(path, &bytes, PAGE_MODE)?;
    match renameat_with(CWD, &temporary, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::EXIST) => {
            fs::remove_file(&temporary).map_err(|e| PageError::io("remove", &temporary, e))
        }
        Err(e) => Err(PageError::io("rename", &temporary, e.into())),
    }
}

/// Writes `bytes` to a fresh file beside `path`. The name is always the same one, so that what a killed predecessor left
/// is cleared here.
pub(crate) fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, PageError> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("page");
    let temporary = path.with_file_name(format!(".{name}.new"));
    match fs::remove_file(&temporary) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(PageError::io("remove", &temporary, e)),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(|e| PageError::io("create", &temporary, e))?;
    file.write_all(bytes).map_err(|e| PageError::io("write", &temporary, e))?;
    // The mode of `open` passes through the umask, this one does not.
    file.set_permissions(Permissions::from_mode(mode)).map_err(|e| PageError::io("chmod", &temporary, e))?;
    Ok(temporary)
}

/// Checks magic and version; returns the number of values in use.
fn check_header(page: &Page, path: &Path) -> Result<usize, PageError> {
    let magic = page.word(0).load(Ordering::Relaxed);
    if magic != SETTINGS_MAGIC {
        return Err(PageError::Magic { path: path.into(), found: magic });
    }
    let halves = page.word(SETTINGS_ABI_AT).load(Ordering::Relaxed).to_ne_bytes();
    let half = |at: usize| u32::from_ne_bytes([halves[at], halves[at + 1], halves[at + 2], halves[at + 3]]);
    let (abi, n) = (half(0), half(4));
    if abi != ABI_VERSION {
        return Err(PageError::Version { path: path.into(), found: abi, wanted: ABI_VERSION });
    }
    match usize::try_from(n) {
        Ok(n) if (1..=SETTINGS_VALUES).contains(&n) => Ok(n),
        _ => Err(PageError::ValueCount {
            path: path.into(),
            found: usize::try_from(n).unwrap_or(usize::MAX),
            room: SETTINGS_VALUES,
        }),
    }
}

/// A file of one page, mapped and seen as atomic words: the only unsafe code of the client.
#[derive(Debug)]
pub(crate) struct Page {
    map: MmapRaw,
}

impl Page {
    /// Maps the first page of `file` for reading and writing, shared. The file must be that long.
    pub(crate) fn map_writable(file: &File) -> io::Result<Self> {
        Ok(Self { map: MmapOptions::new().len(PAGE_BYTES).populate().map_raw(file)? })
    }

    /// Maps the first page of `file` for reading, shared. The file must be that long.
    pub(crate) fn map_read_only(file: &File) -> io::Result<Self> {
        Ok(Self { map: MmapOptions::new().len(PAGE_BYTES).populate().map_raw_read_only(file)? })
    }

    /// The word at byte `at`, a multiple of 8 below the end of the page. Only loads on a read-only page.
    #[inline]
    #[expect(clippy::cast_ptr_alignment, reason = "a mapping is page-aligned and the offset a multiple of 8")]
    pub(crate) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at < PAGE_BYTES, "a word lies inside its page, aligned");
        // SAFETY: the mapping is PAGE_BYTES long, page-aligned and lives as long as `self`; `at` is aligned and inside,
        // by the assertion; other processes change the memory only by whole aligned words, which every access here
        // takes as atomic; writers are the holders of a writable map.
        unsafe { &*self.map.as_ptr().add(at).cast::<AtomicU64>() }
    }
}

/// What tells one file from another.
pub(crate) fn file_id(meta: &Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}
