//! Where the time of each thread goes: kept in the thread's own storage, freed with it.
//!
//! How much of a wait was waiting for a CPU is the kernel's to say: `sched_info.run_delay` is its own sum, exact, and
//! costs no probe at wakeups. It has the last wait in it once the thread runs, so a wait is split when the thread is next
//! looked at; until then its whole length stands in `off_ns`.

use core::ffi::c_void;

use agent_common::{SchedControl, ThreadRow, ThreadState, ThreadTimes, WAIT_REASONS};
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE};
use aya_ebpf::helpers::generated::bpf_task_storage_get;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::Array;

use crate::offsets::{OFF_TASK_LAST_ARRIVAL, OFF_TASK_LAST_QUEUED, OFF_TASK_RUN_DELAY, OFF_TASK_START, of};

/// What the agent tells these probes; entry 0.
#[map]
pub static SCHED: Array<SchedControl> = Array::with_max_entries(1, 0);

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
    const fn new() -> Self {
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

    /// Its totals, if it is followed now.
    #[inline(always)]
    pub fn times(self, epoch: u32) -> Option<&'static mut ThreadTimes> {
        self.storage(core::ptr::null_mut(), 0).filter(|times| times.epoch == epoch)
    }

    /// Its totals, made if need be, of whatever epoch. Only where no lock of the scheduler is held.
    #[inline(always)]
    pub fn times_made(self) -> Option<&'static mut ThreadTimes> {
        let begun = (&raw const NOTHING).cast_mut().cast();
        self.storage(begun, u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE))
    }

    #[inline(always)]
    fn storage(self, begun: *mut c_void, flags: u64) -> Option<&'static mut ThreadTimes> {
        let map = (&raw const THREADS).cast_mut().cast();
        // SAFETY: a trusted pointer and a map of task storage. The storage lives as long as the thread; only the CPU that
        // switches a thread writes it, and the census, which only reads, looks at `seq`.
        unsafe { bpf_task_storage_get(map, self.0.cast(), begun, flags).cast::<ThreadTimes>().as_mut() }
    }
}

/// The present orders of the agent.
#[inline(always)]
pub fn control() -> Option<&'static SchedControl> {
    SCHED.get(0)
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

/// Splits the last wait of a thread that runs.
#[inline(always)]
pub fn settle(times: &mut ThreadTimes, task: Task) {
    if times.off_ns == 0 {
        return;
    }
    let delay: u64 = task.get(&OFF_TASK_RUN_DELAY);
    let queued = share_of_queue(times, delay);
    times.runq_ns += queued;
    add_blocked(times, times.off_ns - queued);
    times.delay_seen_ns = delay;
    times.off_ns = 0;
    let arrived: u64 = task.get(&OFF_TASK_LAST_ARRIVAL);
    times.clock_offset_ns = times.since_ns.wrapping_sub(arrived);
}

/// How much of the last wait was waiting for a CPU, by the kernel's sum.
#[inline(always)]
pub fn share_of_queue(times: &ThreadTimes, delay: u64) -> u64 {
    if times.reason == PREEMPTED {
        return times.off_ns; // It never blocked: all of it.
    }
    delay.wrapping_sub(times.delay_seen_ns).min(times.off_ns)
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
/// a copy, so that they fit together.
#[inline(always)]
pub fn tell(times: &mut ThreadTimes, task: Task, now: u64, row: &mut ThreadRow) -> u64 {
    let time = now.max(times.since_ns);
    let passed = time - times.since_ns;
    row.started_ns = task.get(&OFF_TASK_START);
    row.first_ns = times.first_ns;
    row.since_ns = times.since_ns;
    row.switches = times.switches;
    if times.state == ThreadState::Running as u16 {
        settle(times, task);
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
