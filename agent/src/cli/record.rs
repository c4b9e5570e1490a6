//! `tidegate record`: a profile without a daemon.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::watching::WatchArgs;
use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::StackCounts;
use crate::event::Body;
use crate::run::oneshot::{Extra, Watching, watch};
use crate::serve::render::{ProfileFormat, draw};
use crate::source::Wanted;
use crate::source::recording::{Host, Writer};
use crate::symbolize::resolver::frames as places;
use crate::symbolize::{Resolver, Space};
use crate::units::Nanos;

/// Record where CPU time goes, of this host or of a process, without a daemon
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  tidegate record --pid 4242 --seconds 10 -o app.svg
  tidegate record --format folded -o - | head
  tidegate record --format events -o host.events     # replay it anywhere: tidegate replay host.events

Standard error carries the ledger: samples, losses by reason, share of frames without a name.")]
pub struct RecordArgs {
    #[command(flatten)]
    watch: WatchArgs,
    /// Samples per second and CPU; a prime keeps out of step with periodic work
    #[arg(long, value_name = "HZ", default_value_t = 97, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    hz: u64,
    /// What to write
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Where to write; `-` is standard output [default: profile.svg, .folded, .json or .events]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A flame graph
    #[default]
    Svg,
    /// Folded stacks: a line a stack, outermost frame first
    Folded,
    /// Stacks as JSON
    Json,
    /// Everything as it came from the kernel, with the names at the end
    Events,
}

impl Format {
    fn default_file(self) -> &'static str {
        match self {
            Self::Svg => "profile.svg",
            Self::Folded => "profile.folded",
            Self::Json => "profile.json",
            Self::Events => "profile.events",
        }
    }
}

/// Runs the command.
pub fn run(args: &RecordArgs) -> anyhow::Result<()> {
    args.watch.check()?;
    let path = args.output.clone().unwrap_or_else(|| args.format.default_file().into());
    let mut recording = match args.format {
        Format::Events => {
            let host = Host::new(kernel_release(), crate::source::clock::monotonic());
            let what = format!("write recording {}", path.display());
            let out: Box<dyn std::io::Write> = if path == Path::new("-") {
                Box::new(std::io::stdout())
            } else {
                Box::new(std::fs::File::create(&path).context(what.clone())?)
            };
            Some(Writer::to(out, what, &host)?)
        }
        Format::Svg | Format::Folded | Format::Json => None,
    };
    let watching = Watching {
        wanted: Wanted { cpu: Some(args.watch.scope()), ..Wanted::default() },
        length: args.watch.length(),
        hertz: args.hz,
        latency_slots: 1,
        extra: Extra::Nothing,
    };
    let mut resolver = Resolver::new();
    let mut all = StackCounts::starting(Nanos(0));
    let mut slice = StackCounts::starting(Nanos(0));
    let mut lost = Lost::default();
    let keep = |batch: &_| Ok(recording.as_mut().map_or(Ok(()), |r| r.append(batch))?);
    let span = watch(&watching, keep, |event| match &event.body {
        Body::Stack(sample) => slice.observe(event.time, (**sample).clone()),
        Body::Loss(reason, count) => lost.set(*reason, *count),
        Body::Mapping(mapping) => resolver.learn(mapping),
        // Names are looked up while their process lives, and so at every tick.
        Body::Tick => {
            resolver.resolve(&slice);
            all.merge(&slice);
            slice = StackCounts::starting(event.time);
        }
        _ => {}
    })?;
    (all.start, all.end) = (span.start, span.end);
    ledger(&all, &resolver, &lost);
    // Whole even when there is nothing in it: that the host was idle is a fact too.
    if let Some(recording) = recording {
        recording.finish(span.end, &serde_json::to_vec(resolver.names())?)?;
        if path != Path::new("-") {
            say_where(&path);
        }
    }
    anyhow::ensure!(
        all.total() > 0,
        "no sample was taken: {} (longer --seconds or another --pid may help)",
        if args.watch.pids.is_empty() { "the host was idle" } else { "the process did not run on a CPU in that time" }
    );
    let pid = match args.watch.pids.as_slice() {
        [pid] => Some(crate::units::Pid(*pid)),
        _ => None,
    };
    let format = match args.format {
        Format::Events => return Ok(()),
        Format::Folded => ProfileFormat::Folded,
        Format::Json => ProfileFormat::Json,
        Format::Svg => ProfileFormat::Svg,
    };
    write_out(&path, &draw(&all, resolver.names(), pid, format, &lost)?.bytes)
}

/// Writes a profile to a file, or to standard output for `-`.
pub fn write_out(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    if path == Path::new("-") {
        std::io::stdout().lock().write_all(bytes).context("write to standard output")?;
        return Ok(());
    }
    std::fs::write(path, bytes).with_context(|| format!("write {}", path.display()))?;
    say_where(path);
    Ok(())
}

#[expect(clippy::print_stderr, reason = "the user wants to know where the file is")]
fn say_where(path: &Path) {
    eprintln!("wrote {}", path.display());
}

#[expect(clippy::print_stderr, reason = "the ledger of a recording belongs beside it, not in the log")]
fn ledger(all: &StackCounts, resolver: &Resolver, lost: &Lost) {
    let (mut frames, mut unnamed) = (0_u64, 0_u64);
    for (key, tally) in &all.counts {
        let count = tally.samples;
        let places = places(&key.kernel, Space::Kernel).chain(places(&key.user, Space::User(key.pid)));
        for (space, address) in places {
            frames += count;
            let named = resolver.names().get(space, address).is_some_and(|n| n.iter().all(|n| !n.contains("+0x")));
            unnamed += if named { 0 } else { count };
        }
    }
    eprintln!("samples {}", all.total());
    for (reason, count) in lost.by_reason().into_iter().filter(|(_, count)| *count > 0) {
        eprintln!("lost: {reason} {count}");
    }
    if frames > 0 {
        // In tenths of a percent, rounded up: one that is there is never shown as none.
        let tenths = (unnamed * 1000).div_ceil(frames);
        eprintln!("frames without a name {}.{} %", tenths / 10, tenths % 10);
    }
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
