//! On-CPU samples: what each CPU runs, at every period of its clock.

use agent_common::{SampleKind, WaitReason};
use aya_ebpf::EbpfContext;
use aya_ebpf::macros::perf_event;
use aya_ebpf::programs::PerfEventContext;

use crate::emit::{self, From, What};
use crate::maps::{WATCH_CPU, cpu_period, watched};
use crate::task;

// perf_event on cpu-clock, since 4.9
#[perf_event]
fn cpu_sample(ctx: PerfEventContext) -> u32 {
    let tgid = task::tgid();
    if tgid == 0 || !watched(tgid, WATCH_CPU) {
        return 0; // Process 0 is the idle loop.
    }
    let weight = cpu_period();
    let what = What { kind: SampleKind::Cpu, weight, reason: WaitReason::Other, other_tid: 0, pair: 0 };
    emit::stack(ctx.as_ptr(), From::Timer, &what);
    0
}
