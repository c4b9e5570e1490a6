//! What an agent costs the pipeline that it looks after: the throughput of one pipeline at full speed, with an agent and
//! without, in pairs side by side, and the CPU time of the agent while the pipeline takes 55,000 events a second.
//!
//! One pipeline runs from beginning to end; agents come and go around it, each for one pair, between stretches without
//! one. It registers in mode `observe`, so that its settings are the same throughout and the pair differs in the
//! agent alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Bench, Scale, built_in_release, median};
use crate::demo::room::{Room, User};
use crate::demo::stage::{Built, as_user, start_agent};
use crate::leash::{Leash, poll};
use crate::ui;

const PAIRS: usize = 30;
const QUICK_PAIRS: usize = 3;
/// Stretches at full speed before an agent and after it; with it there are twice as many. Three threads on two processors
/// fall into step in one way or another, and the way, good for five percent, lasts: many short stretches tell more than one
/// long one.
const STRETCHES: usize = 3;
const RATE: u64 = 55_000;
/// Steady load before a stretch; and after an agent has come, because what it does at its start is no cost of a pipeline.
const STRETCH_SETTLES: &str = "500ms";
const AGENT_SETTLES: &str = "3s";
/// A pipeline looks for an agent once a second at least.
const CONNECTS_WITHIN: Duration = Duration::from_secs(20);
/// Drawings of the bootstrap.
const DRAWINGS: usize = 10_000;
/// Length of the kernel's tick in `/proc`: `USER_HZ` is 100 everywhere.
const TICKS_A_SECOND: f64 = 100.0;

#[derive(Deserialize)]
struct Stretch {
    per_second: f64,
    tuning: String,
}

#[derive(Serialize)]
struct Figures {
    pairs: Vec<Pair>,
    /// Throughput with an agent over the geometric mean of those without: the median of the pairs, and where it lies in 95
    /// of 100 drawings.
    throughput_ratio: f64,
    throughput_interval: [f64; 2],
    throughput_at_least: f64,
    /// The same of pairs without any agent: what this machine tells apart.
    blank_ratio: f64,
    blank_interval: [f64; 2],
    /// CPU time of the agent and its children, percent of one core, at so many events a second.
    agent_cpu_percent: f64,
    agent_cpu_at_most: f64,
    events_per_second: f64,
}

#[derive(Clone, Copy, Serialize)]
struct Pair {
    with_agent: f64,
    /// Before it.
    without: f64,
    /// After it: over the one before, what the machine itself does meanwhile.
    again_without: f64,
}

pub(crate) fn run(bench: &Bench<'_>) -> Result<()> {
    ensure!(rustix::process::geteuid().is_root(), "bench cost starts an agent with probes: run it as root (sudo)");
    let built = built_in_release(bench.workspace, bench.binaries)?;
    let user = User::ordinary()?;
    let room = Room::make(user)?;
    let (pairs, seconds, span) = match bench.scale {
        Scale::Full => (PAIRS, 20, "1s"),
        Scale::Quick => (QUICK_PAIRS, 5, "500ms"),
    };
    let mut pipeline = Pipeline::start(&built, &room, user, span)?;
    pipeline.ask("full")?;
    let mut measured = Vec::new();
    for number in 0..pairs {
        let pair = pair(&mut pipeline, &built, &room)?;
        ui::note(format_args!(
            "pair {} of {pairs}: {:.0} with an agent, {:.0} and {:.0} without",
            number + 1,
            pair.with_agent,
            pair.without,
            pair.again_without
        ));
        measured.push(pair);
    }
    let (agent_cpu_percent, events_per_second) = at_rate(&mut pipeline, &built, &room, seconds)?;
    let (throughput_ratio, throughput_interval) =
        ratio(measured.iter().map(|p| p.with_agent / (p.without * p.again_without).sqrt()));
    let (blank_ratio, blank_interval) = ratio(measured.iter().map(|p| p.again_without / p.without));
    let figures = Figures {
        pairs: measured,
        throughput_ratio,
        throughput_interval,
        throughput_at_least: 0.99,
        blank_ratio,
        blank_interval,
        agent_cpu_percent,
        agent_cpu_at_most: 2.0,
        events_per_second,
    };
    figures.show();
    bench.keep(&figures)
}

impl Figures {
    fn show(&self) {
        let row = |what: &str, ratio: f64, [low, high]: [f64; 2], wanted: String| {
            vec![what.to_owned(), format!("{ratio:.4}"), format!("{low:.4} to {high:.4}"), wanted]
        };
        let wanted = format!("at least {}", self.throughput_at_least);
        let rows = [
            row("without, over without", self.blank_ratio, self.blank_interval, String::new()),
            row("with an agent, over without", self.throughput_ratio, self.throughput_interval, wanted),
        ];
        ui::line(ui::table(&["throughput", "median>", "95 % interval>", "wanted>"], &rows));
        ui::line(format_args!(
            "agent at {:.0} events/s: {:.2} % of a core (wanted: at most {} %)",
            self.events_per_second, self.agent_cpu_percent, self.agent_cpu_at_most
        ));
    }
}

