//! Stack samples out of the ring buffer. What the kernel side could not finish is finished here before anybody else sees
//! it: a record that is passed on never holds a copy of a stack.

use std::collections::{BTreeSet, VecDeque};

use agent_common::{
    LOSS_REASONS, LedgerAccount, LedgerRow, LossReason, RecordHeader, RecordKind, StackSample, UnwindEnd, Wire,
};
use aya::maps::{MapData, PerCpuArray, RingBuf};

use crate::event::{RawBatch, encode};
use crate::kernel::unwind::{Children, Interest, Registers, Resumed, Tracker, Wakeup};
use crate::kernel::{LoadError, Probes};
use crate::source::clock::monotonic;
use crate::source::{Offspring, Scope, Wanted};
use crate::units::{Nanos, Pid};

/// Most bytes of unfinished samples that wait for a table.
const MOST_WAITING: usize = 8 << 20;
/// Most bytes of samples that are taken out of the ring buffer before the tick.
const MOST_EARLY: usize = 8 << 20;
/// For so long a sample waits for a table.
const PATIENCE: Nanos = Nanos::from_secs(5);
/// Between two looks at what happened to processes: births come in storms.
const REST: Nanos = Nanos(2_000_000);

/// Samples, and what they need to be whole.
pub(super) struct Stacks {
    tracker: Tracker,
    samples: RingBuf<MapData>,
    ledger: PerCpuArray<MapData, LedgerAccount>,
    period: Nanos,
    sent_ledger: LedgerRow,
    /// Records that were taken out of the ring buffer before the tick, oldest first.
    early: Vec<Vec<u8>>,
    early_bytes: usize,
    /// Unfinished samples, oldest first.
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// Ends of stacks that were found out here, by reason: the kernel side has not counted them.
    lost: [u64; LOSS_REASONS as usize],
    events: Option<Wakeup>,
    looked: Nanos,
}

impl Stacks {
    pub(super) fn new(probes: &mut Probes, period: Nanos) -> Result<Self, LoadError> {
        Ok(Self {
            tracker: Tracker::new(probes)?,
            samples: probes.map("SAMPLES")?,
            ledger: probes.map("LEDGER")?,
            period,
            sent_ledger: LedgerRow::default(),
            early: Vec::new(),
            early_bytes: 0,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            lost: [0; LOSS_REASONS as usize],
            events: None,
            looked: Nanos(0),
        })
    }

    /// Time between two CPU samples from now on.
    pub(super) fn set_period(&mut self, period: Nanos) {
        self.period = period;
    }

    /// Follows the processes whose stacks are wanted; waits for their tables no longer than `settle`.
    pub(super) fn follow(&mut self, wanted: &Wanted, settle: Nanos) -> Result<(), LoadError> {
        let begin = monotonic();
        self.events = None;
        let children = match wanted.offspring {
            Offspring::Ignored => Children::Left,
            Offspring::Watched => Children::Followed,
        };
        self.tracker.follow(interest(wanted), children, begin)?;
        while self.tracker.pending() {
            let left = (begin + settle).since(monotonic());
            if left == Nanos(0) {
                break;
            }
            self.tracker.wait(left.min(Nanos(50_000_000)).into());
        }
        Ok(())
    }

