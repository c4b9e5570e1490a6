//! What every probe asks the kernel about the moment it runs in. Safe, because nothing is passed.

use core::ffi::c_void;

use aya_ebpf::helpers::generated as helper;

use crate::kernel_read;
use crate::offsets::{OFF_CRED_EUID, OFF_TASK_CRED, OFF_TASK_FLAGS, OFF_TASK_LAST_ARRIVAL, OFF_TASK_MM, of, present};

/// The current thread: process id in the upper half, thread id in the lower.
#[inline(always)]
pub fn pid_tgid() -> u64 {
    // SAFETY: takes no pointer.
    unsafe { helper::bpf_get_current_pid_tgid() }
}

/// The current process.
#[inline(always)]
pub fn tgid() -> u32 {
    (pid_tgid() >> 32) as u32
}

/// The user whose process this is; 0 where its real and its effective user differ, or the latter is not known.
#[inline(always)]
pub fn uid() -> u32 {
    // SAFETY: takes no pointer.
    let real = unsafe { helper::bpf_get_current_uid_gid() as u32 };
    if !present(&OFF_TASK_CRED) || !present(&OFF_CRED_EUID) {
        return 0;
    }
    // SAFETY: takes no pointer.
    let task = unsafe { helper::bpf_get_current_task_btf() }.cast::<c_void>().cast_const();
    let effective = kernel_read::field::<*const c_void>(task, &OFF_TASK_CRED)
        .and_then(|cred| kernel_read::field::<u32>(cred, &OFF_CRED_EUID));
    match effective {
        Some(effective) if effective == real => real,
        _ => 0,
    }
}

/// `CLOCK_MONOTONIC`, ns.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes no pointer.
    unsafe { helper::bpf_ktime_get_ns() }
}

/// The CPU it runs on.
#[inline(always)]
pub fn cpu() -> u16 {
    // SAFETY: takes no pointer.
    unsafe { helper::bpf_get_smp_processor_id() as u16 }
}

/// The u32 that lies `offset` bytes into the current `task_struct`; `offset` is that of such a field.
#[inline(always)]
pub fn word(offset: usize) -> u32 {
    // SAFETY: takes no pointer, and returns a trusted one; the verifier knows `offset` and checks the load.
    unsafe { *helper::bpf_get_current_task_btf().cast::<c_void>().byte_add(offset).cast::<u32>() }
}

/// When the current thread came onto its CPU, by the scheduler's clock; 0 where the kernel does not tell.
#[inline(always)]
pub fn arrival() -> u64 {
    if !present(&OFF_TASK_LAST_ARRIVAL) {
        return 0;
    }
    let at = of(&OFF_TASK_LAST_ARRIVAL);
    // SAFETY: takes no pointer, and returns a trusted one; the verifier knows the offset and checks the load.
    unsafe { *helper::bpf_get_current_task_btf().cast::<c_void>().byte_add(at).cast::<u64>() }
}

/// Whether the current thread has a user side: kernel threads have none, nor has a thread that has given up its memory on
/// its way out.
#[inline(always)]
pub fn has_user_side() -> bool {
    const PF_IO_WORKER: u32 = 0x10;
    const PF_KTHREAD: u32 = 0x0020_0000;
    // SAFETY: takes no pointer, and returns a trusted one; the verifier knows the offset and checks the load.
    let memory =
        unsafe { *helper::bpf_get_current_task_btf().cast::<c_void>().byte_add(of(&OFF_TASK_MM)).cast::<u64>() };
    word(of(&OFF_TASK_FLAGS)) & (PF_KTHREAD | PF_IO_WORKER) == 0 && memory != 0
}
