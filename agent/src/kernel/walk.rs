//! Walks over what the kernel holds, by its iterators: a program and whom to visit in, what it wrote out. Attaches nothing
//! that stays.
//!
//! A walk of the whole host visits every descriptor of every process, ten times a second; one that is told the process visits
//! that one alone. The kernel takes a process since 6.1, and the loader's own way of attaching an iterator does not pass it on.
//! Until 6.7 it may overlook a thread of a process whose first thread has ended.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Error, Read as _, Result as IoResult};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use aya::programs::{Iter, ProgramError};
use nix::libc;

use super::attach::NEEDS_RIGHTS;
use super::load::{LoadError, Probes};
use crate::units::Pid;

/// Processes that are visited one by one; where there are more, one walk over the host is cheaper than so many.
const MOST_ALONE: usize = 32;

/// Whom a walk visits.
#[derive(Clone, Copy, Debug)]
pub enum Visit<'a> {
    /// Every process.
    Host,
    /// These.
    Processes(&'a BTreeSet<Pid>),
}

/// Commands of bpf(2), and the type of an iterator's link.
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ITER_CREATE: libc::c_long = 33;
const BPF_TRACE_ITER: u32 = 28;

/// `union bpf_attr` of `BPF_LINK_CREATE`, as far as an iterator needs it.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    visit: u64,
    visit_bytes: u32,
    reserved: u32,
}

/// `union bpf_iter_link_info`, its part about tasks.
#[repr(C)]
struct VisitTasks {
    thread: u32,
    process: u32,
    process_fd: u32,
}

const VISIT_BYTES: u32 = 12;
const _: () = assert!(size_of::<VisitTasks>() == VISIT_BYTES as usize, "the kernel takes it as it is");

/// `union bpf_attr` of `BPF_ITER_CREATE`.
#[repr(C)]
struct IterCreate {
    link: u32,
    flags: u32,
}

impl Probes {
    /// Runs the walk over descriptors and returns what it wrote of the processes that are watched.
    pub fn walk_descriptors(&mut self, visit: Visit<'_>) -> Result<Vec<u8>, LoadError> {
        let mut walk = |process| self.walk("sock_iter", "task_file", "walk over descriptors", process);
        let Visit::Processes(alone) = visit else { return walk(None) };
        if alone.len() > MOST_ALONE {
            return walk(None);
        }
        let mut bytes = Vec::new();
        for pid in alone {
            match walk(Some(*pid)) {
                Ok(of_one) => bytes.extend(of_one),
                // It takes no process: what it writes of the host is what is watched all the same.
                Err(LoadError::System { cause, .. }) if cause.raw_os_error() == Some(libc::E2BIG) => return walk(None),
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    /// Runs the census of threads and returns what it wrote.
    pub fn census(&mut self) -> Result<Vec<u8>, LoadError> {
        self.walk("sched_census", "task", "census of threads", None)
    }

    /// Runs an iterator over `process`, or over every one, and returns what it wrote.
    fn walk(
        &mut self,
        name: &'static str,
        over: &'static str,
        what: &'static str,
        process: Option<Pid>,
    ) -> Result<Vec<u8>, LoadError> {
        let failed = |cause| LoadError::Program { program: name, cause, remedy: NEEDS_RIGHTS };
        let Self { ebpf, types, links, .. } = self;
        let program: &mut Iter = ebpf
            .program_mut(name)
            .ok_or(ProgramError::UnexpectedProgramType)
            .and_then(TryInto::try_into)
            .map_err(failed)?;
        if !links.loaded.contains(name) {
            program.load(over, types.get()?).map_err(failed)?;
            links.loaded.insert(name);
        }
        let program = program.fd().map_err(failed)?;
        read(program.as_fd(), process).map_err(|cause| LoadError::System { what, cause })
    }
}

/// What the iterator `program` writes of `process`, or of every one. The link ends with the walk.
fn read(program: BorrowedFd<'_>, process: Option<Pid>) -> IoResult<Vec<u8>> {
    let visit = process.map(|pid| VisitTasks { thread: 0, process: pid.0, process_fd: 0 });
    let create = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        target: 0,
        attach_type: BPF_TRACE_ITER,
        flags: 0,
        visit: visit.as_ref().map_or(0, |visit| std::ptr::from_ref(visit) as u64),
        visit_bytes: if visit.is_some() { VISIT_BYTES } else { 0 },
        reserved: 0,
    };
    // SAFETY: the attributes are laid out as the kernel's, and `visit` outlives the call.
    let link = unsafe { bpf(BPF_LINK_CREATE, &create) }?;
    let create = IterCreate { link: link.as_raw_fd().cast_unsigned(), flags: 0 };
    // SAFETY: the attributes are laid out as the kernel's and point at nothing.
    let iterator = unsafe { bpf(BPF_ITER_CREATE, &create) }?;
    let mut bytes = Vec::new();
    File::from(iterator).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Calls bpf(2) with a command whose answer is a new descriptor.
///
/// # Safety
/// `attributes` must be what the kernel takes for `command`, and what they point at must live.
unsafe fn bpf<T>(command: libc::c_long, attributes: &T) -> IoResult<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as there are; the rest is the caller's promise.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    match i32::try_from(answer) {
        // SAFETY: a descriptor that the kernel has just made, and that nobody else has.
        Ok(descriptor) if descriptor >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(descriptor) }),
        _ => Err(Error::last_os_error()),
    }
}
