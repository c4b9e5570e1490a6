//! Programs that know where their time went, against what the profile says of them.
//!
//! Each is built from source, spends CPU time by parts and measures each part with its own clock. A share is right within
//! 1.5 points or four standard errors, whichever is more.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use agent_common::UnwindEnd;
use tidegate::aggregate::lost::Lost;
use tidegate::aggregate::stacks::{StackCounts, StackKey};
use tidegate::event::{Mapping, Sample};
use tidegate::profile::{Profile, name_stacks, plain_owner};
use tidegate::source::ebpf::LoadOptions;
use tidegate::source::{Offspring, Scope, Wanted};
use tidegate::symbolize::resolver::frames;
use tidegate::symbolize::{Resolver, Space};
use tidegate::units::{Nanos, ProfileKind};

use crate::kit::{Probes, Subject};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("shares_are_right_in_c_without_frame_pointers", c_without_frame_pointers),
    ("shares_are_right_in_cpp_with_inlined_functions", cpp_with_inlined_functions),
    ("shares_are_right_in_optimised_rust", optimised_rust),
    ("shares_are_right_in_javascript_with_a_perf_map", javascript_with_a_perf_map),
    ("shares_are_right_in_a_storm_of_short_processes", storm_of_short_processes),
    ("everything_that_is_born_to_a_watched_process_is_watched", family_of_one_process),
];

/// CPU time that each workload spends at each rate, ms.
const MILLIS: u64 = 1_500;
const RATES: [u64; 2] = [997, 97];
/// How long the agent has for the tables of all files before the work begins: a test build takes two seconds for Node, and
/// the storm wants those of the whole host.
const SETTLE: Nanos = Nanos::from_secs(15);
/// Room for the tables of a host on which compilers run, too: in less of it an idle workload's table makes room for theirs,
/// and comes back only when it has been in use for some seconds.
const UNWIND_MIB: u32 = 64;
/// Part of a storm's key: start-up and end of processes, wherever that is.
const REST: &str = "rest";

/// How frames begin of processes, and of addresses, that nobody told of.
const NOWHERE: [&str; 2] = ["ended+", "unmapped+"];
/// Percent of stacks that may have one: those that could not be unwound, mostly.
const MOST_NOWHERE: f64 = 0.5;

/// A thread in one of these has given up its memory, and its stack with it: it ends, or it gets the memory of a new program.
const WITHOUT_MEMORY: [&str; 3] = ["do_exit", "load_elf_binary", "begin_new_exec"];

/// How a workload is made and run.
struct Workload {
    name: &'static str,
    source: &'static str,
    /// Compiler and its arguments, without source and output; `None` for what is run as it is.
    compiler: Option<&'static [&'static str]>,
    /// What runs it, for what is not compiled.
    interpreter: &'static [&'static str],
    /// What is watched: its process, or every process of its name.
    watch: Watch,
    /// Stacks of a thousand that must be whole.
    whole: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    Process,
    EveryChild,
    Family,
}

const fn compiled(name: &'static str, source: &'static str, compiler: &'static [&'static str]) -> Workload {
    Workload { name, source, compiler: Some(compiler), interpreter: &[], watch: Watch::Process, whole: 990 }
}

fn c_without_frame_pointers() {
    let compiler = &["gcc", "-O2", "-fomit-frame-pointer", "-fno-optimize-sibling-calls"];
    let seen = check(&compiled("gt-shares", "shares.c", compiler));
    for Outcome { profile, .. } in seen {
        let ways = |last: &str, other: &str| {
            let leaf = |names: &[&str]| names.contains(&"leaf") && names.contains(&last) && names.contains(&other);
            share_of(&profile, leaf)
        };
        assert!(ways("by_the_long_way", "middle") > 30., "one leaf, charged to the way it was reached");
        assert!(ways("by_the_short_way", "leaf") > 5. && ways("by_the_short_way", "middle") < 0.1);
        let deep = share_of(&profile, |names| names.iter().filter(|name| **name == "down").count() == 60);
        assert!(deep > 20., "every level of the recursion is a frame: {deep:.1} %");
    }
}

fn cpp_with_inlined_functions() {
    check(&compiled("gt-inlined", "inlined.cc", &["g++", "-O2", "-g", "-fomit-frame-pointer"]));
}

fn optimised_rust() {
    check(&compiled("gt-release", "release.rs", &["rustc", "--edition=2024", "-Copt-level=3"]));
}

fn javascript_with_a_perf_map() {
    let interpreter = &["node", "--perf-basic-prof", "--interpreted-frames-native-stack"];
    let mut jit = compiled("gt-jit", "jit.js", &[]);
    jit.compiler = None;
    jit.interpreter = interpreter;
    check(&jit);
}

