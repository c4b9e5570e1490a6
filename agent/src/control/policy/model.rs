//! The model policy (L1): rate, learnt cost of a flush and caps in; a flush interval, a batch size and what they should
//! come to out. Pure, and every number of the way there travels with the proposal.
//!
//! A flush of n bytes takes a + b·n. Flushed every P = T + 1/λ, the flusher is busy a/P + ρ of the time, ρ = λ·bytes·b being
//! what the bytes alone cost. The shortest interval below a busy share U is therefore T = a/(U − ρ) − 1/λ, and the worst wait
//! T + a + b·n. The interval is the knob; the batch size only has to stay out of its way, at twice the bytes that gather
//! within it, and never below what keeps the queue stable, κ·λ·a/(1 − ρ).

use tidegate_client::abi::Goal;

use crate::control::load::Load;
use crate::control::policy::regime::{self, COLD_BATCH, Regime};
use crate::control::policy::{Because, Predicted, Proposal, rounded};
use crate::signal::flush_cost::FlushCost;

/// Share of the wanted p99 that waiting and flushing may take.
pub const OBJECTIVE_SHARE: f64 = 0.8;
/// Slack of the batch size over what gathers within the interval: age is to decide, not size.
pub const BATCH_SLACK: f64 = 2.0;
/// Slack of the stability bound.
pub const STABILITY: f64 = 1.2;
/// The cap less what the bytes alone cost is at least this share of the cap: beyond, no interval keeps the cap.
const LEAST_HEADROOM: f64 = 0.1;
/// Longest interval this policy proposes without an objective, ms.
const LONGEST_MS: f64 = 250.0;
/// Standard deviations of a flush's noise that its 99th percentile lies above the mean.
const NOISE_AT_P99: f64 = 2.33;
/// Even arrivals are counted one by one below so many a flush; above, one more or less matters little.
const FEW_EVENTS: f64 = 4.0;
/// A period this little beyond a whole number of gaps does with the whole number: the cap is that much from exact.
const SOON_ENOUGH: f64 = 0.03;
/// Share of a gap by which an even arrival may be late.
const LATE: f64 = 0.1;
/// Longest stretch of the interval in order to keep a cap on CPU time.
const LONGEST_STRETCH: f64 = 16.0;

/// What a proposal of the model rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grounds {
    /// Fixed cost of a flush, ms; of the mean flush where the sizes are too alike to tell more.
    pub fixed_ms: f64,
    /// Cost of a KiB, microseconds.
    pub per_kib_us: Option<f64>,
    /// Events a second that it was made for.
    pub rate: f64,
    /// Cap on the busy share.
    pub busy_cap: f64,
    /// Candidate: shortest interval under the caps, microseconds.
    pub by_caps_us: f64,
    /// Candidate: longest interval within the wanted p99, microseconds; absent without one, zero where nothing is left.
    pub by_objective_us: Option<f64>,
    /// What decided between them.
    pub constraint: Constraint,
}

/// What decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// The busy share.
    Busy,
    /// The flushes a second that the downstream takes.
    Flushes,
    /// The CPU time.
    Cpu,
    /// The wanted p99.
    Objective,
    /// The middle between caps and wanted p99.
    Middle,
    /// The bytes alone keep the flusher busy beyond its cap: no interval helps.
    Capacity,
}

/// What the model remembers: how much longer the interval is than the busy share asks, to keep a cap on CPU time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stretch {
    factor: f64,
    /// Whether what it last asked for is in force.
    arrived: bool,
}

impl Default for Stretch {
    fn default() -> Self {
        Self { factor: 1.0, arrived: true }
    }
}

impl Stretch {
    /// Longer at once while the cap is exceeded, back slowly with a tenth of room: cost follows the interval late.
    fn follow(&mut self, load: &Load) -> f64 {
        if let Some((used, cap)) = load.cpu_cores.zip(load.cpu_cap()) {
            // On the way there the cost is still that of the settings before: asking for more would overshoot.
            if used > cap && self.arrived {
                self.factor = (self.factor * 1.02).min(LONGEST_STRETCH);
            } else if used < 0.9 * cap && self.arrived {
                self.factor = (self.factor * 0.995).max(1.0);
            }
        } else {
            self.factor = 1.0;
        }
        self.factor
    }

    /// The same, told whether what it last asked for is in force.
    pub fn when(&mut self, arrived: bool) -> &mut Self {
        self.arrived = arrived;
        self
    }
}

