//! What was lost, by reason. Built so that a new reason cannot be forgotten: every use destructures it.

use agent_common::LossReason;
use serde::Serialize;

/// Losses by reason: cumulative, or of one window when made by [`Lost::since`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Samples that found the ring buffer full.
    pub ring_full: u64,
    /// Samples that found no scratch record.
    pub scratch_missing: u64,
    /// Samples whose kernel stack could not be taken.
    pub kernel_stack_failed: u64,
    /// Samples whose user stack could not be taken.
    pub user_stack_failed: u64,
    /// System calls of keys that found no room.
    pub syscall_table_full: u64,
    /// Latencies lost because two threads shared a slot.
    pub slot_collision: u64,
    /// Latencies lost because the call began before the probe.
    pub start_unseen: u64,
    /// Sockets that found no room.
    pub socket_table_full: u64,
    /// Sampling periods in which the timer did not fire.
    pub timer_late: u64,
    /// Threads that found no room: their waiting is not known.
    pub thread_table_full: u64,
    /// User stacks that ended in no known mapping (the sample still counts, as with those below).
    pub unwind_no_mapping: u64,
    /// User stacks that ended in a file whose table is not loaded.
    pub unwind_no_table: u64,
    /// User stacks that ended at an address without a row.
    pub unwind_no_row: u64,
    /// User stacks that ended at a row that the unwinder cannot do.
    pub unwind_unsupported: u64,
    /// User stacks that could not be read further.
    pub unwind_bad_read: u64,
    /// User stacks with more frames than a sample holds.
    pub unwind_truncated: u64,
    /// User stacks that ended in code made at run time.
    pub unwind_jit: u64,
    /// User stacks that went in a circle.
    pub unwind_stuck: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
}

impl Lost {
    /// Takes in a cumulative counter of the kernel side.
    pub fn set(&mut self, reason: LossReason, count: u64) {
        let field = match reason {
            LossReason::RingFull => &mut self.ring_full,
            LossReason::ScratchMissing => &mut self.scratch_missing,
            LossReason::KernelStackFailed => &mut self.kernel_stack_failed,
            LossReason::UserStackFailed => &mut self.user_stack_failed,
            LossReason::SyscallTableFull => &mut self.syscall_table_full,
            LossReason::SlotCollision => &mut self.slot_collision,
            LossReason::StartUnseen => &mut self.start_unseen,
            LossReason::SocketTableFull => &mut self.socket_table_full,
            LossReason::TimerLate => &mut self.timer_late,
            LossReason::ThreadTableFull => &mut self.thread_table_full,
            LossReason::UnwindNoMapping => &mut self.unwind_no_mapping,
            LossReason::UnwindNoTable => &mut self.unwind_no_table,
            LossReason::UnwindNoRow => &mut self.unwind_no_row,
            LossReason::UnwindUnsupported => &mut self.unwind_unsupported,
            LossReason::UnwindBadRead => &mut self.unwind_bad_read,
            LossReason::UnwindTruncated => &mut self.unwind_truncated,
            LossReason::UnwindJit => &mut self.unwind_jit,
            LossReason::UnwindStuck => &mut self.unwind_stuck,
        };
        *field = count;
    }

    /// Name and count of every reason, in a fixed order.
    pub fn by_reason(&self) -> [(&'static str, u64); 19] {
        let Self {
            ring_full,
            scratch_missing,
            kernel_stack_failed,
            user_stack_failed,
            syscall_table_full,
            slot_collision,
            start_unseen,
            socket_table_full,
            timer_late,
            thread_table_full,
            unwind_no_mapping,
            unwind_no_table,
            unwind_no_row,
            unwind_unsupported,
            unwind_bad_read,
            unwind_truncated,
            unwind_jit,
            unwind_stuck,
            undecodable,
        } = *self;
        [
            ("ring_full", ring_full),
            ("scratch_missing", scratch_missing),
            ("kernel_stack_failed", kernel_stack_failed),
            ("user_stack_failed", user_stack_failed),
            ("syscall_table_full", syscall_table_full),
            ("slot_collision", slot_collision),
            ("start_unseen", start_unseen),
            ("socket_table_full", socket_table_full),
            ("timer_late", timer_late),
            ("thread_table_full", thread_table_full),
            ("unwind_no_mapping", unwind_no_mapping),
            ("unwind_no_table", unwind_no_table),
            ("unwind_no_row", unwind_no_row),
            ("unwind_unsupported", unwind_unsupported),
            ("unwind_bad_read", unwind_bad_read),
            ("unwind_truncated", unwind_truncated),
            ("unwind_jit", unwind_jit),
            ("unwind_stuck", unwind_stuck),
            ("undecodable", undecodable),
        ]
    }

    /// Samples that never became stacks.
    pub fn samples(&self) -> u64 {
        self.ring_full.saturating_add(self.scratch_missing).saturating_add(self.timer_late)
    }

    /// What was lost since `earlier`. A counter that fell (the probes were loaded anew) counts from zero.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let d = |now: u64, then: u64| if now >= then { now - then } else { now };
        Self {
            ring_full: d(self.ring_full, earlier.ring_full),
            scratch_missing: d(self.scratch_missing, earlier.scratch_missing),
            kernel_stack_failed: d(self.kernel_stack_failed, earlier.kernel_stack_failed),
            user_stack_failed: d(self.user_stack_failed, earlier.user_stack_failed),
            syscall_table_full: d(self.syscall_table_full, earlier.syscall_table_full),
            slot_collision: d(self.slot_collision, earlier.slot_collision),
            start_unseen: d(self.start_unseen, earlier.start_unseen),
            socket_table_full: d(self.socket_table_full, earlier.socket_table_full),
            timer_late: d(self.timer_late, earlier.timer_late),
            thread_table_full: d(self.thread_table_full, earlier.thread_table_full),
            unwind_no_mapping: d(self.unwind_no_mapping, earlier.unwind_no_mapping),
            unwind_no_table: d(self.unwind_no_table, earlier.unwind_no_table),
            unwind_no_row: d(self.unwind_no_row, earlier.unwind_no_row),
            unwind_unsupported: d(self.unwind_unsupported, earlier.unwind_unsupported),
            unwind_bad_read: d(self.unwind_bad_read, earlier.unwind_bad_read),
            unwind_truncated: d(self.unwind_truncated, earlier.unwind_truncated),
            unwind_jit: d(self.unwind_jit, earlier.unwind_jit),
            unwind_stuck: d(self.unwind_stuck, earlier.unwind_stuck),
            undecodable: d(self.undecodable, earlier.undecodable),
        }
    }
}
