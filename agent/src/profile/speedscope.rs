//! speedscope: a profile in, its file format out. It knows no labels: the thread's name is the root, as in folded lines,
//! and the title says what was lost.

use serde::Serialize;

use super::format::{About, heading};
use super::heading::summary;
use super::model::Profile;

const SCHEMA: &str = "https://www.speedscope.app/file-format-schema.json";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    exporter: String,
    name: &'a str,
    active_profile_index: u32,
    shared: Shared<'a>,
    profiles: [Sampled<'a>; 1],
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: Vec<Name<'a>>,
}

#[derive(Serialize)]
struct Name<'a> {
    name: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sampled<'a> {
    r#type: &'static str,
    name: &'a str,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    samples: Vec<Vec<usize>>,
    weights: Vec<u64>,
}

/// The file.
pub(super) fn profile_speedscope(profile: &Profile, about: &About) -> Result<Vec<u8>, serde_json::Error> {
    let threads = profile.frames.len();
    let frames = profile.frames.iter().map(|frame| &*frame.name);
    let names = frames.chain(profile.owners.iter().map(|owner| &*owner.comm));
    let path = |stack: &super::model::Stack| {
        let root = threads + stack.owner as usize;
        std::iter::once(root).chain(stack.frames.iter().map(|frame| *frame as usize)).collect()
    };
    let name = format!("{}: {}", heading(profile, about), summary(profile, about.covered));
    let file = File {
        schema: SCHEMA,
        exporter: format!("tidegate {}", env!("CARGO_PKG_VERSION")),
        name: &name,
        active_profile_index: 0,
        shared: Shared { frames: names.map(|name| Name { name }).collect() },
        profiles: [Sampled {
            r#type: "sampled",
            name: &name,
            unit: if profile.kind.unit() == "nanoseconds" { "nanoseconds" } else { "none" },
            start_value: 0,
            end_value: profile.total(),
            samples: profile.stacks.iter().map(path).collect(),
            weights: profile.stacks.iter().map(|stack| stack.value(profile.kind)).collect(),
        }],
    };
    serde_json::to_vec(&file)
}
