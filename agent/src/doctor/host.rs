//! The checks of the host, one function each: a file or two of `/proc` and `/sys` in, a check out.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::doctor::{degraded, missing, ok};
use crate::serve::check::Check;
use crate::source::io_uring::all_users;

/// Oldest kernel with what the probes need at the least (BTF tracepoints, `bpf_sock_from_file`, task iterators).
const OLDEST: (u32, u32) = (5, 11);
/// Since this kernel everything is there.
const WHOLE_SINCE: (u32, u32) = (6, 3);

/// Capabilities by bit, and whether the probes cannot load without.
const CAPABILITIES: [(&str, u32, Need); 5] = [
    ("CAP_BPF", 39, Need::Must),
    ("CAP_PERFMON", 38, Need::Must),
    ("CAP_SYSLOG", 34, Need::Should),
    ("CAP_SYS_PTRACE", 19, Need::Should),
    ("CAP_DAC_READ_SEARCH", 2, Need::Should),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Must,
    Should,
}

pub(super) fn probes_built_in() -> Check {
    const NAME: &str = "probes";
    if cfg!(feature = "ebpf") {
        ok(NAME, "built in")
    } else {
        missing(NAME, "this binary was built without the feature `ebpf`", "build it with the default features")
    }
}

pub(super) fn privilege(proc: &Path) -> Check {
    const NAME: &str = "privilege";
    let remedy = "run as root, or give the binary these capabilities";
    let status = match fs::read_to_string(proc.join("self/status")) {
        Ok(status) => status,
        Err(error) => return missing(NAME, format!("/proc/self/status: {error}"), "mount /proc"),
    };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let uid = field("Uid:").and_then(|ids| ids.split_whitespace().nth(1)).unwrap_or("?");
    let effective = field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0);
    let lacking = |need: Need| -> Vec<&str> {
        let lacks = CAPABILITIES.iter().filter(|(_, bit, n)| *n == need && effective >> bit & 1 == 0);
        lacks.map(|(name, ..)| *name).collect()
    };
    let (must, should) = (lacking(Need::Must), lacking(Need::Should));
    if !must.is_empty() {
        return missing(NAME, format!("user {uid} lacks {}: no probe can load", must.join(", ")), remedy);
    }
    if !should.is_empty() {
        let cause = format!("user {uid} lacks {}: names and foreign processes stay unknown", should.join(", "));
        return degraded(NAME, cause, remedy);
    }
    ok(NAME, if uid == "0" { "root".to_owned() } else { format!("user {uid} with the capabilities needed") })
}

pub(super) fn kernel_version(proc: &Path) -> Check {
    const NAME: &str = "kernel";
    let release = match fs::read_to_string(proc.join("sys/kernel/osrelease")) {
        Ok(release) => release.trim().to_owned(),
        Err(error) => return degraded(NAME, format!("version unknown: {error}"), "mount /proc"),
    };
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if version < OLDEST {
        let cause = format!("Linux {release} is older than {}.{}", OLDEST.0, OLDEST.1);
        return missing(NAME, cause, "boot a newer kernel; without it the agent tunes from reports alone");
    }
    if version < WHOLE_SINCE {
        let cause = format!("Linux {release}: socket residency needs {}.{}", WHOLE_SINCE.0, WHOLE_SINCE.1);
        return degraded(NAME, cause, "boot a newer kernel, or do without that signal");
    }
    ok(NAME, format!("Linux {release}"))
}

pub(super) fn btf(sys: &Path) -> Check {
    const NAME: &str = "btf";
    match fs::metadata(sys.join("kernel/btf/vmlinux")) {
        Ok(meta) if meta.len() > 0 => ok(NAME, format!("/sys/kernel/btf/vmlinux, {} KiB", meta.len() / 1024)),
        Ok(_empty) => missing(NAME, "/sys/kernel/btf/vmlinux is empty", "boot a kernel with CONFIG_DEBUG_INFO_BTF"),
        Err(error) => {
            let cause = format!("/sys/kernel/btf/vmlinux: {error}");
            missing(NAME, cause, "boot a kernel with CONFIG_DEBUG_INFO_BTF, or mount /sys")
        }
    }
}

