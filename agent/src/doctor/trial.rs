//! The preflight that tries: each family of probes is attached for real, this process does what it should see, and what
//! came is held against what was done. In comes nothing, out come checks, one a capability; nothing stays attached.

mod act;
mod cases;

use std::thread::JoinHandle;

use agent_common::SampleKind;

use crate::aggregate::lost::Lost;
use crate::cli::watching::Rows;
use crate::doctor::{degraded, missing, ok};
use crate::event::{Body, Decoder, RawBatch, Sample};
use crate::serve::check::Check;
use crate::source::clock::monotonic;
use crate::source::ebpf::{EbpfSource, LoadOptions, Shortfall};
use crate::source::inbox::inbox;
use crate::source::{EventSource as _, Wanted};
use crate::units::{Nanos, Pid};
use cases::{CASES, Case};

/// Samples a second: enough to see something within a blink.
const HERTZ: u64 = 997;
/// An action that has not ended by then has failed; under emulation everything is slow.
const PATIENCE: Nanos = Nanos(20 * Nanos::SECOND.0);
/// A processor that stands still for a moment, as a virtual one does, can spoil what is measured; not so often in a row.
const TRIES: usize = 3;

/// What the probes told while a case acted.
#[derive(Debug, Default)]
struct Came {
    rows: Rows,
    samples: Vec<Sample>,
}

/// How a case ended.
enum Outcome {
    /// What was seen.
    Seen(String),
    /// What should have been seen and was not.
    NotSeen(String),
}

/// Something to see.
type Action = fn() -> std::io::Result<()>;

/// Tries every family on the running kernel.
pub(super) fn checks() -> Vec<Check> {
    const NAME: &str = "try-load";
    let remedy = "see the checks `privilege` and `btf`";
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return vec![missing(NAME, format!("start the runtime: {error}"), remedy)],
    };
    let (_sender, receiver) = inbox();
    let options = LoadOptions { hertz: HERTZ, socket_period: 1, ..LoadOptions::default() };
    let source = runtime.block_on(async { EbpfSource::new(options, receiver) });
    let mut source = match source {
        Ok(source) => source,
        Err(error) => return vec![missing(NAME, error.to_string(), remedy)],
    };
    let mut checks = vec![ok(NAME, "the kernel takes the maps and the type information of the probes")];
    checks.extend(CASES.iter().map(|case| try_case(&runtime, &mut source, case)));
    checks
}

fn try_case(runtime: &tokio::runtime::Runtime, source: &mut EbpfSource, trial: &Case) -> Check {
    let pid = Pid(std::process::id());
    match source.try_family(trial.family) {
        Ok(()) => {}
        Err(Shortfall::Absent(lack)) => return degraded(trial.name, lack.cause, &lack.remedy),
        Err(Shortfall::Refused(lack)) => return missing(trial.name, lack.cause, &lack.remedy),
    }
    let mut not_seen = Vec::new();
    loop {
        let wanted = (trial.wanted)(pid);
        let lacks = source.apply(&wanted);
        let acted = lacks.is_empty().then(|| act(runtime, source, trial.act));
        let remarks = source.remarks();
        source.apply(&Wanted::default());
        let came = match acted {
            None => return missing(trial.name, lacks.join("; "), REPORT),
            Some(Err(error)) => return missing(trial.name, error, "run it again on a quieter machine"),
            Some(Ok(came)) => came,
        };
        match (trial.judge)(&came, pid) {
            Outcome::Seen(what) => {
                let tried = (!not_seen.is_empty()).then(|| format!("before that {}", not_seen.join("; ")));
                let said: Vec<String> = [what].into_iter().chain(remarks).chain(tried).collect();
                return ok(trial.name, said.join("; "));
            }
            Outcome::NotSeen(cause) => not_seen.push(cause),
        }
        if not_seen.len() == TRIES {
            return missing(trial.name, format!("{TRIES} times: {}", not_seen.join("; ")), REPORT);
        }
    }
}

/// What to do where the kernel should be able to and is not.
const REPORT: &str = "report this kernel's version and this line; until then do without this kind";

fn act(runtime: &tokio::runtime::Runtime, source: &mut EbpfSource, act: Action) -> Result<Came, String> {
    let acting: JoinHandle<std::io::Result<()>> = std::thread::Builder::new()
        .name("trial".to_owned())
        .spawn(act)
        .map_err(|error| format!("start a thread: {error}"))?;
    let mut came = Came::default();
    let deadline = monotonic() + PATIENCE;
    let mut batch = RawBatch::new();
    while !acting.is_finished() {
        if monotonic() > deadline {
            return Err(format!("what should be seen was not done within {} s", PATIENCE.0 / Nanos::SECOND.0));
        }
        batch.clear();
        runtime.block_on(source.pull(monotonic() + Nanos::TICK, &mut batch)).map_err(|error| error.to_string())?;
        came.take(&batch);
    }
    batch.clear();
    source.flush(&mut batch);
    came.take(&batch);
    match acting.join() {
        Ok(Ok(())) => Ok(came),
        Ok(Err(error)) => Err(format!("do what should be seen: {error} (it needs loopback and Unix sockets)")),
        Err(_panic) => Err("the thread that acts broke off".to_owned()),
    }
}

impl Came {
    fn take(&mut self, batch: &RawBatch) {
        for event in Decoder::new(batch.bytes()).flatten() {
            self.rows.observe(&event);
            if let Body::Stack(sample) = event.body {
                self.samples.push(*sample);
            }
        }
    }

    fn samples(&self, pid: Pid, kind: SampleKind) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(move |sample| sample.pid == pid && sample.kind == kind)
    }

    fn lost(&self) -> &Lost {
        &self.rows.lost
    }
}
