//! Waiting against what the waiters themselves know, and against the kernel's own account.

use agent_common::{SampleKind, ThreadRow, ThreadState, UnwindEnd, WaitReason};
use tidegate::aggregate::intake::Intake;
use tidegate::aggregate::lost::Lost;
use tidegate::aggregate::stacks::StackCounts;
use tidegate::profile::{Idle, folded_text, name_stacks_and, plain_owner};
use tidegate::source::ebpf::LoadOptions;
use tidegate::source::{Scope, Wanted};
use tidegate::symbolize::Resolver;
use tidegate::units::{Nanos, Pid, ProfileKind, Tid};

use crate::kit::{Probes, Subject, close};
use crate::waits::Told;

pub(crate) const CASES: &[(&str, fn())] = &[
    ("sleeps_are_charged_as_long_as_they_were", || planted("sleep", WaitReason::Sleep)),
    ("waits_for_a_lock_are_charged_as_long_as_they_were", || planted("lock", WaitReason::Lock)),
    ("waits_for_a_socket_are_charged_as_long_as_they_were", || planted("socket", WaitReason::Socket)),
    ("waits_for_a_pipe_are_charged_as_long_as_they_were", || planted("pipe", WaitReason::Pipe)),
    ("waits_for_the_disk_are_charged_as_long_as_they_were", || planted("io", WaitReason::Io)),
    ("a_thread_that_migrates_at_every_wakeup_loses_no_time", || planted("migrate", WaitReason::Sleep)),
    ("threads_that_are_never_switched_are_charged_whole", silent),
    ("the_wall_graph_holds_all_the_time_there_was", wall),
    ("a_waker_stands_over_the_one_it_woke", wakers),
];

/// The longest that stamps may lie apart from the kernel's own, for each switch: 5 µs on a quiet machine of one's own, and
/// as much again where a hypervisor comes in between, which not all of them account for.
const STAMP: u64 = 10_000;

fn blocked(row: &ThreadRow, reason: WaitReason) -> u64 {
    row.blocked_ns[reason as usize]
}

fn wall_of(row: &ThreadRow) -> u64 {
    row.run_ns + row.runq_ns + row.blocked_ns.iter().sum::<u64>()
}

fn look(task: &str, wanted: impl FnOnce(Scope) -> Wanted) -> (Probes, Subject, Pid, String) {
    let subject = Subject::start(task);
    let pid = subject.pid();
    let settle = Nanos::from_secs(10);
    let mut probes = Probes::load(LoadOptions { settle, ..LoadOptions::default() });
    probes.watch(&wanted(Scope::Pids([pid].into())));
    // Sampling begins sparsely and is at its densest by then.
    probes.run_for(Nanos::from_millis(700));
    let (subject, said) = probes.while_acting(subject);
    (probes, subject, pid, said)
}

/// What the hypervisor has taken from this host's CPUs, ns.
fn steal() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").expect("the kernel keeps it");
    let ticks = text.split_ascii_whitespace().nth(8).expect("cpu, and eight columns").parse::<u64>().expect("a number");
    ticks * 1_000_000_000 / rustix::param::clock_ticks_per_second()
}

fn sched(scope: Scope) -> Wanted {
    Wanted { sched: Some(scope), ..Wanted::default() }
}

fn planted(kind: &str, reason: WaitReason) {
    let stolen = steal();
    let (mut probes, mut subject, _, said) = look(&format!("waits {kind}"), sched);
    // What the hypervisor takes passes as running or as waiting, as it falls; the kernel's account leaves it out.
    let stolen = steal() - stolen;
    let told: Told = serde_json::from_str(&said).expect("the subject tells what it knows");
    let (time, row) = probes.last_of(told.tid).expect("the census saw it");
    report(kind, &row, &told);
    assert_eq!(wall_of(&row), time.0 - row.first_ns, "running + runnable + blocked is the wall time, always");
    close("run queue", row.runq_ns, told.run_delay_ns, 2, STAMP * row.switches + stolen);
    close("planted wait", blocked(&row, reason), told.waited_ns, 1, STAMP * row.switches + stolen);
    // The kernel charges a thread with the way out of idleness, and not with what the hypervisor took from it.
    close("running", row.run_ns, told.run_ns, 5, 4 * STAMP * row.switches + stolen);

    assert_eq!(subject.act(), "ended");
    probes.flush();
    let (time, last) = probes.last_of(told.tid).expect("its last totals were sent when it ended");
    assert_eq!((last.state, wall_of(&last)), (ThreadState::Ended as u16, time.0 - last.first_ns));
    assert!(last.run_ns >= row.run_ns && blocked(&last, WaitReason::Poll) > blocked(&row, WaitReason::Poll));
    let seen = probes.seen();

    // What was sampled stands for what was waited.
    let sampled = seen.samples.iter().filter(|s| s.tid == Tid(told.tid) && s.kind == SampleKind::OffCpu);
    let sampled: u64 = sampled.filter(|s| s.reason == reason).map(|s| s.weight).sum();
    // A wait as long as the period is always sampled. Of short ones as many are as chance has it: four standard errors.
    let period = LoadOptions::default().period();
    let chance = 4 * ((blocked(&row, reason) / period).isqrt() + 1) * period;
    let is_long = blocked(&row, reason) / row.switches > period;
    let slack = if is_long { row.runq_ns } else { row.runq_ns + chance };
    close("sampled", sampled, blocked(&row, reason), 5, slack);
}

