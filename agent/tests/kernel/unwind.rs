//! Whole stacks of programs without frame pointers: of every kind of program, in every place where a stack can be caught.

#![expect(clippy::cast_precision_loss, reason = "shares of some thousand samples")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use agent_common::{SampleKind, UnwindEnd};
use tidegate::event::Sample;
use tidegate::source::ebpf::LoadOptions;
use tidegate::source::{Scope, Wanted};
use tidegate::units::{Nanos, Pid};

use crate::kit::Probes;

pub(crate) const CASES: &[(&str, fn())] = &[
    ("stacks_without_frame_pointers_are_whole", stacks_without_frame_pointers_are_whole),
    ("stacks_of_a_static_program_are_whole", stacks_of_a_static_program_are_whole),
    ("stacks_of_a_program_at_a_fixed_address_are_whole", stacks_of_a_program_at_a_fixed_address_are_whole),
    ("stacks_in_a_library_that_is_loaded_late_are_whole", stacks_in_a_library_that_is_loaded_late_are_whole),
    ("stacks_in_signal_handlers_are_whole", stacks_in_signal_handlers_are_whole),
    ("stacks_of_a_deleted_program_are_whole", stacks_of_a_deleted_program_are_whole),
    ("stacks_after_a_change_of_program_are_whole", stacks_after_a_change_of_program_are_whole),
    ("stacks_of_short_children_are_whole", stacks_of_short_children_are_whole),
    ("the_sampled_time_is_the_time_of_the_process", the_sampled_time_is_the_time_of_the_process),
];

const FLAGS: [&str; 3] = ["-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls"];

/// A program that was built for one test; its files go with it.
struct Program {
    folder: tempfile::TempDir,
    path: PathBuf,
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/workloads").join(name)
}

fn build(flags: &[&str]) -> Program {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("paths");
    compile(&source("paths.c"), &path, flags);
    Program { folder, path }
}

