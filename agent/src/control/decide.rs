//! One pipeline, one tick: state and signals in, a decision out.
//!
//! In the order of who may speak: a human, a pause, somebody else at the knob, signals that cannot be trusted, a queue
//! that is about to overflow, and last the policy under its governor.

use tidegate_client::abi::{Applied, Boundary, Knobs, Mode, OverrideRequest, Registration};

use crate::control::bounds::{Bounds, initial};
use crate::control::decision::{Basis, Decision, Reason};
use crate::control::governor::{Governor, Hold, Urgency, Verdict};
use crate::control::manual::HandOff;
use crate::control::policy::regime::{self, HOT_BATCH, Load, Regime};
use crate::signal::rate::Step;
use crate::signal::{Degraded, Signals};
use crate::units::{BatchSize, FlushInterval, Generation, Nanos, Settings};

/// Share of the queue's capacity above which everything else waits.
pub const PANIC_SHARE: f64 = 0.8;
/// After a step the rate is told from few ticks: this long its refinements are part of the step.
pub const SETTLING: Nanos = Nanos::from_millis(500);

/// Flush interval in a panic, microseconds: the queue is full of old events, so age decides nothing any more.
const PANIC_INTERVAL_US: u64 = 5_000;

/// Who holds the knobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hand {
    /// The agent.
    Agent,
    /// A human, with these settings, until then.
    Human(Settings, Option<Nanos>),
    /// Somebody else, who was seen to use these settings.
    Foreign(Settings),
}

/// Whether tuning goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tuning {
    /// It does.
    Running,
    /// Settings stay where they are.
    Paused,
}

/// What control remembers of a pipeline.
#[derive(Clone, Debug)]
pub struct State {
    bounds: Bounds,
    mode: Mode,
    objective_ms: Option<u64>,
    hand: Hand,
    tuning: Tuning,
    published: (Generation, Settings),
    /// Settings on the page before the newest change of it.
    before: Option<Settings>,
    /// Where the controller stands: what is published, or in mode `observe` what it advises.
    current: Settings,
    /// Settings that a request put in force, not yet decided on.
    due: Option<(Settings, Reason)>,
    governor: Governor,
    hand_off: HandOff,
    regime: Option<Regime>,
    settling: Option<(Nanos, Option<Step>)>,
    signs: Signs,
}

/// Whether the signals have begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signs {
    Awaited,
    Begun,
    /// The last decision was a panic.
    Panic,
}

impl State {
    /// A pipeline that has just registered, and what its page held before.
    pub fn new(registration: &Registration, resumed: Option<(Generation, Settings)>) -> Self {
        let bounds = Bounds::new(&registration.knobs);
        let (settings, generation) = initial(registration, resumed);
        let before = resumed.map_or(Generation(0), |(generation, _)| generation);
        // A page that must change its values does so by a decision like any other.
        let due = (generation > before).then_some((settings, Reason::Registered));
        let published = match resumed {
            Some(page) if due.is_some() => page,
            _ => (generation, settings),
        };
        Self {
            bounds,
            mode: registration.mode,
            objective_ms: registration.objective.p99_ms,
            hand: Hand::Agent,
            tuning: Tuning::Running,
            published,
            before: None,
            current: settings,
            due,
            governor: Governor::default(),
            hand_off: HandOff::default(),
            regime: None,
            settling: None,
            signs: Signs::Awaited,
        }
    }

    /// The pipeline registered again: new terms, old generation.
    pub fn register(&mut self, registration: &Registration, resumed: Option<(Generation, Settings)>) {
        let seen = resumed.map_or(Generation(0), |(generation, _)| generation);
        self.published.0 = self.published.0.max(seen);
        self.bounds = Bounds::new(&registration.knobs);
        self.mode = registration.mode;
        self.objective_ms = registration.objective.p99_ms;
        self.hand = match self.hand {
            // The human's wish stands, within what the pipeline accepts now.
            Hand::Human(settings, until) => Hand::Human(self.bounds.clamp(settings).0, until),
            Hand::Foreign(_) | Hand::Agent => Hand::Agent,
        };
        self.hand_off = HandOff::default();
        self.rest();
    }

    /// A human pins the knobs; what the request leaves out stays as it is.
    pub fn pin(&mut self, request: &OverrideRequest, now: Nanos) {
        let held = self.published.1;
        let wanted = Settings {
            batch: request.batch_bytes.map_or(held.batch, BatchSize),
            interval: request.flush_interval_us.map_or(held.interval, FlushInterval),
        };
        self.hand = Hand::Human(self.bounds.clamp(wanted).0, request.ttl_s.map(|s| now + Nanos::from_secs(s)));
    }

    /// The knobs are free again, whoever held them.
    pub fn free(&mut self) {
        if self.hand != Hand::Agent {
            self.hand = Hand::Agent;
            self.hand_off = HandOff::default();
            self.begin_anew();
            self.due = Some((self.resting(), Reason::Freed));
        }
    }

    /// Whether the agent may act from now on.
    pub fn set_mode(&mut self, mode: Mode) {
        if std::mem::replace(&mut self.mode, mode) != mode {
            self.rest();
        }
    }

    /// Other bounds; whatever lies outside moves in.
    pub fn set_bounds(&mut self, knobs: &Knobs) {
        self.bounds = Bounds::new(knobs);
        if let Hand::Human(settings, until) = self.hand {
            self.hand = Hand::Human(self.bounds.clamp(settings).0, until);
        }
        self.rest();
    }

    /// Back to the settings before the newest change of the page, if it has changed.
    pub fn roll_back(&mut self) {
        if let Some(before) = self.before.take() {
            self.begin_anew();
            self.due = Some((self.bounds.clamp(before).0, Reason::RolledBack));
        }
    }

