//! The live agent: source, core and socket joined into one loop on one thread. It decides nothing itself.
//!
//! Each turn pulls what is ready, feeds the core, and at a tick writes pages, prolongs leases, shows a new view and tells
//! the source what is wanted next. An agent that ends takes its socket along and leaves the pages: nothing jumps.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use agent_common::{SocketRow, SyscallRow};
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::{Config, Switch};
use crate::event::{Input, Mapping, RawBatch, WatchKind};
use crate::history::{History, Note, NoteKind, Record};
use crate::run::archive::{HistoryArchive, begin_history, keep_decisions, shown};
use crate::run::core::{Core, CoreConfig, Publish, Standing, TickOutcome};
use crate::run::kinds::{recorded, standing};
use crate::run::live_source::LiveSource;
use crate::run::liveness::Liveness;
use crate::run::overhead::{AskedFor, Measure, Overhead};
use crate::run::own_cost::OwnCostMeter;
use crate::run::recorder::Recorder;
use crate::serve::accept::{Limits, serve};
use crate::serve::app::App;
use crate::serve::check::Preflight;
use crate::serve::claims::Claims;
use crate::serve::groups::Groups;
use crate::serve::guidance;
use crate::serve::listener::Bound;
use crate::serve::losses::LossLog;
use crate::serve::pages::{Pages, Publisher};
use crate::serve::render::{Renderer, Stretch};
use crate::serve::routes::router;
use crate::serve::view::{Listed, OwnCost, PipelineView, View};
use crate::serve::watchers::Watchers;
use crate::source::clock::{boottime, monotonic, wall};
use crate::source::inbox::InboxSender;
use crate::source::recording::Host;
use crate::source::{EventSource as _, Measuring, Pace, Pulled, Wanted};
use crate::units::{Nanos, Pid, ProfileKind, Uid};

/// Time after which a probe that was refused is tried again.
const TRY_AGAIN: Nanos = Nanos::from_secs(10);

/// What a run is told beyond the configuration.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Where everything that was seen is recorded.
    pub record: Option<PathBuf>,
    /// Runs the preflight.
    pub preflight: Preflight,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Ticks.
    pub ticks: u64,
    /// Decisions taken.
    pub decisions: u64,
    /// Decisions that changed a page.
    pub published: u64,
}

/// Runs the agent until `stop` says so. Must run on a current-thread runtime.
pub async fn run(config: &Config, options: RunOptions, stop: impl Future<Output = ()>) -> anyhow::Result<Report> {
    let guidance = Arc::new(guidance::load(config.guidance.as_deref())?);
    let bound = Bound::bind(&config.socket)?;
    let (source, sender) = LiveSource::open(config);
    let agent = Uid(rustix::process::geteuid().as_raw());
    let pages = Pages::under(&config.pages);
    let started = monotonic();
    let (views, seen) = watch::channel(Arc::new(View { now: started, started, ..View::default() }));
    let claims = Claims::default();
    let (history, no_history) = begin_history(config);
    let archive = HistoryArchive(history.clone());
    let renderer = Renderer::start(archive, config.most_debug).context("start the thread that draws profiles")?;
    let host = Host::new(kernel_release(), started);
    let recording = Recorder::begin(options.record.as_deref(), &host)?;
    let app = App {
        views: seen,
        inbox: sender.clone(),
        pages: pages.clone(),
        claims: claims.clone(),
        renderer: renderer.clone(),
        guidance,
        preflight: options.preflight,
        clock: monotonic,
        wall,
        agent,
        watchers: Watchers::default(),
    };
    if config.tune == Switch::Off {
        sender.send(Input::Pause).context("pause tuning")?;
    }
    if let Some(cores) = config.tune_cpu_cores {
        sender.send(Input::CpuBudget { cores }).context("set the budget of CPU time")?;
    }
    let cpus = cpus();
    let core = Core::new(CoreConfig { standing: standing(config, &[]), ..CoreConfig::default() }, started);
    let mut agent = Agent {
        core,
        source,
        publisher: Publisher::new(pages, agent),
        liveness: Liveness::default(),
        own: OwnCostMeter::default(),
        overhead: Overhead::new(config.budget, cpus, started),
        cpus,
        standing: standing(config, &[]),
        config: config.clone(),
        renderer,
        named: started,
        closed: started,
        recorded: BTreeSet::new(),
        losses: LossLog::default(),
        claims,
        sender,
        views,
        recording,
        history,
        no_history,
        mappings: Vec::new(),
        signals_kept: started,
        syscalls: Arc::default(),
        sockets: Arc::default(),
        wanted: Wanted::default(),
        refused: Vec::new(),
        applied: started,
        started,
        report: Report::default(),
    };
    tracing::info!(socket = %bound.path().display(), pages = %config.pages.display(), "the agent is ready");
    let local = tokio::task::LocalSet::new();
    let (router, groups) = (router(&app), Groups::look_up(&config.groups));
    local
        .run_until(async {
            tokio::select! {
                () = serve(bound.listener(), router, Limits::default(), groups) => Ok(()),
                ended = agent.turn() => ended,
                () = stop => Ok(()),
            }
        })
        .await?;
    agent.finish_recording().await;
    let report = agent.report;
    tracing::info!(ticks = report.ticks, decisions = report.decisions, "the agent ends; the pages stay as they are");
    Ok(report)
}

