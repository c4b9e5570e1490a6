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

fn processes_that_nobody_watches_are_not_sampled() {
    let watched = Subject::start("wait");
    let other = Subject::start("spin 500");
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&Wanted { cpu: Some(Scope::Pids([watched.pid()].into())), ..Wanted::default() });
    let (_other, _) = probes.while_acting(other);
    assert!(probes.seen().samples.is_empty(), "{:?}", probes.seen().samples);
}
