//! What a sweep found: runs in, tables and tests out. Pure.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::cli::SweepArgs;
use crate::stats::{holm, median, permutation_p};

/// The pair of batch sizes that is asked about.
const PAIR: [u64; 2] = [128, 256];
/// A difference that luck alone makes less often than this is called one.
const ALPHA: f64 = 0.05;

type Figure = (&'static str, fn(&Run) -> f64);
const FIGURES: [Figure; 2] = [("records/s", |r| r.per_second), ("p99 ms", |r| r.p99_ms)];

/// One run of one cell.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    /// Records acknowledged a second.
    pub(crate) per_second: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// One batch size at one concurrency.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Cell {
    /// Records of a batch.
    pub(crate) batch: u64,
    /// Records under way at once.
    pub(crate) concurrency: u64,
    pub(crate) runs: Vec<Run>,
}

impl Cell {
    fn values(&self, of: fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().map(of).collect()
    }

    fn median(&self, of: fn(&Run) -> f64) -> f64 {
        median(self.values(of)).unwrap_or(f64::NAN)
    }
}

/// 128 against 256 at one concurrency, in one figure.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Test {
    pub(crate) figure: &'static str,
    pub(crate) concurrency: u64,
    /// Median of the first over that of the second.
    pub(crate) ratio: f64,
    /// Of the permutation test, corrected for the concurrencies that were looked at.
    pub(crate) p: f64,
    pub(crate) significant: bool,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sweep {
    pub(crate) record_bytes: usize,
    pub(crate) delay_ms: f64,
    pub(crate) repetitions: usize,
    pub(crate) cells: Vec<Cell>,
    pub(crate) tests: Vec<Test>,
}

impl Sweep {
    pub(super) fn of(cells: Vec<Cell>, args: &SweepArgs) -> Self {
        Self {
            record_bytes: args.record_bytes,
            delay_ms: crate::time::as_ms(args.delay),
            repetitions: args.repetitions.into(),
            tests: tests(&cells),
            cells,
        }
    }

    /// Two tables, and a sentence a test.
    pub(super) fn render(&self) -> String {
        let mut text = format!(
            "closed loop, records of {} bytes, sink of {} ms, median of {} repetitions\n",
            self.record_bytes, self.delay_ms, self.repetitions
        );
        for (name, of) in FIGURES {
            writeln!(text, "{}", self.table(name, of)).ok();
        }
        for test in &self.tests {
            let Test { figure, concurrency, ratio, p, significant } = test;
            let what = if *significant {
                format!("differs (p = {p:.3})")
            } else {
                format!("no significant effect (p = {p:.3})")
            };
            let [one, other] = PAIR;
            writeln!(text, "{one} against {other} at {concurrency}, {figure}: × {ratio:.3}, {what}").ok();
        }
        text
    }

    fn table(&self, name: &str, of: fn(&Run) -> f64) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        let mut batches: Vec<u64> = self.cells.iter().map(|c| c.batch).collect();
        let mut concurrencies: Vec<u64> = self.cells.iter().map(|c| c.concurrency).collect();
        for list in [&mut batches, &mut concurrencies] {
            list.sort_unstable();
            list.dedup();
        }
        let heads = concurrencies.iter().map(|c| format!("{c} at once"));
        table.set_header([format!("{name}, batch of")].into_iter().chain(heads));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for batch in batches {
            let cell = |concurrency: &u64| {
                let cell = self.cells.iter().find(|c| (c.batch, c.concurrency) == (batch, *concurrency));
                let Some(cell) = cell else { return String::new() };
                let mut values = cell.values(of);
                values.sort_unstable_by(f64::total_cmp);
                let digits = if cell.median(of) >= 100.0 { 0 } else { 2 };
                let (least, most) = (values.first().copied(), values.last().copied());
                let show = |v: Option<f64>| v.map_or_else(String::new, |v| format!("{v:.digits$}"));
                format!("{} ({} to {})", show(Some(cell.median(of))), show(least), show(most))
            };
            table.add_row([batch.to_string()].into_iter().chain(concurrencies.iter().map(cell)));
        }
        table
    }
}

fn tests(cells: &[Cell]) -> Vec<Test> {
    let mut all = Vec::new();
    for (figure, of) in FIGURES {
        let [one, other] = PAIR.map(|batch| cells.iter().filter(move |c| c.batch == batch));
        let mut found = Vec::new();
        for first in one {
            let Some(second) = other.clone().find(|c| c.concurrency == first.concurrency) else { continue };
            let Some(p) = permutation_p(&first.values(of), &second.values(of)) else { continue };
            found.push((first.concurrency, first.median(of) / second.median(of), p));
        }
        let corrected = holm(&found.iter().map(|(_, _, p)| *p).collect::<Vec<_>>());
        all.extend(found.into_iter().zip(corrected).map(|((concurrency, ratio, _), p)| Test {
            figure,
            concurrency,
            ratio,
            p,
            significant: p <= ALPHA,
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(batch: u64, concurrency: u64, rates: [f64; 5]) -> Cell {
        let run = |per_second| Run { per_second, p50_ms: 1.0, p99_ms: 2.0 };
        Cell { batch, concurrency, runs: rates.map(run).into() }
    }

    #[test]
    fn a_difference_is_claimed_where_there_is_one_and_nowhere_else() {
        let cells = [
            cell(128, 50, [1.0, 2.0, 3.0, 4.0, 5.0]),
            cell(256, 50, [1.5, 2.5, 3.5, 4.5, 0.5]),
            cell(128, 500, [1.0, 1.1, 1.2, 1.3, 1.4]),
            cell(256, 500, [2.0, 2.1, 2.2, 2.3, 2.4]),
        ];
        let tests = super::tests(&cells);
        let of = |figure, concurrency| {
            tests.iter().find(|t| t.figure == figure && t.concurrency == concurrency).unwrap().significant
        };
        assert!(!of("records/s", 50) && of("records/s", 500));
        assert!(!of("p99 ms", 500), "five equal values on either side");
        let sweep = Sweep { record_bytes: 512, delay_ms: 2.0, repetitions: 5, cells: cells.into(), tests };
        let text = sweep.render();
        assert!(text.contains("128 against 256 at 50, records/s: × 1.200, no significant effect"), "{text}");
        assert!(text.contains("256") && text.contains("500 at once"), "{text}");
    }
}