    fn rest(&mut self) {
        self.begin_anew();
        let wanted = self.resting();
        if wanted != self.published.1 {
            self.due = Some((wanted, Reason::Registered));
        }
    }

    /// Tuning goes on, or settings stay where they are.
    pub fn set_tuning(&mut self, tuning: Tuning) {
        self.tuning = tuning;
    }

    /// Generation and settings on the page.
    pub fn published(&self) -> (Generation, Settings) {
        self.published
    }

    /// Who holds the knobs.
    pub fn hand(&self) -> Hand {
        self.hand
    }

    /// The mode in force.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The bounds in force.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Settings on the page while nobody decides.
    fn resting(&self) -> Settings {
        if self.mode.acts() { self.bounds.clamp(self.published.1).0 } else { self.bounds.defaults() }
    }

    fn begin_anew(&mut self) {
        self.signs = Signs::Awaited;
        self.regime = None;
        self.settling = None;
        self.governor = Governor::default();
    }
}

/// Decides about a pipeline at `now`.
pub fn decide(state: &mut State, signals: &Signals, now: Nanos) -> Decision {
    if let Hand::Human(_, Some(until)) = state.hand
        && now >= until
    {
        state.free();
    }
    let publish = Publish { signals, now };
    if let Hand::Human(settings, until) = state.hand {
        state.due = None;
        return publish.put(state, settings, Reason::Override, Basis::Human(until));
    }
    if let Some((settings, reason)) = state.due.take() {
        return publish.anew(state, settings, reason);
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
        return panic(state, &publish, bytes, capacity);
    }
    if let Some((reason, degraded)) = untrusted(signals) {
        return publish.standstill(state, reason, Basis::Signals(degraded));
    }
    let Some(load) = Load::of(signals, state.objective_ms) else {
        return publish.held(state, Reason::NoSignals, Basis::Signals(None));
    };
    tune(state, &publish, &load)
}

fn tune(state: &mut State, publish: &Publish<'_>, load: &Load) -> Decision {
    let now = publish.now;
    if publish.signals.step.is_some() {
        state.settling = Some((now + SETTLING, publish.signals.step));
        state.regime = None; // Hysteresis is for drift: after a step the regime is told from the rate alone.
    }
    if state.settling.is_some_and(|(until, _)| now >= until) {
        state.settling = None;
    }
    let step = state.settling.and_then(|(_, step)| step);
    let regime = regime::regime(state.regime, load.rate);
    state.regime = Some(regime);
    let proposal = regime::propose(regime, load);
    let (urgency, reason, basis) = match (state.signs, step) {
        (Signs::Awaited, _) => (Urgency::Step, Reason::Start, Basis::Proposal(proposal, load.rate)),
        (_, Some(step)) if step.to.0 > step.from.0 => (Urgency::Step, Reason::StepRise, Basis::Step(step, proposal)),
        (_, Some(step)) => (Urgency::Step, Reason::StepFall, Basis::Step(step, proposal)),
        (signs, None) => {
            let urgency = if signs == Signs::Panic { Urgency::Step } else { Urgency::Steady };
            let reason = match regime {
                Regime::Cold => Reason::Cold,
                Regime::Warm => Reason::Warm,
                Regime::Hot => Reason::Hot,
            };
            (urgency, reason, Basis::Proposal(proposal, load.rate))
        }
    };
    state.signs = Signs::Begun;
    match state.governor.govern(state.current, proposal.settings, &state.bounds, urgency, now) {
        Verdict::Change(settings, bound_by) => publish.change(state, settings, reason, basis, bound_by),
        Verdict::Hold(hold) => {
            let reason = if hold == Hold::Deadband { Reason::Steady } else { Reason::Dwell };
            publish.held(state, reason, Basis::Held(hold, proposal, load.rate))
        }
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
        Verdict::Change(settings, bound_by) => publish.change(state, settings, Reason::Panic, basis, bound_by),
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

/// Why these signals are no ground for a change. Kernel evidence that is missing is none: this policy does not use it.
fn untrusted(signals: &Signals) -> Option<(Reason, Option<Degraded>)> {
    signals.degraded.iter().find_map(|degraded| {
        let reason = match degraded {
            Degraded::Report(_) => Reason::BadReport,
            Degraded::NoReport => Reason::NoSignals,
            Degraded::Stale(_) => Reason::Stale,
            Degraded::Lost("undecodable", _) => Reason::Lossy,
            Degraded::Lost(..) | Degraded::Missing(_) | Degraded::Reset(_) => return None,
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
    fn anew(&self, state: &mut State, settings: Settings, reason: Reason) -> Decision {
        self.page(state, settings, reason, Basis::Reason)
    }

    fn page(&self, state: &mut State, settings: Settings, reason: Reason, basis: Basis) -> Decision {
        let from = state.published.1;
        state.before = Some(from);
        state.published = (Generation(state.published.0.0.saturating_add(1)), settings);
        state.current = settings;
        self.decision(state, Applied::Applied, from, reason, basis, None)
    }

    /// The controller moves: applied in mode `on`, advised in mode `observe`.
    fn change(
        &self,
        state: &mut State,
        settings: Settings,
        reason: Reason,
        basis: Basis,
        bound_by: Option<Boundary>,
    ) -> Decision {
        let from = std::mem::replace(&mut state.current, settings);
        let applied = if state.mode.acts() {
            state.before = Some(state.published.1);
            state.published = (Generation(state.published.0.0.saturating_add(1)), settings);
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
            reason,
            basis,
            bound_by,
            signals: self.signals.clone(),
        }
    }
}
