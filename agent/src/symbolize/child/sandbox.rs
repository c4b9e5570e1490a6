//! Gives up, for good, whatever reading a symbol table does not need: capabilities, files, sockets, most system calls.
//!
//! In goes an ordinary process, out comes one that can read the descriptors it is passed and answer. It never fails
//! half-way in silence: what this kernel cannot enforce stands in the [`Confinement`], and without a system call filter
//! there is no symbolizer at all.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus, Ruleset, RulesetAttr as _,
    Scope,
};
use rustix::process::{Resource, Rlimit, Signal, set_dumpable_behavior, set_parent_process_death_signal, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};
use syscalls::Sysno;

use crate::symbolize::wire::Confinement;

/// Address space: what a big binary's debug information takes, and a memory bomb does not get.
const MOST_MEMORY: u64 = 1 << 30;

/// Descriptors: the socket, the standard ones and the files of a few questions.
const MOST_DESCRIPTORS: u64 = 32;

/// Who runs what needs no right to anything.
const NOBODY: u32 = 65_534;

/// How readily it is ended when memory runs short: before nearly everything else, and replaced afterwards.
const OOM_SCORE: &str = "900";

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    /// A limit.
    #[error("limit {what}: {cause}")]
    Limit {
        /// Which.
        what: &'static str,
        /// Why.
        cause: io::Error,
    },
    /// Landlock is there and refuses.
    #[error("enter Landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// No filter.
    #[error("filter system calls: {0} (needs a kernel with CONFIG_SECCOMP_FILTER)")]
    Filter(#[from] seccompiler::Error),
    /// A filter that cannot be built.
    #[error("build the filter of system calls: {0}")]
    Build(#[from] seccompiler::BackendError),
}

/// Which layers are put on. All of them, outside tests of one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layers {
    /// Everything.
    All,
    /// Everything but the filter of system calls, which would hide what the others refuse.
    WithoutFilter,
}

/// Confines this process, which must have one thread only.
pub(crate) fn enter(layers: Layers) -> Result<Confinement, SandboxError> {
    // Only this one needs a file; where it is refused the kernel's own choice stands.
    if let Err(cause) = fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        tracing::debug!(%cause, "raise the own OOM score");
    }
    close_inherited();
    let kept_capability = drop_privileges();
    limit("parent-death signal", set_parent_process_death_signal(Some(Signal::KILL)))?;
    limit("dumps", set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable))?;
    for (what, resource, most) in [
        ("memory", Resource::As, MOST_MEMORY),
        ("descriptors", Resource::Nofile, MOST_DESCRIPTORS),
        ("written files", Resource::Fsize, 0),
        ("core files", Resource::Core, 0),
        ("locked memory", Resource::Memlock, 0),
    ] {
        limit(what, setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) }))?;
    }
    limit("new privileges", rustix::thread::set_no_new_privs(true))?;
    let landlock = forbid_files()?;
    let uid = rustix::process::getuid().as_raw();
    if layers == Layers::All {
        seccompiler::apply_filter(&filter()?)?;
    }
    Ok(Confinement { landlock, kept_capability, uid })
}

fn limit(what: &'static str, done: rustix::io::Result<()>) -> Result<(), SandboxError> {
    done.map_err(|errno| SandboxError::Limit { what, cause: errno.into() })
}

/// The agent's own descriptors are closed on exec; this is for those of whoever started the agent.
fn close_inherited() {
    let open = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<i32> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|d| *d > 2) {
        // The directory that was just listed is among them, and closed already.
        if let Err(errno) = nix::unistd::close(descriptor) {
            tracing::trace!(%errno, descriptor, "close an inherited descriptor");
        }
    }
}

/// Gives up user and capabilities. Without the right to do the one the other still holds.
fn drop_privileges() -> Option<u32> {
    let last = fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|text| text.trim().parse().ok());
    let all = 0..=last.unwrap_or(63_u32).min(63);
    let bounding = |number: u32| CapabilitySet::from_bits_retain(1 << number);
    let had_root = rustix::process::geteuid().is_root();
    for number in all.clone() {
        if let Err(errno) = rustix::thread::remove_capability_from_bounding_set(bounding(number)) {
            tracing::trace!(%errno, number, "leave the bounding set as it is");
        }
    }
    if had_root {
        let nobody = (nix::unistd::Uid::from_raw(NOBODY), nix::unistd::Gid::from_raw(NOBODY));
        let steps = [
            ("groups", nix::unistd::setgroups(&[])),
            ("group", nix::unistd::setresgid(nobody.1, nobody.1, nobody.1)),
            ("user", nix::unistd::setresuid(nobody.0, nobody.0, nobody.0)),
        ];
        for (what, done) in steps {
            if let Err(errno) = done {
                tracing::warn!(%errno, "the symbolizer keeps its {what}");
            }
        }
    }
    if let Err(errno) = rustix::thread::clear_ambient_capability_set() {
        tracing::debug!(%errno, "clear the ambient capabilities");
    }
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    if let Err(errno) = rustix::thread::set_capabilities(None, sets) {
        tracing::warn!(%errno, "the symbolizer keeps capabilities");
    }
    let kept = rustix::thread::capabilities(None).map_or(u64::MAX, |now| (now.effective | now.permitted).bits());
    kept.checked_ilog2()
}

/// Every access that Landlock knows is handled, and none is allowed.
fn forbid_files() -> Result<Option<u32>, SandboxError> {
    const NEWEST: ABI = ABI::V6;
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .restrict_self()?;
    Ok(match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => u32::try_from(effective_abi as i32).ok(),
        _ => None,
    })
}

/// What reading descriptors and answering takes.
const ALLOWED: [Sysno; 24] = [
    Sysno::read,
    Sysno::pread64,
    Sysno::lseek,
    Sysno::close,
    Sysno::recvmsg,
    Sysno::sendmsg,
    Sysno::ppoll,
    Sysno::brk,
    Sysno::munmap,
    Sysno::mremap,
    Sysno::madvise,
    Sysno::futex,
    Sysno::getrandom,
    Sysno::clock_gettime,
    Sysno::rt_sigreturn,
    Sysno::rt_sigaction,
    Sysno::rt_sigprocmask,
    Sysno::sigaltstack,
    Sysno::sched_yield,
    Sysno::restart_syscall,
    Sysno::getpid,
    Sysno::gettid,
    Sysno::exit,
    Sysno::exit_group,
];

fn filter() -> Result<BpfProgram, SandboxError> {
    const PROT_EXEC: u64 = 4;
    const F_GETFD: u64 = 1;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in ALLOWED {
        rules.insert(i64::from(call.id()), Vec::new());
    }
    let argument = |index, compare, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, compare, value).and_then(|c| SeccompRule::new(vec![c]))
    };
    // Memory for data only: nothing that was read is ever run.
    for call in [Sysno::mmap, Sysno::mprotect] {
        let rule = argument(2, SeccompCmpOp::MaskedEq(PROT_EXEC), 0)?;
        rules.insert(i64::from(call.id()), vec![rule]);
    }
    // Words to the log, nothing to any other descriptor.
    rules.insert(i64::from(Sysno::write.id()), vec![argument(0, SeccompCmpOp::Eq, 2)?]);
    // A build with assertions looks whether a descriptor is open before it closes it.
    rules.insert(i64::from(Sysno::fcntl.id()), vec![argument(1, SeccompCmpOp::Eq, F_GETFD)?]);
    let target = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, target)?;
    Ok(BpfProgram::try_from(filter)?)
}
