//! Firefox Profiler: a profile in, its processed format out, one track for each thread name of each process. Samples of
//! one stack stand together in time: when each was taken is not known any more, only how much there was of it.

use std::collections::HashMap;
use std::time::Duration;

use fxprof_processed_profile as fx;

use super::format::{About, heading};
use super::heading::losses;
use super::model::{Origin, Owner, Profile};
use crate::units::{Nanos, ProfileKind};

/// The file.
pub(super) fn profile_firefox(profile: &Profile, about: &About) -> Result<Vec<u8>, serde_json::Error> {
    let product = format!("tidegate: {} ({})", heading(profile, about), losses(profile));
    let began = Duration::from(about.began.unwrap_or_default());
    let interval = fx::SamplingInterval::from_nanos(about.period.unwrap_or(Nanos::from_millis(10)).0);
    let mut out = fx::Profile::new(&product, fx::ReferenceTimestamp::from_duration_since_unix_epoch(began), interval);
    out.set_symbolicated(true);
    out.set_os_name("Linux");
    let frames = Frames::of(&mut out, profile);
    let mut tracks = Tracks::default();
    let mut values = Vec::new();
    for stack in &profile.stacks {
        let Some(owner) = profile.owner_of(stack) else { continue };
        let value = stack.value(profile.kind);
        if value == 0 {
            continue;
        }
        let track = tracks.get(&mut out, profile, owner);
        let path = stack.frames.iter().filter_map(|at| frames.get(*at));
        let at = tracks.advance(track, profile, value);
        let handle = out.intern_stack_frames(tracks.threads[track].0, path);
        // For a weight the number of its value, until all is written.
        let number = i32::try_from(values.len()).unwrap_or(i32::MAX);
        out.add_sample(tracks.threads[track].0, at, handle, fx::CpuDelta::ZERO, number);
        values.push(value);
    }
    let mut json = serde_json::to_value(&out)?;
    set_weights(&mut json, profile.kind, &values);
    serde_json::to_vec(&json)
}

/// Frames with their categories.
struct Frames(Vec<fx::FrameInfo>);

impl Frames {
    fn of(out: &mut fx::Profile, profile: &Profile) -> Self {
        let user = out.add_category("Program", fx::CategoryColor::Yellow);
        let kernel = out.add_category("Kernel", fx::CategoryColor::Blue);
        let note = out.add_category("Note", fx::CategoryColor::Gray);
        let frames = profile.frames.iter().map(|frame| fx::FrameInfo {
            frame: fx::Frame::Label(out.intern_string(&frame.name)),
            category_pair: match frame.origin {
                Origin::User => user.into(),
                Origin::Kernel => kernel.into(),
                Origin::Note => note.into(),
            },
            flags: fx::FrameFlags::empty(),
        });
        Self(frames.collect())
    }

    fn get(&self, at: u32) -> Option<fx::FrameInfo> {
        self.0.get(at as usize).cloned()
    }
}

/// Threads of the file, by process and name.
#[derive(Default)]
struct Tracks<'a> {
    processes: HashMap<Option<u32>, fx::ProcessHandle>,
    known: HashMap<(Option<u32>, &'a str), usize>,
    /// With the sum of the values so far.
    threads: Vec<(fx::ThreadHandle, u64)>,
}

impl<'a> Tracks<'a> {
    fn get(&mut self, out: &mut fx::Profile, profile: &Profile, owner: &'a Owner) -> usize {
        let pid = owner.pid.map(|pid| pid.0);
        let start = fx::Timestamp::from_nanos_since_reference(0);
        let end = fx::Timestamp::from_nanos_since_reference(profile.end.since(profile.start).0);
        let process = *self.processes.entry(pid).or_insert_with(|| {
            let process = out.add_process(&owner.comm, pid.unwrap_or_default(), start);
            out.set_process_end_time(process, end);
            process
        });
        *self.known.entry((pid, &owner.comm)).or_insert_with(|| {
            let number = u32::try_from(self.threads.len()).unwrap_or(u32::MAX);
            let thread = out.add_thread(process, pid.unwrap_or(number), start, false);
            out.set_thread_name(thread, &owner.comm);
            if profile.kind.unit() == "nanoseconds" {
                out.set_thread_samples_weight_type(thread, fx::WeightType::TracingMs);
            }
            self.threads.push((thread, 0));
            self.threads.len() - 1
        })
    }

    /// Where the next sample of a track stands: after as much of the span as what came before is of the whole.
    fn advance(&mut self, track: usize, profile: &Profile, value: u64) -> fx::Timestamp {
        let before = self.threads[track].1;
        self.threads[track].1 = before.saturating_add(value);
        let span = u128::from(profile.end.since(profile.start).0);
        let at = span * u128::from(before) / u128::from(profile.total().max(1));
        fx::Timestamp::from_nanos_since_reference(u64::try_from(at).unwrap_or(u64::MAX))
    }
}

/// Puts the values where their numbers stand. The library takes 32 bits and whole milliseconds, which neither two seconds
/// of waiting nor a microsecond fit.
#[expect(clippy::cast_precision_loss, reason = "exact up to 104 days")]
fn set_weights(json: &mut serde_json::Value, kind: ProfileKind, values: &[u64]) {
    let is_time = kind.unit() == "nanoseconds";
    let threads = json.get_mut("threads").and_then(|threads| threads.as_array_mut());
    for samples in threads.into_iter().flatten().filter_map(|thread| thread.get_mut("samples")) {
        for weight in samples.get_mut("weight").and_then(|w| w.as_array_mut()).into_iter().flatten() {
            let number = weight.as_u64().and_then(|number| usize::try_from(number).ok());
            let value = number.and_then(|number| values.get(number)).copied().unwrap_or_default();
            *weight = if is_time { (value as f64 / 1e6).into() } else { value.into() };
        }
    }
}
