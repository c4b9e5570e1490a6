//! The pure machine where everything joins: events in, settings to publish and decisions out.
//!
//! Live agent, replay and simulation all run this one. It reads no clock, does no I/O and never waits: time comes in
//! with the events.

use std::collections::VecDeque;
use std::sync::Arc;

use agent_common::{SocketRow, SyscallRow};
use tidegate_client::abi::DecisionJson;

use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::StackCounts;
use crate::event::{Body, Comm, Decoder, Event, RawBatch};
use crate::serve::view::PipelineView;
use crate::source::Wanted;
use crate::units::{Generation, Nanos, Pid, PipelineName, Settings};

/// Whether on-CPU stacks are sampled when nobody asks for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuSampling {
    /// Always, the whole host: any past window can be drawn.
    #[default]
    Always,
    /// Only while somebody watches.
    OnDemand,
}

/// What the core is told at its start.
#[derive(Clone, Copy, Debug, Default)]
pub struct CoreConfig {
    /// Whether on-CPU stacks are sampled when nobody asks for them.
    pub cpu: CpuSampling,
}

/// What came of a tick.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TickOutcome {
    /// Time of the tick.
    pub now: Nanos,
    /// Settings that changed: to be written to their pages at once.
    pub publish: Vec<Publish>,
    /// Decisions taken.
    pub decisions: Vec<DecisionJson>,
    /// Pipelines that ended: their pages can go.
    pub gone: Vec<PipelineName>,
}

/// Settings to write to a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Pipeline.
    pub name: PipelineName,
    /// Its new settings.
    pub settings: Settings,
    /// Their generation.
    pub generation: Generation,
}

/// The machine.
#[derive(Debug)]
pub struct Core {
    profiles: VecDeque<Arc<StackCounts>>,
    lost: Lost,
}

impl Core {
    /// A core that starts at `start` and knows nothing yet.
    pub fn new(config: CoreConfig, start: Nanos) -> Self {
        let _ = (config, start);
        Self { profiles: VecDeque::new(), lost: Lost::default() }
    }

    /// Takes in one event; a tick has an outcome.
    pub fn observe(&mut self, event: Event<'_>) -> Option<TickOutcome> {
        matches!(event.body, Body::Tick).then(|| TickOutcome { now: event.time, ..TickOutcome::default() })
    }

    /// Counts a record that could not be decoded.
    pub fn undecodable(&mut self) {
        self.lost.undecodable = self.lost.undecodable.saturating_add(1);
    }

    /// Takes in a batch; `on_tick` is called with the outcome of each tick in it.
    pub fn feed(&mut self, batch: &RawBatch, mut on_tick: impl FnMut(TickOutcome)) {
        for decoded in Decoder::new(batch.bytes()) {
            match decoded {
                Ok(event) => {
                    if let Some(outcome) = self.observe(event) {
                        on_tick(outcome);
                    }
                }
                Err(_cannot_be_read) => self.undecodable(),
            }
        }
    }

    /// What the source shall bring from now on.
    pub fn wanted(&self, now: Nanos) -> Wanted {
        let _ = now;
        Wanted::default()
    }

    /// The registered pipelines, by name.
    pub fn pipelines(&self) -> Vec<PipelineView> {
        Vec::new()
    }

    /// Profile windows, oldest first: closed ones of 10 s, then closed slices of 1 s of the open one.
    pub fn profiles(&self) -> VecDeque<Arc<StackCounts>> {
        self.profiles.clone()
    }

    /// Newest cumulative row of each (process, system call).
    pub fn syscalls(&self) -> impl Iterator<Item = &SyscallRow> {
        std::iter::empty()
    }

    /// Newest row of each socket.
    pub fn sockets(&self) -> impl Iterator<Item = &SocketRow> {
        std::iter::empty()
    }

    /// Name of the main thread of a process, when it is known.
    pub fn comm(&self, pid: Pid) -> Option<Comm> {
        let _ = pid;
        None
    }

    /// Losses since the start.
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// Whether tuning is paused.
    pub fn paused(&self) -> bool {
        false
    }

    /// The table of names of a recording, once it was seen: JSON as the recorder wrote it.
    pub fn names(&self) -> Option<&[u8]> {
        None
    }
}
