//! Kinds of profiles: the configuration in, what is recorded all the time out; what is wanted and attached in, what can
//! be drawn of it out. Attaches nothing.

use std::collections::BTreeSet;

use crate::config::{Config, Switch};
use crate::event::WatchKind;
use crate::run::core::{CpuSampling, Recording, Standing};
use crate::source::Wanted;
use crate::units::ProfileKind;

/// What the configuration records all the time.
pub(super) fn standing(config: &Config, shed: &[ProfileKind]) -> Standing {
    use ProfileKind::{Cpu, Offcpu, Runq, Sock, Wakeup, Wall};
    // The graph of wall time is made of those of waiting.
    let is_shed = |kind: ProfileKind| shed.contains(&kind) || kind == Wall && shed.contains(&Offcpu);
    let always = |kinds: &[ProfileKind]| {
        if kinds.iter().any(|kind| config.kinds.contains(kind) && !is_shed(*kind)) {
            Recording::Always
        } else {
            Recording::OnDemand
        }
    };
    Standing {
        cpu: match (config.cpu, always(&[Cpu, Wall])) {
            (Switch::On, Recording::Always) => CpuSampling::Always,
            _ => CpuSampling::OnDemand,
        },
        sched: always(&[Offcpu, Runq, Wall, Wakeup]),
        wakeups: always(&[Wakeup]),
        socket_stacks: always(&[Sock]),
    }
}

/// The kinds of profiles that can be made of what is wanted and can be had.
pub(super) fn recorded(wanted: &Wanted, attached: &[&'static str]) -> BTreeSet<ProfileKind> {
    let had = |what: WatchKind, is_wanted: bool| is_wanted && attached.contains(&what.family());
    let cpu = had(WatchKind::Cpu, wanted.cpu.is_some());
    let sched = had(WatchKind::Sched, wanted.sched.is_some());
    let wakeups = sched && had(WatchKind::Wakeups, wanted.wakeups);
    let sock = had(WatchKind::SocketStacks, wanted.socket_stacks && wanted.sockets.is_some());
    let kinds = [
        (ProfileKind::Cpu, cpu),
        (ProfileKind::Offcpu, sched),
        (ProfileKind::Runq, sched),
        (ProfileKind::Wall, cpu && sched),
        (ProfileKind::Wakeup, wakeups),
        (ProfileKind::Sock, sock),
    ];
    kinds.into_iter().filter(|(_, is_recorded)| *is_recorded).map(|(kind, _)| kind).collect()
}
