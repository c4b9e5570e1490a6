//! A simulated host as a source: plants in, the wire records that a real host would bring out, in virtual time.
//!
//! It speaks wire bytes, so the decoder, the windows and the loss path run as they do on a real host. Settings go back
//! in by [`SimSource::apply`], which closes the loop. Never reads a clock: a day takes seconds.

pub mod evidence;
pub mod lie;
pub mod page;
pub mod plant;
pub mod random;
pub mod rules;

use tidegate_client::abi::Registration;

use crate::event::{Comm, Input, Process, RawBatch, encode};
use crate::source::sim::lie::Lie;
use crate::source::sim::plant::{Done, Plant, Running, Trouble};
use crate::source::sim::random::Random;
use crate::source::{EventSource, Pulled, SourceError};
use crate::units::{Generation, Nanos, Pid, PipelineName, Settings, Uid};

/// A simulated host.
pub struct SimSource {
    now: Nanos,
    end: Nanos,
    pipelines: Vec<Pipeline>,
    inputs: Vec<(Nanos, Input)>,
}

/// Whether a pipeline has registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    NotYet,
    Yes,
}

struct Pipeline {
    name: PipelineName,
    pid: Pid,
    registration: Registration,
    lie: Option<Lie>,
    random: Random,
    running: Running,
    from: Nanos,
    begun: Begun,
}

/// A pipeline to simulate.
pub struct Simulated {
    /// Its name.
    pub name: PipelineName,
    /// What it registers.
    pub registration: Registration,
    /// What it is made of.
    pub plant: Plant,
    /// How it lies, if it always does.
    pub lie: Option<Lie>,
    /// Seed of its load.
    pub seed: u64,
    /// When it registers.
    pub from: Nanos,
}

impl SimSource {
    /// A host that starts at `start` and ends at `end`, with nothing on it.
    pub fn new(start: Nanos, end: Nanos) -> Self {
        Self { now: start, end, pipelines: Vec::new(), inputs: Vec::new() }
    }

    /// Puts a pipeline on it. To be called before the first step.
    pub fn add(&mut self, simulated: Simulated) {
        let Simulated { name, registration, plant, lie, seed, from } = simulated;
        let nth = u32::try_from(self.pipelines.len()).unwrap_or(u32::MAX);
        self.pipelines.push(Pipeline {
            name,
            pid: Pid(1_000_u32.saturating_add(nth)),
            registration,
            lie,
            random: Random::new(seed ^ 0x6c69_6172),
            running: Running::start(plant, seed, from.max(self.now)),
            from,
            begun: Begun::NotYet,
        });
    }

    /// A request that comes in at `at`.
    pub fn request(&mut self, at: Nanos, input: Input) {
        self.inputs.push((at, input));
    }

    /// A pipeline takes new settings.
    pub fn apply(&mut self, name: &PipelineName, generation: Generation, settings: Settings) {
        if let Some(pipeline) = self.pipelines.iter_mut().find(|p| p.name == *name) {
            pipeline.running.apply(generation, settings);
        }
    }

    /// Calls `each` with every event of `name` that was acknowledged since this was last asked.
    pub fn drain(&mut self, name: &PipelineName, mut each: impl FnMut(Done)) {
        if let Some(pipeline) = self.pipelines.iter_mut().find(|p| p.name == *name) {
            pipeline.running.drain().for_each(&mut each);
        }
    }

    /// A pipeline as it stands.
    pub fn running(&self, name: &PipelineName) -> Option<&Running> {
        self.pipelines.iter().find(|p| p.name == *name).map(|p| &p.running)
    }

    /// Runs one tick and appends its records.
    pub fn step(&mut self, batch: &mut RawBatch) -> Pulled {
        if self.now >= self.end {
            return Pulled::End;
        }
        self.register(batch);
        let now = self.now + Nanos::TICK;
        self.now = now;
        self.inputs.retain(|(at, input)| {
            if *at <= now {
                encode::input(batch, *at, input);
            }
            *at > now
        });
        for pipeline in self.pipelines.iter_mut().filter(|p| p.begun == Begun::Yes) {
            pipeline.running.advance(now);
            evidence::rows(batch, now, pipeline.pid, &pipeline.running.work());
            let (words, histogram) = pipeline.running.report();
            let lie = match pipeline.running.trouble() {
                Trouble::Silent => continue,
                Trouble::Lying(lie) => Some(lie),
                Trouble::None | Trouble::Failing => pipeline.lie,
            };
            let page = match lie {
                None => Ok(page::render(&words, &histogram)),
                Some(lie) => lie.tell(words, histogram, &mut pipeline.random),
            };
            encode::report(batch, now, &pipeline.name, page.as_deref().map_err(|errno| *errno));
        }
        encode::tick(batch, now);
        Pulled::Batch
    }

    /// Those that are due say who they are.
    fn register(&mut self, batch: &mut RawBatch) {
        let now = self.now;
        for pipeline in self.pipelines.iter_mut().filter(|p| p.begun == Begun::NotYet && p.from <= now) {
            pipeline.begun = Begun::Yes;
            let process = Process { pid: pipeline.pid, start_ticks: 1, comm: Comm(*b"simulated\0\0\0\0\0\0\0") };
            encode::process(batch, now, &process);
            let input = Input::Register {
                name: pipeline.name.clone(),
                pid: pipeline.pid,
                start_ticks: 1,
                uid: Uid(1_000),
                registration: Box::new(pipeline.registration.clone()),
                resumed: None,
            };
            encode::input(batch, now, &input);
        }
    }
}

impl EventSource for SimSource {
    /// Virtual time does not wait: each pull is one tick.
    async fn pull(&mut self, _until: Nanos, batch: &mut RawBatch) -> Result<Pulled, SourceError> {
        Ok(self.step(batch))
    }
}
