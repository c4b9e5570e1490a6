//! A profile as JSON: one array of stacks.

use serde::Serialize;

use super::folded::Folded;

#[derive(Serialize)]
struct StackJson<'a> {
    /// Outermost first.
    frames: &'a [String],
    samples: u64,
}

/// The stacks, outermost frame first, with their samples.
pub fn profile_json(folded: &Folded) -> Result<Vec<u8>, serde_json::Error> {
    let stacks: Vec<StackJson<'_>> =
        folded.iter().map(|(frames, samples)| StackJson { frames, samples: *samples }).collect();
    serde_json::to_vec_pretty(&stacks)
}
