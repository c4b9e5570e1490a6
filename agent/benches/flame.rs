//! How long a flame graph of 50,000 distinct stacks takes: naming, merging six windows, folded text, SVG, and the exports,
//! beside inferno alone on the same folded text in the same run. `cargo bench -p tidegate --bench flame`.

use std::hint::black_box;
use std::io::Write as _;

use agent_common::{SampleKind, UnwindEnd, WaitReason};
use tidegate::aggregate::lost::Lost;
use tidegate::aggregate::stacks::{StackCounts, StackKey, Tally};
use tidegate::event::Comm;
use tidegate::profile::model::Builder;
use tidegate::profile::{About, Format, Profile, diff, diff_svg, folded_text, name_stacks, plain_owner, write};
use tidegate::source::clock::monotonic;
use tidegate::symbolize::{Names, Space};
use tidegate::units::{CgroupId, Nanos, Pid, ProfileKind, Uid};

const STACKS: u64 = 50_000;
const DEPTH: u64 = 30;
const WINDOWS: usize = 6;
const ROUNDS: usize = 15;

fn main() {
    let (counts, names) = plant();
    let mut lines = Lines::default();
    let naming = || name_stacks(&counts, ProfileKind::Cpu, &names, &Lost::default(), |_| true, plain_owner);
    let profile = naming();
    lines.time("name 50,000 stacks of 30 frames", naming);
    let windows: Vec<Profile> = (0..WINDOWS).map(|n| window(&profile, n)).collect();
    let merging = || {
        let mut builder = Builder::default();
        for window in &windows {
            builder.merge(window, |_| true);
        }
        builder.finish(ProfileKind::Cpu, Nanos(0), Nanos(60), Lost::default())
    };
    let merge = lines.time("merge six windows into them", merging);
    let text = lines.time("folded text", || folded_text(&profile));
    let svg = lines.time("SVG (cut, drawn by inferno)", || written(&profile, Format::Svg));
    for format in [Format::Pprof, Format::Speedscope, Format::Firefox, Format::Otlp, Format::Json] {
        lines.time(format.name(), || written(&profile, format));
    }
    let half = window(&profile, 0);
    lines.time("difference of two, drawn", || {
        let diff = diff(&half, &profile);
        diff_svg(&diff, tidegate::profile::Base::After, "t", "s").map(|svg| svg.len())
    });
    let folded = folded_text(&profile);
    let peer = lines.time("peer: inferno alone, of the folded text", || {
        let mut options = inferno::flamegraph::Options::default();
        options.min_width = 0.1;
        let mut svg = Vec::new();
        inferno::flamegraph::from_lines(&mut options, folded.lines(), &mut svg).map(|()| svg.len())
    });
    let bytes = [("folded text", folded.len()), ("SVG", written(&profile, Format::Svg))];
    lines.say(&format!("sizes: {bytes:?} bytes; {} frames by name", profile.frames.len()));
    let ours = merge + text + svg;
    lines.say(&format!("merge, folded text and SVG together: {ours:.1} ms = {:.2} of inferno alone", ours / peer));
}

fn written(profile: &Profile, format: Format) -> usize {
    write(profile, format, &About::default()).map_or(0, |bytes| bytes.len())
}

/// Prints as it goes.
#[derive(Default)]
struct Lines(Option<std::io::Stdout>);

impl Lines {
    fn say(&mut self, text: &str) {
        let out = self.0.get_or_insert_with(std::io::stdout);
        writeln!(out, "{text}").expect("standard output takes lines");
    }

    /// Milliseconds, the median of the rounds.
    #[expect(clippy::cast_precision_loss, reason = "a few seconds at most")]
    fn time<T>(&mut self, what: &str, work: impl Fn() -> T) -> f64 {
        let mut rounds: Vec<f64> = (0..ROUNDS)
            .map(|_| {
                let begin = monotonic();
                black_box(work());
                monotonic().since(begin).0 as f64 / 1e6
            })
            .collect();
        rounds.sort_unstable_by(f64::total_cmp);
        let (best, median, worst) = (rounds[0], rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
        self.say(&format!("{what:<44} median {median:>8.1} ms   best {best:>8.1}   worst {worst:>8.1}"));
        median
    }
}

/// A sixth of the stacks, so that windows overlap little: more to merge.
fn window(profile: &Profile, number: usize) -> Profile {
    let stacks = profile.stacks.iter().enumerate().filter(|(at, _)| at % (WINDOWS - 1) != number % WINDOWS);
    Profile { stacks: stacks.map(|(_, stack)| stack.clone()).collect(), ..profile.clone() }
}

/// Programs whose calls branch like those of real ones: everything begins alike and differs towards the end.
fn plant() -> (StackCounts, Names) {
    let mut counts = StackCounts::starting(Nanos(0));
    let mut names = Names::default();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 11) % below
    };
    while (counts.counts.len() as u64) < STACKS {
        let pid = Pid(u32::try_from(next(8)).unwrap_or(0) + 1);
        let mut user: Vec<u64> = Vec::new();
        for depth in 0..DEPTH {
            let choices = if depth < 6 {
                1
            } else if depth < 20 {
                2
            } else {
                6
            };
            let function = depth * 64 + next(choices);
            let address = 0x40_0000 + function * 0x100;
            user.insert(0, address);
            let place = if user.len() as u64 == DEPTH { address } else { address - 1 };
            if names.get(Space::User(pid), place).is_none() {
                let name = format!("service::module{}::Handler<T>::step_{function}", function % 40);
                names.insert(Space::User(pid), place, [name.clone()]);
                names.insert(Space::User(pid), address, [name.clone()]);
                names.insert(Space::User(pid), address - 1, [name]);
            }
        }
        let key = StackKey {
            kind: SampleKind::Cpu,
            pid,
            comm: Comm(*b"service\0\0\0\0\0\0\0\0\0"),
            cgroup: CgroupId(0),
            uid: Uid(0),
            thread: None,
            reason: WaitReason::Other,
            user_end: UnwindEnd::Entry,
            kernel: Box::new([]),
            user: user.into(),
            waker: None,
        };
        let samples = 1 + next(20);
        counts.counts.insert(key, Tally { samples, weight: samples * 10_000_000 });
    }
    (counts, names)
}
