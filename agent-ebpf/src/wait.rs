//! Why a thread is about to block: by the system call it is in, through a table that the agent fills; by the file, where
//! the call alone does not tell; by the kind of sleep, where the kernel waits on its own.

use core::ffi::c_void;

use agent_common::{WAIT_BY_FILE, WAIT_CALLS, WAIT_CALLS_COMPAT, WaitReason};
use aya_ebpf::bindings::pt_regs;
use aya_ebpf::helpers::generated::bpf_task_pt_regs;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;

use crate::kernel_read::{at, field};
use crate::offsets::{
    OFF_FDT_FD, OFF_FDT_MAX, OFF_FILE_INODE, OFF_FILES_FDT, OFF_INODE_MODE, OFF_TASK_FILES, OFF_TASK_STATUS, of,
    present,
};
use crate::threads::Task;

/// Wait reasons by system call.
#[map]
static WAIT_REASONS: Array<u32> = Array::with_max_entries(WAIT_CALLS, 0);

const TASK_UNINTERRUPTIBLE: u64 = 2;
/// `__TASK_STOPPED` and `__TASK_TRACED`.
const STOPPED: u64 = 4 | 8;
/// `TASK_NOLOAD`: an uninterruptible sleep that is nothing but idleness.
const NOLOAD: u64 = 0x400;
/// `TS_COMPAT` of `thread_info.status`.
const TS_COMPAT: u32 = 2;

const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
const S_IFREG: u16 = 0o100_000;
const S_IFBLK: u16 = 0o060_000;
const S_IFDIR: u16 = 0o040_000;

/// Why `task` blocks, or is blocked, in the kernel's state `state`.
#[inline(always)]
pub fn reason(task: Task, state: u64) -> WaitReason {
    if state & STOPPED != 0 {
        return WaitReason::Stopped;
    }
    let disk = state & TASK_UNINTERRUPTIBLE != 0 && state & NOLOAD == 0;
    // SAFETY: a trusted pointer to a thread that has user registers.
    let regs = unsafe { bpf_task_pt_regs(task.0.cast()) } as *const pt_regs;
    // SAFETY: the helper returns a trusted pointer.
    let (call, first) = unsafe { ((*regs).orig_rax as i64, (*regs).rdi) };
    if call < 0 {
        // It came by an exception, not by a call.
        return if disk { WaitReason::Page } else { WaitReason::Other };
    }
    let compat = present(&OFF_TASK_STATUS) && task.get::<u32>(&OFF_TASK_STATUS) & TS_COMPAT != 0;
    let base = if compat { WAIT_CALLS_COMPAT } else { 0 };
    let told = if call < i64::from(WAIT_CALLS_COMPAT) {
        WAIT_REASONS.get(base + call as u32).copied().unwrap_or(0)
    } else {
        0
    };
    if told == WaitReason::Child as u32 {
        return WaitReason::Child; // vfork waits without interruption, and for no disk.
    }
    if disk {
        return WaitReason::Io;
    }
    if told == WAIT_BY_FILE { by_file(task, first as u32) } else { known(told) }
}

/// The reason that a number stands for.
#[inline(always)]
pub fn known(number: u32) -> WaitReason {
    match number {
        1 => WaitReason::Io,
        2 => WaitReason::Lock,
        3 => WaitReason::Sleep,
        4 => WaitReason::Socket,
        5 => WaitReason::Poll,
        6 => WaitReason::Pipe,
        7 => WaitReason::Child,
        8 => WaitReason::Stopped,
        9 => WaitReason::Page,
        _ => WaitReason::Other,
    }
}

/// By the type of file that descriptor `fd` of `task` is.
#[inline(always)]
fn by_file(task: Task, fd: u32) -> WaitReason {
    match mode(task, fd).map(|mode| mode & S_IFMT) {
        Some(S_IFSOCK) => WaitReason::Socket,
        Some(S_IFREG | S_IFBLK | S_IFDIR) => WaitReason::Io,
        Some(_) => WaitReason::Pipe,
        None => WaitReason::Other,
    }
}

#[inline(always)]
fn mode(task: Task, fd: u32) -> Option<u16> {
    let files: *const c_void = task.get(&OFF_TASK_FILES);
    if files.is_null() {
        return None;
    }
    // SAFETY: a pointer that the verifier knows the type of: a bad address reads as zero, never faults.
    let fdt = unsafe { *files.byte_add(of(&OFF_FILES_FDT)).cast::<*const c_void>() };
    if fdt.is_null() {
        return None;
    }
    // SAFETY: as above.
    let (most, row) =
        unsafe { (*fdt.byte_add(of(&OFF_FDT_MAX)).cast::<u32>(), *fdt.byte_add(of(&OFF_FDT_FD)).cast::<u64>()) };
    if fd >= most {
        return None;
    }
    let file: u64 = at(row as *const c_void, fd as usize * 8)?;
    let inode: u64 = field(file as *const c_void, &OFF_FILE_INODE)?;
    field(inode as *const c_void, &OFF_INODE_MODE)
}