/// Until the system or the terminal asks the agent to end.
pub async fn asked_to_stop() {
    let streams = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = streams else {
        tracing::warn!("signals cannot be caught: the agent can only be killed");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn cpus() -> u32 {
    std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1)
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

struct Agent {
    core: Core,
    source: LiveSource,
    publisher: Publisher,
    liveness: Liveness,
    own: OwnCostMeter,
    overhead: Overhead,
    /// Looked up once: it takes the files of cgroups.
    cpus: u32,
    standing: Standing,
    config: Config,
    /// Mappings that found the renderer's queue full.
    mappings: Vec<Mapping>,
    renderer: Renderer,
    /// End of the newest slice whose names have been looked up.
    named: Nanos,
    /// End of the newest profile window that has closed.
    closed: Nanos,
    /// Kinds of profiles that were wanted at any time in the open window.
    recorded: BTreeSet<ProfileKind>,
    losses: LossLog,
    claims: Claims,
    sender: InboxSender,
    views: watch::Sender<Arc<View>>,
    recording: Recorder,
    history: Option<History>,
    /// Why there is no history, where there should be one.
    no_history: Option<String>,
    /// When signals were last kept.
    signals_kept: Nanos,
    syscalls: Arc<Vec<Listed<SyscallRow>>>,
    sockets: Arc<Vec<Listed<SocketRow>>>,
    wanted: Wanted,
    refused: Vec<String>,
    applied: Nanos,
    started: Nanos,
    report: Report,
}

impl Agent {
    async fn turn(&mut self) -> anyhow::Result<()> {
        let mut batch = RawBatch::new();
        self.want(monotonic());
        loop {
            batch.clear();
            let until = monotonic() + Nanos::SECOND;
            if self.source.pull(until, &mut batch).await? == Pulled::End {
                return Ok(());
            }
            self.recording.append(&batch);
            let mut newest = None;
            let (report, history, publisher) = (&mut self.report, self.history.as_ref(), &mut self.publisher);
            let publish = |news: &Publish| {
                publisher.publish_at_once(&news.name, news.uid, (news.generation, news.settings), boottime());
            };
            self.core.feed_through(&batch, publish, |outcome| {
                keep_decisions(history, &outcome);
                newest = Some(count(report, outcome));
            });
            if let Some(now) = newest {
                self.tick(now);
            }
        }
    }

    /// What is due once a tick. Several ticks in one batch need it only once: pages and view show the newest state.
    fn tick(&mut self, now: Nanos) {
        let pipelines = self.core.pipelines();
        let mut degraded = self.publisher.publish(&pipelines, boottime());
        for (name, process) in self.liveness.ended(&pipelines, &self.claims) {
            // A full inbox is emptied by the next pull, and the descriptor says the same at the next tick.
            if self.sender.send(Input::Gone { name: name.clone() }).is_ok() {
                self.claims.release(&name, process);
                tracing::info!(%name, pid = process.pid.0, "the process of a pipeline has ended");
            }
        }
        // Before a probe goes because its time is up: this tick has brought its last rows.
        self.list();
        self.want(now);
        self.losses.note(now, self.core.lost());
        degraded.extend(self.source.degraded());
        degraded.extend(self.refused.iter().cloned());
        degraded.extend(self.recording.degraded().map(str::to_owned));
        degraded.extend(self.no_history.clone());
        degraded.extend(self.history.iter().flat_map(|history| history.status().degraded()));
        self.keep_signals(now, &pipelines);
        self.hand_over();
        let names = self.renderer.names_view();
        degraded.extend(names.degraded.clone());
        let own = self.own.read(now, self.overhead.probes_time(), names.symbolizer);
        degraded.extend(self.keep_to_budget(now, &own));
        let budget = self.overhead.view(Nanos(Nanos::SECOND.0 / self.config.hertz.max(1)));
        degraded.extend(budget.degraded());
        let is_tuned = !pipelines.is_empty();
        let view = View {
            now,
            started: self.started,
            paused: self.core.paused(),
            pipelines,
            slices: self.core.slices().to_vec(),
            closed: self.closed,
            windows_lost: self.renderer.skipped(),
            history: shown(self.history.as_ref()),
            recorded: self.recorded.iter().copied().collect(),
            syscalls: Arc::clone(&self.syscalls),
            sockets: Arc::clone(&self.sockets),
            lost: self.core.lost(),
            losses: self.losses.clone(),
            own,
            budget,
            names,
            attached: self.source.attached(),
            remarks: self.source.remarks(),
            degraded,
        };
        self.views.send_replace(Arc::new(view));
        self.source.set_pace(self.pace(is_tuned));
    }

    /// Ten ticks a second are for whoever is tuned or watched; a profile that is recorded all the time needs fewer.
    fn pace(&self, is_tuned: bool) -> Pace {
        /// More of them would fill the ring buffer between two ticks.
        const MOST_SAMPLES_A_SECOND: u64 = 2_000;
        let samples = self.config.hertz.saturating_mul(u64::from(self.cpus));
        let quiet = !is_tuned && !self.core.is_watched() && self.wanted.sched.is_none();
        if quiet && samples <= MOST_SAMPLES_A_SECOND { Pace::Rest } else { Pace::Tick }
    }

    /// Hands the rows over while their probes are attached; afterwards they stay as they were last.
    fn list(&mut self) {
        let attached = self.source.attached();
        let comm = |pid| self.core.comm(Pid(pid));
        if attached.contains(&WatchKind::Syscalls.family()) {
            let listed = |row: &Arc<SyscallRow>| Listed { row: Arc::clone(row), comm: comm(row.pid) };
            self.syscalls = Arc::new(self.core.syscalls().map(listed).collect());
        }
        if attached.contains(&WatchKind::Sockets.family()) {
            let listed = |row: &Arc<SocketRow>| Listed { row: Arc::clone(row), comm: comm(row.seen.pid) };
            self.sockets = Arc::new(self.core.sockets().map(listed).collect());
        }
    }

    /// Measures what the agent costs, and leaves out what is too much. Returns what could not be set.
    fn keep_to_budget(&mut self, now: Nanos, own: &OwnCost) -> Option<String> {
        let asked_for = if self.core.is_watched() { AskedFor::Something } else { AskedFor::Nothing };
        let due = self.overhead.tick(now, own, || self.source.probes_time(), asked_for);
        match due.measure {
            Some(Measure::Begin) => self.source.measure_run_time(Measuring::On),
            Some(Measure::End) => self.source.measure_run_time(Measuring::Off),
            None => {}
        }
        let step = due.step?;
        self.standing = standing(&self.config, self.overhead.shed());
        self.core.set_standing(self.standing);
        tracing::info!(step = ?step, "the agent's own cost has led to another step");
        self.source.thin(step.cpu_factor, step.wait_factor)
    }

    /// Hands over what has closed: slices for their names while their processes live, windows to be kept.
    fn hand_over(&mut self) {
        self.mappings.extend(self.core.take_mappings());
        if !self.mappings.is_empty()
            && let Err(refused) = self.renderer.learn(std::mem::take(&mut self.mappings))
        {
            self.mappings = refused;
        }
        let closed = self.core.take_closed();
        if !closed.is_empty() {
            let kinds: Arc<[ProfileKind]> = self.recorded.iter().copied().collect();
            for window in closed {
                self.closed = window.end;
                let lost = self.losses.between(window.start, window.end);
                self.renderer.close(Stretch { stacks: window, kinds: Arc::clone(&kinds), lost });
            }
            // What was recorded for somebody's asking may not be in the next window.
            self.recorded = recorded(&self.wanted, &self.source.attached());
        }
        for slice in self.core.slices().iter().filter(|slice| slice.start >= self.named) {
            self.renderer.resolve(Arc::clone(slice));
        }
        self.named = self.core.slices().last().map_or(self.named, |newest| newest.end);
    }

    /// Keeps the signals of the pipelines once a second, of many pipelines in turn: so many lines a second and no more.
    fn keep_signals(&mut self, now: Nanos, pipelines: &[PipelineView]) {
        const A_SECOND: usize = 8;
        let Some(history) = &self.history else { return };
        if now.since(self.signals_kept) < Nanos::SECOND {
            return;
        }
        self.signals_kept = now;
        let turns = pipelines.len().div_ceil(A_SECOND).max(1);
        let turn = usize::try_from(now.0 / Nanos::SECOND.0).unwrap_or(0) % turns;
        for pipeline in pipelines.iter().skip(turn).step_by(turns) {
            if let Ok(json) = serde_json::to_string(&pipeline.signals) {
                let pipeline = pipeline.name.to_string();
                history.keep(Record::Note(Note { kind: NoteKind::Signals, pipeline, at: now, json }));
            }
        }
    }

    /// Ends a recording with the names of everything in it. Whatever happens to it, the agent ends as it should.
    async fn finish_recording(&mut self) {
        if !self.recording.is_running() {
            return;
        }
        match self.renderer.names().await {
            Ok(names) => self.recording.finish(monotonic(), &names),
            Err(error) => tracing::warn!(%error, "the recording ends without its table of names"),
        }
    }

    /// Tells the source what is wanted, if that has changed: attaching costs. What was refused is tried again at times,
    /// because the cause may have gone.
    fn want(&mut self, now: Nanos) {
        let wanted = self.core.wanted(now);
        let again = !self.refused.is_empty() && now.since(self.applied) >= TRY_AGAIN;
        if wanted == self.wanted && !again {
            return;
        }
        let refused = self.source.apply(&wanted);
        if refused != self.refused {
            for line in &refused {
                tracing::warn!("{line}");
            }
        }
        (self.wanted, self.refused, self.applied) = (wanted, refused, now);
        self.recorded.extend(recorded(&self.wanted, &self.source.attached()));
    }
}

fn count(report: &mut Report, outcome: TickOutcome) -> Nanos {
    let TickOutcome { now, publish, decisions, gone: _ } = outcome;
    report.ticks += 1;
    report.published += publish.len() as u64;
    report.decisions += decisions.len() as u64;
    now
}
