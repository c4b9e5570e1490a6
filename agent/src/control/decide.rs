//! One pipeline, one tick: state and signals in, a decision out.
//!
//! In the order of who may speak: a human, a request, a pause, somebody else at the knob, a queue that is about to
//! overflow, the breaker, signals that cannot be trusted, a change that did harm, and last the policy under its governor.

use tidegate_client::abi::{Applied, Boundary, Mode, Policy};

use crate::control::breaker::{Position, Vitals};
use crate::control::decision::{Basis, Decision, Reason};
use crate::control::governor::{Hold, Urgency, Verdict};
use crate::control::load::Load;
use crate::control::policy::regime::HOT_BATCH;
use crate::control::policy::{Predicted, propose};
pub use crate::control::state::{Hand, State, Tuning};
use crate::control::state::{Signs, Stepped};
use crate::control::trial::{Finding, SameLoad, Sample, Strictness};
use crate::control::trim::{Factors, Knob, Turn, Wants};
use crate::signal::{Degraded, Signals};
use crate::units::{BatchSize, FlushInterval, Generation, Nanos, Settings};

/// Share of the queue's capacity above which everything else waits.
pub const PANIC_SHARE: f64 = 0.8;
/// After a step the rate is told from few ticks: this long its refinements are part of the step.
pub const SETTLING: Nanos = Nanos::from_millis(800);
/// A load that has not stepped for so long is steady: the slow trim may begin.
pub const STEADY: Nanos = Nanos::from_secs(60);

/// Flush interval in a panic, microseconds: the queue is full of old events, so age decides nothing any more.
const PANIC_INTERVAL_US: u64 = 5_000;
/// Share of the flushes that the sink's own pace begins, above which no knob decides anything.
const SINK_DECIDES: f64 = 0.9;
/// Flushes a second that the trim needs to see a tail.
const ENOUGH_FLUSHES: f64 = 20.0;

/// Decides about a pipeline at `now`.
pub fn decide(state: &mut State, signals: &Signals, now: Nanos) -> Decision {
    if let Hand::Human(_, Some(until)) = state.hand
        && now >= until
    {
        state.free();
    }
    let stepped = signals.step.is_some() || signals.flushes.cost_step.is_some();
    if stepped || state.unsteady.is_none() {
        state.unsteady = Some(now);
    }
    let finding = state.trial.observe(now, Sample::of(signals), stepped);
    let publish = Publish { signals, now };
    let mut decision = speak(state, &publish, finding.and_then(|found| found.back_to));
    decision.effect = finding.map(|Finding { effect, .. }| effect);
    decision
}

fn speak(state: &mut State, publish: &Publish<'_>, back_to: Option<Settings>) -> Decision {
    let signals = publish.signals;
    if let Hand::Human(settings, until) = state.hand {
        state.due = None;
        return publish.put(state, settings, Reason::Override, Basis::Human(until));
    }
    if let Some((settings, reason)) = state.due.take() {
        return publish.page(state, settings, reason, Basis::Reason);
    }
    if state.mode == Mode::Manual {
        return publish.held(state, Reason::Manual, Basis::Reason);
    }
    if state.tuning == Tuning::Paused {
        return publish.standstill(state, Reason::Paused, Basis::Reason);
    }
    if state.mode.acts()
        && state.hand == Hand::Agent
        && let Some(seen) = state.hand_off.observe(state.published, signals.in_use)
    {
        state.hand = Hand::Foreign(seen);
    }
    if let Hand::Foreign(seen) = state.hand {
        return publish.held(state, Reason::Manual, Basis::Foreign(seen));
    }
    if let Some((bytes, capacity)) = overfull(signals) {
        state.panics.begin(publish.now);
        return panic(state, publish, bytes, capacity);
    }
    if state.signs == Signs::Panic && state.panics.lasts(publish.now) {
        return publish.held(state, Reason::Panic, Basis::AfterPanic);
    }
    if let Some(decision) = break_off(state, publish) {
        return decision;
    }
    if let Some((reason, degraded)) = untrusted(signals) {
        return publish.standstill(state, reason, Basis::Signals(degraded));
    }
    if let Some(settings) = back_to {
        return take_back(state, publish, settings);
    }
    let Some(load) = Load::of(signals, state.objective, state.cpu_share) else {
        return publish.held(state, Reason::NoSignals, Basis::Signals(None));
    };
    tune(state, publish, &load)
}

