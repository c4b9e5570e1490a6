//! Everything the probes share with the agent, and the few helpers that every probe uses.

use agent_common::{
    FlowKey, FlowStats, LOSS_REASONS, LossReason, MarkRing, PackedStart, SCOPE_CGROUPS, SocketStats, SyscallKey,
    SyscallStats, WATCHED_CGROUPS, WatchedCgroup,
};
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, PerCpuHashMap, RingBuf};

use crate::offsets::{CPU_PERIOD_NS, of64};

/// Watched processes: a byte of `WATCH_…` bits for each process number, eight to a word. A process that nobody watches
/// pays this one look-up, and in an array that is a load, where a hash would cost 15 ns. The agent sizes it by `pid_max`.
#[map]
pub static WATCH: Array<u64> = Array::with_max_entries(4096, 0);

/// Entry 0: `WATCH_…` bits of the probes that see the whole host, and from bit [`SCOPE_CGROUPS`] on of those for which
/// there are watched cgroups.
#[map]
pub static SCOPE: Array<u32> = Array::with_max_entries(1, 0);

/// Entry 0: time between two CPU samples, ns, once it is no longer the one that the object was loaded with. Entry 1: how
/// often somebody else was sampled from then on.
#[map]
static PERIODS: Array<u64> = Array::with_max_entries(2, 0);

/// Changes when somebody else is sampled: what ran unseen before is not charged to a sample. Never 0.
#[inline(always)]
pub fn cpu_epoch() -> u32 {
    PERIODS.get(1).map_or(1, |epoch| *epoch as u32 + 1)
}

/// Time between two CPU samples, ns: what one stands for.
#[inline(always)]
pub fn cpu_period() -> u64 {
    match PERIODS.get(0) {
        Some(period) if *period != 0 => *period,
        _ => of64(&CPU_PERIOD_NS),
    }
}

/// Watched cgroups; the first without an id ends the list.
#[map]
pub static CGROUPS: Array<WatchedCgroup> = Array::with_max_entries(WATCHED_CGROUPS as u32, 0);

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

/// Counters by descriptor; those of one that was closed stay until the agent has read them. Each takes its memory when its
/// descriptor is first used.
#[map]
pub static FLOWS: HashMap<FlowKey, FlowStats> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Bytes that each watched process has taken in, by all its descriptors.
#[map]
pub static FLOW_INTAKE: HashMap<u32, u64> = HashMap::with_max_entries(1024, BPF_F_NO_PREALLOC);

/// Start times of calls on descriptors of watched processes, slot by thread id.
#[map]
pub static FLOW_STARTS: Array<PackedStart> = Array::with_max_entries(65_536, 0);

/// Arrival marks, one ring a watched socket, freed with the socket.
#[btf_map]
pub static MARKS: SkStorage<MarkRing> = SkStorage::new();

const _: () = assert!(BPF_F_NO_PREALLOC == 1);

/// Counts a loss.
#[inline(always)]
pub fn lost(reason: LossReason) {
    lost_many(reason, 1);
}

/// Counts `times` losses.
#[inline(always)]
pub fn lost_many(reason: LossReason, times: u64) {
    if let Some(count) = LOST.get_ptr_mut(reason as u32) {
        // SAFETY: a per-CPU value, and tracing programs do not migrate while they run.
        unsafe { *count += times };
    }
}

/// Whether the whole-host switch `bit` is on.
#[inline(always)]
pub fn switched_on(bit: u32) -> bool {
    SCOPE.get(0).is_some_and(|scope| *scope & bit != 0)
}

/// Whether the current process, `tgid`, is watched for `bit`: as part of the host, by its number, or by its cgroup.
#[inline(always)]
pub fn watched(tgid: u32, bit: u32) -> bool {
    watched_or(tgid, bit, || in_watched_cgroup(bit))
}

/// Likewise a process that need not be the current one: `is_below` says whether it is in a watched cgroup.
#[inline(always)]
pub fn watched_or(tgid: u32, bit: u32, is_below: impl FnOnce() -> bool) -> bool {
    let Some(scope) = SCOPE.get(0) else { return false };
    if *scope & bit != 0 {
        return true;
    }
    if WATCH.get(tgid / 8).is_some_and(|word| (*word >> (tgid % 8 * 8)) & u64::from(bit) != 0) {
        return true;
    }
    *scope & (bit << SCOPE_CGROUPS) != 0 && is_below()
}

/// Has `child` watched as `parent` is.
#[inline(always)]
pub fn watch_like(child: u32, parent: u32) {
    let Some(bits) = WATCH.get(parent / 8).map(|word| (*word >> (parent % 8 * 8)) as u8) else { return };
    if let Some(word) = WATCH.get_ptr_mut(child / 8) {
        // SAFETY: one of the eight bytes of the word. It alone is written: the others are of processes that may be born at
        // this moment.
        unsafe { word.cast::<u8>().add((child % 8) as usize).write_volatile(bits) };
    }
}

/// Whether the current task runs in a cgroup that is watched for `bit`, or in one below it.
#[inline(never)]
fn in_watched_cgroup(bit: u32) -> bool {
    for index in 0..WATCHED_CGROUPS as u32 {
        let Some(watched) = CGROUPS.get(index) else { return false };
        if watched.id == 0 {
            return false;
        }
        // SAFETY: takes no pointer.
        if watched.bits & bit != 0 && unsafe { bpf_get_current_ancestor_cgroup_id(watched.level as i32) } == watched.id
        {
            return true;
        }
    }
    false
}
