//! On-CPU samples: what each CPU runs, at every period of its clock, and the account of it.

use agent_common::{LedgerAccount, LossReason, SampleKind, WATCH_CPU, WaitReason};
use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{map, perf_event};
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::PerfEventContext;

use crate::emit::{self, From, What};
use crate::maps::{cpu_period, lost_many, watched};
use crate::{run_time, task};

/// The account of this CPU's timer.
#[map]
static LEDGER: PerCpuArray<LedgerAccount> = PerCpuArray::with_max_entries(1, 0);

// perf_event on cpu-clock, since 4.9
#[perf_event]
fn cpu_sample(ctx: PerfEventContext) -> u32 {
    let Some(account) = LEDGER.get_ptr_mut(0) else { return 0 };
    // SAFETY: a per-CPU value that only this timer uses.
    let account = unsafe { &mut *account };
    let period = cpu_period();
    let skipped = skipped(account, period);
    // Only a thread that has been on this CPU ever since the last firing was it that ran meanwhile.
    let (tid, arrival) = (task::pid_tgid() & 0xffff_ffff, task::arrival());
    let ran_on = tid == account.last_tid && arrival == account.last_arrival;
    (account.last_tid, account.last_arrival) = (tid, arrival);
    let (late, elsewhere) = if ran_on { (skipped, 0) } else { (0, skipped) };
    let counts = &mut account.counts;
    counts.fired += 1;
    let tgid = task::tgid();
    let idle = tgid == 0; // Process 0 is the idle loop.
    if idle || !watched(tgid, WATCH_CPU) {
        counts.idle += u64::from(idle);
        counts.unwatched += u64::from(!idle);
        counts.late_elsewhere += skipped;
        return 0;
    }
    counts.late += late;
    counts.late_elsewhere += elsewhere;
    if late != 0 {
        lost_many(LossReason::TimerLate, late);
    }
    let (weight, charged) = run_time::weight(period, ran_on);
    let what = What { kind: SampleKind::Cpu, weight, reason: WaitReason::Other, other_tid: 0, pair: 0 };
    if emit::stack(ctx.as_ptr(), From::Timer, &what) {
        counts.delivered += 1;
        if let Some(account) = charged {
            account.charged_ns = account.charged_ns.wrapping_add(weight);
        }
    } else {
        counts.refused += 1;
    }
    0
}

/// Whole periods that passed without a firing since the last one. Half a period of lateness is jitter, not loss.
#[inline(always)]
fn skipped(account: &mut LedgerAccount, period: u64) -> u64 {
    let now = task::now();
    let last = core::mem::replace(&mut account.last_ns, now);
    if last == 0 || period == 0 {
        return 0;
    }
    let passed = now.saturating_sub(last) + period / 2;
    (passed / period).saturating_sub(1)
}