/// The breaker's word, while it has one.
fn break_off(state: &mut State, publish: &Publish<'_>) -> Option<Decision> {
    if !state.mode.acts() {
        return None;
    }
    let signals = publish.signals;
    let wanted = state.wanted_ms();
    let expects_to_meet = wanted.zip(state.predicted).is_some_and(|(wanted, p)| p.p99_ms <= wanted);
    let vitals = Vitals {
        failed_per_s: signals.flushes.failed_per_s,
        p99_over_wanted: signals.p99_ms.zip(wanted).filter(|_| expects_to_meet).map(|(p99, wanted)| p99 / wanted),
        report_age: signals.report_age,
    };
    let changed = state.breaker.look(publish.now, &vitals);
    match state.breaker.position() {
        Position::Open(cause) => {
            if changed {
                state.begin_anew();
                state.predicted = None;
            }
            let own = state.bounds.defaults();
            Some(publish.put(state, own, Reason::BreakerOpen, Basis::Breaker(cause)))
        }
        Position::HalfOpen(_) | Position::Closed => None,
    }
}

/// A change did harm: back to what was before it, and hands off for a while.
fn take_back(state: &mut State, publish: &Publish<'_>, settings: Settings) -> Decision {
    state.breaker.rolled_back(publish.now);
    state.trial.quarantine(publish.now);
    state.trim.interrupt();
    state.predicted = None;
    let settings = state.bounds.clamp(settings).0;
    publish.page(state, settings, Reason::RollBack, Basis::Reason)
}

fn tune(state: &mut State, publish: &Publish<'_>, load: &Load) -> Decision {
    let (now, signals) = (publish.now, publish.signals);
    if let Some(step) = signals.step {
        state.settling = Some((now + SETTLING, Stepped::Rate(step)));
        state.memory.forget_regime();
    } else if let Some(step) = signals.flushes.cost_step.filter(|_| state.policy == Policy::Model) {
        state.settling = Some((now + SETTLING, Stepped::Cost(step)));
    } else if let Some(share) = state.share_step() {
        (state.settling, state.unsteady) = (Some((now + SETTLING, Stepped::Share(share))), Some(now));
    }
    if state.settling.is_some_and(|(until, _)| now >= until) {
        (state.settling, state.in_step) = (None, false);
    }
    let step = state.settling.map(|(_, step)| step);
    let proposal = propose(state.policy, &mut state.memory, load, &state.bounds, state.current);
    let turn = trim(state, load, now);
    let wanted = with_room(scaled(proposal.settings, state.trim.factors()), signals, load);
    let of_load = Basis::Proposal(proposal, load.rate);
    let (urgency, reason, basis) = match (state.signs, step, turn) {
        (Signs::Awaited, ..) => (Urgency::Step, Reason::Start, of_load),
        (_, Some(step), _) => (Urgency::Step, step.reason(), step.basis(proposal)),
        (Signs::Panic, ..) => (Urgency::Step, proposal.because.reason(), of_load),
        (_, None, Turn::Probe) => (Urgency::Probe, Reason::Probe, of_load),
        (_, None, Turn::Step) => (Urgency::Probe, Reason::Trim, of_load),
        (_, None, Turn::None) => (Urgency::Steady, proposal.because.reason(), of_load),
    };
    state.signs = Signs::Begun;
    if urgency == Urgency::Steady
        && let Some(why) = still(state, load, now)
    {
        let reason = if why == Hold::Quarantine { Reason::Quarantine } else { Reason::Steady };
        return publish.held(state, reason, Basis::Held(why, proposal, load.rate));
    }
    match state.governor.govern(state.current, wanted, &state.bounds, urgency, now) {
        Verdict::Change(settings, bound_by) => {
            let same = if urgency == Urgency::Step { SameLoad::No } else { SameLoad::Yes };
            publish.change(state, settings, reason, basis, bound_by, (proposal.predicted, same))
        }
        Verdict::Hold(hold) => {
            let reason = if hold == Hold::Deadband { Reason::Steady } else { Reason::Dwell };
            publish.held(state, reason, Basis::Held(hold, proposal, load.rate))
        }
    }
}

