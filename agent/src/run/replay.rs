//! Replay: a recording in; the decisions, the counted stacks and the table of names out. Needs neither root nor the
//! host it was made on, and never writes.

use std::io::Read;
use std::path::Path;

use tidegate_client::abi::DecisionJson;

use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::StackCounts;
use crate::event::{Body, Decoder, RawBatch};
use crate::run::core::{Core, CoreConfig};
use crate::source::recording::{Host, Tail};
use crate::source::replay::ReplaySource;
use crate::source::{Pulled, SourceError};
use crate::units::Nanos;

/// What came of a replay.
#[derive(Debug)]
pub struct Replayed {
    /// Where the recording was made.
    pub host: Host,
    /// How it ended.
    pub tail: Tail,
    /// Ticks in it.
    pub ticks: u64,
    /// Decisions, in their order.
    pub decisions: Vec<DecisionJson>,
    /// Every sample of it.
    pub stacks: StackCounts,
    /// Its table of names, JSON as the recorder wrote it.
    pub names: Option<Vec<u8>>,
    /// What was lost while it was made, and what of it could not be decoded.
    pub lost: Lost,
}

impl Replayed {
    /// The decisions as JSON, one a line: byte-identical wherever the recording is replayed.
    pub fn decision_lines(&self) -> String {
        decision_lines(&self.decisions)
    }
}

/// Decisions as JSON, one a line.
pub fn decision_lines(decisions: &[DecisionJson]) -> String {
    let mut lines = String::new();
    for decision in decisions {
        lines.push_str(&serde_json::to_string(decision).expect("a decision is plain data with string keys"));
        lines.push('\n');
    }
    lines
}

/// Replays the recording at `path`.
pub fn replay_file(path: &Path) -> Result<Replayed, SourceError> {
    replay(ReplaySource::open(path)?)
}

/// Replays `source` to its end.
pub fn replay(mut source: ReplaySource<impl Read>) -> Result<Replayed, SourceError> {
    let start = Nanos(source.host().start_ns);
    let mut core = Core::new(CoreConfig::default(), start);
    let mut stacks = StackCounts::starting(start);
    let (mut ticks, mut decisions) = (0, Vec::new());
    let mut batch = RawBatch::new();
    while source.step(&mut batch)? == Pulled::Batch {
        for decoded in Decoder::new(batch.bytes()) {
            let Ok(event) = decoded else {
                core.undecodable();
                continue;
            };
            if let Body::Stack(sample) = &event.body {
                stacks.observe(event.time, (**sample).clone());
            }
            if let Some(outcome) = core.observe(event) {
                ticks += 1;
                decisions.extend(outcome.decisions);
            }
        }
        batch.clear();
    }
    let tail = source.tail().unwrap_or(Tail::Unnamed);
    if matches!(tail, Tail::Cut(_) | Tail::Corrupt(_)) {
        core.undecodable();
    }
    let names = core.names().map(<[u8]>::to_vec);
    Ok(Replayed { host: source.host().clone(), tail, ticks, decisions, stacks, names, lost: core.lost() })
}
