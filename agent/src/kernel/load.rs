//! Loads the embedded object with the offsets of the running kernel. Programs are verified when they are first attached,
//! so that a probe this kernel refuses takes no other with it.

use agent_common::{SyscallStats, UnwindRow};
use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::{Ebpf, EbpfError, EbpfLoader};

use super::attach::{Family, Links};
use super::btf::{Btf, BtfError};
use super::diagnostics::Diagnostics;
use super::offsets::Offsets;
use super::types::{Tracepoints, Types};
use super::unwind::shared::Shared;
use crate::units::Nanos;

const VMLINUX: &str = "/sys/kernel/btf/vmlinux";
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-ebpf"));

/// What may be chosen before the probes are loaded.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// CPU samples per second and CPU; a prime keeps it out of step with periodic work.
    pub hertz: u64,
    /// Latency slots of system calls, a power of two up to 65,536.
    pub latency_slots: u32,
    /// Byte-microseconds of waiting in a receive queue that a reader's sample stands for at the least.
    pub socket_period: u64,
    /// MiB of kernel memory for unwind tables. What finds no room is said, and its frames end there.
    pub unwind_mib: u32,
    /// How long an `apply` may wait for the tables of the processes that run, before the first sample.
    pub settle: Nanos,
    /// One system call in so many is timed, in the mean; 1 times every call.
    pub latency_every: u32,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            hertz: 97,
            latency_slots: 65_536,
            socket_period: SOCKET_PERIOD,
            unwind_mib: 12,
            settle: Nanos(0),
            latency_every: LATENCY_EVERY,
        }
    }
}

/// 4 KiB that wait for a millisecond, about.
const SOCKET_PERIOD: u64 = 4_000_000;

/// One call in 16: the clock is then a twentieth of what accounting costs, and quantiles of a thousand calls still hold.
const LATENCY_EVERY: u32 = 16;

impl LoadOptions {
    /// Nanoseconds between two CPU samples of a CPU.
    pub fn period(&self) -> u64 {
        Nanos::SECOND.0 / self.hertz.max(1)
    }

    /// Rows that fit into the budget for unwind tables.
    fn unwind_rows(&self) -> u32 {
        let rows = (u64::from(self.unwind_mib) << 20) / size_of::<UnwindRow>() as u64;
        u32::try_from(rows).unwrap_or(u32::MAX).max(1)
    }
}