    /// Ends when something happened to a process; never when nobody wants stacks.
    pub(super) async fn happened(&mut self) {
        let rest = (self.looked + REST).since(monotonic());
        if rest > Nanos(0) {
            tokio::time::sleep(rest.into()).await;
        }
        if self.events.is_none() {
            self.events = self.tracker.readiness().and_then(|of| Wakeup::on(of).ok());
        }
        match &self.events {
            Some(events) => {
                if events.wait().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            // The tick looks all the same.
            None => std::future::pending().await,
        }
    }

    /// Takes in what happened to processes, and what there is of samples: those of new processes come with their stacks, and
    /// a storm of them would fill the ring buffer before the tick.
    pub(super) fn look(&mut self) {
        while self.early_bytes < MOST_EARLY
            && let Some(item) = self.samples.next()
        {
            self.early_bytes += item.len();
            self.early.push(item.to_vec());
        }
        self.follow_events();
    }

    fn follow_events(&mut self) {
        let now = monotonic();
        self.tracker.look(now);
        self.looked = now;
    }

    /// Moves the samples that wait from the ring buffer into `batch`; `each` sees them as they come.
    pub(super) fn drain(
        &mut self,
        now: Nanos,
        batch: &mut RawBatch,
        seen: &mut BTreeSet<Pid>,
        mut each: impl FnMut(&[u8]),
    ) {
        let mut waiting = std::mem::take(&mut self.waiting);
        self.waiting_bytes = 0;
        let mut came = Vec::new();
        let mut whose: Vec<(u32, Nanos)> = Vec::new();
        let mut take = |item: &[u8]| {
            let Some((head, pid, copied)) = peek(item) else { return };
            seen.insert(Pid(pid));
            let is_stack = head.kind == RecordKind::Stack as u16;
            if is_stack {
                whose.push((pid, Nanos(head.time_ns)));
            }
            each(item);
            if is_stack && copied > 0 {
                came.push(item.to_vec());
            } else {
                batch.push_record(item);
            }
        };
        self.early.drain(..).for_each(|item| take(&item));
        self.early_bytes = 0;
        while let Some(item) = self.samples.next() {
            take(&item);
        }
        // After the samples: what happened to a process before one of them is known by now.
        self.follow_events();
        for record in waiting.drain(..).chain(came) {
            self.pass(now, record, batch);
        }
        for (pid, time) in whose {
            for mapping in self.tracker.untold(pid, time) {
                encode::mapping(batch, now, &mapping);
            }
        }
    }

    /// Finishes everything that can be finished in `patience`, and gives up on the rest.
    pub(super) fn finish(&mut self, patience: Nanos, batch: &mut RawBatch) {
        let begin = monotonic();
        while !self.waiting.is_empty() {
            let now = monotonic();
            let left = (begin + patience).since(now);
            let late = if left == Nanos(0) { Nanos(u64::MAX) } else { now };
            if left > Nanos(0) {
                self.tracker.wait(left.min(Nanos(50_000_000)).into());
            }
            let waiting = std::mem::take(&mut self.waiting);
            self.waiting_bytes = 0;
            for record in waiting {
                self.pass(late, record, batch);
            }
        }
    }

    /// The user stack of a thread that has stood still since `time`; `None` while a table that it needs is being made.
    pub(super) fn standing(
        &mut self,
        (pid, tid): (u32, u32),
        time: Nanos,
        registers: Registers,
    ) -> Option<(Vec<u64>, UnwindEnd)> {
        match self.tracker.standing(pid, tid, time, monotonic(), registers) {
            Resumed::Wait => None,
            Resumed::Done(frames, end) => Some((frames, end)),
        }
    }

    /// Counts how a stack ended that the kernel side has not counted.
    pub(super) fn count(&mut self, end: UnwindEnd) {
        if let Some(count) = end.loss().and_then(|reason| self.lost.get_mut(reason as usize)) {
            *count += 1;
        }
    }

    /// Ends of stacks that were found out here.
    pub(super) fn lost(&self, reason: LossReason) -> u64 {
        self.lost.get(reason as usize).copied().unwrap_or(0)
    }

    /// Whether nothing waits for a table: whatever comes then is whole as it comes.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && !self.tracker.pending()
    }

    /// What cannot be unwound, and why.
    pub(super) fn degraded(&self) -> Vec<String> {
        self.tracker.degraded()
    }

    /// Appends the sampler's account if it has changed.
    pub(super) fn account(&mut self, now: Nanos, batch: &mut RawBatch) {
        let Ok(accounts) = self.ledger.get(&0, 0) else { return };
        let mut sum = LedgerRow { period_ns: self.period.0, ..LedgerRow::default() };
        for LedgerAccount { counts, last_ns: _, last_tid: _, last_arrival: _ } in accounts.iter() {
            let LedgerRow { period_ns: _, fired, idle, unwatched, delivered, refused, late, late_elsewhere } = *counts;
            sum.fired += fired;
            sum.idle += idle;
            sum.unwatched += unwatched;
            sum.delivered += delivered;
            sum.refused += refused;
            sum.late += late;
            sum.late_elsewhere += late_elsewhere;
        }
        if sum.fired != self.sent_ledger.fired {
            self.sent_ledger = sum;
            encode::ledger(batch, now, &sum);
        }
    }

