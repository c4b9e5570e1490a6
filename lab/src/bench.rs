//! What the client costs a pipeline on its hottest path: one read of its settings, beside its peers in the same run.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use anyhow::{Context, Result};
use serde::Serialize;
use tidegate_client::abi::{Knobs, LeaseTerms};
use tidegate_client::page::{PageReader, PageWriter};
use tidegate_client::settings::SettingsReader;
use tidegate_client::{Bytes, Nanos, Settings, clock};

use crate::cli::BenchPageArgs;
use crate::out::{json_file, text};

const ROUNDS: usize = 101;
const READS: u32 = 200_000;

#[derive(Serialize)]
struct Report {
    rounds: usize,
    reads_per_round: u32,
    /// What the settings page promises.
    limit_ns: f64,
    results: Vec<Line>,
}

#[derive(Serialize)]
struct Line {
    what: &'static str,
    median_ns: f64,
    best_ns: f64,
    worst_ns: f64,
}

/// What is read, and how long a read of it takes, ns.
type Peer<'a> = (&'static str, Box<dyn FnMut() -> f64 + 'a>);

/// Measures and prints nanoseconds per read.
pub(crate) fn page(args: &BenchPageArgs) -> Result<()> {
    let path = std::env::temp_dir().join(format!("tidegate-lab-bench-{}.page", std::process::id()));
    let result = measure(&path);
    // Whether the bench went well or not, its page goes; one that is gone already needs no removing.
    std::fs::remove_file(&path).ok();
    let report = result?;
    if let Some(file) = &args.json {
        return json_file(file, &report);
    }
    text(&format!("{:<44} {:>9} {:>8} {:>8}\n", "ns per read", "median", "best", "worst"))?;
    for Line { what, median_ns, best_ns, worst_ns } in &report.results {
        text(&format!("{what:<44} {median_ns:>9.2} {best_ns:>8.2} {worst_ns:>8.2}\n"))?;
    }
    text(&format!("limit for a read of the page: {} ns\n", report.limit_ns))
}

fn measure(path: &std::path::Path) -> Result<Report> {
    let mut writer = PageWriter::open(path, &[262_144, 250_000]).context("make a page to read")?;
    writer.publish(1, &[65_536, 20_000], u64::MAX / 2).context("fill the page")?;
    let reader = PageReader::open(path).context("open the page")?;
    let mut settings = SettingsReader::open(path, Knobs::default(), LeaseTerms::default()).context("open the page")?;
    let fixed = Settings { batch: Bytes(65_536), interval: Nanos::from_millis(20) };
    let (mutex, rwlock, word) = (Mutex::new(fixed), RwLock::new(fixed), AtomicU64::new(65_536));
    let mut peers: Vec<Peer<'_>> = vec![
        ("relaxed load of one word (the floor)", Box::new(|| time(|| word.load(Ordering::Relaxed)))),
        (
            "settings page: generation and both values",
            Box::new(|| time(|| reader.read().map_or(0, |s| s.generation ^ s.values[0] ^ s.values[1]))),
        ),
        ("same, with lease and bounds applied", Box::new(|| time(|| words(settings.read().settings)))),
        (
            "std Mutex around the settings",
            Box::new(|| time(|| words(*mutex.lock().unwrap_or_else(PoisonError::into_inner)))),
        ),
        (
            "std RwLock around the settings",
            Box::new(|| time(|| words(*rwlock.read().unwrap_or_else(PoisonError::into_inner)))),
        ),
    ];
    // Interleaved, so that a slow moment of the machine meets all of them.
    let mut samples = vec![Vec::with_capacity(ROUNDS); peers.len()];
    for _ in 0..ROUNDS {
        for ((_, peer), samples) in peers.iter_mut().zip(&mut samples) {
            samples.push(peer());
        }
    }
    let results = peers.iter().zip(samples).map(|((what, _), mut samples)| {
        samples.sort_unstable_by(f64::total_cmp);
        Line { what, median_ns: samples[ROUNDS / 2], best_ns: samples[0], worst_ns: samples[ROUNDS - 1] }
    });
    Ok(Report { rounds: ROUNDS, reads_per_round: READS, limit_ns: 5.0, results: results.collect() })
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