#[expect(clippy::print_stderr, reason = "the figures are what the test is for")]
fn report(kind: &str, row: &ThreadRow, told: &Told) {
    let blocked: u64 = row.blocked_ns.iter().sum();
    eprintln!(
        "{kind}: blocked {blocked} (planted {}), run {} ({}), run queue {} ({}), {} switches",
        told.waited_ns, row.run_ns, told.run_ns, row.runq_ns, told.run_delay_ns, row.switches
    );
}

fn silent() {
    let (probes, _subject, pid, said) = look("silent 2300", sched);
    let [spinning, parked]: [u32; 2] = serde_json::from_str(&said).expect("two threads");
    let seen = probes.seen();
    let last = |tid| probes.last_of(tid).expect("the census saw it");
    let (time, spinner) = last(spinning);
    assert_eq!(wall_of(&spinner), time.0 - spinner.first_ns);
    assert_eq!(spinner.blocked_ns.iter().sum::<u64>(), 0, "it never blocked");
    let (time, waiter) = last(parked);
    assert_eq!((waiter.switches, waiter.run_ns, waiter.runq_ns), (0, 0, 0), "it was never switched");
    assert_eq!(blocked(&waiter, WaitReason::Lock), time.0 - waiter.first_ns);
    assert!(time.0 - waiter.first_ns > 2_300_000_000, "from before it acted to after");

    let stacks: Vec<_> = seen.samples.iter().filter(|s| s.tid == Tid(parked)).collect();
    let sampled: u64 = stacks.iter().map(|s| s.weight).sum();
    // The first look at it comes before sampling is dense.
    close("sampled", sampled, time.0 - waiter.first_ns, 1, 200_000_000);
    assert!(stacks.iter().all(|s| !s.kernel.is_empty() && s.user_end == UnwindEnd::Entry), "{stacks:?}");
    let (_, text) = folded(&probes, pid, ProfileKind::Offcpu, Idle::Shown);
    let whole: Vec<&str> = text.lines().filter(|line| line.contains("::wait_in_the_parked_thread;")).collect();
    assert!(!whole.is_empty() && whole.iter().all(|line| line.contains("start_thread;")), "{text}");
}

/// The stacks of what was seen, with their names.
fn folded(probes: &Probes, pid: Pid, kind: ProfileKind, idle: Idle) -> (StackCounts, String) {
    let mut intake = Intake::default();
    let mut counts = StackCounts::starting(Nanos(0));
    for (time, row) in &probes.seen().threads {
        intake.thread(*time, row, &mut counts);
    }
    for sample in &probes.seen().samples {
        intake.sample(Nanos(0), sample.clone(), &mut counts);
    }
    let mut resolver = Resolver::new();
    resolver.resolve(&counts);
    let names = resolver.names();
    let profile = name_stacks_and(&counts, kind, names, &Lost::default(), idle, |key| key.pid == pid, plain_owner);
    let text = folded_text(&profile);
    (counts, text)
}

fn sum(text: &str, with: &str) -> u64 {
    let lines = text.lines().filter(|line| line.contains(with));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

fn wall() {
    let both = |scope: Scope| Wanted { cpu: Some(scope.clone()), sched: Some(scope), ..Wanted::default() };
    let (probes, _subject, pid, said) = look("silent 2300", both);
    let [spinning, parked]: [u32; 2] = serde_json::from_str(&said).expect("two threads");
    let (counts, text) = folded(&probes, pid, ProfileKind::Wall, Idle::Shown);
    let total =
        |tid: u32| counts.threads.iter().filter(|(id, _)| id.tid == Tid(tid)).map(|(_, t)| t.wall().0).sum::<u64>();
    let all: u64 = counts.threads.values().map(|t| t.wall().0).sum();
    assert_eq!(sum(&text, ""), all, "{text}");
    close("threads times the span", all, 3 * total(parked), 1, 0);
    close("spinning", sum(&text, "spin_in_the_inner_function"), total(spinning), 2, 0);
    close("parked", sum(&text, "[blocked: lock]"), total(parked), 1, 0);
    let (_, folded_away) = folded(&probes, pid, ProfileKind::Wall, Idle::Folded);
    assert_eq!(sum(&folded_away, ""), all);
    assert!(sum(&folded_away, "[idle]") >= total(parked), "{folded_away}");
}

fn wakers() {
    let wanted = |scope: Scope| Wanted { sched: Some(scope), wakeups: true, ..Wanted::default() };
    let (probes, _subject, pid, said) = look("waits lock", wanted);
    let told: Told = serde_json::from_str(&said).expect("the subject tells what it knows");
    let (_, text) = folded(&probes, pid, ProfileKind::Wakeup, Idle::Shown);
    // Fifty times it was sent something, by one thread.
    let pairs = sum(&text, "[blocked: lock];[woken by");
    assert!((20..=200).contains(&pairs), "{pairs} of {told:?}\n{text}");
    assert!(text.contains("[woken by an interrupt]"), "timers woke the sender:\n{text}");
}
