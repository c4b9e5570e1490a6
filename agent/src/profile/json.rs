//! A profile as JSON: one array of stacks.

use serde::Serialize;

use super::model::Profile;

#[derive(Serialize)]
struct StackJson<'a> {
    /// Outermost first, the thread's name at the root.
    frames: Vec<&'a str>,
    samples: u64,
}

/// The stacks, outermost frame first, with their samples.
pub fn profile_json(profile: &Profile) -> Result<Vec<u8>, serde_json::Error> {
    let stacks: Vec<StackJson<'_>> = profile
        .stacks
        .iter()
        .map(|stack| {
            let comm = profile.owner_of(stack).map(|owner| &*owner.comm);
            let frames = comm.into_iter().chain(profile.names_of(stack).map(|frame| &*frame.name)).collect();
            StackJson { frames, samples: stack.value(profile.kind) }
        })
        .collect();
    serde_json::to_vec_pretty(&stacks)
}