/// Stretches without an agent, with one, without: what drifts meanwhile falls out of the pair.
fn pair(pipeline: &mut Pipeline, built: &Built, room: &Room) -> Result<Pair> {
    let without = pipeline.full(STRETCHES)?;
    let agent = start_agent(built, room, &[])?;
    pipeline.wait_until_connected()?;
    pipeline.settle(AGENT_SETTLES)?;
    let with_agent = pipeline.full(2 * STRETCHES)?;
    drop(agent);
    // Nor is it one of the time without it that the pipeline has lost it and looks for another.
    pipeline.settle(AGENT_SETTLES)?;
    let again_without = pipeline.full(STRETCHES)?;
    Ok(Pair { with_agent, without, again_without })
}

/// CPU time of an agent, percent of a core, while the pipeline takes a steady load; and the load as it was.
fn at_rate(pipeline: &mut Pipeline, built: &Built, room: &Room, seconds: u32) -> Result<(f64, f64)> {
    let agent = start_agent(built, room, &[])?;
    pipeline.wait_until_connected()?;
    pipeline.settle(AGENT_SETTLES)?;
    let (begin, before) = (ui::Stopwatch::start(), cpu_ticks(agent.id())?);
    let load = pipeline.ask(&format!("rate {RATE}x{seconds}s"))?;
    let (span, ticks) = (begin.elapsed().as_secs_f64(), cpu_ticks(agent.id())? - before);
    drop(agent);
    Ok((100.0 * ticks / TICKS_A_SECOND / span, load.per_second))
}

/// CPU time of a process and of its children that live, in ticks of `/proc`.
fn cpu_ticks(pid: u32) -> Result<f64> {
    let own = stat(pid).with_context(|| format!("read the CPU time of process {pid}"))?;
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let of_children = children.split_whitespace().filter_map(|child| stat(child.parse().ok()?));
    Ok(own + of_children.sum::<f64>())
}

/// User and system time, its own and that of the children it has waited for.
fn stat(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; the numbers begin behind it with the third field.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    (11..15).map(|i| fields.get(i)?.parse::<f64>().ok()).sum()
}

/// The median of ratios, and its 95 % interval by bootstrap.
fn ratio(ratios: impl Iterator<Item = f64>) -> (f64, [f64; 2]) {
    let ratios: Vec<f64> = ratios.collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = |below: usize| {
        // A plain generator with a fixed seed: the same ratios give the same interval.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below.max(1)
    };
    let mut medians: Vec<f64> =
        (0..DRAWINGS).map(|_| median((0..ratios.len()).map(|_| ratios[draw(ratios.len())]).collect())).collect();
    medians.sort_by(f64::total_cmp);
    (median(ratios), [medians[DRAWINGS / 40], medians[DRAWINGS - 1 - DRAWINGS / 40]])
}

/// The pipeline, its load and its sink, behind one process that takes questions.
struct Pipeline {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _leash: Leash,
}

impl Pipeline {
    fn start(built: &Built, room: &Room, user: User, span: &str) -> Result<Self> {
        let folder = room.of_lab();
        let mut lab = as_user(&built.lab, "tidegate-lab", user, &folder)?;
        lab.command.args(["bench", "cost", "--span", span, "--socket"]).arg(room.socket()).arg("--dir").arg(&folder);
        lab.command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut leash = Leash::start(&mut lab.command)?;
        let (input, output) = leash.take_pipes().context("the laboratory's pipes")?;
        let mut pipeline = Self { input, output: BufReader::new(output), _leash: leash };
        pipeline.hear::<serde_json::Value>()?;
        Ok(pipeline)
    }

    /// A steady load for a while.
    fn settle(&mut self, span: &str) -> Result<Stretch> {
        self.ask(&format!("rate {RATE}x{span}"))
    }

    /// Events a second at full speed, the mean of so many stretches, each from the same steady load.
    #[expect(clippy::cast_precision_loss, reason = "a handful of stretches")]
    fn full(&mut self, stretches: usize) -> Result<f64> {
        let mut sum = 0.0;
        for _ in 0..stretches {
            self.settle(STRETCH_SETTLES)?;
            sum += self.ask("full")?.per_second;
        }
        Ok(sum / stretches as f64)
    }

    fn ask(&mut self, what: &str) -> Result<Stretch> {
        writeln!(self.input, "{what}").and_then(|()| self.input.flush()).context("ask the pipeline")?;
        self.hear()
    }

    fn hear<T: for<'de> Deserialize<'de>>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("hear the pipeline")?;
        serde_json::from_str(&line).with_context(|| format!("read what the pipeline says: {line:?}"))
    }

    fn wait_until_connected(&mut self) -> Result<()> {
        let connected = poll(CONNECTS_WITHIN, || Ok(self.ask("look")?.tuning == "connected"))?;
        ensure!(connected, "the pipeline did not find the agent within {} s", CONNECTS_WITHIN.as_secs());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_median_and_is_narrow_where_all_agree() {
        let (middle, [low, high]) = ratio((0..31).map(|n| 0.9 + 0.01 * f64::from(n)));
        assert!((middle - 1.05).abs() < 1e-9 && low < middle && middle < high, "{low} {middle} {high}");
        assert_eq!(ratio([1.0; 30].into_iter()), (1.0, [1.0, 1.0]));
    }

    #[test]
    fn cpu_time_is_read_behind_a_name_with_brackets() {
        assert!(cpu_ticks(std::process::id()).is_ok());
        assert!(stat(u32::MAX).is_none());
    }
}
