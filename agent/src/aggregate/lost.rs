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
        self.with(earlier, |now, then| if now >= then { now - then } else { now })
    }

    /// This and `other` together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// Sets the count of the reason of that name, if there is one.
    pub fn set_named(&mut self, reason: &str, count: u64) {
        let reasons = self.by_reason().map(|(name, old)| if name == reason { count } else { old });
        *self = Self::from_counts(reasons);
    }

    fn with(&self, other: &Self, join: impl Fn(u64, u64) -> u64) -> Self {
        let (mut mine, theirs) = (self.by_reason().map(|(_, count)| count), other.by_reason());
        mine.iter_mut().zip(theirs).for_each(|(mine, (_, theirs))| *mine = join(*mine, theirs));
        Self::from_counts(mine)
    }

    /// From the counts in the order of [`Lost::by_reason`].
    fn from_counts(counts: [u64; 19]) -> Self {
        let [
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
        ] = counts;
        Self {
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_set_by_its_name_added_and_taken_off() {
        let mut all = Lost::default();
        for (n, (reason, _)) in (1..).zip(Lost::default().by_reason()) {
            all.set_named(reason, n);
        }
        assert_eq!(all.by_reason().map(|(_, count)| count), std::array::from_fn(|n| n as u64 + 1));
        all.set_named("no such reason", 99);
        assert_eq!(all.plus(&all).since(&all), all);
    }
}