/// What the settings should be.
pub fn propose(stretch: &mut Stretch, load: &Load, before: Option<Regime>) -> Proposal {
    let rate = load.acting_rate();
    let longer = stretch.follow(load);
    let Some(cost) = load.flushes.cost else {
        // The regimes lead meanwhile: their interval brings the first flushes, and with them the cost.
        let proposal = regime::propose(regime::regime(before, load.rate), load);
        return Proposal { because: Because::Learning, ..proposal };
    };
    let plant = Plant::new(&cost, load, rate);
    let (by_caps, limit) = plant.by_caps(load, longer);
    let by_objective = load.objective.p99_ms.map(|p99| plant.by_objective(p99));
    let (interval, constraint) = choose(load.objective.goal, by_caps, limit, by_objective);
    let interval = interval.min(LONGEST_MS.max(by_objective.unwrap_or(0.0)));
    let grounds = Grounds {
        fixed_ms: plant.fixed_ms,
        per_kib_us: cost.line.map(|line| line.per_kib_us),
        rate,
        busy_cap: plant.busy_cap,
        by_caps_us: 1e3 * by_caps,
        by_objective_us: by_objective.map(|ms| 1e3 * ms),
        constraint,
    };
    Proposal {
        settings: rounded(plant.batch(interval, load.objective.caps.queue_bytes), 1e3 * interval),
        because: Because::Model(grounds),
        predicted: Some(plant.predict(interval)),
    }
}

fn choose(goal: Goal, by_caps: f64, limit: Constraint, by_objective: Option<f64>) -> (f64, Constraint) {
    // A cap wins over the objective: what is not there cannot be spent.
    let within = by_objective.filter(|ms| *ms > by_caps);
    match (goal, within) {
        (Goal::Balanced, Some(longest)) if limit != Constraint::Capacity => {
            ((by_caps.max(longest / 64.0) * longest).sqrt(), Constraint::Middle)
        }
        (Goal::Efficiency, Some(longest)) => (longest, Constraint::Objective),
        _ => (by_caps, limit),
    }
}

/// The pipeline as the model sees it. Times in ms.
struct Plant {
    fixed_ms: f64,
    noise_ms: f64,
    /// Busy share that the bytes alone cost.
    by_bytes: f64,
    bytes_per_ms: f64,
    /// Mean gap between events.
    gap_ms: f64,
    busy_cap: f64,
    /// Whether events come evenly.
    even: bool,
}

impl Plant {
    fn new(cost: &FlushCost, load: &Load, rate: f64) -> Self {
        let bytes_per_ms = rate * load.event_bytes() / 1e3;
        let (fixed_ms, ms_per_byte) = match cost.line {
            Some(line) => (line.fixed_ms, line.per_kib_us / 1_024.0 / 1e3),
            // One size only: as if all of its cost were fixed. Flushes that come later are then dearer than thought, the
            // sizes differ, and the line is known.
            None => (cost.mean_ms, 0.0),
        };
        Self {
            fixed_ms: fixed_ms.max(0.0),
            noise_ms: cost.noise_ms.max(0.0),
            by_bytes: (bytes_per_ms * ms_per_byte).max(0.0),
            bytes_per_ms,
            gap_ms: if rate > 0.0 { 1e3 / rate } else { f64::INFINITY },
            busy_cap: load.busy_cap(),
            even: load.is_even(),
        }
    }

    /// The shortest interval under all caps, and which of them it is.
    fn by_caps(&self, load: &Load, stretch: f64) -> (f64, Constraint) {
        let room = self.busy_cap - self.by_bytes;
        let least = LEAST_HEADROOM * self.busy_cap;
        let busy = if room < least { Constraint::Capacity } else { Constraint::Busy };
        let period = self.fixed_ms / room.max(least);
        let by_flushes =
            load.objective.caps.flushes_per_s.filter(|cap| *cap > 0.0).map_or(0.0, |cap| 1e3 / cap.max(1e-3));
        let (period, limit) = if by_flushes > period { (by_flushes, Constraint::Flushes) } else { (period, busy) };
        let limit = if stretch > 1.01 && limit == Constraint::Busy { Constraint::Cpu } else { limit };
        (self.for_period(period * stretch), limit)
    }

    /// The interval that leads to this time from one take-off to the next.
    ///
    /// Events that come by chance are a gap apart on average, wherever the wait ends. Those that come evenly are there or
    /// not: an interval that ends before the next one has waited in vain, so it ends a little after one.
    fn for_period(&self, period: f64) -> f64 {
        let events = period / self.gap_ms;
        if self.even && events < FEW_EVENTS {
            let more = (events - SOON_ENOUGH).ceil() - 1.0;
            return if more > 0.0 { (more + LATE) * self.gap_ms } else { 0.0 };
        }
        (period - self.gap_ms).max(0.0)
    }

    /// The longest interval whose worst wait leaves the wanted p99 its share; nothing below zero.
    fn by_objective(&self, p99_ms: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an objective is a few digits")]
        let budget = OBJECTIVE_SHARE * p99_ms as f64 - self.fixed_ms - NOISE_AT_P99 * self.noise_ms;
        (budget / (1.0 + self.by_bytes)).max(0.0)
    }

