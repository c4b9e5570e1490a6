//! pprof: a profile in, a gzipped `profile.proto` out. Threads, processes, cgroups, containers and reasons are labels, so
//! that `-tagfocus` and `-tagroot` work; what was lost stands among the comments.

mod proto;

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;

use super::format::{About, FormatError, heading};
use super::heading::losses;
use super::labels::{Value, labels};
use super::model::{Origin, Profile, Stack};
use super::strings::Strings;
use crate::units::{Nanos, ProfileKind};

const PROGRAM: u64 = 1;
const KERNEL: u64 = 2;

/// The file.
pub(super) fn profile_pprof(profile: &Profile, about: &About) -> Result<Vec<u8>, FormatError> {
    let bytes = encode(profile, about).encode_to_vec();
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(&bytes)?;
    Ok(gzip.finish()?)
}

fn encode(profile: &Profile, about: &About) -> proto::Profile {
    let mut strings = Strings::new();
    let values = Values::of(profile);
    let mut out = proto::Profile {
        sample_type: values.types.iter().map(|(what, unit)| value_type(&mut strings, what, unit)).collect(),
        ..proto::Profile::default()
    };
    for (id, file) in [(PROGRAM, "[program]"), (KERNEL, "[kernel]")] {
        out.mapping.push(proto::Mapping { id, filename: text(&mut strings, file), has_functions: true });
    }
    for (id, frame) in (1..).zip(&profile.frames) {
        let name = text(&mut strings, &frame.name);
        let mapping_id = if frame.origin == Origin::Kernel { KERNEL } else { PROGRAM };
        out.function.push(proto::Function { id, name, system_name: name });
        out.location.push(proto::Location { id, mapping_id, line: vec![proto::Line { function_id: id }] });
    }
    for stack in &profile.stacks {
        let label = labels(profile, stack).into_iter().map(|(key, value)| label(&mut strings, key, &value)).collect();
        let location_id = stack.frames.iter().rev().map(|frame| u64::from(*frame) + 1).collect();
        out.sample.push(proto::Sample { location_id, value: values.get(stack), label });
    }
    out.comment = [heading(profile, about), losses(profile)].iter().map(|line| text(&mut strings, line)).collect();
    out.time_nanos = about.began.map_or(0, |began| number(began.0));
    out.duration_nanos = number(profile.end.since(profile.start).0);
    if let Some(Nanos(period)) = about.period {
        out.period_type = Some(value_type(&mut strings, "cpu", "nanoseconds"));
        out.period = number(period);
    }
    // Its readers show the last type unless told otherwise; the folded lines count this one.
    out.default_sample_type = text(&mut strings, values.shown);
    out.string_table = strings.finish();
    out
}

/// What each sample says.
struct Values {
    types: Vec<(&'static str, &'static str)>,
    shown: &'static str,
    samples: bool,
    weight: bool,
}

impl Values {
    fn of(profile: &Profile) -> Self {
        let kind = profile.kind;
        // Imported profiles know one of the two only.
        let samples = kind == ProfileKind::Cpu || profile.stacks.iter().any(|stack| stack.samples > 0);
        let weight = kind != ProfileKind::Cpu || profile.stacks.iter().any(|stack| stack.weight > 0);
        let unit = if kind == ProfileKind::Cpu { "nanoseconds" } else { kind.unit() };
        let unit = if kind == ProfileKind::Wakeup { "count" } else { unit };
        let types = [(samples, ("samples", "count")), (weight, (kind.name(), unit))];
        let shown = if kind == ProfileKind::Cpu { "samples" } else { kind.name() };
        Self { types: types.into_iter().filter(|(there, _)| *there).map(|(_, t)| t).collect(), shown, samples, weight }
    }

    fn get(&self, stack: &Stack) -> Vec<i64> {
        let values = [(self.samples, stack.samples), (self.weight, stack.weight)];
        values.into_iter().filter(|(there, _)| *there).map(|(_, value)| number(value)).collect()
    }
}

fn value_type(strings: &mut Strings, what: &str, unit: &str) -> proto::ValueType {
    proto::ValueType { r#type: text(strings, what), unit: text(strings, unit) }
}

fn label(strings: &mut Strings, key: &str, value: &Value<'_>) -> proto::Label {
    let key = text(strings, key);
    match value {
        Value::Text(value) => proto::Label { key, str: text(strings, value), num: 0 },
        Value::Number(value) => proto::Label { key, str: 0, num: i64::from(*value) },
    }
}

fn text(strings: &mut Strings, text: &str) -> i64 {
    i64::from(strings.add(text))
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Sum of what readers show first.
#[cfg(test)]
pub(super) fn total_shown(bytes: &[u8]) -> i64 {
    use std::collections::HashSet;
    let profile = proto::Profile::decode(bytes).expect("it was just encoded");
    let shown = profile.sample_type.iter().position(|t| t.r#type == profile.default_sample_type).expect("its type");
    let places: HashSet<u64> = profile.location.iter().map(|location| location.id).collect();
    for sample in &profile.sample {
        assert!(sample.location_id.iter().all(|id| places.contains(id)));
        assert_eq!(sample.value.len(), profile.sample_type.len());
    }
    profile.sample.iter().map(|sample| sample.value[shown]).sum()
}