/// Why nothing is to be done at a steady load, whatever the policy proposes.
fn still(state: &State, load: &Load, now: Nanos) -> Option<Hold> {
    if state.trial.quarantined(now).is_some() {
        Some(Hold::Quarantine)
    } else if state.mode == Mode::Canary && state.trial.is_running() {
        Some(Hold::OnTrial)
    } else if state.policy == Policy::Model && load.flushes.causes.is_some_and(|c| c.backlog.0 > SINK_DECIDES) {
        Some(Hold::SinkDecides)
    } else {
        None
    }
}

/// One tick of the slow trim, where the load is steady enough for it.
fn trim(state: &mut State, load: &Load, now: Nanos) -> Turn {
    let steady = state.unsteady.is_some_and(|then| now.since(then) >= STEADY);
    let busy_enough = load.flushes.per_s.is_some_and(|per_s| per_s >= ENOUGH_FLUSHES);
    let free = state.mode == Mode::On && state.trial.quarantined(now).is_none();
    let knob = load.flushes.causes.and_then(|causes| match (causes.age.0, causes.size.0) {
        (age, _) if age > 0.5 => Some(Knob::Interval),
        (_, size) if size > 0.5 => Some(Knob::Batch),
        _ => None,
    });
    match knob.filter(|_| state.policy == Policy::Model && steady && busy_enough && free) {
        None => {
            state.trim.interrupt();
            Turn::None
        }
        Some(knob) => {
            let wants = Wants { goal: state.objective.goal, p99_ms: state.wanted_ms(), busy_cap: load.busy_cap() };
            state.trim.observe(now, state.trial.newest(), &wants, knob)
        }
    }
}

