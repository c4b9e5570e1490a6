//! Where the time of each thread goes: kept in the thread's own storage, freed with it.
//!
//! A thread's totals are brought up to date when it leaves its CPU, all at once: since when it ran is what the CPU noted
//! when it came in. So a switch looks up the thread that leaves, which is warm, and not the one that comes, which is cold.
//!
//! How much of a wait was waiting for a CPU is the kernel's to say: `sched_info.run_delay` is its own sum, exact, and costs
//! no probe at wakeups. It has the last wait in it once the thread runs.

use core::ffi::c_void;

use agent_common::{CpuSlot, SchedControl, ThreadRow, ThreadState, ThreadTimes, WAIT_REASONS};
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE};
use aya_ebpf::helpers::generated::{bpf_map_lookup_percpu_elem, bpf_task_storage_get};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, PerCpuArray};

use crate::offsets::{
    OFF_TASK_CPU, OFF_TASK_LAST_ARRIVAL, OFF_TASK_LAST_QUEUED, OFF_TASK_RUN_DELAY, OFF_TASK_START, OFF_TASK_STORAGE, of,
};

/// What the agent tells these probes; entry 0.
#[map]
pub static SCHED: Array<SchedControl> = Array::with_max_entries(1, 0);

/// What the switches of a CPU leave for each other; entry 0.
#[map]
static SLOTS: PerCpuArray<CpuSlot> = PerCpuArray::with_max_entries(1, 0);

/// Totals of followed threads.
#[btf_map]
pub static THREADS: TaskStorage<ThreadTimes> = TaskStorage::new();

/// A map of task storage, as the loader reads it from BTF: the fields are never looked at here.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: nothing is ever read or written through it from Rust.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    pub const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }
}

static NOTHING: ThreadTimes = ThreadTimes::ZERO;

/// A thread of the kernel's own, and a pointer to it that the verifier trusts.
#[derive(Clone, Copy)]
pub struct Task(pub *mut c_void);

impl Task {
    /// The field of type `T` that lies at `offset`.
    #[inline(always)]
    pub fn get<T: Copy>(self, offset: &'static u32) -> T {
        // SAFETY: a trusted pointer; the place is that of such a field in the running kernel, and the verifier checks it.
        unsafe { *self.0.byte_add(of(offset)).cast::<T>() }
    }

    /// Likewise, and now: not where it is first used.
    #[inline(always)]
    pub fn early<T: Copy>(self, offset: &'static u32) -> T {
        // SAFETY: as above.
        unsafe { self.0.byte_add(of(offset)).cast::<T>().read_volatile() }
    }

    /// Whether it may be followed: a load, where a look-up in vain would be a call.
    #[inline(always)]
    pub fn has_storage(self) -> bool {
        // SAFETY: as above. Volatile, or two of them become one test of both pointers at once, which the verifier refuses.
        unsafe { self.0.byte_add(of(&OFF_TASK_STORAGE)).cast::<u64>().read_volatile() != 0 }
    }

    /// Its totals, if it is followed now.
    #[inline(always)]
    pub fn times(self, epoch: u32) -> Option<&'static mut ThreadTimes> {
        self.kept(&raw const THREADS, core::ptr::null(), 0).filter(|times| times.epoch == epoch)
    }

    /// Its totals, made if need be, of whatever epoch. Only where no lock of the scheduler is held.
    #[inline(always)]
    pub fn times_made(self) -> Option<&'static mut ThreadTimes> {
        self.kept_or_made(&raw const THREADS, &NOTHING)
    }

    /// What `storage` keeps for it, a copy of `begun` if nothing was kept. Only where no lock of the scheduler is held.
    #[inline(always)]
    pub fn kept_or_made<T>(self, storage: *const TaskStorage<T>, begun: &'static T) -> Option<&'static mut T> {
        self.kept(storage, begun, u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE))
    }

    #[inline(always)]
    fn kept<T>(self, storage: *const TaskStorage<T>, begun: *const T, flags: u64) -> Option<&'static mut T> {
        let (map, begun) = (storage.cast_mut().cast(), begun.cast_mut().cast());
        // SAFETY: a trusted pointer and a map of task storage. What is kept lives as long as the thread; only the CPU that
        // runs or switches a thread writes it, and the census, which only reads, looks at `seq`.
        unsafe { bpf_task_storage_get(map, self.0.cast(), begun, flags).cast::<T>().as_mut() }
    }
}

/// The present orders of the agent.
#[inline(always)]
pub fn control() -> Option<&'static SchedControl> {
    SCHED.get(0)
}

/// The slot of this CPU.
#[inline(always)]
pub fn slot() -> Option<&'static mut CpuSlot> {
    // SAFETY: a per-CPU value that the switches of this CPU write, one after the other; others only read it.
    SLOTS.get_ptr_mut(0).map(|slot| unsafe { &mut *slot })
}

