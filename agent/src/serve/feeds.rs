//! What the streams of one pipeline show: a view in, the events that are due out. Each ends when the pipeline is gone, or
//! when its name has gone to another user: nobody goes on watching what is no longer his.

use tidegate_client::abi::SettingsReply;

use crate::serve::stream::{Feed, Next, event};
use crate::serve::view::{PipelineView, View};
use crate::units::{Generation, PipelineName, Settings, Uid};

/// Reason of settings that no decision led to.
const NO_DECISION: &str = "defaults";

/// Settings of a pipeline as the socket shows them.
pub fn settings_reply(shown: &PipelineView, generation: Generation, settings: Settings) -> SettingsReply {
    let reason = shown.decisions.iter().rev().find(|d| d.generation == generation.0).map(|d| d.reason.clone());
    SettingsReply {
        name: shown.name.to_string(),
        generation: generation.0,
        batch_bytes: settings.batch.0,
        flush_interval_us: settings.interval.0,
        reason: reason.unwrap_or_else(|| NO_DECISION.to_owned()),
        ttl_ms: shown.registration.lease.ttl_ms,
    }
}

/// Whose events.
#[derive(Clone, Debug)]
struct Whose {
    name: PipelineName,
    uid: Uid,
}

impl Whose {
    fn of(shown: &PipelineView) -> Self {
        Self { name: shown.name.clone(), uid: shown.uid }
    }

    fn find<'v>(&self, view: &'v View) -> Option<&'v PipelineView> {
        view.pipelines.iter().find(|p| p.name == self.name && p.uid == self.uid)
    }

    fn gone(&self) -> Next {
        Next::Last(format!("event: gone\ndata: {}\n\n", self.name))
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("a reply is plain text and numbers")
}

/// Each generation of the settings.
#[derive(Clone, Debug)]
pub struct SettingsFeed {
    whose: Whose,
    seen: Option<u64>,
}

impl SettingsFeed {
    /// From the generation after `seen`, or the one in force.
    pub fn new(shown: &PipelineView, seen: Option<u64>) -> Self {
        Self { whose: Whose::of(shown), seen }
    }
}

impl Feed for SettingsFeed {
    fn next(&mut self, view: &View) -> Next {
        let Some(shown) = self.whose.find(view) else { return self.whose.gone() };
        let generation = shown.generation.0;
        if self.seen.replace(generation) == Some(generation) {
            return Next::Nothing;
        }
        Next::Events(event("settings", generation, &json(&settings_reply(shown, shown.generation, shown.settings))))
    }
}

/// The signals of each tick.
#[derive(Clone, Debug)]
pub struct SignalsFeed {
    whose: Whose,
    seen: Option<u64>,
}

impl SignalsFeed {
    /// From the tick after `seen`, or the newest.
    pub fn new(shown: &PipelineView, seen: Option<u64>) -> Self {
        Self { whose: Whose::of(shown), seen }
    }

    /// The pipeline, while it is the same user's.
    pub fn shown<'v>(&self, view: &'v View) -> Option<&'v PipelineView> {
        self.whose.find(view)
    }
}

impl Feed for SignalsFeed {
    fn next(&mut self, view: &View) -> Next {
        let Some(shown) = self.whose.find(view) else { return self.whose.gone() };
        let time = shown.signals.time_ns;
        if self.seen.replace(time) == Some(time) {
            return Next::Nothing;
        }
        Next::Events(event("signals", time, &json(&shown.signals)))
    }
}

/// Each decision worth keeping.
#[derive(Clone, Debug)]
pub struct DecisionsFeed {
    whose: Whose,
    seen: u64,
}

impl DecisionsFeed {
    /// From the decision after `seen`, or the oldest that is kept. A number beyond the newest is an earlier agent's.
    pub fn new(shown: &PipelineView, seen: Option<u64>) -> Self {
        let newest = shown.decisions.back().map_or(0, |d| d.sequence);
        Self { whose: Whose::of(shown), seen: seen.filter(|seen| *seen <= newest).unwrap_or(0) }
    }
}

impl Feed for DecisionsFeed {
    fn next(&mut self, view: &View) -> Next {
        let Some(shown) = self.whose.find(view) else { return self.whose.gone() };
        let due: String = shown
            .decisions
            .iter()
            .filter(|decision| decision.sequence > self.seen)
            .map(|decision| event("decision", decision.sequence, &json(&**decision)))
            .collect();
        self.seen = shown.decisions.back().map_or(self.seen, |newest| newest.sequence);
        if due.is_empty() { Next::Nothing } else { Next::Events(due) }
    }
}
