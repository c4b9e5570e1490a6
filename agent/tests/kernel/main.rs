//! Tests against the running kernel. They need root and BTF; elsewhere they are skipped, and say why.
//!
//! Each drives a subject: this binary again, in a process of its own, that does something whose answer is known.

#[cfg(feature = "ebpf")]
mod cgroup;
#[cfg(feature = "ebpf")]
mod cpu;
#[cfg(feature = "ebpf")]
mod flows;
#[cfg(feature = "ebpf")]
mod ground_truth;
#[cfg(feature = "ebpf")]
mod history;
#[cfg(feature = "ebpf")]
mod kit;
#[cfg(feature = "ebpf")]
mod sched;
#[cfg(feature = "ebpf")]
mod sockets;
mod subject;
#[cfg(feature = "ebpf")]
mod syscalls;
#[cfg(feature = "ebpf")]
mod unchanged;
#[cfg(feature = "ebpf")]
mod unwind;
mod waits;

use libtest_mimic::{Arguments, Trial};

fn main() {
    if let Some(task) = std::env::var_os(subject::TASK) {
        subject::run(&task.to_string_lossy());
        return;
    }
    tidegate::symbolize::set_program(env!("CARGO_BIN_EXE_tidegate"));
    let mut arguments = Arguments::from_args();
    // One at a time: they share two CPUs and one kernel, and each looks at its own processes only.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials()).exit();
}

#[cfg(feature = "ebpf")]
fn trials() -> Vec<Trial> {
    // What counts has one answer. What is held against a clock or drawn by chance can be held up by the host that this
    // runs on: it gets three tries, each of them whole, and says so when it needed more than one.
    let counted = [syscalls::CASES, history::CASES, flows::CASES].concat().into_iter().map(|case| (case, 1));
    let measured =
        [sockets::CASES, cpu::CASES, cgroup::CASES, unwind::CASES, sched::CASES, ground_truth::CASES, unchanged::CASES]
            .concat();
    let cases = counted.chain(measured.into_iter().map(|case| (case, 3)));
    let lacking = lacking();
    if let Some(why) = &lacking {
        say(&format!("kernel tests are skipped: {why}"));
    }
    cases
        .map(|((name, case), tries)| {
            Trial::test(format!("kernel::{name}"), move || {
                attempt(name, case, tries);
                Ok(())
            })
            .with_ignored_flag(lacking.is_some())
        })
        .collect()
}

/// Runs `case` until it passes, `tries` times at most; the last failure is the answer.
#[cfg(feature = "ebpf")]
fn attempt(name: &str, case: fn(), tries: u32) {
    for nth in 1..tries {
        if std::panic::catch_unwind(case).is_ok() {
            return;
        }
        say(&format!("{name}: try {nth} of {tries} failed, trying again"));
    }
    case();
}

#[cfg(not(feature = "ebpf"))]
fn trials() -> Vec<Trial> {
    say("kernel tests are skipped: built without the feature `ebpf`");
    Vec::new()
}

#[cfg(feature = "ebpf")]
fn lacking() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root (run them with sudo)".to_owned());
    }
    let btf = "/sys/kernel/btf/vmlinux";
    (!std::path::Path::new(btf).exists()).then(|| format!("no {btf} (a kernel with CONFIG_DEBUG_INFO_BTF has it)"))
}

#[expect(clippy::print_stderr, reason = "a skipped test must be seen to be skipped")]
fn say(text: &str) {
    eprintln!("{text}");
}