/// Since when `task`, whose totals are `times`, runs; 0 when it does not. (Verifiers dislike the half of an `Option` that is
/// not there.)
#[inline(always)]
pub fn runs_since(task: Task, tid: u32, times: &ThreadTimes) -> u64 {
    let key = 0_u32;
    let map = (&raw const SLOTS).cast_mut().cast();
    // SAFETY: a per-CPU array and a key of it. Another CPU may be writing what is found, so it is read word by word.
    let slot = unsafe { bpf_map_lookup_percpu_elem(map, (&raw const key).cast(), task.get(&OFF_TASK_CPU)) };
    let slot: *const CpuSlot = slot.cast_const().cast();
    if !slot.is_null() {
        // SAFETY: a value of the map, aligned.
        let (before, since, after) = unsafe {
            let before = (&raw const (*slot).tid).read_volatile();
            let since = (&raw const (*slot).since_ns).read_volatile();
            (before, since, (&raw const (*slot).tid).read_volatile())
        };
        // What is older than the totals is left from a time before it last left a CPU.
        if before == tid && after == tid && since >= times.since_ns {
            return since;
        }
    }
    // It ran when it was begun to be followed, and has done so ever since.
    if times.state == ThreadState::Running as u16 { times.since_ns } else { 0 }
}

/// Starts to follow a thread that is in `state` at `now`.
#[inline(always)]
pub fn begin(times: &mut ThreadTimes, task: Task, epoch: u32, now: u64, state: ThreadState, reason: u16) {
    *times = ThreadTimes::ZERO;
    times.state = state as u16;
    times.reason = reason;
    times.first_ns = now;
    times.since_ns = now;
    times.charged_ns = now;
    times.delay_seen_ns = task.get(&OFF_TASK_RUN_DELAY);
    write_fence();
    // Last: whoever sees the epoch sees the rest.
    times.epoch = epoch;
}

/// Splits the wait that ended when the thread came in at `since`: the totals are then up to that time.
#[inline(always)]
pub fn came_in(times: &mut ThreadTimes, task: Task, since: u64) {
    if since <= times.since_ns {
        return;
    }
    let waited = since - times.since_ns;
    let delay: u64 = task.get(&OFF_TASK_RUN_DELAY);
    let queued = share_of_queue(times, waited, delay);
    times.runq_ns += queued;
    add_blocked(times, waited - queued);
    times.delay_seen_ns = delay;
    let arrived: u64 = task.get(&OFF_TASK_LAST_ARRIVAL);
    times.clock_offset_ns = since.wrapping_sub(arrived);
    times.since_ns = since;
}

/// How much of the last wait was waiting for a CPU, by the kernel's sum.
#[inline(always)]
pub fn share_of_queue(times: &ThreadTimes, waited: u64, delay: u64) -> u64 {
    if times.reason == PREEMPTED {
        return waited; // It never blocked: all of it.
    }
    delay.wrapping_sub(times.delay_seen_ns).min(waited)
}

/// [`ThreadTimes::reason`] of a wait in which the thread could have run all along.
pub const PREEMPTED: u16 = u16::MAX;

#[inline(always)]
fn add_blocked(times: &mut ThreadTimes, length: u64) {
    let reason = usize::from(times.reason);
    if reason < WAIT_REASONS {
        times.blocked_ns[reason] += length;
    }
}

/// Copies the totals into `row` as of `now`, or as of its last switch when that was later; returns which. The times are
/// a copy, so that they fit together; `running` says since when it runs, 0 that it does not.
#[inline(always)]
pub fn tell(times: &mut ThreadTimes, task: Task, now: u64, running: u64, row: &mut ThreadRow) -> u64 {
    if running != 0 {
        came_in(times, task, running);
        times.state = ThreadState::Running as u16;
    }
    let time = now.max(times.since_ns);
    let passed = time - times.since_ns;
    row.started_ns = task.get(&OFF_TASK_START);
    row.first_ns = times.first_ns;
    row.since_ns = times.since_ns;
    row.switches = times.switches;
    if times.state == ThreadState::Running as u16 {
        times.run_ns += passed;
    } else if times.state == ThreadState::Runnable as u16 {
        times.runq_ns += passed;
    } else if times.state == ThreadState::Blocked as u16 {
        // Woken, and still without a CPU: the scheduler's own clock says since when.
        let queued: u64 = task.get(&OFF_TASK_LAST_QUEUED);
        let since = queued.wrapping_add(times.clock_offset_ns);
        let mut waited = 0;
        if queued != 0 && times.clock_offset_ns != 0 && since < time {
            waited = (time - since).min(passed);
            times.state = ThreadState::Runnable as u16;
        }
        times.runq_ns += waited;
        add_blocked(times, passed - waited);
    }
    row.state = times.state;
    row.reason = if times.reason == PREEMPTED { 0 } else { times.reason };
    row.run_ns = times.run_ns;
    row.runq_ns = times.runq_ns;
    row.blocked_ns = times.blocked_ns;
    time
}

/// Keeps the compiler from moving a store past this place. `x86_64` keeps stores in order itself.
#[inline(always)]
pub fn write_fence() {
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
}
