//! `tidegate record`: a profile without a daemon.

mod ledger;
mod whom;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::formats::{self, Written};
use super::watching::seconds;
use crate::aggregate::intake::Intake;
use crate::aggregate::ledger::Ledger;
use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::{StackCounts, StackKey};
use crate::event::{Body, RawBatch};
use crate::profile::{About, Idle, name_stacks_and, write};
use crate::run::oneshot::{Extra, Span, Watching, watch_subject};
use crate::serve::labels::Labels;
use crate::source::clock::{monotonic, wall};
use crate::source::recording::{Host, Writer};
use crate::source::{Offspring, Wanted};
use crate::symbolize::Resolver;
use crate::units::{Nanos, ProfileKind};
use ledger::Account;
use whom::Whom;

/// For how long, unless a command or --seconds says otherwise.
const USUAL: Duration = Duration::from_secs(10);
/// For how long a command is watched that does not end.
const LONGEST: Duration = Duration::from_hours(24);

/// Record where the time goes, of this host, of processes, or of one command, without a daemon
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  tidegate record --pid 4242 --seconds 10 -o app.svg
  tidegate record --hz 997 -o build.svg -- make -j4    # one command, from its first instruction
  tidegate record --kind offcpu --pid 4242 -o waits.svg
  tidegate record --format folded -o - | head
  tidegate record --format events -o host.events     # replay it anywhere: tidegate replay host.events

Standard error carries the ledger: samples expected, delivered and lost by reason, the CPU time they stand for
beside the kernel's own figure, the share of stacks that are whole and of frames without a name. A
command is recorded with every process that it starts, until it ends itself; the exit code is the command's.")]
pub struct RecordArgs {
    #[command(flatten)]
    whom: whom::WhomArgs,
    /// What to record
    #[arg(long, value_name = "KIND", default_value = "cpu", value_parser = formats::kind())]
    kind: ProfileKind,
    /// Samples per second and CPU; a prime keeps out of step with periodic work
    #[arg(long, value_name = "HZ", default_value_t = 97, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    hz: u64,
    /// For how long; an interrupt ends it early and writes what was seen [default: 10; with a command, until it ends]
    #[arg(short, long, value_name = "N", value_parser = seconds)]
    seconds: Option<f64>,
    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "svg", value_parser = formats::written())]
    format: Written,
    /// Where to write; `-` is standard output [default: profile.svg, .folded, .json …]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Show threads that only wait for something to happen, instead of one [idle] frame
    #[arg(long)]
    idle: bool,
    /// A command to run and record, with every process that it starts
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command.
pub fn run(args: &RecordArgs) -> anyhow::Result<ExitCode> {
    let kind = args.kind;
    let usual = || match args.format {
        Written::Profile(format) => formats::file_of(format, "profile"),
        Written::Events => "profile.events".into(),
    };
    let path = args.output.clone().unwrap_or_else(usual);
    // Before anything is started or attached: what cannot be written needs no recording.
    let recording = if args.format == Written::Events { Some(recording(&path)?) } else { None };
    let mut whom = Whom::new(&args.whom, &args.command)?;
    let usual = if args.command.is_empty() { USUAL } else { LONGEST };
    let watching = Watching {
        wanted: wanted(kind, &whom)?,
        length: args.seconds.map_or(usual, Duration::from_secs_f64),
        hertz: args.hz,
        latency_slots: 1,
        extra: Extra::Nothing,
    };
    let seen = look(&watching, &mut whom, recording)?;
    tell(kind, &seen, &whom);
    let code = whom.command.as_ref().map(|command| finish(command, &watching));
    let Written::Profile(format) = args.format else {
        if path != Path::new("-") {
            say_where(&path);
        }
        anyhow::ensure!(seen.all.total() > 0, nothing(kind, &whom));
        return Ok(code.unwrap_or(ExitCode::SUCCESS));
    };
    let idle = if args.idle { Idle::Shown } else { Idle::Folded };
    let (names, labels) = (seen.resolver.names(), RefCell::new(seen.labels));
    let label = |key: &StackKey| labels.borrow_mut().of(key);
    let profile = name_stacks_and(&seen.all, kind, names, &seen.lost, idle, |_| true, label);
    anyhow::ensure!(!profile.is_empty(), nothing(kind, &whom));
    let about = About {
        whose: whom.text(),
        began: Some(wall().since(monotonic().since(seen.all.start))),
        covered: None,
        period: Some(Nanos(1_000_000_000 / args.hz)),
    };
    write_out(&path, &write(&profile, format, &about)?)?;
    Ok(code.unwrap_or(ExitCode::SUCCESS))
}

