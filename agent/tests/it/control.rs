//! The core from the outside: records in, settings and decisions out. Humans, others at the knob, pauses and losses.
#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use agent_common::{FLOW_TARGET_BYTES, FlowKey, FlowRow, FlowStats};
use tidegate::event::{Input, RawBatch, Watch, WatchKind, encode};
use tidegate::run::core::{Core, CoreConfig, CpuSampling, Standing, TickOutcome};
use tidegate::serve::view::{PipelineView, TuningState};
use tidegate::source::sim::page;
use tidegate::units::{BatchSize, FlushInterval, Generation, Nanos, Pid, PipelineName, Settings, Uid};
use tidegate_client::abi::{
    Applied, DecisionJson, KnobRange, Knobs, LeaseTerms, Mode, Objective, OverrideRequest, Policy,
    REPORT_HISTOGRAM_WORDS, REPORT_WORDS, Registration, ReportWord,
};

/// A pipeline whose report is made by hand, and the core that watches it.
struct Bench {
    core: Core,
    now: Nanos,
    words: [u64; REPORT_WORDS],
    batch: RawBatch,
    taken: Option<(Generation, Settings)>,
    decisions: Vec<DecisionJson>,
}

fn name() -> PipelineName {
    PipelineName::try_from("p".to_owned()).unwrap()
}

fn registration(mode: Mode) -> Registration {
    Registration {
        knobs: Knobs {
            batch_bytes: KnobRange { min: 4_096, max: 1 << 20, default: 256 << 10 },
            flush_interval_us: KnobRange { min: 1_000, max: 250_000, default: 250_000 },
        },
        objective: Objective::default(),
        mode,
        policy: Policy::Regime,
        report: Some("/run/p.report".into()),
        lease: LeaseTerms { ttl_ms: 1_000, hold_ms: 1_000, ..LeaseTerms::default() },
        watch: None,
    }
}

fn settings(batch: u64, interval: u64) -> Settings {
    Settings { batch: BatchSize(batch), interval: FlushInterval(interval) }
}

impl Bench {
    fn new(registration: Registration, resumed: Option<(Generation, Settings)>) -> Self {
        let mut bench = Self {
            core: Core::new(
                CoreConfig {
                    standing: Standing { cpu: CpuSampling::OnDemand, ..Standing::default() },
                    ..CoreConfig::default()
                },
                Nanos(0),
            ),
            now: Nanos(0),
            words: [0; REPORT_WORDS],
            batch: RawBatch::new(),
            taken: None,
            decisions: Vec::new(),
        };
        bench.register(registration, resumed);
        bench
    }

    fn register(&mut self, registration: Registration, resumed: Option<(Generation, Settings)>) {
        self.input(&Input::Register {
            name: name(),
            pid: Pid(7),
            start_ticks: 1,
            uid: Uid(1_000),
            registration: Box::new(registration),
            resumed,
        });
    }

    fn input(&mut self, input: &Input) {
        encode::input(&mut self.batch, self.now, input);
    }

    /// A tick in which the pipeline took `events` in and says that it uses what was published.
    fn tick(&mut self, events: u64) -> TickOutcome {
        self.set(ReportWord::EventsIn, self.words[ReportWord::EventsIn as usize] + events);
        self.set(ReportWord::BytesIn, self.words[ReportWord::BytesIn as usize] + 512 * events);
        if let Some((generation, settings)) = self.taken {
            self.uses(generation, settings);
        }
        let page = page::render(&self.words, &[0; REPORT_HISTOGRAM_WORDS]);
        self.tick_with(Some(Ok(&page)))
    }

    fn tick_with(&mut self, report: Option<Result<&[u8], u16>>) -> TickOutcome {
        self.now = self.now + Nanos::TICK;
        if let Some(report) = report {
            encode::report(&mut self.batch, self.now, &name(), report);
        }
        encode::tick(&mut self.batch, self.now);
        let mut outcomes = Vec::new();
        self.core.feed(&self.batch, |outcome| outcomes.push(outcome));
        self.batch.clear();
        let [outcome] = <[TickOutcome; 1]>::try_from(outcomes).unwrap();
        if let Some(publish) = outcome.publish.last() {
            self.taken = Some((publish.generation, publish.settings));
        }
        self.decisions.extend(outcome.decisions.iter().cloned());
        outcome
    }

