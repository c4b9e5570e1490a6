//! The pure machine where everything joins: events in, settings to publish and decisions out.
//!
//! Live agent, replay and simulation all run this one. It reads no clock, does no I/O and never waits: time comes in
//! with the events.

use std::collections::BTreeMap;
use std::sync::Arc;

use agent_common::{SocketRow, SyscallRow};
use tidegate_client::abi::{DecisionJson, KnobRange, Knobs, Mode, Registration};

use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::StackCounts;
use crate::aggregate::window::{Aggregator, Limits, Window};
use crate::control::decide::{Hand, State, Tuning, decide};
pub use crate::control::demand::{CpuSampling, Recording, Standing};
use crate::control::demand::{Demand, Need};
use crate::control::log::Log;
use crate::control::share::divide;
use crate::event::{Body, Comm, Decoder, Event, Input, Mapping, Process, RawBatch};
use crate::serve::view::{PipelineView, TuningState};
use crate::signal::kernel_grades::{KernelGrades, Seen};
use crate::signal::{Signals, Tracker};
use crate::source::Wanted;
use crate::units::{Generation, Nanos, Pid, PipelineName, Settings, Uid};

/// What the core is told at its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreConfig {
    /// What is recorded when nobody asks for it.
    pub standing: Standing,
    /// How much is kept.
    pub limits: Limits,
}

/// What came of a tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TickOutcome {
    /// Time of the tick.
    pub now: Nanos,
    /// Settings that changed: to be written to their pages at once.
    pub publish: Vec<Publish>,
    /// Decisions worth keeping, each once.
    pub decisions: Vec<DecisionJson>,
    /// Pipelines that ended: their pages can go.
    pub gone: Vec<PipelineName>,
}

/// Settings to write to a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Pipeline.
    pub name: PipelineName,
    /// Its user.
    pub uid: Uid,
    /// Its new settings.
    pub settings: Settings,
    /// Their generation.
    pub generation: Generation,
}

/// The machine.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    aggregator: Aggregator,
    pipelines: BTreeMap<PipelineName, Pipeline>,
    kernel: KernelGrades,
    demand: Demand,
    tuning: Tuning,
    /// CPU time that the tuned pipelines divide among them, cores; absent for as much as there is.
    cpu_budget: Option<f64>,
    gone: Vec<PipelineName>,
}

#[derive(Debug)]
struct Pipeline {
    pid: Pid,
    start_ticks: u64,
    uid: Uid,
    registration: Arc<Registration>,
    /// Its bounds: as registered, or narrower where somebody wished so.
    bounds: Knobs,
    /// When it last gave a sign of life of its own.
    alive: Nanos,
    tracker: Tracker,
    signals: Signals,
    state: State,
    log: Log,
}

impl Core {
    /// A core that starts at `start` and knows nothing yet.
    pub fn new(config: CoreConfig, start: Nanos) -> Self {
        Self {
            config,
            aggregator: Aggregator::new(config.limits, start),
            pipelines: BTreeMap::new(),
            kernel: KernelGrades::default(),
            demand: Demand::default(),
            tuning: Tuning::Running,
            cpu_budget: None,
            gone: Vec::new(),
        }
    }

    /// Takes in one event; a tick has an outcome.
    pub fn observe(&mut self, event: Event<'_>) -> Option<TickOutcome> {
        self.observe_through(event, &mut |_| {})
    }

    fn observe_through(&mut self, event: Event<'_>, publish: &mut dyn FnMut(&Publish)) -> Option<TickOutcome> {
        if let Body::Input(input) = &event.body {
            self.input(event.time, input);
        }
        if matches!(event.body, Body::Tick) {
            let silent = self.pipelines.values().filter(|p| p.is_silent()).map(|p| p.pid);
            self.aggregator.set_counted(silent.chain(self.demand.looked_at(event.time)).collect());
        }
        let window = self.aggregator.observe(event)?;
        Some(self.tick(&window, publish))
    }

    /// Counts a record that could not be decoded.
    pub fn undecodable(&mut self) {
        self.aggregator.undecodable();
    }

    /// Takes in a batch; `on_tick` is called with the outcome of each tick in it.
    pub fn feed(&mut self, batch: &RawBatch, on_tick: impl FnMut(TickOutcome)) {
        self.feed_through(batch, |_| {}, on_tick);
    }

