//! `tidegate top`: where the time goes now, and what grew, asked of the running agent.

use std::io::Write;

use super::client::{AgentAt, get};
use super::flame::{WhoseArgs, with_query};
use super::span::SpanArgs;
use super::table::{Cell, table};
use super::watching::Output;
use crate::serve::compare::{HotspotJson, HotspotsJson};

/// Rank the hot spots of the last minute, and name what grew since the ten minutes before
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "SELF is the share of time spent in a function, TOTAL also in what it calls, BEFORE its own share in the time it
is compared with. Only what chance does not explain is said to have grown.

Examples:
  tidegate top
  tidegate top --pid 4242 --from -10s
  tidegate top --from -5m --diff-from -1d --diff-to -1h
  tidegate top -o json | jq -r '.grown[].function'"
)]
pub struct TopArgs {
    #[command(flatten)]
    agent: AgentAt,
    #[command(flatten)]
    whose: WhoseArgs,
    #[command(flatten)]
    span: SpanArgs,
    /// Rows to print
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub fn run(args: &TopArgs) -> anyhow::Result<()> {
    let TopArgs { agent, whose, span, top, output } = args;
    let mut query = whose.query();
    query.extend([("kind", span.kind.to_string()), ("top", top.to_string())]);
    query.extend(span.query());
    let spots: HotspotsJson = get(&agent.socket, &with_query("/v1/hotspots", &query))?;
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, &spots)?;
            writeln!(out)?;
        }
        Output::Table => print(&mut out, &spots)?,
    }
    Ok(())
}

fn print(out: &mut impl Write, spots: &HotspotsJson) -> std::io::Result<()> {
    let HotspotsJson { kind, now, baseline, hottest, grown: _, words } = spots;
    writeln!(out, "{kind}: {} samples over {:.0} s, {} lost", now.samples, now.seconds, now.lost)?;
    match baseline {
        Some(before) => writeln!(out, "before: {} samples over {:.0} s", before.samples, before.seconds)?,
        None => writeln!(out, "before: nothing was recorded to compare with")?,
    }
    writeln!(out)?;
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let row = |spot: &HotspotJson| {
        vec![
            Cell::right(percent(spot.own)),
            Cell::right(percent(spot.total)),
            Cell::maybe(spot.own_before.map(percent)),
            Cell::text(if spot.origin == "kernel" { format!("{} [k]", spot.function) } else { spot.function.clone() }),
        ]
    };
    writeln!(out, "{}", table(&["SELF", "TOTAL", "BEFORE", "FUNCTION"], hottest.iter().map(row)))?;
    if baseline.is_some() {
        writeln!(out)?;
        if words.is_empty() {
            writeln!(out, "nothing grew by more than chance explains")?;
        }
        words.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::compare::SideJson;

    #[test]
    fn the_ranking_says_what_it_is_of_and_what_grew() {
        let spot = HotspotJson {
            function: "parse".to_owned(),
            origin: "user".to_owned(),
            own: 0.25,
            total: 0.5,
            own_before: Some(0.125),
            error: Some(0.01),
            believed: Some(true),
        };
        let side = SideJson { seconds: 60.0, samples: 1_000, total: 1_000, lost: 3 };
        let mut spots = HotspotsJson {
            kind: "cpu".to_owned(),
            now: side,
            baseline: Some(side),
            hottest: vec![spot.clone()],
            grown: vec![spot],
            words: vec!["parse grew from 12.5 % to 25.0 % of the time".to_owned()],
        };
        let printed = |spots: &HotspotsJson| {
            let mut text = Vec::new();
            print(&mut text, spots).unwrap();
            String::from_utf8(text).unwrap()
        };
        let text = printed(&spots);
        for part in ["1000 samples over 60 s, 3 lost", "25.0 %", "50.0 %", "12.5 %", "parse grew from"] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        (spots.baseline, spots.words) = (None, Vec::new());
        assert!(printed(&spots).contains("nothing was recorded to compare with"));
    }
}