    fn set(&mut self, word: ReportWord, value: u64) {
        self.words[word as usize] = value;
    }

    fn uses(&mut self, generation: Generation, settings: Settings) {
        self.set(ReportWord::Generation, generation.0);
        self.set(ReportWord::BatchBytes, settings.batch.0);
        self.set(ReportWord::FlushIntervalUs, settings.interval.0);
    }

    fn run(&mut self, ticks: u32, events: u64) {
        for _ in 0..ticks {
            self.tick(events);
        }
    }

    fn view(&self) -> PipelineView {
        self.core.pipelines().into_iter().next().unwrap()
    }

    fn last(&self) -> &DecisionJson {
        self.decisions.last().unwrap()
    }
}

#[test]
fn the_first_signals_set_the_regime_at_once() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(2, 30);
    assert_eq!(bench.view().settings, settings(65_536, 5_000));
    assert_eq!((bench.last().reason.as_str(), bench.last().applied), ("start", Applied::Applied));
    assert_eq!(bench.view().state, TuningState::On);
    assert!(bench.last().explanation.contains("300 events/s is cold"), "{}", bench.last().explanation);
}

#[test]
fn a_steady_load_leaves_no_trail_of_decisions() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(600, 30);
    assert!(bench.decisions.len() <= 3, "{:#?}", bench.decisions);
}

#[test]
fn a_step_is_answered_within_two_ticks() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(50, 30);
    bench.run(2, 5_500);
    assert_eq!(bench.view().settings.batch, BatchSize(512 << 10));
    assert_eq!(bench.last().reason, "step_rise");
    bench.run(50, 5_500);
    bench.run(2, 30);
    assert_eq!(bench.view().settings.interval, FlushInterval(5_000));
    assert_eq!(bench.last().reason, "step_fall");
}

#[test]
fn advice_never_reaches_the_page() {
    let mut bench = Bench::new(registration(Mode::Observe), None);
    for _ in 0..50 {
        assert!(bench.tick(30).publish.is_empty());
    }
    assert_eq!(bench.view().state, TuningState::Observe);
    assert_eq!((bench.view().settings, bench.view().generation), (settings(256 << 10, 250_000), Generation(0)));
    assert_eq!((bench.last().applied, bench.last().flush_interval_us), (Applied::Advised, 5_000));
}

#[test]
fn a_human_pins_the_knobs_within_the_bounds_and_frees_them() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(10, 30);
    let request = OverrideRequest { batch_bytes: None, flush_interval_us: Some(u64::MAX), ttl_s: None };
    bench.input(&Input::Override { name: name(), uid: Uid(0), request });
    assert_eq!(bench.tick(30).publish[0].settings, settings(65_536, 250_000));
    bench.run(50, 5_500);
    assert_eq!((bench.view().settings, bench.view().state), (settings(65_536, 250_000), TuningState::Manual));
    bench.input(&Input::Free { name: name() });
    bench.run(2, 5_500);
    assert_eq!((bench.view().settings.batch, bench.view().state), (BatchSize(512 << 10), TuningState::On));
}

#[test]
fn a_pin_never_outlives_the_bounds_it_was_made_in() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(5, 30);
    let request = OverrideRequest { batch_bytes: Some(1 << 20), flush_interval_us: Some(200_000), ttl_s: None };
    bench.input(&Input::Override { name: name(), uid: Uid(0), request });
    bench.tick(30);
    assert_eq!(bench.view().settings, settings(1 << 20, 200_000));
    let mut narrower = registration(Mode::On);
    narrower.knobs.batch_bytes = KnobRange { min: 4_096, max: 65_536, default: 8_192 };
    bench.register(narrower, None);
    bench.run(2, 30);
    assert_eq!((bench.view().settings, bench.view().state), (settings(65_536, 200_000), TuningState::Manual));
}