    /// The same; `publish` is called with settings as soon as they are decided, while the tick still has others to decide.
    pub fn feed_through(
        &mut self,
        batch: &RawBatch,
        mut publish: impl FnMut(&Publish),
        mut on_tick: impl FnMut(TickOutcome),
    ) {
        for decoded in Decoder::new(batch.bytes()) {
            match decoded {
                Ok(event) => {
                    if let Some(outcome) = self.observe_through(event, &mut publish) {
                        on_tick(outcome);
                    }
                }
                Err(_cannot_be_read) => self.undecodable(),
            }
        }
    }

    /// What the source shall bring from now on.
    pub fn wanted(&self, now: Nanos) -> Wanted {
        let needs = self.pipelines.iter().map(|(name, pipeline)| Need {
            name,
            pid: pipeline.pid,
            uid: pipeline.uid,
            report: pipeline.registration.report.as_deref(),
            is_silent: pipeline.is_silent(),
        });
        self.demand.wanted(now, self.config.standing, needs)
    }

    /// The registered pipelines, by name.
    pub fn pipelines(&self) -> Vec<PipelineView> {
        self.pipelines.iter().map(|(name, pipeline)| pipeline.view(name, self.tuning)).collect()
    }

    /// Closed slices of 1 s of the open profile window, oldest first.
    pub fn slices(&self) -> &[Arc<StackCounts>] {
        self.aggregator.profiles().slices()
    }

    /// The profile windows of 10 s that have closed since they were last taken, oldest first.
    pub fn take_closed(&mut self) -> Vec<Arc<StackCounts>> {
        self.aggregator.take_closed()
    }

    /// Samples that are in no closed slice yet, the newest second of them.
    pub fn open_profile(&self) -> &StackCounts {
        self.aggregator.profiles().open()
    }

    /// Newest cumulative row of each (process, system call).
    pub fn syscalls(&self) -> impl Iterator<Item = &Arc<SyscallRow>> {
        self.aggregator.syscalls()
    }

    /// Newest row of each socket.
    pub fn sockets(&self) -> impl Iterator<Item = &Arc<SocketRow>> {
        self.aggregator.sockets()
    }

    /// Rows that had to make room in the listings: system calls, then sockets.
    pub fn evicted(&self) -> (u64, u64) {
        self.aggregator.evicted()
    }

    /// Name of the main thread of a process, when it is known.
    pub fn comm(&self, pid: Pid) -> Option<Comm> {
        self.process(pid).map(|process| process.comm)
    }

    /// Who a process is, when it is known.
    pub fn process(&self, pid: Pid) -> Option<&Process> {
        self.aggregator.process(pid)
    }

    /// Records other kinds all the time from now on.
    pub fn set_standing(&mut self, standing: Standing) {
        self.config.standing = standing;
    }

    /// Whether somebody waits for something, beyond what is always recorded.
    pub fn is_watched(&self) -> bool {
        self.demand.is_watched()
    }

    /// Where code is mapped, as far as it has been told since it was last taken.
    pub fn take_mappings(&mut self) -> Vec<Mapping> {
        self.aggregator.take_mappings()
    }

    /// Losses since the start.
    pub fn lost(&self) -> Lost {
        self.aggregator.lost()
    }

    /// Whether tuning is paused.
    pub fn paused(&self) -> bool {
        self.tuning == Tuning::Paused
    }

    /// The table of names of a recording, once it was seen: JSON as the recorder wrote it.
    pub fn names(&self) -> Option<&[u8]> {
        self.aggregator.names()
    }

