//! Stack samples on their way to the agent: kernel and user stack of the current thread in one record.
//!
//! A timer can interrupt a tracepoint program on the same CPU, so each context has a record of its own to build in. Where
//! the unwinder stops because something is not known yet, a copy of the rest of the user stack goes with the record.

use core::ffi::c_void;

use agent_common::{LossReason, MAX_FRAMES, RecordHeader, RecordKind, SampleKind, StackSample, WaitReason};
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_stack, bpf_probe_read_user,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

use crate::maps::{SAMPLES, lost};
use crate::task;
use crate::unwind::{self, Walk};

const STACK_BYTES: usize = MAX_FRAMES * 8;
/// Frames of both stacks.
pub const FRAMES_BYTES: usize = 2 * STACK_BYTES;
const HEAD_BYTES: usize = size_of::<RecordHeader>() + size_of::<StackSample>();
const PAGE: usize = 4096;
const WORD: usize = 8;
/// Most pages of a user stack that are copied; the first of them is mostly a part of one.
const COPIED_PAGES: usize = 4;
/// A ring buffer that is filled further takes copies of two pages, in which most stacks lie.
const ROOM_FOR_WHOLE_COPIES: u64 = 512 << 10;
/// One that is filled further takes no copies: they must never displace samples.
const ROOM_FOR_COPIES: u64 = 2560 << 10;

/// A record under construction, and what is needed for it.
#[repr(C)]
pub struct Scratch {
    header: RecordHeader,
    sample: StackSample,
    pub frames: [u8; FRAMES_BYTES + COPIED_PAGES * PAGE],
    pub walk: Walk,
}

/// One for each [`From`], so that a timer never overwrites what a tracepoint is building.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(3, 0);

/// The context that a program runs in.
#[derive(Clone, Copy)]
pub enum From {
    /// The sampler's timer.
    Timer = 0,
    /// A tracepoint.
    Tracepoint = 1,
    /// A wakeup: it may come by an interrupt, in the middle of another tracepoint's program.
    Waking = 2,
}

/// What is told beside the stacks.
pub struct What {
    /// What it is a sample of.
    pub kind: SampleKind,
    /// What it stands for, in the unit of its kind.
    pub weight: u64,
    /// Why the thread was blocked.
    pub reason: WaitReason,
    /// Thread that was woken, or 0.
    pub other_tid: u32,
    /// Ties a waker's sample to the sleeper's, or 0.
    pub pair: u32,
}

