//! What control remembers of one pipeline, and how requests change it: registrations, pins, modes, roll-backs in; a state
//! to decide from out. Decides nothing itself.

use tidegate_client::abi::{Knobs, Mode, Objective, OverrideRequest, Policy, Registration};

use crate::control::bounds::{Bounds, initial};
use crate::control::breaker::{Breaker, Position};
use crate::control::decision::{Basis, Reason};
use crate::control::governor::Governor;
use crate::control::manual::HandOff;
use crate::control::policy::{Memory, Predicted, Proposal};
use crate::control::trial::Trial;
use crate::control::trim::Trim;
use crate::signal::flush_cost::CostStep;
use crate::signal::rate::Step;
use crate::units::{BatchSize, FlushInterval, Generation, Nanos, Settings};

/// A share that changed by this factor is a step.
const SHARE_STEP: f64 = 1.25;

/// A panic that comes back within this time is the same trouble.
const SOON_AGAIN: Nanos = Nanos::from_secs(10);
/// The settings of a panic that came back are kept so long after it, at least and at most.
const SHORTEST_PANIC: Nanos = Nanos::from_secs(5);
const LONGEST_PANIC: Nanos = Nanos::from_secs(60);

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
    pub(super) bounds: Bounds,
    pub(super) mode: Mode,
    pub(super) policy: Policy,
    pub(super) objective: Objective,
    /// Its share of a common budget of CPU time, cores.
    pub(super) cpu_share: Option<f64>,
    /// The share that the settings in force were found for.
    pub(super) share_acted_on: Option<f64>,
    pub(super) hand: Hand,
    pub(super) tuning: Tuning,
    pub(super) published: (Generation, Settings),
    /// Where the controller stands: what is published, or in mode `observe` what it advises.
    pub(super) current: Settings,
    /// What was published before: a roll-back goes there.
    pub(super) previous: Option<Settings>,
    /// The newest change answered a step of the load.
    pub(super) in_step: bool,
    /// Settings that a request put in force, not yet decided on.
    pub(super) due: Option<(Settings, Reason)>,
    pub(super) governor: Governor,
    pub(super) hand_off: HandOff,
    pub(super) memory: Memory,
    pub(super) trial: Trial,
    pub(super) breaker: Breaker,
    pub(super) trim: Trim,
    /// What the settings in force are expected to come to.
    pub(super) predicted: Option<Predicted>,
    /// A step of the load and what to say of it, until then.
    pub(super) settling: Option<(Nanos, Stepped)>,
    /// When rate or cost of a flush last stepped.
    pub(super) unsteady: Option<Nanos>,
    pub(super) signs: Signs,
    pub(super) panics: Panics,
}

/// Panics, and how long the settings of one are kept: the more often it comes back, the longer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Panics {
    newest: Option<Nanos>,
    kept: Nanos,
}

impl Panics {
    /// The queue is nearly full now.
    pub(super) fn begin(&mut self, now: Nanos) {
        self.kept = match self.newest.map(|then| now.since(then)) {
            // Tick after tick, or while its settings are still kept: the same one.
            Some(quiet) if quiet.0 <= Nanos::TICK.0 * 3 / 2 || quiet < self.kept => self.kept,
            Some(quiet) if quiet < SOON_AGAIN + self.kept => {
                (self.kept + self.kept).clamp(SHORTEST_PANIC, LONGEST_PANIC)
            }
            _ => Nanos(0),
        };
        self.newest = Some(now);
    }

    /// Whether the settings of the newest one are still to be kept.
    pub(super) fn lasts(&self, now: Nanos) -> bool {
        self.newest.is_some_and(|then| now.since(then) < self.kept)
    }
}

/// Which of its inputs stepped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stepped {
    Rate(Step),
    Cost(CostStep),
    Share(ShareStep),
}

/// A change of a pipeline's share of the CPU time, cores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ShareStep {
    /// Before.
    pub from: f64,
    /// After.
    pub to: f64,
}

