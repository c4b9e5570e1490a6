//! Attaches and detaches families of probes. A family is attached whole or not at all.

use std::collections::BTreeMap;
use std::fmt;

use aya::maps::{Array, MapError};
use aya::programs::perf_event::{PerfEventConfig, PerfEventLinkId, PerfEventScope, SamplePolicy, SoftwareEvent};
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::{BtfTracePoint, PerfEvent, ProgramError};
use aya::util::online_cpus;

use super::load::{LoadError, Probes};
use super::waits::StacksOfWaits;
use crate::units::Nanos;

/// Probes that are attached together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// On-CPU samples.
    Cpu,
    /// System call counters.
    Syscalls,
    /// What moves through each descriptor.
    Flows,
    /// Socket residency.
    Sockets,
    /// Births of processes and changes of program, for unwinding: with every family that takes stacks.
    Processes,
    /// Waiting and thread totals.
    Sched,
    /// Wakers' stacks.
    Wakeups,
    /// The empty pair of the benchmarks.
    Floor,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 8] = [
        Self::Cpu,
        Self::Syscalls,
        Self::Flows,
        Self::Sockets,
        Self::Processes,
        Self::Sched,
        Self::Wakeups,
        Self::Floor,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Syscalls => "syscalls",
            Self::Flows => "flows",
            Self::Sockets => "sockets",
            Self::Processes => "processes",
            Self::Sched => "sched",
            Self::Wakeups => "wakeups",
            Self::Floor => "floor",
        }
    }

    /// (program, tracepoint) of its tracepoint programs.
    fn tracepoints(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Cpu => &[],
            Self::Syscalls => &[("syscall_enter", "sys_enter"), ("syscall_exit", "sys_exit")],
            Self::Flows => &[("flow_enter", "sys_enter"), ("flow_exit", "sys_exit")],
            // The reader's side first: an arrival that nobody retires would fill the marks.
            Self::Sockets => &[("sock_read", "sock_recv_length"), ("sock_arrive", "sk_data_ready")],
            Self::Processes => &[("process_fork", "sched_process_fork"), ("process_exec", "sched_process_exec")],
            // Forks before switches: a thread that is not known yet is not followed.
            Self::Sched => &[("sched_fork", "sched_process_fork"), ("sched_switch", "sched_switch")],
            Self::Wakeups => &[("sched_waking", "sched_waking")],
            Self::Floor => &[("floor_enter", "sys_enter"), ("floor_exit", "sys_exit")],
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Sockets => "it came with Linux 6.3; until then socket residency is degraded",
            Self::Processes => "every kernel with BTF has it",
            Self::Sched | Self::Wakeups => "every kernel since 5.5 has it: was BTF stripped?",
            Self::Cpu | Self::Syscalls | Self::Flows | Self::Floor => "it needs CONFIG_HAVE_SYSCALL_TRACEPOINTS",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is attached.
#[derive(Debug, Default)]
pub(super) struct Links {
    tracepoints: BTreeMap<Family, Vec<(&'static str, BtfTracePointLinkId)>>,
    sampler: Vec<PerfEventLinkId>,
    pub(super) stacks_of_waits: Option<StacksOfWaits>,
    pub(super) loaded: std::collections::BTreeSet<&'static str>,
}

pub(super) const NEEDS_RIGHTS: &str = "(needs CAP_BPF and CAP_PERFMON, or root)";

impl Probes {
    /// Whether `family` is attached.
    pub fn is_attached(&self, family: Family) -> bool {
        match family {
            Family::Cpu => !self.links.sampler.is_empty(),
            _ => self.links.tracepoints.contains_key(&family),
        }
    }

    /// Attaches `family`; does nothing when it is attached.
    pub fn attach(&mut self, family: Family) -> Result<(), LoadError> {
        if self.is_attached(family) {
            return Ok(());
        }
        if let Some(field) = self.offsets.missing_for(family) {
            return Err(LoadError::NoField { family, field });
        }
        let absent = family.tracepoints().iter().find(|(_, tp)| !self.kernel.has_tracepoint(tp));
        if let Some((_, tracepoint)) = absent {
            return Err(LoadError::NoTracepoint { family, tracepoint, remedy: family.remedy() });
        }
        if family == Family::Cpu {
            return self.attach_sampler();
        }
        if family == Family::Sched {
            self.attach_stacks_of_waits()?;
        }
        let mut links = Vec::new();
        for (program, tracepoint) in family.tracepoints() {
            match self.attach_tracepoint(program, tracepoint) {
                Ok(link) => links.push((*program, link)),
                Err(error) => {
                    self.detach_links(links);
                    self.detach_stacks_of_waits();
                    return Err(error);
                }
            }
        }
        self.links.tracepoints.insert(family, links);
        Ok(())
    }

    /// Detaches `family`; does nothing when it is not attached.
    pub fn detach(&mut self, family: Family) {
        if family == Family::Cpu {
            for link in std::mem::take(&mut self.links.sampler) {
                if let Ok(program) = self.sampler()
                    && let Err(cause) = program.detach(link)
                {
                    tracing::warn!(%cause, "detach the sampler");
                }
            }
        } else if let Some(links) = self.links.tracepoints.remove(&family) {
            self.detach_links(links);
        }
        if family == Family::Sched {
            self.detach_stacks_of_waits();
        }
    }

    /// Time between two samples of a CPU.
    pub fn cpu_period(&self) -> Nanos {
        Nanos(self.options.period().saturating_mul(u64::from(self.cpu_factor.max(1))))
    }

    /// Samples CPUs so many times as rarely as the options say. Period and weight change together: no sample is taken
    /// by the one and counted by the other.
    pub fn thin_cpu(&mut self, factor: u32) -> Result<(), LoadError> {
        if factor == self.cpu_factor {
            return Ok(());
        }
        let was_attached = self.is_attached(Family::Cpu);
        self.detach(Family::Cpu);
        self.cpu_factor = factor;
        let period = self.cpu_period().0;
        self.set_period_entry(0, period)?;
        if was_attached { self.attach(Family::Cpu) } else { Ok(()) }
    }

    /// Somebody else is sampled from now on: what has run unseen is not charged to anybody's next sample.
    pub fn forget_run_times(&mut self) -> Result<(), LoadError> {
        self.cpu_epoch = self.cpu_epoch.wrapping_add(1);
        self.set_period_entry(1, u64::from(self.cpu_epoch))
    }

    fn set_period_entry(&mut self, entry: u32, value: u64) -> Result<(), LoadError> {
        let failed = |cause| LoadError::Map { what: "set the sampling period", cause };
        let map = self.ebpf.map_mut("PERIODS").ok_or(MapError::InvalidName { name: "PERIODS".to_owned() });
        let mut periods: Array<_, u64> = map.and_then(Array::try_from).map_err(failed)?;
        periods.set(entry, value, 0).map_err(failed)
    }

    pub(super) fn attach_tracepoint(
        &mut self,
        name: &'static str,
        tracepoint: &'static str,
    ) -> Result<BtfTracePointLinkId, LoadError> {
        let failed = |cause| LoadError::Program { program: name, cause, remedy: NEEDS_RIGHTS };
        let Self { ebpf, types, links, .. } = self;
        let program: &mut BtfTracePoint = ebpf
            .program_mut(name)
            .ok_or(ProgramError::UnexpectedProgramType)
            .and_then(TryInto::try_into)
            .map_err(failed)?;
        if !links.loaded.contains(name) {
            program.load(tracepoint, types.get()?).map_err(failed)?;
            links.loaded.insert(name);
        }
        program.attach().map_err(failed)
    }

    pub(super) fn detach_links(&mut self, links: Vec<(&'static str, BtfTracePointLinkId)>) {
        for (name, link) in links {
            let program: Option<&mut BtfTracePoint> = self.ebpf.program_mut(name).and_then(|p| p.try_into().ok());
            if let Some(Err(cause)) = program.map(|p| p.detach(link)) {
                tracing::warn!(%cause, program = name, "detach");
            }
        }
    }

    fn sampler(&mut self) -> Result<&mut PerfEvent, LoadError> {
        self.ebpf
            .program_mut("cpu_sample")
            .ok_or(ProgramError::UnexpectedProgramType)
            .and_then(TryInto::try_into)
            .map_err(|cause| LoadError::Program { program: "cpu_sample", cause, remedy: NEEDS_RIGHTS })
    }

    fn attach_sampler(&mut self) -> Result<(), LoadError> {
        let failed = |cause| LoadError::Program { program: "cpu_sample", cause, remedy: NEEDS_RIGHTS };
        let cpus = online_cpus().map_err(|(what, cause)| {
            tracing::debug!(what, "online CPUs");
            LoadError::System { what: "list the CPUs that are online", cause }
        })?;
        // A period, not a frequency: it is what a sample stands for.
        let policy = SamplePolicy::Period(self.cpu_period().0);
        if !self.links.loaded.contains("cpu_sample") {
            self.sampler()?.load().map_err(failed)?;
            self.links.loaded.insert("cpu_sample");
        }
        let mut links = Vec::new();
        let program = self.sampler()?;
        for cpu in cpus {
            let clock = PerfEventConfig::Software(SoftwareEvent::CpuClock);
            let link = program.attach(clock, PerfEventScope::AllProcessesOneCpu { cpu }, policy, false);
            match link {
                Ok(link) => links.push(link),
                Err(cause) => {
                    for link in links {
                        if let Err(cause) = program.detach(link) {
                            tracing::warn!(%cause, "detach the sampler");
                        }
                    }
                    return Err(failed(cause));
                }
            }
        }
        self.links.sampler = links;
        Ok(())
    }
}
