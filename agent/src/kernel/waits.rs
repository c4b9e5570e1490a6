//! Where the stack of a wait is taken: in the thread itself, once it runs again. Which way the kernel offers is found
//! out when the probes are attached; the way that was taken is told, never hidden.

use aya::programs::kprobe::KProbeLinkId;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::{KProbe, ProgramError};

use super::attach::NEEDS_RIGHTS;
use super::load::{LoadError, Probes};

/// The way that is taken.
#[derive(Debug)]
pub(super) enum StacksOfWaits {
    /// The tracepoint at the end of a switch.
    SwitchEnd(BtfTracePointLinkId),
    /// A kprobe on the function that ends a switch.
    Kprobe(KProbeLinkId, String),
    /// The thread's next return from a system call.
    SyscallReturn(BtfTracePointLinkId),
}

impl Probes {
    /// Attaches the best way there is.
    pub(super) fn attach_stacks_of_waits(&mut self) -> Result<(), LoadError> {
        let way = if self.kernel.has_tracepoint("sched_exit_tp") {
            StacksOfWaits::SwitchEnd(self.attach_tracepoint("sched_exit", "sched_exit_tp")?)
        } else {
            match self.attach_finish() {
                Ok(way) => way,
                Err(error) => {
                    tracing::debug!(%error, "no kprobe at the end of a switch");
                    StacksOfWaits::SyscallReturn(self.attach_tracepoint("sched_sys_exit", "sys_exit")?)
                }
            }
        };
        self.links.stacks_of_waits = Some(way);
        Ok(())
    }

    /// Detaches it.
    pub(super) fn detach_stacks_of_waits(&mut self) {
        match self.links.stacks_of_waits.take() {
            Some(StacksOfWaits::SwitchEnd(link)) => self.detach_links(vec![("sched_exit", link)]),
            Some(StacksOfWaits::SyscallReturn(link)) => self.detach_links(vec![("sched_sys_exit", link)]),
            Some(StacksOfWaits::Kprobe(link, _)) => {
                if let Some(Err(cause)) = self.finish().map(|program| program.detach(link)) {
                    tracing::warn!(%cause, program = "sched_finish", "detach");
                }
            }
            None => {}
        }
    }

    /// Which way is taken, and what is worth knowing of it where there is a better one.
    pub fn remark_on_waits(&self) -> Option<String> {
        match self.links.stacks_of_waits.as_ref()? {
            StacksOfWaits::SwitchEnd(_) => {
                Some("stacks of waits are taken at the end of a switch, by the tracepoint sched_exit_tp".to_owned())
            }
            StacksOfWaits::Kprobe(_, function) => Some(format!(
                "stacks of waits are taken at the end of a switch, by a kprobe on {function} (the tracepoint sched_exit_tp \
                 came with Linux 6.18)"
            )),
            StacksOfWaits::SyscallReturn(_) => Some(
                "stacks of waits are taken at the thread's next return from a system call, so that page faults and \
                 preemption are charged to a later place; totals are exact (Linux 6.18 has sched_exit_tp; before that it \
                 needs CONFIG_KPROBES)"
                    .to_owned(),
            ),
        }
    }

    fn finish(&mut self) -> Option<&mut KProbe> {
        self.ebpf.program_mut("sched_finish").and_then(|program| program.try_into().ok())
    }

    fn attach_finish(&mut self) -> Result<StacksOfWaits, LoadError> {
        const PROGRAM: &str = "sched_finish";
        let failed = |cause| LoadError::Program { program: PROGRAM, cause, remedy: NEEDS_RIGHTS };
        let absent = std::io::Error::other("no such function in /proc/kallsyms (reading it needs CAP_SYSLOG)");
        let function =
            finish_task_switch().ok_or(LoadError::System { what: "find finish_task_switch", cause: absent })?;
        let loaded = self.links.loaded.contains(PROGRAM);
        let program = self.finish().ok_or(ProgramError::UnexpectedProgramType).map_err(failed)?;
        if !loaded {
            program.load().map_err(failed)?;
        }
        let link = program.attach(&function, 0).map_err(failed)?;
        self.links.loaded.insert(PROGRAM);
        Ok(StacksOfWaits::Kprobe(link, function))
    }
}

/// The function that ends a switch, under the name that the compiler gave it (`finish_task_switch.isra.0`).
fn finish_task_switch() -> Option<String> {
    const NAME: &str = "finish_task_switch";
    let symbols = std::fs::read_to_string("/proc/kallsyms").ok()?;
    let names = symbols.lines().filter_map(|line| line.split_ascii_whitespace().nth(2));
    let found =
        names.filter(|name| name.strip_prefix(NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
    // A `.cold` part is no entry of the function.
    found.filter(|name| !name.contains(".cold")).min_by_key(|name| name.len()).map(str::to_owned)
}