/// Settings by which at most half of the queue gathers: beyond, the panic flush would decide, and whatever it set would be
/// taken back a moment later, to and fro.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a limit to a few digits, and a float becomes an integer by saturation"
)]
fn with_room(wanted: Settings, signals: &Signals, load: &Load) -> Settings {
    let Some(capacity) = signals.queue.and_then(|queue| queue.capacity) else { return wanted };
    let half = 0.5 * capacity.0 as f64;
    let bytes_per_us = load.acting_rate() * load.event_bytes() / 1e6;
    let fills_in = if bytes_per_us > 0.0 { half / bytes_per_us } else { f64::INFINITY };
    Settings {
        batch: BatchSize(wanted.batch.0.min(half as u64)),
        interval: FlushInterval((wanted.interval.0 as f64).min(fills_in) as u64),
    }
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a factor between a half and two on a number of a few digits"
)]
fn scaled(settings: Settings, by: Factors) -> Settings {
    Settings {
        batch: BatchSize((settings.batch.0 as f64 * by.batch) as u64),
        interval: FlushInterval((settings.interval.0 as f64 * by.interval) as u64),
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a constant of 512 KiB")]
fn panic(state: &mut State, publish: &Publish<'_>, bytes: u64, capacity: u64) -> Decision {
    state.signs = Signs::Panic;
    let wanted = Settings {
        batch: BatchSize((HOT_BATCH as u64).max(state.current.batch.0)),
        interval: FlushInterval(PANIC_INTERVAL_US.min(state.current.interval.0)),
    };
    let basis = Basis::Queue(bytes, capacity);
    match state.governor.govern(state.current, wanted, &state.bounds, Urgency::Panic, publish.now) {
        Verdict::Change(settings, bound_by) => {
            publish.change(state, settings, Reason::Panic, basis, bound_by, (None, SameLoad::No))
        }
        Verdict::Hold(_) => publish.held(state, Reason::Panic, basis),
    }
}

/// The queue when it passes the panic share.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 52 bits")]
fn overfull(signals: &Signals) -> Option<(u64, u64)> {
    let queue = signals.queue?;
    let (bytes, capacity) = (queue.bytes.0, queue.capacity?.0);
    (bytes as f64 >= PANIC_SHARE * capacity as f64).then_some((bytes, capacity))
}

/// Why these signals are no ground for a change. Kernel evidence that is missing is none: no policy needs it.
fn untrusted(signals: &Signals) -> Option<(Reason, Option<Degraded>)> {
    signals.degraded.iter().find_map(|degraded| {
        let reason = match degraded {
            Degraded::Report(_) => Reason::BadReport,
            Degraded::NoReport => Reason::NoSignals,
            Degraded::Stale(_) => Reason::Stale,
            Degraded::Lost("undecodable", _) => Reason::Lossy,
            _ => return None,
        };
        Some((reason, Some(*degraded)))
    })
}

/// Makes decisions and moves the state with them.
struct Publish<'a> {
    signals: &'a Signals,
    now: Nanos,
}

impl Publish<'_> {
    /// The page shall hold `settings`: a new generation when it does not.
    fn put(&self, state: &mut State, settings: Settings, reason: Reason, basis: Basis) -> Decision {
        if settings == state.published.1 {
            self.held(state, reason, basis)
        } else {
            self.page(state, settings, reason, basis)
        }
    }

    /// As `put`, with a new generation in any case: the pipeline shall take the values again.
    fn page(&self, state: &mut State, settings: Settings, reason: Reason, basis: Basis) -> Decision {
        let from = state.published.1;
        state.previous = Some(from);
        state.published = (Generation(state.published.0.0.saturating_add(1)), settings);
        state.current = settings;
        self.decision(state, Applied::Applied, from, reason, basis, None)
    }

    /// The controller moves: applied where it may act, advised in mode `observe`.
    fn change(
        &self,
        state: &mut State,
        settings: Settings,
        reason: Reason,
        basis: Basis,
        bound_by: Option<Boundary>,
        (predicted, load): (Option<Predicted>, SameLoad),
    ) -> Decision {
        let from = std::mem::replace(&mut state.current, settings);
        let applied = if state.mode.acts() {
            // A step is told in several changes: to take it back is to go back to what was before all of them.
            if !(load == SameLoad::No && state.in_step) {
                state.previous = Some(state.published.1);
            }
            state.in_step = load == SameLoad::No;
            state.published = (Generation(state.published.0.0.saturating_add(1)), settings);
            state.predicted = predicted;
            let strictness = if state.mode == Mode::Canary { Strictness::Canary } else { Strictness::Usual };
            state.trial.begin(self.now, from, predicted, strictness, load);
            Applied::Applied
        } else {
            Applied::Advised
        };
        self.decision(state, applied, from, reason, basis, bound_by)
    }

    /// Tuning stands still. Whatever the load did meanwhile is caught up with in one go.
    fn standstill(&self, state: &mut State, reason: Reason, basis: Basis) -> Decision {
        if self.signals.step.is_some() || matches!(reason, Reason::Paused | Reason::Stale) {
            state.signs = Signs::Awaited;
        }
        self.held(state, reason, basis)
    }

    fn held(&self, state: &State, reason: Reason, basis: Basis) -> Decision {
        self.decision(state, Applied::Held, state.current, reason, basis, None)
    }

    fn decision(
        &self,
        state: &State,
        applied: Applied,
        from: Settings,
        reason: Reason,
        basis: Basis,
        bound_by: Option<Boundary>,
    ) -> Decision {
        Decision {
            time: self.now,
            generation: state.published.0,
            applied,
            settings: state.current,
            from,
            policy: state.policy,
            reason,
            basis,
            bound_by,
            signals: self.signals.clone(),
            effect: None,
        }
    }
}
