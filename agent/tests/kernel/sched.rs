//! Waiting against what the waiters themselves know.

use std::collections::BTreeMap;

use agent_common::{SampleKind, ThreadRow, ThreadState, WAIT_REASONS, WaitReason};
use tidegate::source::ebpf::LoadOptions;
use tidegate::source::{Scope, Wanted};
use tidegate::units::{Nanos, Pid};

use crate::kit::{Probes, Subject, close};

pub(crate) const CASES: &[(&str, fn())] =
    &[("planted_sleeps_are_charged_to_sleeping", || planted("nap", WaitReason::Sleep))];

fn planted(task: &str, reason: WaitReason) {
    let subject = Subject::start(task);
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&Wanted { sched: Some(Scope::Pids([pid].into())), ..Wanted::default() });
    let (_subject, said) = probes.while_acting(subject);
    println!("{said} {reason:?}");
    for row in &probes.seen().threads {
        println!("{row:?}");
    }
    println!("{:?}", probes.seen().rows.lost);
    for s in &probes.seen().samples {
        println!("{:?} {} {:?} {} {:x?} {:x?}", s.kind, s.weight, s.reason, s.tid.0, s.kernel, s.user);
    }
    panic!("look");
}
