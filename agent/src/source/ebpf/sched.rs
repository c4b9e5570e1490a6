//! The scheduler's side of the live source: tells the probes whom to follow and how densely to sample, and takes the
//! census of threads, whose rows and stacks go into the batch like everything else.
//!
//! The stack of a thread that has not been switched for long cannot be taken by the thread itself: its kernel half comes
//! with the census, its user half is read out of its memory, once for each wait.

use std::collections::{BTreeSet, HashMap};

use agent_common::{
    CensusRow, RecordHeader, RecordKind, SampleKind, SchedControl, StackSample, ThreadState, UnwindEnd, Wire,
};
use aya::maps::{Array, MapData};

use super::pace::Pace;
use super::stacks::Stacks;
use super::wait_calls;
use crate::event::{RawBatch, encode};
use crate::kernel::unwind::{Ip, Registers};
use crate::kernel::{LoadError, LoadOptions, Probes};
use crate::source::Wanted;
use crate::source::clock::monotonic;
use crate::units::{Nanos, Pid};

/// Rows a second that are spent on it; more threads are asked less often.
const ROWS_A_SECOND: usize = 1000;
/// Slowest: once in a profile window.
const SLOWEST: u64 = 10;

/// Stacks of waits a second, at the most and about: each takes some microseconds of the thread that has waited, and ten
/// seconds of them tell a share to within two points. Big hosts switch more, and get more.
const WAITS: u64 = 150;
const WAITS_A_CPU: u64 = 40;
/// Likewise of wakers; with each comes the stack of the one who was woken.
const WAKERS: u64 = 50;
const WAKERS_A_CPU: u64 = 12;

/// What the source keeps of it.
pub(super) struct Sched {
    control: Array<MapData, SchedControl>,
    /// Filled once; kept, because programs are loaded when they are first attached and need the map then.
    _reasons: Array<MapData, u32>,
    orders: SchedControl,
    waits: Pace,
    wakeups: Pace,
    sampled: u64,
    woken: u64,
    /// When the paces were last told what came.
    told: Nanos,
    /// Rows of a census that was taken between two ticks.
    pending: RawBatch,
    /// Stacks of waits that go on, by thread and begin of the wait.
    stacks: HashMap<(u32, u64), Standing>,
    rows: usize,
    /// When the next census is.
    due: Nanos,
    failed: bool,
}

/// The stacks of a thread that stands still.
#[derive(Clone, Debug)]
struct Standing {
    kernel: Vec<u64>,
    /// `None` while a table that it needs is being made.
    user: Option<(Vec<u64>, UnwindEnd)>,
}