/// Why probes could not be loaded or attached.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No BTF.
    #[error("read {VMLINUX}: {0} (this kernel was built without CONFIG_DEBUG_INFO_BTF; the probes need it)")]
    NoBtf(std::io::Error),
    /// BTF that cannot be parsed.
    #[error("{VMLINUX}: {0}")]
    BadBtf(#[from] BtfError),
    /// BTF that the loader cannot parse.
    #[error("{VMLINUX}: {0}")]
    LoaderBtf(#[from] aya::BtfError),
    /// The object was refused.
    #[error("load the probes: {} (needs CAP_BPF and CAP_PERFMON, or root)", chain(.0))]
    Object(#[from] EbpfError),
    /// A program was refused.
    #[error("attach {program}: {}{} {remedy}", chain(.cause), verifier_says(.cause))]
    Program {
        /// Which.
        program: &'static str,
        /// Why.
        cause: ProgramError,
        /// What to do.
        remedy: &'static str,
    },
    /// A kernel field that a probe needs is absent.
    #[error("{family} probes: this kernel has no field {field} (its layout is not known to this version of tidegate)")]
    NoField {
        /// Which probes.
        family: Family,
        /// Which field.
        field: &'static str,
    },
    /// A tracepoint that a probe needs is absent.
    #[error("{family} probes: this kernel has no tracepoint {tracepoint} ({remedy})")]
    NoTracepoint {
        /// Which probes.
        family: Family,
        /// Which tracepoint.
        tracepoint: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// A map was refused.
    #[error("{what}: {}", chain(.cause))]
    Map {
        /// What was tried.
        what: &'static str,
        /// Why.
        cause: MapError,
    },
    /// Something else of the system failed.
    #[error("{what}: {cause}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why.
        cause: std::io::Error,
    },
}

/// The end of what the verifier said, where it was the verifier who refused.
fn verifier_says(cause: &ProgramError) -> String {
    const LINES: usize = 6;
    let ProgramError::LoadError { verifier_log, .. } = cause else { return String::new() };
    let log = verifier_log.to_string();
    let told: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = &told[told.len().saturating_sub(LINES)..];
    if last.is_empty() { String::new() } else { format!("; the verifier says: {};", last.join(" | ")) }
}

/// Words of the watch list: a byte for each process number there can be.
fn watch_words() -> u32 {
    const PID_MAX_LIMIT: u32 = 1 << 22;
    let pid_max = std::fs::read_to_string("/proc/sys/kernel/pid_max").ok().and_then(|text| text.trim().parse().ok());
    pid_max.unwrap_or(PID_MAX_LIMIT).min(PID_MAX_LIMIT).div_ceil(8) + 1
}

/// Entries of the table of system calls: as many as fit into its budget, since each CPU has counters of its own.
fn syscall_entries() -> u32 {
    const BUDGET: usize = 12 << 20;
    let cpus = aya::util::nr_cpus().unwrap_or(1).max(1);
    let entries = BUDGET / (cpus * size_of::<SyscallStats>());
    u32::try_from(entries).unwrap_or(u32::MAX).clamp(1024, 16_384)
}

/// An error with its causes in one line: the loader hides the errno one level down.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = one_line(error);
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = one_line(inner);
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// The first line, without the log of the verifier, which is for the debugger: [`verifier_says`] has its end.
fn one_line(error: &dyn std::error::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.split(". Verifier output").next().unwrap_or_default().to_owned()
}

/// The loaded object. Everything attached is gone when it is dropped; nothing is ever pinned.
#[derive(Debug)]
pub struct Probes {
    pub(super) ebpf: Ebpf,
    pub(super) types: Types,
    pub(super) kernel: Tracepoints,
    pub(super) offsets: Offsets,
    pub(super) options: LoadOptions,
    pub(super) links: Links,
    /// CPU samples are so many times as rare as the options say.
    pub(super) cpu_factor: u32,
    /// How often somebody else was sampled from then on.
    pub(super) cpu_epoch: u16,
    /// While it is held the kernel keeps run times.
    run_times: Option<std::os::fd::OwnedFd>,
    diagnostics: Diagnostics,
}

impl Probes {
    /// Loads the object; attaches nothing.
    pub fn load(options: LoadOptions) -> Result<Self, LoadError> {
        let blob = std::fs::read(VMLINUX).map_err(LoadError::NoBtf)?;
        let kernel = Btf::parse(&blob)?;
        drop(blob);
        let offsets = Offsets::resolve(&kernel);
        let kernel = Tracepoints(kernel.tracepoints());
        let mut types = Types::default();
        let mask = options.latency_slots.clamp(1, 65_536).next_power_of_two() - 1;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(types.get()?));
        // Task storage: the probes alone use it, nothing here needs a wrapper for it.
        loader.allow_unsupported_maps();
        for (symbol, value) in offsets.values() {
            loader.override_global(symbol, value, false);
        }
        let period = options.period();
        let every = options.latency_every.max(1);
        loader.override_global("SLOT_MASK", &mask, true);
        loader.override_global("LATENCY_EVERY", &every, true);
        loader.override_global("SOCKET_PERIOD", &options.socket_period, true);
        loader.override_global("CPU_PERIOD_NS", &period, true);
        loader.map_max_entries("WATCH", watch_words());
        loader.map_max_entries("SYSCALLS", syscall_entries());
        loader.map_max_entries("ROWS", options.unwind_rows());
        let mut ebpf = loader.load(OBJECT)?;
        let diagnostics = Diagnostics::of(&mut ebpf);
        Ok(Self {
            ebpf,
            types,
            kernel,
            offsets,
            options,
            links: Links::default(),
            cpu_factor: 1,
            cpu_epoch: 0,
            run_times: None,
            diagnostics,
        })
    }
}

impl Probes {
    /// Run time of all loaded programs, while the kernel keeps it.
    pub fn run_time(&self) -> Option<Nanos> {
        const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
        let is_kept = || std::fs::read_to_string(SWITCH).is_ok_and(|text| text.trim() == "1");
        (self.run_times.is_some() || is_kept()).then(|| {
            let times = self.ebpf.programs().filter_map(|(_, program)| program.info().ok());
            times.fold(Nanos(0), |sum, info| sum + Nanos::from(info.run_time()))
        })
    }

    /// Has the kernel keep the run time of programs, for as long as nobody says otherwise and this agent lives.
    pub fn keep_run_time(&mut self) -> Result<(), LoadError> {
        if self.run_times.is_none() {
            let kept = aya::sys::enable_stats(aya::sys::Stats::RunTime);
            let failed =
                |cause| LoadError::System { what: "keep the run time of probes", cause: std::io::Error::other(cause) };
            self.run_times = Some(kept.map_err(failed)?);
        }
        Ok(())
    }

    /// Ends that: it costs some ten nanoseconds each time a program runs.
    pub fn drop_run_time(&mut self) {
        self.run_times = None;
    }

    /// Gives back what only loading takes; whatever is loaded later takes it again.
    pub fn let_go(&mut self) {
        self.types.let_go();
    }

    /// Hands on what the probes logged since the last time.
    pub fn hear(&mut self) {
        self.diagnostics.hear();
    }

    /// Takes an array out of the object and maps it.
    pub(super) fn shared<T: agent_common::Wire>(&mut self, name: &'static str) -> Result<Shared<T>, LoadError> {
        let missing = || LoadError::Map { what: name, cause: MapError::InvalidName { name: name.to_owned() } };
        match self.ebpf.take_map(name) {
            Some(aya::maps::Map::Array(data)) => {
                Shared::map(data).map_err(|cause| LoadError::System { what: name, cause })
            }
            _ => Err(missing()),
        }
    }

    /// Takes a map out of the object.
    pub fn map<M: TryFrom<aya::maps::Map, Error = MapError>>(&mut self, name: &'static str) -> Result<M, LoadError> {
        let map = self.ebpf.take_map(name).ok_or(MapError::InvalidName { name: name.to_owned() });
        map.and_then(M::try_from).map_err(|cause| LoadError::Map { what: name, cause })
    }
}
