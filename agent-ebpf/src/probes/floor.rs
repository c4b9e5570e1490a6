//! An empty pair on the system call tracepoints: what attaching costs before any work is done. For benchmarks only.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

// tp_btf sys_enter(struct pt_regs *regs, long id), since 5.5
#[btf_tracepoint(function = "sys_enter")]
fn floor_enter(_ctx: BtfTracePointContext) -> i32 {
    0
}

// tp_btf sys_exit(struct pt_regs *regs, long ret), since 5.5
#[btf_tracepoint(function = "sys_exit")]
fn floor_exit(_ctx: BtfTracePointContext) -> i32 {
    0
}
