//! The table of guidance, produced: sizes of messages and uses in, what real runs on this machine showed to suit them out.
//! Every setting of a grid runs at every size and use; the criterion of a use picks, and what is about as good is the range.

mod pick;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use tidegate_client::Nanos;
use tidegate_client::abi::{Guidance, GuidanceRow, Purpose, Range};

use crate::cli::GuidanceArgs;
use crate::compare::job::{Downstream, Job};
use crate::compare::runner::Runner;
use crate::compare::turns::{Turn, turns_job, turns_of};
use crate::load::schedule::Phase;
use crate::out::{json_file, note, text};
use crate::pipeline::policy::Constant;
use crate::sink::delay::Steps;
use crate::stop::Stop;
use crate::tuning::Machine;
use crate::tuning::plans::BUSY_CAP;

/// Intervals that are tried, ms.
const INTERVALS_MS: [u64; 9] = [1, 2, 5, 10, 20, 50, 100, 200, 400];
/// Largest flush: a batch of 5,000 small messages has to fit.
const BATCH_MAX: u64 = 4 << 20;

/// Messages of one size, with the rates of the three uses and the batches that are tried.
struct Size {
    words: &'static str,
    bytes: usize,
    rates: [(Purpose, u64); 3],
    batches: &'static [u64],
}

const SIZES: [Size; 2] = [
    Size {
        words: "under 1 KiB",
        bytes: 512,
        rates: [(Purpose::RealTime, 1_000), (Purpose::Balanced, 10_000), (Purpose::HighThroughput, 50_000)],
        batches: &[10, 50, 100, 500, 1_000, 5_000],
    },
    Size {
        words: "over 10 KiB",
        bytes: 16 << 10,
        rates: [(Purpose::RealTime, 100), (Purpose::Balanced, 500), (Purpose::HighThroughput, 2_000)],
        batches: &[5, 10, 50, 100, 200],
    },
];

/// Measures, prints the table and writes it as JSON.
pub(crate) fn run(args: &GuidanceArgs) -> Result<()> {
    let stop = Stop::listen()?;
    // No agent takes part.
    let runner = Runner::new(&stop, &args.dir, std::path::Path::new("/nonexistent"))?;
    let mut rows = Vec::new();
    for size in &SIZES {
        note(&format!("messages {}, {} settings", size.words, INTERVALS_MS.len() * size.batches.len()));
        let candidates = grid(size);
        let jobs: Vec<Job> = size.rates.iter().map(|(_, rate)| job(args, size, *rate, &candidates)).collect();
        let together = runner.together(&jobs)?;
        for ((purpose, rate), lane) in size.rates.iter().zip(&together.outcomes) {
            let turns = turns_of(&candidates, lane, args.seconds);
            let row = row(size, *purpose, *rate, &turns);
            rows.push(row.with_context(|| format!("messages {}, {}: no setting fits", size.words, word(*purpose)))?);
        }
        note(&format!("others took {:.1} % of the machine", together.foreign * 100.0));
    }
    let machine = Machine::here();
    let guidance = Guidance {
        command: format!("tidegate-lab guidance --delay {}us --seconds {}", args.delay.as_micros(), args.seconds),
        machine: format!("{} processors ({}), Linux {}", machine.cpus, machine.cpu, machine.kernel),
        sink: format!("TCP, {} ms a flush", crate::time::as_ms(args.delay)),
        busy_cap: BUSY_CAP,
        rows,
    };
    if let Some(path) = &args.json {
        json_file(path, &guidance)?;
    }
    text(&render(&guidance))
}

fn grid(size: &Size) -> Vec<Constant> {
    let bytes = u64::try_from(size.bytes).unwrap_or(u64::MAX);
    let mut all = Vec::new();
    for interval in INTERVALS_MS {
        all.extend(size.batches.iter().map(|n| Constant { batch_bytes: n * bytes, interval_us: interval * 1_000 }));
    }
    all
}

