//! What a pipeline's process uses and waits for: CPU and usage of each tick in; cores, memory, run-queue delay and pressure
//! over the newest second out. Tells "no CPU" from "batch too big", and never takes what is not told for nothing.

use agent_common::{
    PRESSURE_CPU_FULL, PRESSURE_CPU_SOME, PRESSURE_IO_FULL, PRESSURE_IO_SOME, PRESSURE_MEMORY_FULL,
    PRESSURE_MEMORY_SOME,
};
use tidegate_client::abi::{PressureJson, UsageJson};

use crate::aggregate::window::PipelineWindow;
use crate::signal::quotient::Quotient;
use crate::units::{Bytes, Nanos, Ratio};

/// What a process uses and waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time over wall time, cores.
    pub cpu_cores: Option<f64>,
    /// Context switches a second.
    pub switches_per_s: Option<f64>,
    /// Resident memory.
    pub resident: Option<Bytes>,
    /// Time that its threads waited for a CPU over wall time; above 1 where several did at once.
    pub run_delay: Option<f64>,
    /// Page faults a second, while somebody looks.
    pub page_faults_per_s: Option<f64>,
    /// Instructions a cycle, while somebody looks and where there is a PMU.
    pub instructions_per_cycle: Option<f64>,
    /// Pressure on the host.
    pub host: Pressure,
    /// Pressure on the process's own cgroup.
    pub group: Pressure,
}

/// Shares of the time in which somebody, or everybody, waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// Some waited for a CPU.
    pub cpu_some: Option<Ratio>,
    /// Nobody ran for want of one.
    pub cpu_full: Option<Ratio>,
    /// Some waited for memory.
    pub memory_some: Option<Ratio>,
    /// All did.
    pub memory_full: Option<Ratio>,
    /// Some waited for a disk.
    pub io_some: Option<Ratio>,
    /// All did.
    pub io_full: Option<Ratio>,
}

/// Follows what a process uses.
#[derive(Debug)]
pub struct UsageTracker {
    cpu: Quotient,
    switches: Quotient,
    run_delay: Quotient,
    page_faults: Quotient,
    instructions: Quotient,
    host: [Quotient; 6],
    group: [Quotient; 6],
}

/// Ticks looked back over at most.
const TICKS: usize = 20;
/// Cycles that make a mean.
const ENOUGH_CYCLES: u64 = 10_000_000;

impl Default for UsageTracker {
    fn default() -> Self {
        let second = || Quotient::over(Nanos::SECOND.0, TICKS);
        Self {
            cpu: second(),
            switches: second(),
            run_delay: second(),
            page_faults: second(),
            instructions: Quotient::over(ENOUGH_CYCLES, TICKS),
            host: std::array::from_fn(|_| second()),
            group: std::array::from_fn(|_| second()),
        }
    }
}

impl UsageTracker {
    /// Takes in a tick of length `tick`.
    pub fn observe(&mut self, tick: Nanos, pipeline: &PipelineWindow) -> Usage {
        if let Some(task) = pipeline.task {
            push(&mut self.cpu, task.cpu_ns, tick.0);
            push(&mut self.switches, task.switches, tick.0);
        }
        let faults = pipeline.task.and_then(|task| task.page_faults);
        follow(&mut self.page_faults, faults.map(|faults| (faults, tick.0)));
        follow(&mut self.instructions, pipeline.task.and_then(|task| task.instructions.zip(task.cycles)));
        let Some(usage) = pipeline.usage else { return Usage { cpu_cores: self.cpu.value(), ..Usage::default() } };
        push(&mut self.run_delay, usage.run_delay_ns, usage.span.0);
        for (quotients, totals) in [(&mut self.host, usage.host), (&mut self.group, usage.group)] {
            for (quotient, us) in quotients.iter_mut().zip(totals) {
                push(quotient, us.map(|us| us.saturating_mul(1_000)), usage.span.0);
            }
        }
        Usage {
            cpu_cores: self.cpu.value(),
            switches_per_s: self.switches.value().map(|per_ns| per_ns * 1e9),
            resident: usage.resident.map(Bytes),
            run_delay: self.run_delay.value(),
            page_faults_per_s: self.page_faults.value().map(|per_ns| per_ns * 1e9),
            instructions_per_cycle: self.instructions.value(),
            host: pressure(&self.host),
            group: pressure(&self.group),
        }
    }
}

