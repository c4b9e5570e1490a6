//! `tidegate replay`: a recording, once more, on any machine and without root.

use std::path::PathBuf;

use super::record::write_out;
use crate::profile::{flame_svg, folded_text, name_stacks, plain_owner};
use crate::run::replay::{Replayed, replay_file};
use crate::source::recording::Tail;
use crate::symbolize::Names;
use crate::units::ProfileKind;

/// Replay a recording: the same stacks and the same decisions, on any machine, without root
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  tidegate replay host.events --folded host.folded
  tidegate replay host.events --svg host.svg --decisions -")]
pub struct ReplayArgs {
    /// Recording made by `tidegate record --format events` or `tidegate agent --record FILE`
    #[arg(value_name = "FILE")]
    recording: PathBuf,
    /// Write folded stacks here; `-` is standard output
    #[arg(long, value_name = "FILE")]
    folded: Option<PathBuf>,
    /// Write a flame graph here
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the decisions here, JSON, one a line
    #[arg(long, value_name = "FILE")]
    decisions: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &ReplayArgs) -> anyhow::Result<()> {
    let replayed = replay_file(&args.recording)?;
    let names: Names = match &replayed.names {
        Some(json) => serde_json::from_slice(json)
            .map_err(|e| anyhow::anyhow!("{}: the table of names is damaged: {e}", args.recording.display()))?,
        None => Names::default(),
    };
    let (stacks, lost) = (&replayed.stacks, &replayed.lost);
    let folded = name_stacks(stacks, ProfileKind::Cpu, &names, lost, |_| true, plain_owner);
    if let Some(path) = &args.folded {
        write_out(path, folded_text(&folded).as_bytes())?;
    }
    if let Some(path) = &args.svg {
        let subtitle = format!("{} samples, replayed", replayed.stacks.total());
        write_out(path, &flame_svg(&folded, "On-CPU time", &subtitle)?)?;
    }
    if let Some(path) = &args.decisions {
        write_out(path, replayed.decision_lines().as_bytes())?;
    }
    tell(&replayed);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the ledger belongs beside the output, not in the log")]
fn tell(replayed: &Replayed) {
    let (ticks, decisions, samples) = (replayed.ticks, replayed.decisions.len(), replayed.stacks.total());
    eprintln!("ticks {ticks}, decisions {decisions}, samples {samples}");
    match replayed.tail {
        Tail::Whole => {}
        Tail::Unnamed => eprintln!("the recorder was stopped: no table of names at the end"),
        Tail::Cut(bytes) => eprintln!("the recording is cut short: {bytes} bytes of its last record were left out"),
        Tail::Corrupt(at) => eprintln!("the recording is damaged at byte {at}: the rest was left out"),
    }
    for (reason, count) in replayed.lost.by_reason().into_iter().filter(|(_, count)| *count > 0) {
        eprintln!("lost: {reason} {count}");
    }
}
