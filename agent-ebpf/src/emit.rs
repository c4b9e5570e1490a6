//! Stack samples on their way to the agent: kernel and user stack of the current thread in one record.
//!
//! A timer can interrupt a tracepoint program on the same CPU, so each context has a record of its own to build in.

use core::ffi::c_void;

use agent_common::{LossReason, MAX_FRAMES, RecordHeader, RecordKind, SampleKind, StackSample, UnwindEnd, WaitReason};
use aya_ebpf::bindings::{BPF_F_USER_STACK, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_stack};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;

use crate::maps::{SAMPLES, lost};
use crate::offsets::{OFF_TASK_FLAGS, of};
use crate::task;

const STACK_BYTES: usize = MAX_FRAMES * 8;
const HEAD_BYTES: usize = size_of::<RecordHeader>() + size_of::<StackSample>();

/// A record under construction.
#[repr(C)]
struct Scratch {
    header: RecordHeader,
    sample: StackSample,
    frames: [u8; 2 * STACK_BYTES],
}

/// One for each [`From`], so that a timer never overwrites what a tracepoint is building.
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(3, 0);

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

/// Sends the stacks of the current thread. `ctx` is the program's own context.
#[inline(always)]
pub fn stack(ctx: *mut c_void, from: From, what: &What) {
    let Some(scratch) = SCRATCH.get_ptr_mut(from as u32) else {
        lost(LossReason::ScratchMissing);
        return;
    };
    // SAFETY: a per-CPU value that only programs of this context use, and they do not interrupt each other.
    let scratch = unsafe { &mut *scratch };
    let pid_tgid = task::pid_tgid();
    let frames = scratch.frames.as_mut_ptr();
    // SAFETY: STACK_BYTES may be written at `frames`.
    let kernel = unsafe { bpf_get_stack(ctx, frames.cast(), STACK_BYTES as u32, 0) };
    let kernel = bounded(kernel, LossReason::KernelStackFailed);
    // SAFETY: `kernel` is at most STACK_BYTES, and as many bytes follow.
    let user_at = unsafe { frames.add(kernel) };
    let user = if is_kernel_thread() {
        0
    } else {
        // SAFETY: STACK_BYTES may be written at `user_at`.
        let user = unsafe { bpf_get_stack(ctx, user_at.cast(), STACK_BYTES as u32, u64::from(BPF_F_USER_STACK)) };
        bounded(user, LossReason::UserStackFailed)
    };

    let len = HEAD_BYTES + kernel + user;
    scratch.header =
        RecordHeader { len: len as u32, kind: RecordKind::Stack as u16, cpu: task::cpu(), time_ns: task::now() };
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
    scratch.sample.user_end = if user == 0 { UnwindEnd::NoUser as u16 } else { UnwindEnd::Entry as u16 };
    scratch.sample.kernel_len = kernel as u32;
    scratch.sample.user_len = user as u32;
    // SAFETY: the name is as long as it says.
    unsafe { bpf_get_current_comm(scratch.sample.comm.as_mut_ptr().cast(), scratch.sample.comm.len() as u32) };

    if len > size_of::<Scratch>() {
        return; // Cannot be; the verifier wants to read it.
    }
    // SAFETY: `len` bytes of the scratch record are initialised.
    let record = unsafe { core::slice::from_raw_parts(core::ptr::from_mut(scratch).cast::<u8>().cast_const(), len) };
    if SAMPLES.output::<[u8]>(record, u64::from(BPF_RB_NO_WAKEUP)).is_err() {
        lost(LossReason::RingFull);
    }
}

/// The length a stack helper gave, or 0 with the failure counted.
#[inline(always)]
fn bounded(length: i64, reason: LossReason) -> usize {
    if length < 0 || length > STACK_BYTES as i64 {
        lost(reason);
        return 0;
    }
    length as usize & !7
}

/// Whether the current task is a kernel thread: it has no user stack, which is no failure.
#[inline(always)]
fn is_kernel_thread() -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    task::word(of(&OFF_TASK_FLAGS)) & PF_KTHREAD != 0
}
