//! What a policy looks at: signals and the pipeline's wishes in, the numbers of one decision out. Never a missing number
//! as zero: without a rate there is no load.

use tidegate_client::abi::{Goal, Objective};

use crate::signal::Signals;
use crate::signal::flush::Flushes;
use crate::units::EventsPerSec;

/// Arrivals whose counts vary less than this share of chance are even.
const EVEN_BELOW: f64 = 0.1;
/// Size assumed for events of which none was seen.
pub const ASSUMED_EVENT_BYTES: f64 = 512.0;
/// Beyond these no pipeline goes; a report may claim it.
const HIGHEST_RATE: f64 = 1e9;
const LARGEST_EVENT: f64 = 1e9;
/// Share of the time in which a flush may be in flight, where the pipeline names no cap, by what it leans to.
///
/// The worst wait is a/U + a for a flush that costs a: at 0.8 it is 12 % above that of flushing all the time, at 0.6 a
/// third, at 0.3 more than twice, and the flushes are fewer by the same shares.
const BUSY_BY_GOAL: [(Goal, f64); 3] = [(Goal::Latency, 0.8), (Goal::Balanced, 0.6), (Goal::Efficiency, 0.3)];

/// What a policy looks at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// Rolling rate.
    pub rate: EventsPerSec,
    /// Newest rate.
    pub newest: EventsPerSec,
    /// Variance over mean of the events of a tick: 1 for chance, near 0 for even arrivals.
    pub dispersion: Option<f64>,
    /// Mean size of an event, bytes.
    pub event_bytes: Option<f64>,
    /// The flushes.
    pub flushes: Flushes,
    /// CPU time of the process over wall time, cores.
    pub cpu_cores: Option<f64>,
    /// What the pipeline wants.
    pub objective: Objective,
    /// Its share of a budget of CPU time that several pipelines divide, cores.
    pub cpu_share: Option<f64>,
}

impl Load {
    /// The load as the signals tell it; nothing when the rate is not known.
    pub fn of(signals: &Signals, objective: Objective, cpu_share: Option<f64>) -> Option<Self> {
        let rate = signals.rate?;
        Some(Self {
            rate,
            newest: signals.newest_rate.unwrap_or(rate),
            dispersion: signals.dispersion,
            event_bytes: signals.event_bytes,
            flushes: signals.flushes,
            cpu_cores: signals.cpu_cores(),
            objective,
            cpu_share,
        })
    }

    /// Size of an event, bytes: measured where it is known.
    pub fn event_bytes(&self) -> f64 {
        self.event_bytes.filter(|b| b.is_finite()).unwrap_or(ASSUMED_EVENT_BYTES).clamp(1.0, LARGEST_EVENT)
    }

    /// Whether events come evenly rather than by chance.
    pub fn is_even(&self) -> bool {
        self.dispersion.is_some_and(|d| d < EVEN_BELOW)
    }

    /// Share of the time in which a flush may be in flight.
    pub fn busy_cap(&self) -> f64 {
        let by_goal = BUSY_BY_GOAL.iter().find(|(goal, _)| *goal == self.objective.goal).map_or(0.6, |(_, cap)| *cap);
        self.objective.caps.flusher_busy.filter(|cap| cap.is_finite()).unwrap_or(by_goal).clamp(0.01, 0.95)
    }

    /// Cores that its process may use, by its own cap and by its share of a common budget.
    pub fn cpu_cap(&self) -> Option<f64> {
        [self.objective.caps.cpu_cores, self.cpu_share]
            .into_iter()
            .flatten()
            .filter(|cap| cap.is_finite() && *cap > 0.0)
            .min_by(f64::total_cmp)
    }

    /// The rate by which age and size are found: the rolling one, which a detected step cuts short. The newest ticks alone
    /// are a fifth off by chance at a slow load, and an interval that followed them would too.
    pub fn acting_rate(&self) -> f64 {
        let rate = self.rate.0;
        if rate.is_finite() { rate.clamp(0.0, HIGHEST_RATE) } else { 0.0 }
    }
}
