//! What the steps of a pipeline do alone, on one thread: making batches, packing them with LZ4, dividing records among
//! partitions. Records a second out, beside what is asked; the size of the records stands beside every figure.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::hint::black_box;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use tidegate_client::rule::{L0, Settings};
use tidegate_client::{Batcher, Bytes, Nanos, Options, Source, clock};

use crate::cli::MicroArgs;
use crate::out::{json_file, text};
use crate::stats::median;

/// Rounds, each of which measures everything once.
const ROUNDS: usize = 15;
/// Records of a round.
const RECORDS: usize = 200_000;
/// Bytes of a batch.
const BATCH: usize = 256 << 10;
/// Partitions, as a queue of some size has them.
const PARTITIONS: usize = 32;
/// Sizes of the records.
const SIZES: [usize; 4] = [32, 64, 128, 512];

/// What is asked, records a second.
const ASKED: [(Step, f64); 3] = [(Step::Batch, 3.7e6), (Step::Pack, 8.8e6), (Step::Partition, 9.6e6)];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    Batch,
    Pack,
    Partition,
}

#[derive(Debug, Serialize)]
struct Figure {
    step: Step,
    record_bytes: usize,
    asked_per_s: f64,
    median_per_s: f64,
    best_per_s: f64,
    worst_per_s: f64,
    holds: bool,
}

/// Measures and prints.
pub(crate) fn run(args: &MicroArgs) -> Result<()> {
    let mut taken: Vec<(Step, usize, Vec<f64>)> = Vec::new();
    for (step, _) in ASKED {
        taken.extend(SIZES.map(|size| (step, size, Vec::new())));
    }
    let records: Vec<Vec<Vec<u8>>> = SIZES.iter().map(|size| records(*size)).collect();
    // Interleaved, so that a slow moment of the machine meets all of them.
    for _ in 0..ROUNDS {
        for (step, size, rates) in &mut taken {
            let of_size = SIZES.iter().position(|s| s == size).and_then(|i| records.get(i)).context("a size")?;
            rates.push(match step {
                Step::Batch => batch(of_size)?,
                Step::Pack => pack(of_size)?,
                Step::Partition => partition(of_size),
            });
        }
    }
    let figures: Vec<Figure> = taken.into_iter().filter_map(figure).collect();
    if let Some(path) = &args.json {
        json_file(path, &figures)?;
    }
    text(&render(&figures))
}

fn figure((step, record_bytes, mut rates): (Step, usize, Vec<f64>)) -> Option<Figure> {
    rates.sort_unstable_by(f64::total_cmp);
    let asked_per_s = ASKED.iter().find(|(s, _)| *s == step)?.1;
    let median_per_s = median(rates.clone())?;
    Some(Figure {
        step,
        record_bytes,
        asked_per_s,
        median_per_s,
        best_per_s: *rates.last()?,
        worst_per_s: *rates.first()?,
        holds: median_per_s >= asked_per_s,
    })
}

fn render(figures: &[Figure]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    table.set_header(["million records/s on one thread", "record", "median", "worst", "best", "asked", ""]);
    for column in table.column_iter_mut().skip(1).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for f in figures {
        let name = match f.step {
            Step::Batch => "batch creation (queue, take, lay together)",
            Step::Pack => "LZ4 of batches of 256 KiB",
            Step::Partition => "hash partitioning among 32",
        };
        let million = |v: f64| format!("{:.2}", v / 1e6);
        table.add_row([
            name.to_owned(),
            format!("{} B", f.record_bytes),
            million(f.median_per_s),
            million(f.worst_per_s),
            million(f.best_per_s),
            million(f.asked_per_s),
            if f.holds { "holds" } else { "MISSED" }.to_owned(),
        ]);
    }
    format!("{table}\n{RECORDS} records a round, median of {ROUNDS} rounds\n")
}

