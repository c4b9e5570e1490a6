//! What the client costs a pipeline on its hottest paths: a read of its settings and the report of a flush, each beside its
//! peers in the same run.

mod asked;
pub(crate) mod cost;
pub(crate) mod pool;
pub(crate) mod reaction;

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use anyhow::{Context, Result};
use serde::Serialize;
use tidegate_client::abi::{Knobs, LeaseTerms};
use tidegate_client::page::{PageReader, PageWriter};
use tidegate_client::report::{Flushed, ReportPage};
use tidegate_client::rule::Cause;
use tidegate_client::settings::SettingsReader;
use tidegate_client::{Bytes, Nanos, Settings, clock};

use crate::cli::BenchArgs;
use crate::out::{json_file, text};

const ROUNDS: usize = 101;
const READS: u32 = 200_000;

#[derive(Serialize)]
struct Report {
    rounds: usize,
    reads_per_round: u32,
    results: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    what: &'static str,
    median_ns: f64,
    best_ns: f64,
    worst_ns: f64,
    /// What is promised of it; absent for its peers.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_ns: Option<f64>,
}

/// What is read, and how long a read of it takes, ns.
type Peer<'a> = (&'static str, Option<f64>, Box<dyn FnMut() -> f64 + 'a>);

/// Measures and prints nanoseconds per read.
pub(crate) fn page(args: &BenchArgs) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("tidegate-lab-bench-{}", std::process::id()));
    std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
    let result = measure(&directory);
    // Whether the bench went well or not, its pages go; what is gone already needs no removing.
    std::fs::remove_dir_all(&directory).ok();
    result?.show(args)
}

impl Report {
    fn show(&self, args: &BenchArgs) -> Result<()> {
        if let Some(file) = &args.json {
            return json_file(file, self);
        }
        self.print()
    }

    fn print(&self) -> Result<()> {
        text(&format!("{:<48} {:>9} {:>8} {:>8} {:>6}\n", "ns", "median", "best", "worst", "limit"))?;
        for Line { what, median_ns, best_ns, worst_ns, limit_ns } in &self.results {
            let limit = limit_ns.map_or_else(String::new, |limit| format!("{limit:.0}"));
            text(&format!("{what:<48} {median_ns:>9.2} {best_ns:>8.2} {worst_ns:>8.2} {limit:>6}\n"))?;
        }
        Ok(())
    }
}

fn measure(directory: &std::path::Path) -> Result<Report> {
    let path = &directory.join("settings");
    let report = ReportPage::create(directory, "bench").context("make a page to report to")?;
    let flush = Flushed { cause: Cause::Age, events: 400, bytes: Bytes(204_800), took: Nanos::from_millis(3) };
    let mut writer = PageWriter::open(path, &[262_144, 250_000]).context("make a page to read")?;
    writer.publish(1, &[65_536, 20_000], u64::MAX / 2).context("fill the page")?;
    let reader = PageReader::open(path).context("open the page")?;
    let mut settings = SettingsReader::open(path, Knobs::default(), LeaseTerms::default()).context("open the page")?;
    let fixed = Settings { batch: Bytes(65_536), interval: Nanos::from_millis(20) };
    let (mutex, rwlock, word) = (Mutex::new(fixed), RwLock::new(fixed), AtomicU64::new(65_536));
    let mut peers: Vec<Peer<'_>> = vec![
        ("relaxed load of one word (the floor)", None, Box::new(|| time(|| word.load(Ordering::Relaxed)))),
        (
            "settings page: generation and both values",
            Some(5.0),
            Box::new(|| time(|| reader.read().map_or(0, |s| s.generation ^ s.values[0] ^ s.values[1]))),
        ),
        ("same, with lease and bounds applied", Some(5.0), Box::new(|| time(|| words(settings.read().settings)))),
        (
            "std Mutex around the settings",
            None,
            Box::new(|| time(|| words(*mutex.lock().unwrap_or_else(PoisonError::into_inner)))),
        ),
        (
            "std RwLock around the settings",
            None,
            Box::new(|| time(|| words(*rwlock.read().unwrap_or_else(PoisonError::into_inner)))),
        ),
        ("report of a flush", Some(20.0), Box::new(|| time(|| report.flushed(black_box(&flush))))),
        ("latency of a group of events", None, Box::new(|| time(|| report.latency(black_box(flush.took), 400)))),
        ("time of the report (a clock read)", None, Box::new(|| time(|| report.touch()))),
    ];
    Ok(interleave(&mut peers))
}

/// Interleaved, so that a slow moment of the machine meets all of them.
fn interleave(peers: &mut [Peer<'_>]) -> Report {
    let mut samples = vec![Vec::with_capacity(ROUNDS); peers.len()];
    for _ in 0..ROUNDS {
        for ((_, _, peer), samples) in peers.iter_mut().zip(&mut samples) {
            samples.push(peer());
        }
    }
    let results = peers.iter().zip(samples).map(|((what, limit_ns, _), mut samples)| {
        samples.sort_unstable_by(f64::total_cmp);
        let (median_ns, best_ns, worst_ns) = (samples[ROUNDS / 2], samples[0], samples[ROUNDS - 1]);
        Line { what, median_ns, best_ns, worst_ns, limit_ns: *limit_ns }
    });
    Report { rounds: ROUNDS, reads_per_round: READS, results: results.collect() }
}

/// Both settings in one word, so that a reader cannot be spared one of them and no peer pays for being handed over.
fn words(settings: Settings) -> u64 {
    settings.batch.0 ^ settings.interval.0
}

/// Nanoseconds per call over one round.
#[expect(clippy::cast_precision_loss, reason = "a round lasts well under a day")]
fn time<T>(mut read: impl FnMut() -> T) -> f64 {
    let begin = clock::monotonic();
    for _ in 0..READS {
        black_box(read());
    }
    (clock::monotonic() - begin).0 as f64 / f64::from(READS)
}
