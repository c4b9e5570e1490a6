//! Kernel side of tidegate: probes that count and stamp. No threshold, no percentage, no policy.
//!
//! One file a probe family; `maps.rs` names everything the probes share with the agent, `offsets.rs` the fields of
//! kernel structs whose places the agent fills in from the running kernel's BTF before it loads this object.
#![no_std]
#![no_main]

mod arch;
mod bucket;
mod cgroup;
mod diagnose;
mod emit;
mod kernel_read;
mod maps;
mod offsets;
mod probes {
    pub mod cpu;
    pub mod floor;
    pub mod flow;
    pub mod flow_calls;
    pub mod process;
    pub mod sched;
    pub mod sched_census;
    pub mod sock;
    pub mod sock_iter;
    pub mod syscall;
}
mod receive_queue;
mod residency;
mod run_time;
mod task;
mod threads;
mod unwind;
mod wait;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No path leads here: the verifier would refuse it. The language wants the function.
    loop {}
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