fn job(args: &GuidanceArgs, size: &Size, rate: u64, candidates: &[Constant]) -> Job {
    let downstream = Downstream::Tcp { delay: args.delay, steps: Steps::default() };
    let phase = Phase { rate, span: Nanos(0) };
    let job = turns_job(format!("guidance-{rate}"), downstream, phase, size.bytes, candidates, args.seconds);
    Job { batch_max: Some(BATCH_MAX), ..job }
}

fn row(size: &Size, purpose: Purpose, rate: u64, turns: &[Turn]) -> Option<GuidanceRow> {
    let (best, alike) = pick::pick(purpose, turns, BUSY_CAP)?;
    let range = |of: fn(&Turn) -> f64| Range {
        from: alike.iter().map(|t| of(t)).fold(f64::INFINITY, f64::min),
        to: alike.iter().map(|t| of(t)).fold(0.0, f64::max),
    };
    Some(GuidanceRow {
        messages: size.words.to_owned(),
        message_bytes: u64::try_from(size.bytes).ok()?,
        purpose,
        criterion: pick::criterion(purpose, BUSY_CAP),
        rate,
        batch_messages: range(|t| t.events_per_flush),
        flush_ms: range(|t| t.gap_ms),
        batch_bytes: best.constant.batch_bytes,
        flush_interval_us: best.constant.interval_us,
        p99_ms: best.p99_ms,
        cpu_us_per_message: best.cpu_us_per_event,
    })
}

/// What the common advice says, batch and milliseconds.
fn advised(messages: &str, purpose: Purpose) -> [Range; 2] {
    let ms = match purpose {
        Purpose::RealTime => Range { from: 0.0, to: 10.0 },
        Purpose::Balanced => Range { from: 10.0, to: 50.0 },
        Purpose::HighThroughput => Range { from: 50.0, to: 100.0 },
    };
    let of_large = [(5.0, 10.0), (10.0, 50.0), (50.0, 100.0)];
    let of_small = [(10.0, 50.0), (100.0, 500.0), (1_000.0, 5_000.0)];
    let batches = if messages == SIZES[1].words { of_large } else { of_small };
    let (from, to) = match purpose {
        Purpose::RealTime => batches[0],
        Purpose::Balanced => batches[1],
        Purpose::HighThroughput => batches[2],
    };
    [Range { from, to }, ms]
}

fn word(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::RealTime => "real-time",
        Purpose::Balanced => "balanced",
        Purpose::HighThroughput => "high-throughput",
    }
}

fn apart(measured: Range, advised: Range) -> bool {
    measured.to < advised.from || measured.from > advised.to
}

fn render(guidance: &Guidance) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    let header = ["messages", "use", "rate/s", "batch", "advised", "flush ms", "advised", "best setting", "p99 ms", ""];
    table.set_header(header);
    for column in table.column_iter_mut().skip(2).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let range = |r: Range, digits: usize| format!("{:.digits$} to {:.digits$}", r.from, r.to);
    for r in &guidance.rows {
        let [batch, ms] = advised(&r.messages, r.purpose);
        let differs = match (apart(r.batch_messages, batch), apart(r.flush_ms, ms)) {
            (false, false) => "agrees",
            (true, false) => "batch DIFFERS",
            (false, true) => "time DIFFERS",
            (true, true) => "both DIFFER",
        };
        table.add_row([
            r.messages.clone(),
            word(r.purpose).to_owned(),
            r.rate.to_string(),
            range(r.batch_messages, 0),
            range(batch, 0),
            range(r.flush_ms, 1),
            range(ms, 0),
            Constant { batch_bytes: r.batch_bytes, interval_us: r.flush_interval_us }.to_string(),
            format!("{:.1}", r.p99_ms),
            differs.to_owned(),
        ]);
    }
    let mut text = format!("{table}\n{}, {}\n", guidance.sink, guidance.machine);
    for purpose in [Purpose::RealTime, Purpose::Balanced, Purpose::HighThroughput] {
        text.push_str(&pick::criterion(purpose, guidance.busy_cap));
        text.push('\n');
    }
    text
}