fn storm_of_short_processes() {
    let mut storm = compiled("gt-storm", "storm.c", &["gcc", "-O2", "-fomit-frame-pointer", "-no-pie"]);
    storm.watch = Watch::EveryChild;
    check(&storm);
}

fn family_of_one_process() {
    let mut storm = compiled("gt-storm", "storm.c", &["gcc", "-O2", "-fomit-frame-pointer", "-no-pie"]);
    storm.watch = Watch::Family;
    check(&storm);
}

/// What was seen of a workload at one rate.
struct Outcome {
    profile: Profile,
    faults: Vec<String>,
}

/// Runs a workload at each rate, prints what was seen, and fails when a figure is out of bounds.
fn check(workload: &Workload) -> Vec<Outcome> {
    let Some(command) = build(workload) else { return Vec::new() };
    let outcomes: Vec<Outcome> = RATES.iter().map(|hertz| run(workload, &command, *hertz)).collect();
    let faults: Vec<&str> = outcomes.iter().flat_map(|outcome| &outcome.faults).map(String::as_str).collect();
    assert!(faults.is_empty(), "{}: {}", workload.name, faults.join("; "));
    outcomes
}

fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ground-truth");
        std::fs::create_dir_all(&folder).expect("a place for what the tests build");
        folder
    })
}

/// The command line of a workload; `None`, with a word about it, when nothing here can build it.
fn build(workload: &Workload) -> Option<Vec<String>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernel/workloads").join(workload.source);
    let text = |path: &Path| path.display().to_string();
    let program = workload.compiler.map_or(workload.interpreter, |compiler| compiler)[0];
    if Command::new(program).arg("--version").output().is_err() {
        crate::say(&format!("{} is skipped: there is no {program} (`cargo xtask setup` installs it)", workload.name));
        return None;
    }
    let mut command: Vec<String> = workload.interpreter.iter().map(ToString::to_string).collect();
    if let Some([compiler, arguments @ ..]) = workload.compiler {
        let out = folder().join(workload.name);
        let built =
            Command::new(compiler).args(arguments).arg(&source).arg("-o").arg(&out).output().expect("it is there");
        assert!(built.status.success(), "{}: {}", workload.source, String::from_utf8_lossy(&built.stderr));
        command.push(text(&out));
    } else {
        command.push(text(&source));
    }
    command.push(MILLIS.to_string());
    Some(command)
}

fn run(workload: &Workload, command: &[String], hertz: u64) -> Outcome {
    let mut process = Command::new(&command[0]);
    // Node leaves a log beside its perf map.
    process.args(&command[1..]).current_dir(folder());
    let options = LoadOptions { hertz, settle: SETTLE, unwind_mib: UNWIND_MIB, ..LoadOptions::default() };
    let mut probes = Probes::load(options);
    let subject = Subject::of(&mut process);
    let pid = subject.pid();
    let scope = match workload.watch {
        Watch::Process | Watch::Family => Scope::Pids([pid].into()),
        Watch::EveryChild => Scope::Host,
    };
    let offspring = if workload.watch == Watch::Family { Offspring::Watched } else { Offspring::Ignored };
    probes.watch(&Wanted { cpu: Some(scope), offspring, ..Wanted::default() });
    probes.run_for(Nanos::from_millis(250));
    let before = probes.seen().samples.len();
    let (_subject, said) = probes.while_acting(subject);
    let mine = |sample: &Sample| match workload.watch {
        Watch::Process => sample.pid == pid,
        // Nobody else may be among them.
        Watch::Family => sample.pid != pid,
        Watch::EveryChild => sample.comm.to_text() == workload.name && sample.pid != pid,
    };
    let seen = probes.seen();
    let samples: Vec<Sample> = seen.samples[before..].iter().filter(|sample| mine(sample)).cloned().collect();
    let key: Vec<(String, u64)> = serde_json::from_str::<serde_json::Map<_, _>>(&said)
        .expect("a workload ends with its key")
        .into_iter()
        .map(|(name, value)| (name, value.as_u64().expect("nanoseconds")))
        .filter(|(name, _)| name != "processes")
        .collect();
    judge(workload, hertz, &samples, &seen.mappings, &key)
}