#[test]
fn a_pin_with_a_term_ends_by_itself() {
    let mut bench = Bench::new(registration(Mode::Observe), None);
    bench.run(5, 30);
    let request = OverrideRequest { batch_bytes: Some(8_192), flush_interval_us: Some(2_000), ttl_s: Some(1) };
    bench.input(&Input::Override { name: name(), uid: Uid(0), request });
    bench.tick(30);
    assert_eq!(bench.view().settings, settings(8_192, 2_000), "a human acts also where the agent may not");
    bench.run(10, 30);
    assert_eq!(bench.view().settings, settings(256 << 10, 250_000));
}

#[test]
fn somebody_else_at_the_knob_is_left_alone_until_it_is_freed() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(10, 30);
    let (generation, _) = bench.taken.take().unwrap();
    bench.uses(generation, settings(65_536, 90_000));
    bench.run(5, 30);
    assert_eq!((bench.view().state, bench.last().reason.as_str()), (TuningState::Manual, "manual"));
    bench.run(20, 5_500);
    assert_eq!(bench.view().generation, generation, "hands off, whatever the load does");
    bench.input(&Input::Free { name: name() });
    let freed = bench.tick(5_500);
    assert!(freed.publish[0].generation > generation, "the pipeline is asked to take the values again");
    bench.run(3, 5_500);
    assert_eq!(bench.view().settings.batch, BatchSize(512 << 10));
}

#[test]
fn a_pause_holds_everything_and_ends() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(10, 30);
    bench.input(&Input::Pause);
    bench.run(30, 5_500);
    assert!(bench.core.paused());
    assert_eq!((bench.view().settings.interval, bench.view().state), (FlushInterval(5_000), TuningState::Paused));
    bench.input(&Input::Resume);
    bench.run(2, 5_500);
    assert_eq!(bench.view().settings.batch, BatchSize(512 << 10), "what the load did meanwhile is caught up with");
}

#[test]
fn signals_that_cannot_be_trusted_change_nothing_and_say_why() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(20, 5_500);
    let held = bench.view().settings;
    for (ticks, report, reason) in
        [(1, Some(Err(2)), "bad_report"), (11, Some(Ok(&[0_u8; 99][..])), "bad_report"), (20, None, "stale")]
    {
        for _ in 0..ticks {
            assert!(bench.tick_with(report).publish.is_empty());
        }
        bench.run(0, 0);
        assert_eq!(bench.last().reason, reason, "{:?}", bench.last());
        assert_eq!(bench.view().settings, held);
        assert!(!bench.view().signals.degraded.is_empty());
    }
    assert_eq!(bench.view().signals.rate, None, "an old rate is no rate");
}

#[test]
fn records_that_cannot_be_decoded_are_counted_and_hold_the_tick() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(10, 30);
    bench.batch.push_record(&[24, 0, 0, 0, 99, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(bench.tick(5_500).publish.is_empty());
    assert_eq!((bench.core.lost().undecodable, bench.last().reason.as_str()), (1, "lossy"));
    bench.tick(5_500);
    assert_eq!(bench.view().settings.batch, BatchSize(512 << 10));
}

#[test]
fn a_queue_near_its_end_passes_by_every_limit() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(10, 30);
    bench.set(ReportWord::QueueCapacity, 1_000_000);
    bench.set(ReportWord::QueueBytes, 850_000);
    bench.tick(30);
    assert_eq!((bench.last().reason.as_str(), bench.last().batch_bytes), ("panic", 512 << 10));
    bench.set(ReportWord::QueueBytes, 0);
    bench.tick(30);
    assert_eq!(bench.view().settings.batch, BatchSize(65_536));
}

#[test]
fn a_tuned_pipeline_goes_on_where_an_earlier_agent_left_it() {
    let held = settings(65_536, 5_000);
    let mut bench = Bench::new(registration(Mode::On), Some((Generation(41), held)));
    assert!(bench.tick(30).publish.is_empty(), "nothing jumps when an agent starts");
    assert_eq!((bench.view().settings, bench.view().generation), (held, Generation(41)));
    bench.run(20, 5_500);
    assert!(bench.view().generation > Generation(41));
    let observed = Bench::new(registration(Mode::Observe), Some((Generation(41), held))).tick(30);
    assert_eq!(
        (observed.publish[0].settings, observed.publish[0].generation),
        (settings(256 << 10, 250_000), Generation(42))
    );
}

