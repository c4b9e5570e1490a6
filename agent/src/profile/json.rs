//! A profile as JSON: all that is known of it, one object a stack.

use serde::Serialize;

use super::format::{About, heading};
use super::model::Profile;
use crate::aggregate::lost::Lost;

#[derive(Serialize)]
struct File<'a> {
    title: String,
    kind: &'static str,
    /// What `value` counts.
    unit: &'static str,
    /// Sum of all values.
    total: u64,
    /// Length of the span.
    duration_ns: u64,
    /// First instant, ns since 1970.
    began_ns: Option<u64>,
    lost: Lost,
    stacks: Vec<StackJson<'a>>,
}

#[derive(Serialize)]
struct StackJson<'a> {
    comm: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cgroup: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    /// Outermost first.
    frames: Vec<&'a str>,
    value: u64,
    samples: u64,
}

/// The stacks, outermost frame first, with their owners.
pub(super) fn profile_json(profile: &Profile, about: &About) -> Result<Vec<u8>, serde_json::Error> {
    let stacks = profile.stacks.iter().filter_map(|stack| {
        let owner = profile.owner_of(stack)?;
        Some(StackJson {
            comm: &owner.comm,
            pid: owner.pid.map(|pid| pid.0),
            uid: owner.uid,
            cgroup: owner.cgroup.as_deref(),
            container: owner.container.as_deref(),
            frames: profile.names_of(stack).map(|frame| &*frame.name).collect(),
            value: stack.value(profile.kind),
            samples: stack.samples,
        })
    });
    serde_json::to_vec_pretty(&File {
        title: heading(profile, about),
        kind: profile.kind.name(),
        unit: profile.kind.unit(),
        total: profile.total(),
        duration_ns: profile.end.since(profile.start).0,
        began_ns: about.began.map(|began| began.0),
        lost: profile.lost,
        stacks: stacks.collect(),
    })
}
