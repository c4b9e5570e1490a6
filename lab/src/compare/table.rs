//! A digest as a table for a terminal: rates, latencies and costs, by phase and in all. Takes figures, decides nothing.

use std::fmt::{self, Write};

use comfy_table::{CellAlignment, Table, presets};

use super::digest::{ALL, Digest, Row, Weighting};
use super::plan::Part;

/// The table and what has to be said about it.
pub(crate) fn render(digest: &Digest) -> String {
    let mut text = String::new();
    say(&mut text, format_args!("\n{}: {}, sink {}\n", digest.title, digest.phases, digest.sink));
    for c in &digest.aa {
        let (low, high) = (c.ratio.low(), c.ratio.high());
        let weighting = if c.weighting == Weighting::Event { "events" } else { "seconds" };
        if c.part == Part::Settled || c.phase == ALL {
            say(
                &mut text,
                format_args!(
                    "A/A {} / {}, p99, {}, {} by {weighting}: {:.2} ({low:.2} to {high:.2})\n",
                    c.policy, c.against, c.phase, c.part, c.ratio.median
                ),
            );
        }
    }
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY);
    let header =
        ["phase", "policy", "p50 ms", "p99 ms", "p99.9 ms", "mean ms", "flushes/1000", "CPU ms/1000", "busy", "panics"];
    table.set_header(header);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let part = |phase: &str| if phase == ALL { Part::Whole } else { Part::Settled };
    for (phase, weighting, title) in sections(digest) {
        // A phase of a second or less has nothing that has settled.
        let settled = digest.rows.iter().any(|r| r.phase == phase && r.part == part(&phase));
        let part = if settled { part(&phase) } else { Part::Whole };
        let rows: Vec<&Row> =
            digest.rows.iter().filter(|r| r.phase == phase && r.part == part && r.weighting == weighting).collect();
        if !table.is_empty() {
            table.add_row([""; 10]);
        }
        for (i, row) in rows.iter().enumerate() {
            let title = if i == 0 { format!("{title}, {part}") } else { String::new() };
            table.add_row(cells(title, row));
        }
    }
    say(&mut text, format_args!("{table}\n"));
    say(
        &mut text,
        format_args!(
            "records of {} bytes, {} s of warm-up left out, {} lanes at once; {} blocks, {} left out; others took at \
             most {:.1} % of the machine, the lanes and the agent at most {:.2} cores\n",
            digest.record_bytes,
            digest.warmup_s,
            digest.lanes_at_once,
            digest.quiet.run,
            digest.quiet.dropped,
            digest.quiet.foreign.iter().copied().fold(0.0, f64::max) * 100.0,
            digest.quiet.cores
        ),
    );
    if digest.quiet.noisy {
        text.push_str("THE MACHINE WAS NOT QUIET: too few blocks would be left, so all of them count\n");
    }
    text
}

/// Phases in order, then all by both weightings, with their titles.
pub(crate) fn sections(digest: &Digest) -> Vec<(String, Weighting, String)> {
    let phases = digest.groups.iter().map(|g| (g.clone(), Weighting::Event, g.clone()));
    let all = [(Weighting::Event, "all, by events"), (Weighting::Time, "all, by seconds")];
    phases.chain(all.map(|(weighting, title)| (ALL.to_owned(), weighting, title.to_owned()))).collect()
}

fn cells(title: String, row: &Row) -> [String; 10] {
    let two = |v: f64| format!("{v:.2}");
    let p99 = match row.p99_interval_ms {
        Some(i) => format!("{:.2} ({:.2} to {:.2})", row.p99_ms, i.low, i.high),
        None => two(row.p99_ms),
    };
    [
        title,
        row.policy.clone(),
        two(row.p50_ms),
        p99,
        two(row.p999_ms),
        two(row.mean_ms),
        two(row.flushes_per_1000),
        two(row.cpu_ms_per_1000),
        two(row.busy),
        row.panics.to_string(),
    ]
}

/// A `String` takes whatever is written to it.
fn say(text: &mut String, what: fmt::Arguments<'_>) {
    text.write_fmt(what).ok();
}