    fn input(&mut self, now: Nanos, input: &Input) {
        match input {
            Input::Register { name, pid, start_ticks, uid, registration, resumed } => {
                let owner = (*pid, *start_ticks, *uid);
                self.register(now, name, owner, registration, *resumed);
            }
            Input::Gone { name } => self.remove(name),
            Input::Override { name, uid: _, request } => {
                self.with(name, |pipeline| pipeline.state.pin(request, now));
            }
            Input::Free { name } => self.with(name, |pipeline| pipeline.state.free()),
            Input::Lease { name } => self.with(name, |pipeline| pipeline.alive = now),
            // Its numbers go through the aggregator, as a page's do.
            Input::Report { .. } => {}
            Input::Ack { name, ack: _ } => self.with(name, |pipeline| pipeline.alive = now),
            Input::Bound { name, uid: _, knobs } => self.with(name, |pipeline| pipeline.bound(*knobs)),
            Input::RollBack { name, uid: _ } => self.with(name, |pipeline| pipeline.state.roll_back(now)),
            Input::SetMode { name, uid: _, mode } => self.with(name, |pipeline| pipeline.state.set_mode(*mode)),
            Input::CpuBudget { cores } => self.cpu_budget = Some(*cores),
            Input::Pause => self.set_tuning(Tuning::Paused),
            Input::Resume => self.set_tuning(Tuning::Running),
            Input::Watch(watch) => self.demand.watch(*watch),
        }
    }

    fn register(
        &mut self,
        now: Nanos,
        name: &PipelineName,
        (pid, start_ticks, uid): (Pid, u64, Uid),
        registration: &Registration,
        resumed: Option<(Generation, Settings)>,
    ) {
        let mut registration = registration.clone();
        if registration.watch.is_some() {
            registration.mode = Mode::Observe; // The socket refuses any other; a recording may hold anything.
        }
        let registration = Arc::new(registration);
        if let Some(pipeline) = self.pipelines.get_mut(name) {
            pipeline.bounds = narrowed(&registration.knobs, &pipeline.registration.knobs, &pipeline.bounds);
            let bounded = Registration { knobs: pipeline.bounds, ..Registration::clone(&registration) };
            pipeline.state.register(&bounded, resumed);
            (pipeline.pid, pipeline.start_ticks, pipeline.uid) = (pid, start_ticks, uid);
            pipeline.registration = registration;
            pipeline.alive = now;
            pipeline.tracker = tracker(&pipeline.registration);
            return;
        }
        if self.pipelines.len() >= self.config.limits.pipelines {
            return; // The socket refuses it before; a recording may hold anything.
        }
        let mut state = State::new(&registration, resumed);
        state.set_tuning(self.tuning);
        let fresh = Pipeline {
            pid,
            start_ticks,
            uid,
            bounds: registration.knobs,
            tracker: tracker(&registration),
            registration,
            alive: now,
            signals: Signals::default(),
            state,
            log: Log::default(),
        };
        self.pipelines.insert(name.clone(), fresh);
    }

    fn with(&mut self, name: &PipelineName, change: impl FnOnce(&mut Pipeline)) {
        if let Some(pipeline) = self.pipelines.get_mut(name) {
            change(pipeline);
        }
    }

    fn remove(&mut self, name: &PipelineName) {
        if self.pipelines.remove(name).is_some() {
            self.gone.push(name.clone());
        }
    }

    fn set_tuning(&mut self, tuning: Tuning) {
        self.tuning = tuning;
        for pipeline in self.pipelines.values_mut() {
            pipeline.state.set_tuning(tuning);
        }
    }

    fn tick(&mut self, window: &Window, publish: &mut dyn FnMut(&Publish)) -> TickOutcome {
        let now = window.end;
        self.demand.expire(now);
        self.drop_lapsed(now);
        let mut outcome = TickOutcome { now, gone: std::mem::take(&mut self.gone), ..TickOutcome::default() };
        // A name that came back within the tick has a page again.
        outcome.gone.retain(|name| !self.pipelines.contains_key(name));
        self.divide_cpu();
        let nothing = crate::aggregate::window::PipelineWindow::default();
        let told = self.pipelines.iter().filter_map(|(name, pipeline)| {
            Some((pipeline.seen_by_kernel(), window.pipelines.get(name)?.flows.as_deref()?))
        });
        let grades = self.kernel.observe(window.end.since(window.start), told);
        for (name, pipeline) in &mut self.pipelines {
            let seen = window.pipelines.get(name).unwrap_or(&nothing);
            if seen.levels.is_some() {
                pipeline.alive = now;
            }
            pipeline.signals = pipeline.tracker.observe(window, seen, grades.get(&pipeline.seen_by_kernel()));
            let (before, _) = pipeline.state.published();
            let decision = decide(&mut pipeline.state, &pipeline.signals, now);
            let (generation, settings) = pipeline.state.published();
            if generation != before {
                let news = Publish { name: name.clone(), uid: pipeline.uid, settings, generation };
                publish(&news);
                outcome.publish.push(news);
            }
            outcome.decisions.extend(pipeline.log.note(name, &decision));
        }
        outcome
    }