#[test]
fn a_second_registration_keeps_the_state_and_takes_the_new_bounds() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(10, 30);
    let (before, decisions) = (bench.view().generation, bench.view().decisions.len());
    let mut narrower = registration(Mode::On);
    narrower.knobs.flush_interval_us = KnobRange { min: 8_000, default: 9_000, max: 10_000 };
    bench.register(narrower, None);
    bench.tick(30);
    assert_eq!(bench.view().settings.interval, FlushInterval(8_000));
    assert!(bench.view().generation > before && bench.view().decisions.len() > decisions);
}

#[test]
fn a_pipeline_without_reports_lives_by_its_leases() {
    let mut bench = Bench::new(Registration { report: None, ..registration(Mode::On) }, None);
    for _ in 0..40 {
        bench.input(&Input::Lease { name: name() });
        assert!(bench.tick_with(None).gone.is_empty());
    }
    let gone: Vec<PipelineName> = (0..25).flat_map(|_| bench.tick_with(None).gone).collect();
    assert_eq!(gone, [name()]);
    assert!(bench.core.pipelines().is_empty());
}

#[test]
fn what_is_wanted_follows_registrations_and_watches() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.tick(30);
    let wanted = bench.core.wanted(bench.now);
    assert_eq!((wanted.cpu, wanted.reports.len(), wanted.tasks.len()), (None, 1, 1));
    let watch = Watch { what: WatchKind::Cpu, pid: None, until: bench.now + Nanos::SECOND };
    bench.input(&Input::Watch(watch));
    bench.tick(30);
    assert!(bench.core.wanted(bench.now).cpu.is_some());
    bench.run(10, 30);
    assert!(bench.core.wanted(bench.now).cpu.is_none(), "a watch ends by itself");
    bench.input(&Input::Gone { name: name() });
    assert_eq!(bench.tick_with(None).gone, [name()]);
    assert_eq!(bench.core.wanted(bench.now), tidegate::source::Wanted::default());
}

#[test]
fn the_kernels_own_view_of_a_pipeline_that_reports_is_known_while_somebody_looks() {
    let mut bench = Bench::new(registration(Mode::On), None);
    let row = FlowRow {
        key: FlowKey { pid: 7, fd: 4, ended_ns: 0 },
        target: [0; FLOW_TARGET_BYTES],
        stats: FlowStats { first_ns: 1, ..FlowStats::ZERO },
    };
    let is_known = |bench: &mut Bench| {
        encode::flow(&mut bench.batch, bench.now, &row);
        bench.tick(30);
        bench.view().signals.kernel.is_some()
    };
    assert!(!is_known(&mut bench), "nobody looks");
    let watch = Watch { what: WatchKind::Flows, pid: Some(Pid(7)), until: bench.now + Nanos::SECOND };
    bench.input(&Input::Watch(watch));
    let known: Vec<bool> = (0..12).map(|_| is_known(&mut bench)).collect();
    assert_eq!(known, [[true; 9].as_slice(), &[false; 3]].concat());
}

#[test]
fn settings_are_handed_out_as_soon_as_they_are_decided() {
    let mut bench = Bench::new(registration(Mode::On), None);
    bench.run(3, 100);
    let page = page::render(&bench.words, &[0; REPORT_HISTOGRAM_WORDS]);
    bench.input(&Input::Override {
        name: name(),
        uid: Uid(0),
        request: OverrideRequest { batch_bytes: Some(77_824), flush_interval_us: None, ttl_s: None },
    });
    bench.now = bench.now + Nanos::TICK;
    encode::report(&mut bench.batch, bench.now, &name(), Ok(&page));
    encode::tick(&mut bench.batch, bench.now);
    let (mut at_once, mut at_the_end) = (Vec::new(), Vec::new());
    let seen = std::cell::RefCell::new(&mut at_once);
    bench.core.feed_through(
        &bench.batch,
        |news| seen.borrow_mut().push(news.clone()),
        |outcome| {
            assert!(!seen.borrow().is_empty(), "only with the rest of the tick");
            at_the_end.extend(outcome.publish);
        },
    );
    assert_eq!((at_once.len(), at_once[0].uid, at_once[0].settings.batch), (1, Uid(1_000), BatchSize(77_824)));
    assert_eq!(at_once, at_the_end);
}