    /// Passes an unfinished sample on, finished, or keeps it until its table is there.
    fn pass(&mut self, now: Nanos, record: Vec<u8>, batch: &mut RawBatch) {
        let Some(parts) = Parts::of(&record) else { return };
        let late = now.since(Nanos(parts.head.time_ns)) >= PATIENCE;
        let room = self.waiting_bytes + record.len() <= MOST_WAITING;
        let resumed = self.tracker.resume(Nanos(parts.head.time_ns), now, &parts.sample, parts.copy);
        let (frames, end) = match resumed {
            Resumed::Wait if room && !late => {
                self.waiting_bytes += record.len();
                self.waiting.push_back(record);
                return;
            }
            Resumed::Wait => (vec![parts.sample.resume_ip], UnwindEnd::NoTable),
            Resumed::Done(frames, end) => (frames, end),
        };
        self.count(end);
        parts.finish(&frames, end, batch);
    }
}

/// A sample in its parts.
struct Parts<'a> {
    head: RecordHeader,
    sample: StackSample,
    frames: &'a [u8],
    copy: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(record: &'a [u8]) -> Option<Self> {
        let (head, rest) = RecordHeader::from_prefix(record)?;
        let (sample, rest) = StackSample::from_prefix(rest)?;
        let frames = usize::try_from(sample.kernel_len.checked_add(sample.user_len)?).ok()?;
        let (frames, copy) = rest.split_at_checked(frames)?;
        Some(Self { head, sample, frames, copy })
    }

    /// Appends the record with the frames that were missing, without the copy.
    fn finish(self, found: &[u64], end: UnwindEnd, batch: &mut RawBatch) {
        let Self { mut head, mut sample, frames, copy: _ } = self;
        let user = usize::try_from(sample.user_len).unwrap_or(0) / 8;
        let found = &found[..found.len().min(agent_common::MAX_FRAMES.saturating_sub(user))];
        let bytes: Vec<u8> = found.iter().flat_map(|address| address.to_ne_bytes()).collect();
        let added = u32::try_from(bytes.len()).unwrap_or(0);
        sample.user_len += added;
        sample.user_end = end as u16;
        sample.copied_len = 0;
        (sample.resume_ip, sample.resume_sp, sample.resume_bp, sample.resume_exact) = (0, 0, 0, 0);
        let len = size_of::<RecordHeader>() + size_of::<StackSample>() + frames.len() + bytes.len();
        head.len = u32::try_from(len).unwrap_or(0);
        let record = [head.as_bytes(), sample.as_bytes(), frames, &bytes].concat();
        batch.push_record(&record);
    }
}

fn peek(record: &[u8]) -> Option<(RecordHeader, u32, u32)> {
    let (head, body) = RecordHeader::from_prefix(record)?;
    let pid = u32::from_ne_bytes(*body.first_chunk()?);
    let copied = StackSample::from_prefix(body).map_or(0, |(sample, _)| sample.copied_len);
    Some((head, pid, copied))
}

/// Whose stacks are wanted.
fn interest(wanted: &Wanted) -> Option<Interest> {
    let mut pids = BTreeSet::new();
    let sockets = wanted.sockets.as_ref().filter(|_| wanted.socket_stacks);
    let sockets = sockets.map(|pids| Scope::Pids(pids.clone()));
    let scopes: Vec<&Scope> = [&wanted.cpu, &wanted.sched, &sockets].into_iter().flatten().collect();
    for scope in &scopes {
        match scope {
            // Who belongs to a cgroup is decided at each sample: everybody may.
            Scope::Host | Scope::Cgroups(_) => return Some(Interest::Host),
            Scope::Pids(of) => pids.extend(of.iter().map(|pid| pid.0)),
        }
    }
    (!scopes.is_empty()).then_some(Interest::Pids(pids))
}