fn judge(workload: &Workload, hertz: u64, samples: &[Sample], mapped: &[Mapping], key: &[(String, u64)]) -> Outcome {
    let name = workload.name;
    let mut counts = StackCounts::starting(Nanos(0));
    for sample in samples {
        counts.observe(Nanos(0), sample.clone());
    }
    let mut resolver = Resolver::new();
    for mapping in mapped {
        resolver.learn(mapping);
    }
    resolver.resolve(&counts);
    let all = |_: &StackKey| true;
    let profile = name_stacks(&counts, ProfileKind::Cpu, resolver.names(), &Lost::default(), all, plain_owner);

    let n = samples.len();
    let mut faults = Vec::new();
    let mut fault = |text: String| faults.push(format!("at {hertz} Hz {text}"));
    let spent: u64 = key.iter().map(|(_, ns)| ns).sum();
    let (expected, delivered) = (spent / 1_000_000, n as u64 * 1_000 / hertz);
    crate::say(&format!(
        "{name} at {hertz} Hz: {n} samples for {delivered} ms of CPU time, {expected} ms by its own account"
    ));
    // A fifth is for what a virtual machine takes away; whoever misses the children, or takes in others, is far off.
    if delivered.abs_diff(expected) * 5 > expected {
        fault(format!("{delivered} ms of CPU time instead of {expected} ms"));
    }
    if n < 50 {
        fault(format!("only {n} samples"));
        return Outcome { profile, faults };
    }
    for (part, ns) in key {
        let truth = percent(*ns, spent);
        let found = share_of(&profile, |names| {
            if part == REST {
                !key.iter().any(|(other, _)| names.iter().any(|name| is_part(name, other)))
            } else {
                names.iter().any(|name| is_part(name, part))
            }
        });
        let error = 100. * (truth / 100. * (1. - truth / 100.) / small(n)).sqrt();
        let bound = f64::max(1.5, 4. * error);
        crate::say(&format!("  {part:<20} {found:>6.2} % seen {truth:>6.2} % true, bound {bound:.2}"));
        if (found - truth).abs() > bound {
            fault(format!("{part} has {found:.2} % instead of {truth:.2} %"));
        }
    }
    let with_user = samples.iter().filter(|sample| sample.user_end != UnwindEnd::NoUser).count();
    let whole = samples.iter().filter(|sample| sample.user_end == UnwindEnd::Entry).count();
    let mut ends: Vec<(String, usize)> = Vec::new();
    for end in UnwindEnd::ALL {
        let n = samples.iter().filter(|sample| sample.user_end == end).count();
        if n > 0 {
            ends.push((format!("{end:?}"), n));
        }
    }
    crate::say(&format!(
        "  whole: {:.2} % of {with_user} with a user side; ends {ends:?}",
        percent(whole as u64, with_user as u64)
    ));
    let kernel_names = |sample: &Sample| -> Vec<String> {
        let places = frames(&sample.kernel, Space::Kernel).filter_map(|(space, at)| resolver.names().get(space, at));
        places.flatten().map(ToString::to_string).collect()
    };
    let mut unexplained = 0;
    for sample in samples {
        let names = kernel_names(sample);
        let gone = names.iter().any(|name| WITHOUT_MEMORY.contains(&name.as_str()));
        if sample.user_end != UnwindEnd::Entry && !(gone && sample.user_end == UnwindEnd::NoUser) {
            crate::say(&format!("  {:?} of {}: {:x?} below {names:?}", sample.user_end, sample.pid, sample.user));
        }
        unexplained += usize::from(sample.user_end == UnwindEnd::NoUser && !gone);
    }
    if unexplained > 0 {
        fault(format!("{unexplained} samples have no user side and were neither ending nor replacing their program"));
    }
    if whole * 1_000 < with_user * workload.whole {
        fault(format!("{whole} of {with_user} stacks are whole"));
    }
    let unknown = share_of(&profile, |names| names.iter().any(|name| name.contains("[unknown]")));
    if unknown > 0. {
        fault(format!("{unknown:.2} % of stacks have a frame that reads [unknown]"));
    }
    let nowhere = share_of(&profile, |names| names.iter().any(|name| NOWHERE.iter().any(|n| name.starts_with(n))));
    crate::say(&format!("  {nowhere:.2} % of stacks have a frame whose file nobody knows"));
    if nowhere > MOST_NOWHERE {
        fault(format!("{nowhere:.2} % of stacks have a frame whose file nobody knows"));
    }
    Outcome { profile, faults }
}

/// Whether a frame is the function of a part: its name may carry a type, a path, or a mark of what compiled it.
fn is_part(frame: &str, part: &str) -> bool {
    frame.match_indices(part).any(|(at, _)| {
        let before = frame[..at].chars().next_back();
        let after = frame[at + part.len()..].chars().next();
        let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !inside(before) && !inside(after)
    })
}

/// Percent of samples whose frames are as asked.
fn share_of(profile: &Profile, asked: impl Fn(&[&str]) -> bool) -> f64 {
    let of = |stack| profile.names_of(stack).map(|frame| &*frame.name).collect::<Vec<_>>();
    let found = profile.stacks.iter().filter(|stack| asked(&of(stack))).map(|stack| stack.samples).sum();
    percent(found, profile.stacks.iter().map(|stack| stack.samples).sum())
}

fn percent(part: u64, whole: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a few seconds in nanoseconds")]
    let (part, whole) = (part as f64, whole.max(1) as f64);
    100. * part / whole
}

fn small(n: usize) -> f64 {
    f64::from(u32::try_from(n).expect("a few thousand"))
}