impl Sched {
    pub(super) fn new(probes: &mut Probes, options: LoadOptions) -> Result<Self, LoadError> {
        let mut reasons: Array<MapData, u32> = probes.map("WAIT_REASONS")?;
        for (entry, reason) in wait_calls::table() {
            let failed = |cause| LoadError::Map { what: "fill the table of wait reasons", cause };
            reasons.set(entry, reason, 0).map_err(failed)?;
        }
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| cpus.get() as u64);
        Ok(Self {
            control: probes.map("SCHED")?,
            _reasons: reasons,
            orders: SchedControl::default(),
            waits: Pace::new(options.period(), WAITS.max(WAITS_A_CPU * cpus)),
            wakeups: Pace::new(1, WAKERS.max(WAKERS_A_CPU * cpus)),
            told: Nanos(0),
            sampled: 0,
            woken: 0,
            pending: RawBatch::new(),
            stacks: HashMap::new(),
            rows: 0,
            due: Nanos(0),
            failed: false,
        })
    }

    /// Before somebody else is followed: the last totals of those who are followed now.
    pub(super) fn prepare(
        &mut self,
        (probes, stacks): (&mut Probes, &mut Stacks),
        now: &Wanted,
        then: &Wanted,
    ) -> Result<(), LoadError> {
        if now.sched == then.sched {
            return Ok(());
        }
        if now.sched.is_some() {
            let mut batch = std::mem::take(&mut self.pending);
            self.census((probes, stacks), &mut batch, &mut BTreeSet::new())?;
            self.pending = batch;
        }
        self.orders.epoch = self.orders.epoch.wrapping_add(1).max(1);
        self.order()
    }

    /// After the probes are attached: everybody's totals begin at one instant.
    pub(super) fn follow(
        &mut self,
        (probes, stacks): (&mut Probes, &mut Stacks),
        before: &Wanted,
        now: &Wanted,
    ) -> Result<(), LoadError> {
        self.orders.wake_one_in =
            if now.wakeups { u32::try_from(self.wakeups.period()).unwrap_or(u32::MAX) } else { 0 };
        self.orders.period_ns = self.waits.period();
        self.order()?;
        if before.sched != now.sched && now.sched.is_some() {
            let mut batch = std::mem::take(&mut self.pending);
            self.census((probes, stacks), &mut batch, &mut BTreeSet::new())?;
            self.pending = batch;
        }
        Ok(())
    }

    /// The next tick takes a census.
    pub(super) fn hurry(&mut self) {
        self.due = Nanos(0);
    }

    /// Counts a record of the ring buffer.
    pub(super) fn count(&mut self, record: &[u8]) {
        if let Some((header, body)) = RecordHeader::from_prefix(record)
            && header.kind == RecordKind::Stack as u16
            && let Some((sample, _)) = StackSample::from_prefix(body)
        {
            self.count_kind(sample.kind);
        }
    }

    fn count_kind(&mut self, kind: u16) {
        if kind == SampleKind::OffCpu as u16 || kind == SampleKind::RunQueue as u16 {
            self.sampled += 1;
        } else if kind == SampleKind::Wakeup as u16 {
            self.woken += 1;
        }
    }

    /// A tick: a census when it is due, and the pace by what came.
    pub(super) fn tick(
        &mut self,
        (probes, stacks): (&mut Probes, &mut Stacks),
        batch: &mut RawBatch,
        seen: &mut BTreeSet<Pid>,
    ) {
        batch.push_records(&self.pending);
        self.pending.clear();
        let now = monotonic();
        if now >= self.due {
            match self.census((probes, stacks), batch, seen) {
                Ok(()) => self.failed = false,
                Err(error) if !std::mem::replace(&mut self.failed, true) => {
                    tracing::warn!(%error, "waits that go on are not seen");
                }
                Err(_said) => {}
            }
            let seconds = u64::try_from(self.rows.div_ceil(ROWS_A_SECOND)).unwrap_or(SLOWEST).max(1);
            // Half a tick early, so that it is not a whole one late.
            self.due = now + Nanos::from_secs(seconds.min(SLOWEST)).since(Nanos(Nanos::TICK.0 / 2));
        }
        let (sampled, woken) = (std::mem::take(&mut self.sampled), std::mem::take(&mut self.woken));
        let span = now.since(std::mem::replace(&mut self.told, now));
        let changed = [self.waits.observe(sampled, span), self.wakeups.observe(woken, span)];
        if changed != [false; 2] {
            self.orders.period_ns = self.waits.period();
            if self.orders.wake_one_in > 0 {
                self.orders.wake_one_in = u32::try_from(self.wakeups.period()).unwrap_or(u32::MAX);
            }
            if let Err(error) = self.order() {
                tracing::warn!(%error, "waits are sampled as densely as before");
            }
        }
    }

    /// From now on waits are sampled so many times as rarely as once every `base` of waiting.
    pub(super) fn thin(&mut self, base: Nanos, factor: u32) -> Result<(), LoadError> {
        self.waits.keep_above(base.0.saturating_mul(u64::from(factor.max(1))));
        self.orders.period_ns = self.waits.period();
        self.order()
    }

    fn order(&mut self) -> Result<(), LoadError> {
        let failed = |cause| LoadError::Map { what: "give orders to the scheduler's probes", cause };
        self.control.set(0, self.orders, 0).map_err(failed)
    }

    fn census(
        &mut self,
        (probes, unwinder): (&mut Probes, &mut Stacks),
        batch: &mut RawBatch,
        seen: &mut BTreeSet<Pid>,
    ) -> Result<(), LoadError> {
        self.orders.census_ns = monotonic().0;
        self.order()?;
        let bytes = probes.census()?;
        let mut rest = &bytes[..];
        let mut before = std::mem::take(&mut self.stacks);
        self.rows = 0;
        while let Some((row, after)) = CensusRow::from_prefix(rest) {
            let length = usize::try_from(row.kernel_len).unwrap_or(usize::MAX);
            let Some((kernel, after)) = after.split_at_checked(length) else { break };
            rest = after;
            self.rows += 1;
            seen.insert(Pid(row.row.pid));
            encode::thread(batch, Nanos(row.time_ns), &row.row);
            let place = (row.row.tid, row.row.since_ns);
            let known = before.remove(&place).filter(|stacks| row.told != 0 && stacks.user.is_some());
            if row.weight_ns > 0 {
                let stacks = known.unwrap_or_else(|| read_stacks(&row, kernel, unwinder));
                tell_wait(batch, &row, &stacks, unwinder);
                self.stacks.insert(place, stacks);
            } else if let Some(stacks) = known {
                self.stacks.insert(place, stacks);
            }
        }
        Ok(())
    }
}

fn read_stacks(row: &CensusRow, kernel: &[u8], unwinder: &mut Stacks) -> Standing {
    let kernel = kernel.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect();
    let CensusRow { ip, sp, bp, bx, di, .. } = *row;
    // The address after a system call: it is in the function that made it, whichever way it is looked up.
    let registers = Registers { ip, sp, bp, bx: Some(bx), di: Some(di), at: Ip::Next };
    Standing { kernel, user: unwinder.standing((row.row.pid, row.row.tid), Nanos(row.time_ns), registers) }
}

fn tell_wait(batch: &mut RawBatch, row: &CensusRow, stacks: &Standing, unwinder: &mut Stacks) {
    let blocked = row.row.state == ThreadState::Blocked as u16;
    let kind = if blocked { SampleKind::OffCpu } else { SampleKind::RunQueue };
    let ip = [row.ip];
    let (user, user_end) = stacks.user.as_ref().map_or((&ip[..], UnwindEnd::NoTable), |(user, end)| (user, *end));
    unwinder.count(user_end);
    let sample = StackSample {
        pid: row.row.pid,
        tid: row.row.tid,
        comm: row.row.comm,
        cgroup: row.row.cgroup,
        weight: row.weight_ns,
        kind: kind as u16,
        reason: if blocked { row.row.reason } else { 0 },
        user_end: user_end as u16,
        ..StackSample::ZERO
    };
    encode::stack(batch, Nanos(row.time_ns), sample, &stacks.kernel, user);
}
