//! The life of pipelines: registered processes in, the names whose process has ended out. Never trusts a bare number.
//!
//! A process is held by a descriptor, which a later process of the same number does not inherit. Where there are no such
//! descriptors (before Linux 5.3, or too many open files) number and start time tell as much, more slowly.

use std::collections::{BTreeSet, HashMap};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid as RawPid, PidfdFlags, pidfd_open};

use crate::serve::claims::Claims;
use crate::serve::peer::PeerProcess;
use crate::serve::view::PipelineView;
use crate::units::PipelineName;

/// Watches over the processes of all pipelines.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    held: HashMap<PipelineName, Held>,
}

#[derive(Debug)]
struct Held {
    process: PeerProcess,
    descriptor: Option<OwnedFd>,
}

impl Liveness {
    /// The pipelines whose process has ended since it registered, each with that process.
    pub(super) fn ended(&mut self, pipelines: &[PipelineView], claims: &Claims) -> Vec<(PipelineName, PeerProcess)> {
        let registered: BTreeSet<&PipelineName> = pipelines.iter().map(|p| &p.name).collect();
        self.held.retain(|name, _| registered.contains(name));
        for pipeline in pipelines {
            // Only a process that came in by the socket can be watched: a replay's are long gone.
            let Some(claim) = claims.of(&pipeline.name).filter(|c| c.process.pid == pipeline.pid) else { continue };
            let known = self.held.get(&pipeline.name).is_some_and(|held| held.process == claim.process);
            if !known {
                self.held.insert(pipeline.name.clone(), Held::take(claim.process));
            }
        }
        self.held.iter().filter(|(_, held)| held.has_ended()).map(|(name, held)| (name.clone(), held.process)).collect()
    }
}

impl Held {
    fn take(process: PeerProcess) -> Self {
        let raw = i32::try_from(process.pid.0).ok().and_then(RawPid::from_raw);
        let descriptor = raw.and_then(|raw| pidfd_open(raw, PidfdFlags::empty()).ok());
        // Between the registration and now the number may have passed on: then the descriptor holds a stranger.
        let descriptor = descriptor.filter(|_| PeerProcess::running(process.pid) == Some(process));
        Self { process, descriptor }
    }

    fn has_ended(&self) -> bool {
        match &self.descriptor {
            Some(descriptor) => {
                let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
                poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&at_once)).is_ok_and(|ready| ready > 0)
            }
            None => PeerProcess::running(self.process.pid) != Some(self.process),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::sync::Arc;

    use super::*;
    use crate::serve::claims::Claim;
    use crate::serve::view::{TuningState, View};
    use crate::units::{BatchSize, FlushInterval, Generation, Nanos, Pid, Settings, Uid};

    const REGISTRATION: &str = r#"{"knobs": {"batch_bytes": {"min": 1, "max": 2, "default": 1},
        "flush_interval_us": {"min": 1, "max": 2, "default": 1}}}"#;

    fn pipeline(pid: Pid) -> PipelineView {
        PipelineView {
            name: PipelineName::try_from("a".to_owned()).unwrap(),
            pid,
            uid: Uid(1000),
            registration: Arc::new(serde_json::from_str(REGISTRATION).unwrap()),
            bounds: tidegate_client::abi::Knobs::default(),
            state: TuningState::Observe,
            settings: Settings { batch: BatchSize(1), interval: FlushInterval(1) },
            generation: Generation(0),
            signals: tidegate_client::abi::SignalsJson::default(),
            decisions: Arc::default(),
            decisions_by_reason: Vec::new(),
        }
    }

    fn claimed(process: PeerProcess) -> (Claims, Vec<PipelineView>) {
        let (claims, shown) = (Claims::default(), pipeline(process.pid));
        let claim = Claim { uid: Uid(1000), process, at: Nanos(1) };
        claims.claim(&shown.name, claim, &View::default()).unwrap();
        (claims, vec![shown])
    }

    fn sleeper() -> (Child, PeerProcess) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let process = PeerProcess::running(Pid(child.id())).unwrap();
        (child, process)
    }

    #[test]
    fn a_pipeline_ends_with_its_process() {
        let (mut child, process) = sleeper();
        let (claims, shown) = claimed(process);
        let mut liveness = Liveness::default();
        assert_eq!(liveness.ended(&shown, &claims), []);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(liveness.ended(&shown, &claims), [(shown[0].name.clone(), process)]);
        assert_eq!(liveness.ended(&[], &claims), [], "a pipeline that has left is still told");
    }

    #[test]
    fn a_later_process_of_the_same_number_does_not_keep_the_pipeline_alive() {
        let (mut child, process) = sleeper();
        let earlier = PeerProcess { start_ticks: process.start_ticks - 1, ..process };
        let (claims, shown) = claimed(earlier);
        assert_eq!(Liveness::default().ended(&shown, &claims), [(shown[0].name.clone(), earlier)]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
