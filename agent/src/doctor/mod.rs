//! The preflight: this host in, what it allows, what is degraded and how to fix it out. Changes nothing and needs no
//! agent.

mod host;
mod sandbox;
mod tracepoints;
#[cfg(feature = "ebpf")]
mod trial;

use std::path::{Path, PathBuf};

use crate::serve::check::{Check, Preflight, Status};

/// Where things are looked for; tests look elsewhere.
#[derive(Clone, Debug)]
pub struct Doctor {
    /// The control socket.
    pub socket: PathBuf,
    /// `/proc`.
    pub proc: PathBuf,
    /// `/sys`.
    pub sys: PathBuf,
    /// Whether the agent itself is asking: it need not look for its own socket.
    pub asker: Asker,
}

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// The command line.
    Command,
    /// The running agent, asked over its socket.
    Agent,
}

impl Doctor {
    /// Looks at this host.
    pub fn here(socket: &Path, asker: Asker) -> Self {
        Self { socket: socket.to_owned(), proc: "/proc".into(), sys: "/sys".into(), asker }
    }

    /// All checks, in the order in which they are worth fixing.
    pub fn checks(&self) -> Vec<Check> {
        let mut checks = vec![
            host::probes_built_in(),
            host::privilege(&self.proc),
            host::kernel_version(&self.proc),
            host::btf(&self.sys),
        ];
        checks.extend(tracepoints::checks(&self.sys));
        checks.push(host::pmu(&self.sys));
        checks.push(host::perf_event_paranoid(&self.proc));
        checks.push(host::kptr_restrict(&self.proc));
        checks.push(host::memlock(&self.proc));
        checks.push(host::io_uring(&self.proc));
        checks.push(sandbox::check());
        if self.asker == Asker::Command {
            checks.push(host::socket(&self.socket));
        }
        checks
    }

    /// All checks, and then those that attach every probe to see whether it works; needs the rights to do so.
    pub fn checks_and_trial(&self) -> Vec<Check> {
        let mut checks = self.checks();
        #[cfg(feature = "ebpf")]
        checks.extend(trial::checks());
        #[cfg(not(feature = "ebpf"))]
        checks.push(missing("try-load", "this binary has no probes to try", "build it with the default features"));
        checks
    }

    /// The first kind, for the socket to run.
    pub fn preflight(self) -> Preflight {
        Preflight::new(move || self.checks())
    }
}

/// The worst of them.
pub fn worst(checks: &[Check]) -> Status {
    checks.iter().map(|c| c.status).max().unwrap_or(Status::Ok)
}

fn ok(name: &'static str, cause: impl Into<String>) -> Check {
    Check { name, status: Status::Ok, cause: cause.into(), remedy: None }
}

fn degraded(name: &'static str, cause: impl Into<String>, remedy: &str) -> Check {
    Check { name, status: Status::Degraded, cause: cause.into(), remedy: Some(remedy.to_owned()) }
}

fn missing(name: &'static str, cause: impl Into<String>, remedy: &str) -> Check {
    Check { name, status: Status::Missing, cause: cause.into(), remedy: Some(remedy.to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A host with the given files under `proc` and `sys`.
    fn host(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Doctor) {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let path = |part: &str| root.path().join(part);
        let doctor = Doctor { socket: path("api.sock"), proc: path("proc"), sys: path("sys"), asker: Asker::Command };
        (root, doctor)
    }

    fn check(files: &[(&str, &[u8])], name: &str, status: Status, says: &str) {
        let (_root, doctor) = host(files);
        let checks = doctor.checks();
        let found = checks.iter().find(|c| c.name == name).unwrap_or_else(|| panic!("no check {name}: {checks:?}"));
        assert_eq!(found.status, status, "{found:?}");
        assert_eq!(found.remedy.is_none(), status == Status::Ok, "{found:?}");
        assert!(found.cause.contains(says), "{found:?}");
    }

    #[test]
    fn a_host_that_shows_nothing_gets_a_remedy_for_everything() {
        let (_root, doctor) = host(&[]);
        let checks = doctor.checks();
        assert!(checks.iter().all(|c| c.status == Status::Ok || c.remedy.is_some()), "{checks:?}");
        assert_eq!(worst(&checks), Status::Missing);
    }

    #[test]
    fn capabilities_are_enough_without_root() {
        let status = |caps: &str| format!("Uid:\t1000\t1000\t1000\t1000\nCapEff:\t{caps}\n").into_bytes();
        // CAP_DAC_READ_SEARCH 2, CAP_SYS_PTRACE 19, CAP_SYSLOG 34, CAP_PERFMON 38, CAP_BPF 39.
        check(&[("proc/self/status", &status("000000c400080004"))], "privilege", Status::Ok, "capabilities");
        check(&[("proc/self/status", &status("000000c000000000"))], "privilege", Status::Degraded, "CAP_SYSLOG");
        check(&[("proc/self/status", &status("0000000000000000"))], "privilege", Status::Missing, "CAP_BPF");
        let root = b"Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n";
        check(&[("proc/self/status", root)], "privilege", Status::Ok, "root");
    }

    #[test]
    fn tracepoints_are_looked_up_in_the_kernels_types() {
        let btf = b"\x9f\xebbtf_trace_sys_enter\0btf_trace_sys_exit\0btf_trace_sk_data_ready_not\0";
        let files: &[(&str, &[u8])] = &[("sys/kernel/btf/vmlinux", btf)];
        check(files, "tracepoints-syscalls", Status::Ok, "sys_exit");
        check(files, "tracepoints-sockets", Status::Missing, "sk_data_ready");
        check(&[], "tracepoints-syscalls", Status::Missing, "BTF");
    }

    #[test]
    fn old_kernels_and_closed_settings_are_named() {
        check(&[("proc/sys/kernel/osrelease", b"5.4.0-x\n")], "kernel", Status::Missing, "5.4.0-x");
        check(&[("proc/sys/kernel/osrelease", b"6.1.0-44-amd64\n")], "kernel", Status::Degraded, "6.1");
        check(&[("proc/sys/kernel/osrelease", b"6.18.1\n")], "kernel", Status::Ok, "6.18");
        check(&[("proc/sys/kernel/kptr_restrict", b"2\n")], "kptr-restrict", Status::Degraded, "2");
        check(&[("proc/sys/kernel/kptr_restrict", b"1\n")], "kptr-restrict", Status::Ok, "1");
        check(&[("proc/sys/kernel/perf_event_paranoid", b"4\n")], "perf-event-paranoid", Status::Ok, "4");
        check(&[("sys/bus/event_source/devices/cpu/type", b"4\n")], "pmu", Status::Ok, "cpu");
        check(&[], "pmu", Status::Degraded, "no hardware");
        let small =
            b"Limit Soft Hard Units\nMax locked memory         8388608              8388608              bytes\n";
        check(&[("proc/self/limits", small)], "memlock", Status::Ok, "8");
    }

    #[test]
    fn a_socket_without_an_agent_is_told_from_one_with() {
        let (root, doctor) = host(&[]);
        let find = || doctor.checks().into_iter().find(|c| c.name == "socket").unwrap();
        assert_eq!(find().status, Status::Degraded);
        let _listener = std::os::unix::net::UnixListener::bind(root.path().join("api.sock")).unwrap();
        assert_eq!(find().status, Status::Ok);
    }
}
