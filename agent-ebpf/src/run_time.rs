//! What a CPU sample stands for: the time that its thread has run since its last one, by the kernel's own account.
//!
//! A timer is blind where interrupts are off, and comes late to a virtual CPU; threads that run in short bursts are found
//! too seldom. What they are not found at is charged to them when they are, so that the sum is their run time.

use agent_common::RunAccount;
use aya_ebpf::helpers::generated::bpf_get_current_task_btf;
use aya_ebpf::macros::btf_map;

use crate::maps::cpu_epoch;
use crate::offsets::{OFF_TASK_RUN_TIME, present};
use crate::threads::{Task, TaskStorage};

/// Run time that is charged, of threads that were found at least once; freed with them.
#[btf_map]
static RUN_TIMES: TaskStorage<RunAccount> = TaskStorage::new();

static NOTHING: RunAccount = RunAccount { epoch: 0, reserved: 0, charged_ns: 0 };

/// A thread that goes on and on is brought up to date by the kernel at its tick: every 4 ms, seldom less often.
const TICK_NS: i64 = 4_000_000;

/// What a sample of the current thread stands for, and the account that it is to be charged to once it is on its way: what
/// a sample stood for that found no room is made good by the next one. `ran_on` says that the thread has not left this
/// CPU since the sample before.
#[inline(always)]
pub fn weight(period: u64, ran_on: bool) -> (u64, Option<&'static mut RunAccount>) {
    if !present(&OFF_TASK_RUN_TIME) {
        return (period, None);
    }
    // SAFETY: takes no pointer and returns a trusted one.
    let current = Task(unsafe { bpf_get_current_task_btf() }.cast());
    let ran: u64 = current.get(&OFF_TASK_RUN_TIME);
    // None when it interrupted a program that was at the storage, which is seldom: the next sample stands for its time too.
    let Some(account) = current.kept_or_made(&raw const RUN_TIMES, &NOTHING) else { return (period, None) };
    let epoch = cpu_epoch();
    if account.epoch != epoch {
        // The first one stands for what it stood for by chance.
        (account.epoch, account.charged_ns) = (epoch, ran);
        return (period, None);
    }
    let due = ran.wrapping_sub(account.charged_ns) as i64;
    let off = due.wrapping_sub(period as i64);
    let weight = if ran_on && (-TICK_NS..=TICK_NS).contains(&off) {
        period // The account comes in steps that say nothing.
    } else if due < 0 {
        0
    } else {
        due as u64
    };
    (weight, Some(account))
}