/// What is counted for a while only: what was seen then is not what is.
fn follow(quotient: &mut Quotient, seen: Option<(u64, u64)>) {
    match seen {
        Some((above, below)) => quotient.push(above, below),
        None => quotient.forget(),
    }
}

fn push(quotient: &mut Quotient, numerator: Option<u64>, span: u64) {
    if let Some(numerator) = numerator {
        quotient.push(numerator, span);
    }
}

fn pressure(of: &[Quotient; 6]) -> Pressure {
    // The kernel brings its totals up to date when it likes: a tick may hold a little more than its length.
    let share = |at: usize| of[at].value().map(|share| Ratio(share.min(1.0)));
    Pressure {
        cpu_some: share(PRESSURE_CPU_SOME),
        cpu_full: share(PRESSURE_CPU_FULL),
        memory_some: share(PRESSURE_MEMORY_SOME),
        memory_full: share(PRESSURE_MEMORY_FULL),
        io_some: share(PRESSURE_IO_SOME),
        io_full: share(PRESSURE_IO_FULL),
    }
}

impl Pressure {
    fn to_json(self) -> Option<PressureJson> {
        let Self { cpu_some, cpu_full, memory_some, memory_full, io_some, io_full } = self;
        let number = |share: Option<Ratio>| share.map(|share| share.0);
        (self != Self::default()).then(|| PressureJson {
            cpu_some: number(cpu_some),
            cpu_full: number(cpu_full),
            memory_some: number(memory_some),
            memory_full: number(memory_full),
            io_some: number(io_some),
            io_full: number(io_full),
        })
    }
}

impl Usage {
    /// As the socket shows it; nothing when nothing is known.
    pub fn to_json(self) -> Option<UsageJson> {
        let Self {
            cpu_cores,
            switches_per_s,
            resident,
            run_delay,
            page_faults_per_s,
            instructions_per_cycle,
            host,
            group,
        } = self;
        (self != Self::default()).then(|| UsageJson {
            cpu_cores,
            switches_per_s,
            resident_bytes: resident.map(|bytes| bytes.0),
            run_delay,
            page_faults_per_s,
            instructions_per_cycle,
            host_pressure: host.to_json(),
            group_pressure: group.to_json(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate::rows::{Continuity, TaskDelta};
    use crate::aggregate::usage::UsageDelta;

    #[test]
    fn shares_are_of_the_newest_second_and_what_is_not_told_is_absent() {
        let mut tracker = UsageTracker::default();
        let mut usage = UsageDelta {
            span: Nanos::TICK,
            resident: Some(5_000),
            run_delay_ns: Some(25_000_000),
            ..UsageDelta::default()
        };
        usage.host[PRESSURE_CPU_SOME] = Some(60_000);
        let task = TaskDelta {
            cpu_ns: Some(50_000_000),
            switches: Some(7),
            page_faults: Some(3),
            cycles: Some(1_000),
            instructions: Some(1_500),
            continuity: Continuity::Whole,
        };
        let window = PipelineWindow { task: Some(task), usage: Some(usage), ..PipelineWindow::default() };
        let mut last = Usage::default();
        for _ in 0..15 {
            last = tracker.observe(Nanos::TICK, &window);
        }
        assert_eq!((last.cpu_cores, last.switches_per_s.map(f64::round)), (Some(0.5), Some(70.0)));
        assert_eq!((last.resident, last.run_delay), (Some(Bytes(5_000)), Some(0.25)));
        assert_eq!((last.host.cpu_some, last.host.cpu_full, last.group), (Some(Ratio(0.6)), None, Pressure::default()));
        assert_eq!(last.page_faults_per_s.map(f64::round), Some(30.0));
        assert_eq!(last.instructions_per_cycle, Some(1.5));
        let json = last.to_json().unwrap();
        assert!(json.group_pressure.is_none() && json.host_pressure.is_some());
        let uncounted = TaskDelta { page_faults: None, cycles: None, instructions: None, ..task };
        let window = PipelineWindow { task: Some(uncounted), ..window };
        let last = tracker.observe(Nanos::TICK, &window);
        assert_eq!((last.page_faults_per_s, last.instructions_per_cycle), (None, None), "seen is not what is");
        assert_eq!(last.cpu_cores, Some(0.5));
        assert_eq!(UsageTracker::default().observe(Nanos::TICK, &PipelineWindow::default()).to_json(), None);
    }
}