    /// Each steered pipeline's share of the common budget, by what it used in the tick before; the others are not limited
    /// by it, and take nothing from it.
    fn divide_cpu(&mut self) {
        let Some(budget) = self.cpu_budget else { return };
        let (steered, others): (Vec<_>, Vec<_>) = self.pipelines.values_mut().partition(|p| p.state.steered());
        let used: Vec<Option<f64>> = steered.iter().map(|p| p.signals.cpu_cores()).collect();
        for (pipeline, share) in steered.into_iter().zip(divide(budget, &used)) {
            pipeline.state.set_cpu_share(Some(share));
        }
        for pipeline in others {
            pipeline.state.set_cpu_share(None);
        }
    }

    /// A pipeline without a report page lives by its leases: when they have lapsed it is on its own defaults, and gone.
    fn drop_lapsed(&mut self, now: Nanos) {
        let lapsed: Vec<PipelineName> = self
            .pipelines
            .iter()
            .filter(|(_, pipeline)| {
                let terms = &pipeline.registration.lease;
                let life = Nanos::from_millis(terms.ttl_ms.saturating_add(terms.hold_ms));
                pipeline.registration.report.is_none()
                    && pipeline.registration.watch.is_none()
                    && now.since(pipeline.alive) > life
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in &lapsed {
            self.remove(name);
            self.aggregator.forget(name);
        }
    }
}

/// Follows a pipeline by its report, or by the kernel alone where it is only watched.
fn tracker(registration: &Registration) -> Tracker {
    if registration.watch.is_some() { Tracker::watching() } else { Tracker::default() }
}

impl Pipeline {
    /// It was never changed, and tells nothing of itself.
    fn is_silent(&self) -> bool {
        self.registration.watch.is_some()
    }

    /// What the kernel's evidence of it is kept under.
    fn seen_by_kernel(&self) -> Seen {
        (self.pid, self.registration.watch.as_ref().and_then(|watch| watch.event_bytes))
    }

    /// Other bounds; they stand until somebody sets others, whoever registers meanwhile.
    fn bound(&mut self, knobs: Knobs) {
        self.bounds = knobs;
        self.state.set_bounds(&knobs);
    }

    fn view(&self, name: &PipelineName, tuning: Tuning) -> PipelineView {
        let (generation, settings) = self.state.published();
        PipelineView {
            name: name.clone(),
            pid: self.pid,
            uid: self.uid,
            registration: Arc::clone(&self.registration),
            bounds: self.bounds,
            state: match (self.state.hand(), tuning, self.state.mode()) {
                (Hand::Human(..) | Hand::Foreign(_), ..) | (Hand::Agent, Tuning::Running, Mode::Manual) => {
                    TuningState::Manual
                }
                (Hand::Agent, Tuning::Paused, _) => TuningState::Paused,
                (Hand::Agent, Tuning::Running, Mode::Observe) => TuningState::Observe,
                (Hand::Agent, Tuning::Running, Mode::Canary | Mode::On) => TuningState::On,
            },
            settings,
            generation,
            signals: self.signals.to_json(name),
            decisions: self.log.kept(),
            decisions_by_reason: self.log.by_reason(),
        }
    }
}

/// The bounds of a new registration, with what somebody had narrowed of the one before: a restart undoes nobody's wish.
fn narrowed(registered: &Knobs, before: &Knobs, in_force: &Knobs) -> Knobs {
    let one = |new: KnobRange, old: KnobRange, held: KnobRange| {
        let min = if held.min > old.min { held.min.clamp(new.min, new.max) } else { new.min };
        let max = if held.max < old.max { held.max.clamp(min, new.max) } else { new.max };
        KnobRange { min, max, default: new.default }
    };
    Knobs {
        batch_bytes: one(registered.batch_bytes, before.batch_bytes, in_force.batch_bytes),
        flush_interval_us: one(registered.flush_interval_us, before.flush_interval_us, in_force.flush_interval_us),
    }
}
