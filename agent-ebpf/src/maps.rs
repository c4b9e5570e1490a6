//! Everything the probes share with the agent, and the few helpers that every probe uses.

use agent_common::{LOSS_REASONS, LossReason, MarkRing, PackedStart, SocketStats, SyscallKey, SyscallStats};
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, RingBuf};

/// Bit of a watched process that wants CPU samples; also the bit of [`SCOPE`] that means the whole host.
pub const WATCH_CPU: u32 = 1;
/// Likewise, system calls.
pub const WATCH_SYSCALLS: u32 = 2;
/// Likewise, sockets.
pub const WATCH_SOCKETS: u32 = 4;
/// Likewise, waiting and thread totals.
pub const WATCH_SCHED: u32 = 8;

/// Watched processes: a byte of `WATCH_…` bits for each process number, eight to a word. A process that nobody watches
/// pays this one look-up, and in an array that is a load, where a hash would cost 15 ns. The agent sizes it by `pid_max`.
#[map]
pub static WATCH: Array<u64> = Array::with_max_entries(4096, 0);

/// Entry 0: `WATCH_…` bits of the probes that see the whole host.
#[map]
pub static SCOPE: Array<u32> = Array::with_max_entries(1, 0);

/// CPU samples on their way to the agent, which drains them on a timer.
#[map]
pub static SAMPLES: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// Losses by reason.
#[map]
pub static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOSS_REASONS, 0);

/// System call counters. All memory at once: where many processes start in a second, the kernel cannot find that of a new
/// key for each CPU in time.
#[map]
pub static SYSCALLS: PerCpuHashMap<SyscallKey, SyscallStats> = PerCpuHashMap::with_max_entries(4096, 0);

/// Start times of system calls, slot by thread id; they serve the latency only.
#[map]
pub static STARTS: Array<PackedStart> = Array::with_max_entries(65_536, 0);

/// Calls of this CPU until the next one is timed.
#[map]
pub static UNTIL_TIMED: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// Residency counters by socket cookie; they outlive the socket until the agent has read them. Big, and seldom used: each
/// takes its memory when its socket is found.
#[map]
pub static SOCKETS: HashMap<u64, SocketStats> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Arrival marks, one ring a watched socket, freed with the socket.
#[btf_map]
pub static MARKS: SkStorage<MarkRing> = SkStorage::new();

const _: () = assert!(BPF_F_NO_PREALLOC == 1);

/// Counts a loss.
#[inline(always)]
pub fn lost(reason: LossReason) {
    if let Some(count) = LOST.get_ptr_mut(reason as u32) {
        // SAFETY: a per-CPU value, and tracing programs do not migrate while they run.
        unsafe { *count += 1 };
    }
}

/// Whether `tgid` is watched for `bit`.
#[inline(always)]
pub fn watched(tgid: u32, bit: u32) -> bool {
    if let Some(scope) = SCOPE.get(0)
        && *scope & bit != 0
    {
        return true;
    }
    WATCH.get(tgid / 8).is_some_and(|word| (*word >> (tgid % 8 * 8)) & u64::from(bit) != 0)
}
