//! Samples and their names.

use tidegate::aggregate::lost::Lost;
use tidegate::aggregate::stacks::{StackCounts, StackKey};
use tidegate::profile::{name_stacks, plain_owner};
use tidegate::source::ebpf::LoadOptions;
use tidegate::source::{Scope, Wanted};
use tidegate::symbolize::Resolver;
use tidegate::units::{Nanos, ProfileKind};

use crate::kit::{Probes, Subject, close};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("time_is_charged_to_the_function_that_spends_it", time_is_charged_to_the_function_that_spends_it),
    ("short_bursts_are_charged_with_all_the_time_they_took", short_bursts_are_charged_with_all_the_time_they_took),
    ("a_change_of_the_period_loses_no_time", a_change_of_the_period_loses_no_time),
    ("processes_that_nobody_watches_are_not_sampled", processes_that_nobody_watches_are_not_sampled),
];

fn time_is_charged_to_the_function_that_spends_it() {
    let subject = Subject::start("spin 1500");
    let pid = subject.pid();
    let options = LoadOptions { hertz: 997, ..LoadOptions::default() };
    let mut probes = Probes::load(options);
    probes.watch(&Wanted { cpu: Some(Scope::Pids([pid].into())), tasks: [pid].into(), ..Wanted::default() });
    // The cost counters are opened at a tick: it has passed before the work begins.
    probes.run_for(Nanos::from_millis(250));
    let (_subject, said) = probes.while_acting(subject);
    let seen = probes.seen();
    let cpu_ns = serde_json::from_str::<serde_json::Value>(&said).expect("JSON")["cpu_ns"].as_u64().expect("a number");

    // Conservation: samples and losses make up the CPU time that the process itself was charged.
    let sampled = (seen.samples.len() as u64 + seen.rows.lost.samples()) * 1_000_000_000 / options.hertz;
    close("sampled CPU time", sampled, cpu_ns, 5, 20_000_000);
    close("task clock", seen.task_clock_ns.expect("counted"), cpu_ns, 5, 20_000_000);

    let mut counts = StackCounts::starting(Nanos(0));
    for sample in &seen.samples {
        counts.observe(Nanos(0), sample.clone());
    }
    let mut resolver = Resolver::new();
    resolver.resolve(&counts);
    let keep = |key: &StackKey| key.pid == pid;
    let profile = name_stacks(&counts, ProfileKind::Cpu, resolver.names(), &Lost::default(), keep, plain_owner);
    let total = profile.total();
    let below = |name: &str| -> u64 {
        let with = profile.stacks.iter().filter(|s| profile.names_of(s).any(|f| f.name.contains(name)));
        with.map(|stack| stack.samples).sum()
    };
    close("share of the inner function", below("spin_in_the_inner_function"), total, 5, 0);
    close("stacks that reach main", below("subject::spin"), total, 5, 0);
}

/// What the samples of a process stand for, and the CPU time that it says it took.
fn charged(task: &str, then: impl FnOnce(&mut Probes)) -> (u64, u64, Probes) {
    let mut subject = Subject::start(task);
    let options = LoadOptions { hertz: 997, ..LoadOptions::default() };
    let mut probes = Probes::load(options);
    probes.watch(&Wanted { cpu: Some(Scope::Pids([subject.pid()].into())), ..Wanted::default() });
    subject.go();
    then(&mut probes);
    let (_subject, said) = probes.while_heard(subject);
    let cpu_ns = serde_json::from_str::<serde_json::Value>(&said).expect("JSON")["cpu_ns"].as_u64().expect("a number");
    (probes.seen().samples.iter().map(|sample| sample.weight).sum(), cpu_ns, probes)
}

fn short_bursts_are_charged_with_all_the_time_they_took() {
    let (charged, cpu_ns, _) = charged("bursts 3000", |_| {});
    // Before the first sample and after the last one it ran unseen, and a period's worth of that is charged.
    close("charged", charged, cpu_ns, 2, 6_000_000);
}

fn a_change_of_the_period_loses_no_time() {
    let mut means = Vec::new();
    let (charged, cpu_ns, _) = charged("spin 4400", |probes| {
        // Samples wait for the tables of their files; by then these are made.
        probes.run_for(Nanos::from_millis(1200));
        for factor in [1, 8, 2, 1] {
            probes.thin(factor);
            // Two ticks bring what was sampled before.
            probes.run_for(Nanos::from_millis(200));
            let before = probes.seen().samples.len();
            probes.run_for(Nanos::from_millis(500));
            let weights = probes.seen().samples[before..].iter().map(|sample| sample.weight);
            means.push(weights.clone().sum::<u64>() / weights.count().max(1) as u64);
        }
    });
    close("charged", charged, cpu_ns, 1, 20_000_000);
    let [once, eighth, half, again] = means[..] else { panic!("four spans") };
    assert!(eighth > 4 * once && half > once * 3 / 2 && eighth > 4 * again, "{means:?}: the period did not change");
}

fn processes_that_nobody_watches_are_not_sampled() {
    let watched = Subject::start("wait");
    let other = Subject::start("spin 500");
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&Wanted { cpu: Some(Scope::Pids([watched.pid()].into())), ..Wanted::default() });
    let (_other, _) = probes.while_acting(other);
    assert!(probes.seen().samples.is_empty(), "{:?}", probes.seen().samples);
}
