//! What stands on standard error beside a profile: how many samples there should be and what became of them, the CPU time
//! that they stand for beside the kernel's own figure, how many stacks are whole, how many frames have no name.

use std::fmt::Write as _;

use agent_common::{SampleKind, UnwindEnd};

use crate::aggregate::ledger::Ledger;
use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::StackCounts;
use crate::symbolize::resolver::frames as places;
use crate::symbolize::{Names, Space};
use crate::units::{Nanos, ProfileKind};

/// What is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Account<'a> {
    pub(super) kind: ProfileKind,
    pub(super) counts: &'a StackCounts,
    pub(super) names: &'a Names,
    pub(super) lost: &'a Lost,
    /// The sampler's own account; absent for kinds without a timer.
    pub(super) ledger: Option<Ledger>,
    /// CPU time that the kernel charged meanwhile, and to whom.
    pub(super) charged: Option<(Nanos, &'a str)>,
}

/// The ledger, line by line.
pub(super) fn lines(account: &Account<'_>) -> String {
    let mut text = String::new();
    let written = write(&mut text, account);
    debug_assert!(written.is_ok(), "a string takes everything");
    text
}

fn write(text: &mut String, account: &Account<'_>) -> std::fmt::Result {
    let Account { kind, counts, names, lost, ledger, charged } = account;
    writeln!(text, "samples {}", counts.total())?;
    if let Some(ledger) = ledger {
        write!(text, "expected {} = delivered {}", ledger.expected(), ledger.0.delivered)?;
        for (reason, count) in ledger.lost_by_reason() {
            write!(text, " + {reason} {count}")?;
        }
        writeln!(text)?;
        // Both sides of the ring buffer count for themselves.
        let arrived = counts.total().saturating_add(counts.overflow);
        if *kind == ProfileKind::Cpu && arrived != ledger.0.delivered {
            writeln!(text, "delivered {} but read {arrived}: records were lost on the way", ledger.0.delivered)?;
        }
        cpu_time(text, counts, *charged)?;
    }
    for (reason, count) in lost.by_reason().into_iter().filter(|(_, count)| *count > 0) {
        writeln!(text, "lost: {reason} {count}")?;
    }
    if counts.overflow > 0 {
        writeln!(text, "lost: table_full {}", counts.overflow)?;
    }
    ends(text, counts)?;
    unnamed(text, counts, names)
}

#[expect(clippy::cast_precision_loss, reason = "a percentage with one digit")]
fn cpu_time(text: &mut String, counts: &StackCounts, charged: Option<(Nanos, &str)>) -> std::fmt::Result {
    let running = counts.counts.iter().filter(|(key, _)| key.kind == SampleKind::Cpu);
    let delivered = Nanos(running.fold(0, |sum: u64, (_, tally)| sum.saturating_add(tally.weight)));
    write!(text, "CPU time {:.3} s delivered", delivered.as_secs_f64())?;
    if let Some((charged, whom)) = charged.filter(|(charged, _)| charged.0 > 0) {
        let more = (delivered.0 as f64 / charged.0 as f64 - 1.0) * 100.0;
        write!(text, ", {:.3} s charged to {whom} ({more:+.2} %)", charged.as_secs_f64())?;
    }
    writeln!(text)
}

/// Where user stacks ended.
fn ends(text: &mut String, counts: &StackCounts) -> std::fmt::Result {
    let mut ends = [0_u64; UnwindEnd::ALL.len()];
    for (key, tally) in &counts.counts {
        ends[key.user_end as usize] += tally.samples;
    }
    let all: u64 = ends.iter().sum::<u64>() - ends[UnwindEnd::NoUser as usize];
    if all == 0 {
        return Ok(());
    }
    write!(text, "user stacks whole {} of {all}", per_mille(ends[UnwindEnd::Entry as usize], all))?;
    let others = UnwindEnd::ALL.into_iter().filter(|end| !matches!(end, UnwindEnd::NoUser | UnwindEnd::Entry));
    for end in others.filter(|end| ends[*end as usize] > 0) {
        write!(text, ", {} {}", name(end), ends[end as usize])?;
    }
    writeln!(text)
}

/// Rounded down: a stack that is not whole is never shown as one.
fn per_mille(part: u64, all: u64) -> String {
    let tenths = part.saturating_mul(1000) / all.max(1);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

fn name(end: UnwindEnd) -> &'static str {
    match end {
        UnwindEnd::NoUser => "no_user",
        UnwindEnd::Entry => "entry",
        UnwindEnd::NoMapping => "no_mapping",
        UnwindEnd::NoTable => "no_table",
        UnwindEnd::NoRow => "no_row",
        UnwindEnd::Unsupported => "unsupported",
        UnwindEnd::BadRead => "bad_read",
        UnwindEnd::Truncated => "truncated",
        UnwindEnd::Jit => "jit",
        UnwindEnd::Stuck => "stuck",
    }
}

fn unnamed(text: &mut String, counts: &StackCounts, names: &Names) -> std::fmt::Result {
    let (mut frames, mut unnamed) = (0_u64, 0_u64);
    for (key, tally) in &counts.counts {
        let count = tally.samples;
        let places = places(&key.kernel, Space::Kernel).chain(places(&key.user, Space::User(key.pid)));
        for (space, address) in places {
            frames += count;
            let known = names.get(space, address).is_some_and(|n| n.iter().all(|n| !n.contains("+0x")));
            unnamed += if known { 0 } else { count };
        }
    }
    if frames == 0 {
        return Ok(());
    }
    // In tenths of a percent, rounded up: one that is there is never shown as none.
    let tenths = (unnamed * 1000).div_ceil(frames);
    writeln!(text, "frames without a name {}.{} %", tenths / 10, tenths % 10)
}