/// Lines like those of an access log: they compress as such lines do, and each has a key of its own.
fn records(size: usize) -> Vec<Vec<u8>> {
    let mut random = fastrand::Rng::with_seed(3);
    let paths = ["/v1/orders", "/v1/orders/items", "/v1/users", "/health", "/static/app.js", "/v1/search?q=lamp"];
    let line = |i: usize| {
        let mut line = format!("user={:08x} seq={i} ", random.u32(..)).into_bytes();
        while line.len() < size {
            let (path, ms) = (paths[random.usize(..paths.len())], random.u16(1..400));
            let more = format!(
                "level=info method=GET path={path} status=200 duration_ms={ms} upstream=backend-{} \
                 agent=\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\" tls=1.3 region=eu-central ",
                random.u8(..8)
            );
            line.extend_from_slice(more.as_bytes());
        }
        line.truncate(size);
        line
    };
    (0..RECORDS).map(line).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a round lasts well under a day")]
fn per_second(records: usize, begin: Nanos) -> f64 {
    records as f64 / ((clock::monotonic() - begin).0.max(1) as f64 / 1e9)
}

/// Through the client's own queue and rule, as a pipeline does: queued in reads of 256 records, taken as batches, laid
/// together.
fn batch(records: &[Vec<u8>]) -> Result<f64> {
    let settings = Settings { batch: Bytes(BATCH as u64), interval: Nanos::from_millis(1_000) };
    let rule = Box::new(L0::by_settings(settings.batch));
    let batcher: Batcher<&[u8]> = Batcher::new(Options { source: Source::Own(settings), rule, ..Options::default() })?;
    let (mut read, mut raw, mut done) = (VecDeque::new(), Vec::with_capacity(BATCH), 0);
    let begin = clock::monotonic();
    for chunk in records.chunks(256) {
        read.extend(chunk.iter().map(|r| (r.as_slice(), Bytes(r.len() as u64))));
        batcher.push_all(&mut read).context("queue records")?;
        while batcher.queued().1.0 >= BATCH as u64 {
            let Some(batch) = batcher.next_batch() else { break };
            done += lay_together(&mut raw, batch.items());
            batch.acknowledge();
        }
    }
    batcher.close();
    while let Some(batch) = batcher.next_batch() {
        done += lay_together(&mut raw, batch.items());
        batch.acknowledge();
    }
    Ok(per_second(done, begin))
}

fn lay_together(raw: &mut Vec<u8>, items: &[&[u8]]) -> usize {
    raw.clear();
    for item in items {
        raw.extend_from_slice(item);
    }
    black_box(&raw);
    items.len()
}

/// Batches that lie together already, packed as the pipeline packs them.
fn pack(records: &[Vec<u8>]) -> Result<f64> {
    let raw: Vec<u8> = records.concat();
    let mut packed = vec![0; lz4_flex::block::get_maximum_output_size(BATCH)];
    let begin = clock::monotonic();
    for batch in raw.chunks(BATCH) {
        black_box(lz4_flex::block::compress_into(batch, &mut packed).context("compress a batch")?);
    }
    Ok(per_second(records.len(), begin))
}

/// By the hash of the first 16 bytes, the key, into one list of numbers a partition.
fn partition(records: &[Vec<u8>]) -> f64 {
    let hash = foldhash::quality::FixedState::with_seed(7);
    let mut partitions: Vec<Vec<u32>> =
        std::iter::repeat_with(|| Vec::with_capacity(RECORDS / PARTITIONS * 2)).take(PARTITIONS).collect();
    let begin = clock::monotonic();
    for (i, record) in (0..).zip(records) {
        #[expect(clippy::cast_possible_truncation, reason = "the low bits of a hash are as good as the high ones")]
        let at = hash.hash_one(&record[..16.min(record.len())]) as usize % PARTITIONS;
        partitions[at].push(i);
    }
    black_box(&partitions);
    per_second(records.len(), begin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_their_size_and_keys_of_their_own() {
        let records = records(128);
        assert!(records.iter().all(|r| r.len() == 128));
        let mut keys: Vec<&[u8]> = records.iter().map(|r| &r[..16]).collect();
        keys.sort_unstable();
        keys.dedup();
        assert!(keys.len() > RECORDS * 9 / 10, "{}", keys.len());
    }

    #[test]
    fn a_figure_holds_by_its_median() {
        let figure = figure((Step::Batch, 64, vec![1e6, 9e6, 4e6])).unwrap();
        assert!(figure.holds && (figure.median_per_s - 4e6).abs() < 1.0);
        assert!(render(&[figure]).contains("holds"));
    }
}