fn compile(from: &Path, to: &Path, flags: &[&str]) {
    let mut gcc = Command::new("gcc");
    gcc.args(FLAGS).args(flags).arg("-o").arg(to).arg(from).arg("-ldl");
    let done = gcc.output().expect("gcc is installed (cargo xtask setup)");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A program that waits for its start.
struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        let mut child =
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it was just built");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let mut running = Self { child, out };
        assert_eq!(running.line(), "ready");
        running
    }

    fn pid(&self) -> Pid {
        Pid(self.child.id())
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("it speaks");
        line.trim_end().to_owned()
    }

    fn go(&mut self) {
        self.child.stdin.as_mut().expect("piped").write_all(b"\n").expect("it listens");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Samples of one process while it acts, and the line that it then says.
fn sampled(running: Running, scope: &dyn Fn(Pid) -> Scope) -> (Vec<Sample>, String, Probes) {
    let pid = running.pid();
    let options = LoadOptions { hertz: 997, settle: Nanos::from_secs(10), ..LoadOptions::default() };
    let mut probes = Probes::load(options);
    probes.watch(&Wanted { cpu: Some(scope(pid)), ..Wanted::default() });
    let acting = std::thread::spawn(move || {
        let mut running = running;
        running.go();
        let said = running.line();
        (running, said)
    });
    while !acting.is_finished() {
        probes.run_for(Nanos::TICK);
    }
    probes.flush();
    let (_running, said) = acting.join().expect("it acted");
    let samples = probes.seen().samples.iter().filter(|s| s.kind == SampleKind::Cpu).cloned().collect();
    (samples, said, probes)
}

fn of(running: Running) -> (Vec<Sample>, String, Probes) {
    let pid = running.pid();
    let (mut samples, said, probes) = sampled(running, &|pid| Scope::Pids([pid].into()));
    samples.retain(|sample| sample.pid == pid);
    (samples, said, probes)
}

/// Over 99 % of the samples that have a user stack have all of it.
fn whole(samples: &[Sample]) {
    let user: Vec<&Sample> = samples.iter().filter(|s| s.user_end != UnwindEnd::NoUser).collect();
    assert!(user.len() > 200, "only {} samples", user.len());
    let broken: Vec<String> = user
        .iter()
        .filter(|s| s.user_end != UnwindEnd::Entry)
        .map(|s| format!("{:?} after {} frames, the last {:x?}", s.user_end, s.user.len(), s.user.last()))
        .collect();
    let share = 1.0 - broken.len() as f64 / user.len() as f64;
    assert!(
        share > 0.99,
        "{:.2} % of {} stacks are whole: {:?}",
        share * 100.0,
        user.len(),
        &broken[..5.min(broken.len())]
    );
}

/// The share of samples in which the program was inside a call of the kernel, or had at least `frames` user frames.
fn share(samples: &[Sample], is: impl Fn(&Sample) -> bool) -> f64 {
    samples.iter().filter(|s| is(s)).count() as f64 / samples.len() as f64
}

fn stacks_without_frame_pointers_are_whole() {
    let program = build(&["-pie", "-fPIE"]);
    let (samples, said, _) = of(Running::start(&program.path, &["mix", "2000"]));
    whole(&samples);
    // It says how its own time was divided: recursion, then calls of the kernel.
    let times: Vec<f64> = said.split(' ').map(|word| word.parse().expect("a number")).collect();
    let truth = times[0] / (times[0] + times[1]);
    let deep = share(&samples, |s| s.user.len() > 60);
    assert!((deep - truth).abs() < 0.03, "recursion has {deep:.3} of the samples and {truth:.3} of the time");
}

fn stacks_of_a_static_program_are_whole() {
    let program = build(&["-static"]);
    whole(&of(Running::start(&program.path, &["mix", "1000"])).0);
}

fn stacks_of_a_program_at_a_fixed_address_are_whole() {
    let program = build(&["-no-pie", "-fno-pie"]);
    whole(&of(Running::start(&program.path, &["mix", "1000"])).0);
}

fn stacks_in_a_library_that_is_loaded_late_are_whole() {
    let program = build(&["-pie", "-fPIE"]);
    let library = program.folder.path().join("late.so");
    compile(&source("late.c"), &library, &["-shared", "-fPIC"]);
    let library = library.to_str().expect("a plain path");
    let (samples, ..) = of(Running::start(&program.path, &["dlopen", "1000", library]));
    whole(&samples);
}

fn stacks_in_signal_handlers_are_whole() {
    let program = build(&["-pie", "-fPIE"]);
    let (samples, ..) = of(Running::start(&program.path, &["signal", "1000"]));
    whole(&samples);
}

fn stacks_of_a_deleted_program_are_whole() {
    let program = build(&["-pie", "-fPIE"]);
    let running = Running::start(&program.path, &["mix", "1000"]);
    std::fs::remove_file(&program.path).expect("it is there");
    whole(&of(running).0);
}

fn stacks_after_a_change_of_program_are_whole() {
    let program = build(&["-pie", "-fPIE"]);
    let (samples, ..) = of(Running::start(&program.path, &["exec", "1000"]));
    whole(&samples);
}

fn stacks_of_short_children_are_whole() {
    // Bound at start: the dynamic linker's lazy resolver has its frame at rbx, which the unwinder does not follow, and
    // children as short as these spend 2 % of their time in it.
    let program = build(&["-pie", "-fPIE", "-Wl,-z,now"]);
    let (samples, ..) = sampled(Running::start(&program.path, &["storm", "1500"]), &|_| Scope::Host);
    let children: Vec<Sample> = samples.into_iter().filter(|s| s.comm.to_text() == "paths").collect();
    whole(&children);
}

fn the_sampled_time_is_the_time_of_the_process() {
    let program = build(&["-pie", "-fPIE"]);
    let (samples, said, probes) = of(Running::start(&program.path, &["mix", "4000"]));
    let said: Vec<f64> = said.split(' ').map(|word| word.parse().expect("a number")).collect();
    let (cpu_ns, switches) = (said[2], said[3]);
    let ledger = probes.seen().ledger;
    let delivered: u64 = samples.iter().map(|s| s.weight).sum();
    // Each stretch on a CPU begins and ends at any point of a period: at most half a period of standard error each.
    let error = 0.5 * switches.sqrt() * ledger.0.period_ns as f64;
    let lost = (ledger.lost() * ledger.0.period_ns) as f64;
    let off = (delivered as f64 + lost - cpu_ns).abs();
    assert!(
        off < (cpu_ns * 0.01).max(4.0 * error),
        "{delivered} ns delivered, {lost} ns lost, {cpu_ns} ns used in {switches} stretches"
    );
    assert_eq!(ledger.0.fired, ledger.0.idle + ledger.0.unwatched + ledger.0.delivered + ledger.0.refused);
}