/// Sends the stacks of the current thread. `ctx` is the program's own context. False when they were lost, which is then
/// counted.
#[inline(always)]
pub fn stack(ctx: *mut c_void, from: From, what: &What) -> bool {
    let Some(scratch) = SCRATCH.get_ptr_mut(from as u32) else {
        lost(LossReason::ScratchMissing);
        return false;
    };
    // SAFETY: a per-CPU value that only programs of this context use, and they do not interrupt each other.
    let scratch = unsafe { &mut *scratch };
    // SAFETY: STACK_BYTES may be written at the frames.
    let kernel = unsafe { bpf_get_stack(ctx, scratch.frames.as_mut_ptr().cast(), STACK_BYTES as u32, 0) };
    let kernel = bounded(kernel);
    let user = unwind::user_stack(from, scratch, kernel);

    let pid_tgid = task::pid_tgid();
    scratch.sample = StackSample::ZERO;
    scratch.sample.pid = (pid_tgid >> 32) as u32;
    scratch.sample.tid = pid_tgid as u32;
    scratch.sample.kind = what.kind as u16;
    scratch.sample.weight = what.weight;
    scratch.sample.reason = what.reason as u16;
    scratch.sample.other_tid = what.other_tid;
    scratch.sample.pair = what.pair;
    scratch.sample.uid = task::uid();
    // SAFETY: takes no pointer.
    scratch.sample.cgroup = unsafe { bpf_get_current_cgroup_id() };
    scratch.sample.user_end = user.end as u16;
    scratch.sample.kernel_len = kernel as u32;
    // SAFETY: the name is as long as it says.
    unsafe { bpf_get_current_comm(scratch.sample.comm.as_mut_ptr().cast(), scratch.sample.comm.len() as u32) };

    let mut upto = user.upto;
    let copied = if user.resumable { copy(scratch, upto) } else { 0 };
    if copied == 0 {
        if let Some(reason) = user.end.loss() {
            lost(reason);
        }
    } else {
        // The agent begins at the last frame again.
        upto -= WORD;
        let (ip, sp, bp, exact) = scratch.walk.registers();
        scratch.sample.resume_ip = ip;
        scratch.sample.resume_sp = sp;
        scratch.sample.resume_bp = bp;
        scratch.sample.resume_exact = exact as u16;
        scratch.sample.copied_len = copied as u32;
    }
    scratch.sample.user_len = upto.wrapping_sub(kernel) as u32;

    let len = HEAD_BYTES + upto + copied;
    if len > size_of::<Scratch>() {
        return false; // Cannot be; the verifier wants to read it.
    }
    scratch.header =
        RecordHeader { len: len as u32, kind: RecordKind::Stack as u16, cpu: task::cpu(), time_ns: task::now() };
    // SAFETY: `len` bytes of the scratch record are initialised.
    let record = unsafe { core::slice::from_raw_parts(core::ptr::from_mut(scratch).cast::<u8>().cast_const(), len) };
    let sent = SAMPLES.output::<[u8]>(record, u64::from(BPF_RB_NO_WAKEUP)).is_ok();
    if !sent {
        lost(LossReason::RingFull);
    }
    sent
}

/// Puts what the agent needs to go on behind byte `begin` of the frames, and over the last frame before it: registers, where
/// the copy begins, and the copy of the user stack from where the walk ended. Returns how many bytes these have.
#[inline(never)]
fn copy(scratch: &mut Scratch, begin: usize) -> usize {
    let filled = SAMPLES.query(u64::from(BPF_RB_AVAIL_DATA));
    if filled > ROOM_FOR_COPIES {
        return 0;
    }
    let pages = if filled > ROOM_FOR_WHOLE_COPIES { 2 } else { COPIED_PAGES };
    let (_, sp, _, _) = scratch.walk.registers();
    let mut first = sp;
    let mut copied = 0_usize;
    // Page by page: what follows the stack is not there to be read, nor is what was never written.
    let mut length = PAGE - (sp as usize & (PAGE - 1));
    for page in 0..COPIED_PAGES {
        let at = begin.wrapping_add(2 * WORD).wrapping_add(copied);
        if at > FRAMES_BYTES + (COPIED_PAGES - 1) * PAGE || length > PAGE || page >= pages {
            break;
        }
        let from = first.wrapping_add(copied as u64) as *const c_void;
        // SAFETY: `length` is at most a page, and as much follows `at`.
        let failed = unsafe { bpf_probe_read_user(scratch.frames.as_mut_ptr().add(at).cast(), length as u32, from) };
        if failed == 0 {
            copied += length;
        } else if copied == 0 {
            first = first.wrapping_add(length as u64);
        } else {
            break;
        }
        length = PAGE;
    }
    let over = begin.wrapping_sub(WORD);
    if copied == 0 || over > FRAMES_BYTES {
        return 0;
    }
    let words = [scratch.walk.bx(), scratch.walk.di(), first];
    // SAFETY: the copy begins behind them, in the same array.
    unsafe { scratch.frames.as_mut_ptr().add(over).cast::<[u64; 3]>().write_unaligned(words) };
    copied + 3 * WORD
}

/// The length that the helper for kernel stacks gave, or 0 with the failure counted.
#[inline(always)]
fn bounded(length: i64) -> usize {
    if length < 0 || length > STACK_BYTES as i64 {
        lost(LossReason::KernelStackFailed);
        return 0;
    }
    length as usize & !7
}