pub(super) fn pmu(sys: &Path) -> Check {
    const NAME: &str = "pmu";
    // Hybrid processors name theirs cpu_core and cpu_atom, Arm ones after the core.
    let is_pmu = |name: &str| name == "cpu" || name.starts_with("cpu_") || name.starts_with("armv");
    let devices = fs::read_dir(sys.join("bus/event_source/devices"));
    let names = devices.into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok());
    match names.into_iter().find(|name| is_pmu(name)) {
        Some(name) => ok(NAME, format!("hardware counters: {name}")),
        None => degraded(
            NAME,
            "no hardware counters (usual in a virtual machine): samples follow the CPU clock, no cycles or instructions",
            "none needed; on bare metal load the driver of the processor's counters",
        ),
    }
}

pub(super) fn perf_event_paranoid(proc: &Path) -> Check {
    const NAME: &str = "perf-event-paranoid";
    match setting(proc, "perf_event_paranoid") {
        // It binds processes without CAP_PERFMON; whether we have that is a check of its own.
        Ok(level) => ok(NAME, format!("{level} (does not bind an agent with CAP_PERFMON)")),
        Err(error) => degraded(NAME, format!("perf_event_paranoid: {error}"), "boot a kernel with CONFIG_PERF_EVENTS"),
    }
}

pub(super) fn kptr_restrict(proc: &Path) -> Check {
    const NAME: &str = "kptr-restrict";
    match setting(proc, "kptr_restrict") {
        Ok(2) => degraded(NAME, "2: kernel frames have no names", "sysctl kernel.kptr_restrict=1"),
        Ok(level) => ok(NAME, format!("{level}: kernel frames have names for CAP_SYSLOG")),
        Err(error) => degraded(NAME, format!("kptr_restrict: {error}"), "mount /proc"),
    }
}

fn setting(proc: &Path, name: &str) -> io::Result<i64> {
    let text = fs::read_to_string(proc.join("sys/kernel").join(name))?;
    text.trim().parse().map_err(|_odd| io::Error::new(io::ErrorKind::InvalidData, format!("not a number: {text:?}")))
}

pub(super) fn memlock(proc: &Path) -> Check {
    const NAME: &str = "memlock";
    let limits = fs::read_to_string(proc.join("self/limits")).unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")).map(str::trim);
    let soft = line.and_then(|line| line.split_whitespace().next());
    match soft {
        Some("unlimited") => ok(NAME, "unlimited"),
        // Since 5.11 maps are charged to the control group instead.
        Some(bytes) => ok(NAME, format!("{bytes} bytes (binds kernels before 5.11 only)")),
        None => degraded(NAME, "limit unknown: /proc/self/limits cannot be read", "mount /proc"),
    }
}

pub(super) fn io_uring(proc: &Path) -> Check {
    const NAME: &str = "io-uring";
    /// Named; more are counted.
    const NAMED: usize = 5;
    let users = all_users(proc);
    if users.is_empty() {
        return ok(NAME, "no process that may be looked at works through io_uring");
    }
    let named: Vec<String> = users.iter().take(NAMED).map(ToString::to_string).collect();
    let more = users.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    degraded(
        NAME,
        format!("pid {}{more}: what goes through io_uring is in no count of system calls", named.join(", ")),
        "none needed for profiles, which see the work; where counts matter, switch io_uring off in that program",
    )
}

pub(super) fn socket(path: &Path) -> Check {
    const NAME: &str = "socket";
    match UnixStream::connect(path) {
        Ok(_answered) => ok(NAME, format!("an agent answers at {}", path.display())),
        Err(error) => {
            let cause = format!("no agent answers at {}: {error}", path.display());
            degraded(NAME, cause, "start `tidegate agent`, or give its socket with --socket")
        }
    }
}
