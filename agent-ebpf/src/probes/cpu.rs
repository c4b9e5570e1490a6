//! On-CPU samples: kernel and user stack of one instant in one record.

use agent_common::{LossReason, MAX_FRAMES, RecordHeader, RecordKind, SampleKind, StackSample, UnwindEnd};
use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_F_USER_STACK, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_stack};
use aya_ebpf::macros::{map, perf_event};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::PerfEventContext;

use crate::maps::{SAMPLES, WATCH_CPU, lost, watched};
use crate::offsets::{CPU_PERIOD_NS, OFF_TASK_FLAGS, of, of64};
use crate::task;

const STACK_BYTES: usize = MAX_FRAMES * 8;
const HEAD_BYTES: usize = size_of::<RecordHeader>() + size_of::<StackSample>();

/// A record under construction. Only this program uses it, and it cannot interrupt itself on its CPU.
#[repr(C)]
struct Scratch {
    header: RecordHeader,
    sample: StackSample,
    frames: [u8; 2 * STACK_BYTES],
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

// perf_event on cpu-clock, since 4.9
#[perf_event]
fn cpu_sample(ctx: PerfEventContext) -> u32 {
    let pid_tgid = task::pid_tgid();
    let tgid = (pid_tgid >> 32) as u32;
    if tgid == 0 || !watched(tgid, WATCH_CPU) {
        return 0; // Process 0 is the idle loop.
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        lost(LossReason::ScratchMissing);
        return 0;
    };
    // SAFETY: a per-CPU value, see `Scratch`.
    let scratch = unsafe { &mut *scratch };
    let frames = scratch.frames.as_mut_ptr();
    // SAFETY: STACK_BYTES may be written at `frames`.
    let kernel = unsafe { bpf_get_stack(ctx.as_ptr(), frames.cast(), STACK_BYTES as u32, 0) };
    let kernel = bounded(kernel, LossReason::KernelStackFailed);
    // SAFETY: `kernel` is at most STACK_BYTES, and as many bytes follow.
    let user_at = unsafe { frames.add(kernel) };
    let user = if is_kernel_thread() {
        0
    } else {
        let user =
            // SAFETY: STACK_BYTES may be written at `user_at`.
            unsafe { bpf_get_stack(ctx.as_ptr(), user_at.cast(), STACK_BYTES as u32, u64::from(BPF_F_USER_STACK)) };
        bounded(user, LossReason::UserStackFailed)
    };

    let len = HEAD_BYTES + kernel + user;
    scratch.header =
        RecordHeader { len: len as u32, kind: RecordKind::Stack as u16, cpu: task::cpu(), time_ns: task::now() };
    scratch.sample = StackSample::ZERO;
    scratch.sample.pid = tgid;
    scratch.sample.kind = SampleKind::Cpu as u16;
    // SAFETY: takes no pointer.
    scratch.sample.cgroup = unsafe { bpf_get_current_cgroup_id() };
    scratch.sample.weight = of64(&CPU_PERIOD_NS);
    scratch.sample.user_end = if user == 0 { UnwindEnd::NoUser as u16 } else { UnwindEnd::Entry as u16 };
    scratch.sample.tid = pid_tgid as u32;
    scratch.sample.kernel_len = kernel as u32;
    scratch.sample.user_len = user as u32;
    // SAFETY: the name is as long as it says.
    unsafe { bpf_get_current_comm(scratch.sample.comm.as_mut_ptr().cast(), scratch.sample.comm.len() as u32) };

    if len > size_of::<Scratch>() {
        return 0; // Cannot be; the verifier wants to read it.
    }
    // SAFETY: `len` bytes of the scratch record are initialised.
    let record = unsafe { core::slice::from_raw_parts(core::ptr::from_mut(scratch).cast::<u8>().cast_const(), len) };
    if SAMPLES.output::<[u8]>(record, u64::from(BPF_RB_NO_WAKEUP)).is_err() {
        lost(LossReason::RingFull);
    }
    0
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
