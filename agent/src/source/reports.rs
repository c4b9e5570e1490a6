//! Reads the report pages of pipelines, once a tick. The files belong to others and are hostile: opened without
//! following links, checked for owner, kind and size, read with `pread` and never mapped, because a mapped file that is
//! cut short kills its reader.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use tidegate_client::abi::PAGE_BYTES;

use super::ReportFile;
use crate::event::{RawBatch, encode};
use crate::units::Nanos;

/// The open report pages.
#[derive(Debug, Default)]
pub struct Reports {
    open: HashMap<ReportFile, OwnedFd>,
}

impl Reports {
    /// Appends a record for each wanted page: its bytes, or the errno with which reading it failed.
    pub fn append(&mut self, wanted: &[ReportFile], now: Nanos, batch: &mut RawBatch) {
        let still: HashSet<&ReportFile> = wanted.iter().collect();
        self.open.retain(|file, _| still.contains(file));
        let mut page = [0_u8; PAGE_BYTES];
        for file in wanted {
            match self.read(file, &mut page) {
                Ok(length) => encode::report(batch, now, &file.name, Ok(&page[..length])),
                Err(errno) => {
                    // Opened anew on the next tick: the pipeline may have made a fresh file.
                    self.open.remove(file);
                    let errno = u16::try_from(errno.raw_os_error()).unwrap_or(u16::MAX);
                    encode::report(batch, now, &file.name, Err(errno));
                }
            }
        }
    }

    fn read(&mut self, file: &ReportFile, page: &mut [u8; PAGE_BYTES]) -> Result<usize, Errno> {
        if !self.open.contains_key(file) {
            self.open.insert(file.clone(), open(file)?);
        }
        let fd = self.open.get(file).ok_or(Errno::BADF)?;
        let mut length = 0;
        while length < PAGE_BYTES {
            match rustix::io::pread(fd, &mut page[length..], length as u64) {
                Ok(0) => break,
                Ok(n) => length += n,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
        // A page that shrank is replaced or broken: let go of it, so that a fresh file is found.
        if length < PAGE_BYTES {
            self.open.remove(file);
        }
        Ok(length)
    }
}

fn open(file: &ReportFile) -> Result<OwnedFd, Errno> {
    // NONBLOCK: a pipe in the page's place must not hold the agent.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open(&file.path, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&fd)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    if stat.st_uid != file.uid.0 {
        return Err(Errno::PERM);
    }
    Ok(fd)
}