/// Whether the signals have begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signs {
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
            policy: registration.policy,
            objective: registration.objective,
            cpu_share: None,
            share_acted_on: None,
            hand: Hand::Agent,
            tuning: Tuning::Running,
            published,
            current: settings,
            previous: None,
            in_step: false,
            due,
            governor: Governor::default(),
            hand_off: HandOff::default(),
            memory: Memory::default(),
            trial: Trial::default(),
            breaker: Breaker::default(),
            trim: Trim::default(),
            predicted: None,
            settling: None,
            unsteady: None,
            signs: Signs::Awaited,
            panics: Panics::default(),
        }
    }

    /// The pipeline registered again: new terms, old generation.
    pub fn register(&mut self, registration: &Registration, resumed: Option<(Generation, Settings)>) {
        let seen = resumed.map_or(Generation(0), |(generation, _)| generation);
        self.published.0 = self.published.0.max(seen);
        self.policy = registration.policy;
        self.objective = registration.objective;
        if let Hand::Foreign(_) = self.hand {
            self.hand = Hand::Agent;
        }
        self.hand_off = HandOff::default();
        self.trim.reset();
        self.mode = registration.mode;
        self.set_bounds(&registration.knobs);
    }

    /// Another mode: where it may not act, the pipeline's own settings come back.
    pub fn set_mode(&mut self, mode: Mode) {
        if std::mem::replace(&mut self.mode, mode) != mode {
            self.begin_anew();
            self.rest();
        }
    }

    /// Other bounds; whatever lies outside moves in.
    pub fn set_bounds(&mut self, knobs: &Knobs) {
        self.bounds = Bounds::new(knobs);
        // A human's wish stands, within what the pipeline accepts now.
        if let Hand::Human(settings, until) = self.hand {
            self.hand = Hand::Human(self.bounds.clamp(settings).0, until);
        }
        self.begin_anew();
        self.rest();
    }

    fn rest(&mut self) {
        let wanted = self.resting();
        if wanted != self.published.1 {
            self.due = Some((wanted, Reason::Registered));
        }
    }

    /// A human takes the newest change back; nothing is tried for a while.
    pub fn roll_back(&mut self, now: Nanos) {
        if let Some(previous) = self.previous.take() {
            self.due = Some((self.bounds.clamp(previous).0, Reason::RollBack));
        }
        self.trial.quarantine(now);
        self.trim.interrupt();
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

    /// Tuning goes on, or settings stay where they are.
    pub fn set_tuning(&mut self, tuning: Tuning) {
        self.tuning = tuning;
    }

    /// Its share of a common budget of CPU time, cores.
    pub fn set_cpu_share(&mut self, share: Option<f64>) {
        self.cpu_share = share;
    }

    /// Its share has changed by more than a quarter since it was last acted on: somebody came, or went.
    pub(super) fn share_step(&mut self) -> Option<ShareStep> {
        let to = self.cpu_share?;
        let from = *self.share_acted_on.get_or_insert(to);
        let apart = to > SHARE_STEP * from || from > SHARE_STEP * to;
        apart.then(|| {
            self.share_acted_on = Some(to);
            ShareStep { from, to }
        })
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

    /// Whether the agent moves its knobs: nobody else holds them, it may act, and its breaker lets it.
    pub fn steered(&self) -> bool {
        let is_let = !matches!(self.breaker.position(), Position::Open(_));
        is_let && self.mode.acts() && self.hand == Hand::Agent && self.tuning == Tuning::Running
    }

    /// The bounds in force.
    pub fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// Wanted p99, ms.
    #[expect(clippy::cast_precision_loss, reason = "an objective is a few digits")]
    pub(super) fn wanted_ms(&self) -> Option<f64> {
        self.objective.p99_ms.map(|ms| ms as f64)
    }

    /// Settings on the page while nobody decides.
    pub(super) fn resting(&self) -> Settings {
        if self.mode.acts() { self.bounds.clamp(self.published.1).0 } else { self.bounds.defaults() }
    }

    /// As if the signals had just begun: what was learnt of the load is void, what was learnt of the pipeline is not.
    pub(super) fn begin_anew(&mut self) {
        self.signs = Signs::Awaited;
        self.memory.forget_regime();
        self.settling = None;
        self.governor = Governor::default();
        self.trial.forget();
        self.trim.interrupt();
    }
}

impl Stepped {
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Rate(step) if step.to.0 > step.from.0 => Reason::StepRise,
            Self::Rate(_) => Reason::StepFall,
            Self::Cost(step) if step.to_ms > step.from_ms => Reason::CostRise,
            Self::Cost(_) => Reason::CostFall,
            Self::Share(_) => Reason::Share,
        }
    }

    pub(super) fn basis(self, proposal: Proposal) -> Basis {
        match self {
            Self::Rate(step) => Basis::Step(step, proposal),
            Self::Cost(step) => Basis::Cost(step, proposal),
            Self::Share(step) => Basis::Share(step, proposal),
        }
    }
}