/// What the probes have to bring for a kind.
fn wanted(kind: ProfileKind, whom: &Whom) -> anyhow::Result<Wanted> {
    let scope = Some(whom.scope.clone());
    // A command does its work in processes of its own making as often as not.
    let offspring = if whom.command.is_some() { Offspring::Watched } else { Offspring::Ignored };
    let mut wanted = Wanted { offspring, ..Wanted::default() };
    match kind {
        ProfileKind::Cpu => wanted.cpu = scope,
        ProfileKind::Offcpu | ProfileKind::Runq => wanted.sched = scope,
        ProfileKind::Wall => (wanted.cpu, wanted.sched) = (scope.clone(), scope),
        ProfileKind::Wakeup => (wanted.sched, wanted.wakeups) = (scope, true),
        ProfileKind::Sock => {
            let pids = whom.pids();
            anyhow::ensure!(!pids.is_empty(), "sockets are watched one process at a time: say whose with --pid PID");
            (wanted.sockets, wanted.socket_stacks) = (Some(pids), true);
        }
    }
    Ok(wanted)
}

/// What was seen.
struct Seen {
    all: StackCounts,
    resolver: Resolver,
    labels: Labels,
    lost: Lost,
    ledger: Option<Ledger>,
}

type Recording = Writer<Box<dyn std::io::Write>>;

fn look(watching: &Watching, whom: &mut Whom, mut recording: Option<Recording>) -> anyhow::Result<Seen> {
    let mut seen = Seen {
        all: StackCounts::starting(Nanos(0)),
        resolver: Resolver::new(),
        labels: Labels::here(),
        lost: Lost::default(),
        ledger: None,
    };
    let mut slice = StackCounts::starting(Nanos(0));
    let keep = |batch: &RawBatch| Ok(recording.as_mut().map_or(Ok(()), |r| r.append(batch))?);
    let mut intake = Intake::default();
    let see = |event: &crate::event::Event<'_>| match &event.body {
        Body::Stack(sample) => intake.sample(event.time, (**sample).clone(), &mut slice),
        Body::Thread(row) => intake.thread(event.time, row, &mut slice),
        Body::Loss(reason, count) => seen.lost.set(*reason, *count),
        Body::Mapping(mapping) => seen.resolver.learn(mapping),
        Body::Ledger(row) => seen.ledger = Some(Ledger(*row)),
        // Names are looked up while their process lives, and so at every tick.
        Body::Tick => {
            seen.resolver.resolve(&slice);
            seen.labels.note(&slice);
            seen.all.merge(&slice);
            slice = StackCounts::starting(event.time);
        }
        _ => {}
    };
    let Span { start, end } = watch_subject(watching, whom, keep, see)?;
    seen.resolver.resolve(&slice);
    seen.labels.note(&slice);
    seen.all.merge(&slice);
    (seen.all.start, seen.all.end) = (start, end);
    // Whole even when there is nothing in it: that the host was idle is a fact too.
    if let Some(recording) = recording {
        recording.finish(end, &serde_json::to_vec(seen.resolver.names())?)?;
    }
    Ok(seen)
}

fn recording(path: &Path) -> anyhow::Result<Recording> {
    let host = Host::new(kernel_release(), monotonic());
    let what = format!("write recording {}", path.display());
    let out: Box<dyn std::io::Write> = if path == Path::new("-") {
        Box::new(std::io::stdout())
    } else {
        Box::new(std::fs::File::create(path).context(what.clone())?)
    };
    Ok(Writer::to(out, what, &host)?)
}

#[expect(clippy::print_stderr, reason = "the ledger of a recording belongs beside it, not in the log")]
fn tell(kind: ProfileKind, seen: &Seen, whom: &Whom) {
    let Seen { all, resolver, labels: _, lost, ledger } = seen;
    let ledger = ledger.filter(|_| matches!(kind, ProfileKind::Cpu | ProfileKind::Wall));
    let charged = whom.charged();
    eprint!("{}", ledger::lines(&Account { kind, counts: all, names: resolver.names(), lost, ledger, charged }));
}

/// What is said of the command, and the exit code it gives.
#[expect(clippy::print_stderr, reason = "the user wants to know how the command ended")]
fn finish(command: &crate::run::oneshot::command::Launched, watching: &Watching) -> ExitCode {
    match command.code() {
        Some(0) => ExitCode::SUCCESS,
        Some(code) => {
            eprintln!("{} ended with exit code {code}", command.name());
            ExitCode::from(code)
        }
        None => {
            let (name, pid, seconds) = (command.name(), command.pid(), watching.length.as_secs_f64());
            eprintln!("{name} goes on as process {pid}: it was recorded for at most {seconds} s");
            ExitCode::SUCCESS
        }
    }
}

fn nothing(kind: ProfileKind, whom: &Whom) -> String {
    let why = match kind {
        ProfileKind::Cpu => format!("{} did not run on a CPU in that time", whom.text()),
        ProfileKind::Sock => format!("{} read nothing that had waited", whom.text()),
        _ => format!("{} did not wait in that time", whom.text()),
    };
    format!("no sample was taken: {why} (longer --seconds or another --pid may help)")
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

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