    /// From one take-off to the next. A flush that is still in flight holds the next one up.
    fn period(&self, interval: f64) -> f64 {
        let gap = if self.gap_ms.is_finite() { self.gap_ms } else { 0.0 };
        let by_age = interval + gap;
        let in_flight = self.fixed_ms + self.by_bytes * by_age;
        by_age.max(in_flight / (1.0 - self.by_bytes.min(0.9)).max(0.1)).max(1e-3)
    }

    fn batch(&self, interval: f64, queue_cap: Option<u64>) -> f64 {
        let gathers = BATCH_SLACK * self.bytes_per_ms * self.period(interval);
        let stable = STABILITY * self.bytes_per_ms * self.fixed_ms / (1.0 - self.by_bytes).max(0.1);
        #[expect(clippy::cast_precision_loss, reason = "a cap of a few digits")]
        let most = queue_cap.map_or(f64::INFINITY, |cap| cap as f64 / BATCH_SLACK);
        gathers.max(stable).max(COLD_BATCH).min(most).min(1e12)
    }

    fn predict(&self, interval: f64) -> Predicted {
        let period = self.period(interval);
        let flush = self.fixed_ms + self.by_bytes * period;
        Predicted {
            p99_ms: 0.99 * interval.max(period - self.gap_ms.min(period)) + flush + NOISE_AT_P99 * self.noise_ms,
            busy: (flush / period).clamp(0.0, 1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::flush::Flushes;
    use crate::signal::flush_cost::CostLine;
    use crate::units::{EventsPerSec, FlushInterval, Nanos, Settings};
    use proptest::prelude::*;
    use tidegate_client::abi::{Caps, Objective};

    fn cost(fixed_ms: f64, per_kib_us: f64) -> FlushCost {
        let line = CostLine { fixed_ms, fixed_error_ms: 0.01, per_kib_us, per_kib_error_us: 0.1 };
        FlushCost { mean_ms: fixed_ms, mean_bytes: 1e4, noise_ms: 0.0, flushes: 100.0, line: Some(line) }
    }

    fn load(rate: f64, cost: Option<FlushCost>, objective: Objective) -> Load {
        Load {
            rate: EventsPerSec(rate),
            newest: EventsPerSec(rate),
            dispersion: None,
            event_bytes: Some(512.0),
            flushes: Flushes { cost, ..Flushes::default() },
            cpu_cores: None,
            objective,
            cpu_share: None,
        }
    }

    fn busy(share: f64) -> Objective {
        let caps = Caps { flusher_busy: Some(share), ..Caps::default() };
        Objective { goal: Goal::Latency, caps, ..Objective::default() }
    }

    fn at(load: &Load) -> (Settings, Grounds, Option<Predicted>) {
        let Proposal { settings, because, predicted } = propose(&mut Stretch::default(), load, None);
        match because {
            Because::Model(grounds) => (settings, grounds, predicted),
            other => panic!("{other:?} from the model"),
        }
    }

    #[test]
    fn the_interval_is_the_shortest_that_keeps_the_busy_share() {
        let (settings, grounds, predicted) = at(&load(55_000.0, Some(cost(10.0, 0.0)), busy(0.6)));
        assert_eq!(grounds.constraint, Constraint::Busy);
        assert!(settings.interval.0.abs_diff(16_650) <= 50, "a/U - 1/rate is 16.65 ms: {settings:?}");
        let predicted = predicted.unwrap();
        assert!((predicted.busy - 0.6).abs() < 0.01 && (predicted.p99_ms - 26.5).abs() < 0.3, "{predicted:?}");
    }

    #[test]
    fn a_slow_load_under_the_cap_is_not_made_to_wait() {
        let (settings, _, predicted) = at(&load(100.0, Some(cost(2.0, 0.0)), busy(0.6)));
        assert_eq!(settings.interval.0, 0, "the gap between two events is longer than the period asked for");
        assert!(predicted.unwrap().busy < 0.3);
    }

    #[test]
    fn even_arrivals_are_waited_for_or_not_at_all() {
        // 3.33 ms apart, and 2.2 ms a flush: one by one they keep the flusher busy 66 %, two by two 33 %.
        let even = Load { dispersion: Some(0.02), ..load(300.0, Some(cost(2.2, 0.0)), busy(0.6)) };
        let (settings, ..) = at(&even);
        assert!(settings.interval.0.abs_diff(3_650) <= 50, "just beyond the next one: {settings:?}");
        let cheap = Load { flushes: Flushes { cost: Some(cost(1.9, 0.0)), ..Flushes::default() }, ..even };
        assert_eq!(at(&cheap).0.interval.0, 0, "one by one is within the cap: no wait in vain");
    }

    #[test]
    fn what_the_bytes_cost_is_taken_off_the_cap() {
        // 5,000/s of 512 bytes at 80 us a KiB are 0.2 of the time by themselves.
        let (settings, ..) = at(&load(5_000.0, Some(cost(2.0, 80.0)), busy(0.6)));
        assert!(settings.interval.0.abs_diff(4_800) <= 50, "2/(0.6 - 0.2) - 0.2 is 4.8 ms: {settings:?}");
    }

    #[test]
    fn bytes_that_alone_break_the_cap_are_a_matter_of_capacity() {
        let (settings, grounds, _) = at(&load(50_000.0, Some(cost(2.0, 40.0)), busy(0.6)));
        assert_eq!(grounds.constraint, Constraint::Capacity);
        assert!(settings.interval.0 > 20_000 && settings.interval.0 <= 250_000);
    }

    #[test]
    fn goals_lie_in_their_order_and_efficiency_spends_the_objective() {
        let with = |goal| {
            let objective = Objective { p99_ms: Some(100), goal, caps: Caps::default() };
            at(&load(5_000.0, Some(cost(5.0, 0.0)), objective)).0.interval.0
        };
        let (latency, balanced, efficiency) = (with(Goal::Latency), with(Goal::Balanced), with(Goal::Efficiency));
        assert!(latency < balanced && balanced < efficiency, "{latency} {balanced} {efficiency}");
        assert!(efficiency.abs_diff(75_000) <= 100, "0.8 of 100 ms less 5: {efficiency}");
    }

    #[test]
    fn a_cap_wins_over_an_objective_that_asks_for_less() {
        let objective = Objective { p99_ms: Some(5), ..busy(0.5) };
        let (settings, grounds, _) = at(&load(5_000.0, Some(cost(5.0, 0.0)), objective));
        assert_eq!(grounds.constraint, Constraint::Busy);
        assert!(settings.interval.0.abs_diff(9_800) <= 50, "{settings:?}");
    }

    #[test]
    fn a_cap_on_flushes_is_kept() {
        let caps = Caps { flushes_per_s: Some(20.0), ..Caps::default() };
        let (settings, grounds, _) =
            at(&load(5_000.0, Some(cost(2.0, 0.0)), Objective { caps, ..Objective::default() }));
        assert_eq!(grounds.constraint, Constraint::Flushes);
        assert!(settings.interval.0.abs_diff(49_800) <= 100, "{settings:?}");
    }

    #[test]
    fn a_cap_on_cpu_stretches_the_interval_until_it_is_kept() {
        let mut stretch = Stretch::default();
        let caps = Caps { cpu_cores: Some(0.1), ..Caps::default() };
        let mut load = load(5_000.0, Some(cost(2.0, 0.0)), Objective { caps, ..Objective::default() });
        let mut interval = 0;
        for _ in 0..300 {
            interval = propose(&mut stretch, &load, None).settings.interval.0;
            // A plant whose CPU time falls with the flushes: 0.05 cores and 0.2 over the interval in ms.
            let ms = Nanos::from(FlushInterval(interval)).as_millis_f64();
            load.cpu_cores = Some(0.05 + 0.2 / (0.1 + ms));
        }
        assert!(load.cpu_cores.unwrap() < 0.105, "{load:?}");
        assert!(interval < 6_000, "no longer than the cap asks: {interval}");
    }

    #[test]
    fn before_the_cost_is_known_the_regimes_lead() {
        let proposal = propose(&mut Stretch::default(), &load(300.0, None, busy(0.6)), None);
        assert_eq!((proposal.because, proposal.predicted), (Because::Learning, None));
        assert_eq!(proposal.settings.interval.0, 5_000);
    }

    proptest! {
        #[test]
        fn any_load_has_a_finite_proposal_and_prediction(
            rate in any::<f64>(), newest in any::<f64>(), bytes in any::<f64>(), fixed in 0.0_f64..1e9, kib in 0.0_f64..1e9,
            cap in any::<f64>(), flushes in any::<f64>(), p99 in proptest::option::of(any::<u64>()),
        ) {
            let caps = Caps { flusher_busy: Some(cap), flushes_per_s: Some(flushes), ..Caps::default() };
            let objective = Objective { p99_ms: p99, caps, ..Objective::default() };
            let load = Load {
                rate: EventsPerSec(rate), newest: EventsPerSec(newest), event_bytes: Some(bytes),
                ..load(1.0, Some(cost(fixed, kib)), objective)
            };
            let (settings, grounds, predicted) = at(&load);
            prop_assert!(settings.batch.0 >= 1_024 && settings.batch.0 <= 1 << 41, "{settings:?}");
            prop_assert!(grounds.by_caps_us.is_finite() || grounds.by_caps_us == 0.0);
            let predicted = predicted.unwrap();
            prop_assert!(predicted.busy.is_finite() && predicted.p99_ms.is_finite(), "{predicted:?}");
        }
    }
}
