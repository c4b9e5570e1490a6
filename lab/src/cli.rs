//! The command line as it is typed; each subcommand's module makes ready what it needs.

#![expect(clippy::doc_markdown, reason = "these comments are the help text, where markup would show")]

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate_client::Nanos;

use crate::compare::job::Downstream;
use crate::compare::plan::Contender;
use crate::load::schedule::Phases;
use crate::net::Address;
use crate::pipeline::policy::Policy;
use crate::sink::delay::Steps;
use crate::time::{parse_bytes, parse_span};
use crate::tuning::plans::{SIDE_BY_SIDE, Sinks};

/// Real pipelines under real load, and the measurements of both
#[derive(Debug, Parser)]
#[command(
    name = "tidegate-lab",
    version,
    arg_required_else_help = true,
    after_help = "\
Examples:
  tidegate-lab compare --policies fixed,greedy,l0 --json report.json
  tidegate-lab sink --listen 127.0.0.1:9001 --delay 10ms
  tidegate-lab sink --listen unix:/tmp/sink.sock --per-record 2us --delay-steps 1ms@0s,10ms@20s,3ms@40s
  tidegate-lab pipeline --listen 127.0.0.1:9000 --sink 127.0.0.1:9001 --policy tuned --name ingest
  tidegate-lab load --connect 127.0.0.1:9000 --phases 300x8s,5000x8s"
)]
pub(crate) struct Cli {
    /// Die with this process, which started this one
    #[arg(long, global = true, hide = true)]
    pub(crate) parent: Option<i32>,
    /// Keep to these processors
    #[arg(long, global = true, hide = true, value_name = "LIST")]
    pub(crate) cpus: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take flushes and acknowledge each after a delay
    Sink(SinkArgs),
    /// Take records, batch, compress, flush to a sink, acknowledge
    Pipeline(Box<PipelineArgs>),
    /// Send records at a scheduled rate and measure when each is acknowledged
    Load(LoadArgs),
    /// Run flush policies side by side under the same load and print one table
    Compare(CompareArgs),
    /// Run the proof of the tuner: every comparison, its oracle, the highest rates, verdicts and a report
    Tuning(TuningArgs),
    /// Batch size against concurrency, in a closed loop
    Sweep(SweepArgs),
    /// What the steps of a pipeline do alone
    Micro(MicroArgs),
    /// Measure the client's own cost
    #[command(subcommand)]
    Bench(Bench),
    /// Make a known number of system calls: the truth to hold a count against
    SyscallLoad(SyscallLoadArgs),
    /// Switch between threads at a known rate, or as fast as can be
    #[command(hide = true)]
    SwitchLoad(SwitchLoadArgs),
    /// Let messages wait in a socket for a known time: the truth to hold a residency against
    SocketLoad(SocketLoadArgs),
}

/// Prints {"listening": "ADDRESS"} when ready, and a summary when it is told to stop
#[derive(Debug, Args)]
pub(crate) struct SinkArgs {
    /// HOST:PORT (port 0: any) or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Address,
    /// From the last byte of a flush to its acknowledgement
    #[arg(long, default_value = "10ms", value_parser = parse_span)]
    pub(crate) delay: Nanos,
    /// Added to the delay for each record of the flush
    #[arg(long, default_value = "0", value_parser = parse_span)]
    pub(crate) per_record: Nanos,
    /// Delays from instants since the first flush on, DELAY@TIME separated by commas, like 1ms@0s,10ms@20s,3ms@40s;
    /// before the first step --delay holds
    #[arg(long, value_name = "STEPS")]
    pub(crate) delay_steps: Option<Steps>,
    /// Count the time of the steps from this instant of the monotonic clock, ns, instead of the first flush
    #[arg(long, value_name = "NS")]
    pub(crate) steps_from: Option<u64>,
    /// Unpack each flush and check that the sequence of its records has no gap (for one load on one connection)
    #[arg(long)]
    pub(crate) verify: bool,
}

/// Prints {"listening": "ADDRESS", …} when ready; SIGTERM drains, prints a summary and exits 0
#[derive(Debug, Args)]
pub(crate) struct PipelineArgs {
    /// Where records come in: HOST:PORT (port 0: any) or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Address,
    /// Where flushes go: HOST:PORT or unix:PATH of a `tidegate-lab sink`, or file:PATH (written and synced)
    #[arg(long, value_name = "ADDR|file:PATH")]
    pub(crate) sink: String,
    /// When to flush: default (100 records/50 ms), fixed (256 KiB/250 ms), static:BATCH/INTERVAL, schedule (switched
    /// over standard input), greedy, batcher (the client's rule on --batch and --interval), l0 (the same, and by the
    /// waiting accrued), regime or model (the agent's)
    #[arg(long)]
    pub(crate) policy: Policy,
    /// Name to register and report under
    #[arg(long, default_value = "lab")]
    pub(crate) name: String,
    /// The agent's control socket, for the agent's policies [default: /run/tidegate/api.sock]
    #[arg(long, value_name = "PATH", env = "TIDEGATE_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Cap on the share of time in which a flush may be in flight, for the agent's policies
    #[arg(long, value_name = "SHARE")]
    pub(crate) busy_cap: Option<f64>,
    /// Bytes of a usual record: a hundred of them are the batch of the policy `default`
    #[arg(long, default_value_t = 512)]
    pub(crate) event_bytes: u64,
    /// Keep a report page in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) report_dir: Option<PathBuf>,
    /// Smallest batch size that the agent may set
    #[arg(long, default_value = "4KiB", value_parser = parse_bytes)]
    pub(crate) batch_min: u64,
    /// Batch size without an agent
    #[arg(long, default_value = "256KiB", value_parser = parse_bytes)]
    pub(crate) batch: u64,
    /// Largest batch
    #[arg(long, default_value = "512KiB", value_parser = parse_bytes)]
    pub(crate) batch_max: u64,
    /// Shortest flush interval that the agent may set
    #[arg(long, default_value = "1ms", value_parser = parse_span)]
    pub(crate) interval_min: Nanos,
    /// Flush interval without an agent
    #[arg(long, default_value = "250ms", value_parser = parse_span)]
    pub(crate) interval: Nanos,
    /// Longest flush interval that the agent may set
    #[arg(long, default_value = "250ms", value_parser = parse_span)]
    pub(crate) interval_max: Nanos,
    /// How long settings live without renewal
    #[arg(long, default_value_t = 10_000, value_name = "MS")]
    pub(crate) lease_ttl_ms: u64,
    /// How long lapsed settings are held
    #[arg(long, default_value_t = 60_000, value_name = "MS")]
    pub(crate) lease_hold_ms: u64,
    /// Bytes queued before senders have to wait
    #[arg(long, default_value = "64MiB", value_parser = parse_bytes)]
    pub(crate) queue: u64,
    /// Longest drain after SIGTERM
    #[arg(long, default_value = "10s", value_parser = parse_span)]
    pub(crate) drain: Nanos,
    /// Print one JSON line of counters for each line read from standard input
    #[arg(long)]
    pub(crate) stats_on_stdin: bool,
}

/// Open loop: a record's latency counts from the time it was due, however late it was sent
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    /// The pipeline: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub(crate) connect: Address,
    /// Rates and spans, RATExSPAN separated by commas
    #[arg(long, default_value = DEFAULT_PHASES)]
    pub(crate) phases: Phases,
    /// Begin with this long at the first rate, left out of the results
    #[arg(long, default_value = "0", value_parser = parse_span)]
    pub(crate) warmup: Nanos,
    /// Bytes of a record on the wire
    #[arg(long, default_value_t = 512)]
    pub(crate) record_bytes: usize,
    /// Wait this long for acknowledgements after the last phase
    #[arg(long, default_value = "30s", value_parser = parse_span)]
    pub(crate) drain: Nanos,
    /// Begin at this instant of the monotonic clock, ns
    #[arg(long, value_name = "NS")]
    pub(crate) start_at: Option<u64>,
    /// Results as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// With the latencies of every second in the JSON, as counts, so that runs can be pooled
    #[arg(long)]
    pub(crate) slices: bool,
    /// Percentile distribution of all records as text, as HdrHistogram plotters read it
    #[arg(long, value_name = "FILE")]
    pub(crate) hdr: Option<PathBuf>,
}

/// Rates that pass through a cold, a warm and a hot regime, and the steps between them.
pub(crate) const DEFAULT_PHASES: &str = "300x8s,5000x8s,55000x8s,300x8s,20000x8s,55000x8s";

/// Starts a sink, a pipeline and a load for each policy, block by block, and ends them all
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Directory for report pages while it runs; what is put there is removed at the end
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The agent's control socket, for the agent's policies [default: /run/tidegate/api.sock]
    #[arg(long, value_name = "PATH", env = "TIDEGATE_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Which to run: default, fixed, static:BATCH/INTERVAL, greedy, batcher, l0, regime, model; NAME=POLICY renames
    /// one, and one policy under two names is the A/A
    #[arg(long, value_delimiter = ',', default_value = "fixed,greedy,l0,model")]
    pub(crate) policies: Vec<Contender>,
    /// Where they flush to: tcp:DELAY, file, postgres or redis
    #[arg(long, default_value = "tcp:10ms")]
    pub(crate) sink: Downstream,
    /// Rates and spans, RATExSPAN separated by commas
    #[arg(long, default_value = DEFAULT_PHASES)]
    pub(crate) phases: Phases,
    /// Begin with this long at the first rate, left out of the results
    #[arg(long, default_value = "2s", value_parser = parse_span)]
    pub(crate) warmup: Nanos,
    /// Bytes of a record on the wire
    #[arg(long, default_value_t = 512)]
    pub(crate) record_bytes: usize,
    /// Cap on the busy share of the flusher, told to the agent
    #[arg(long, value_name = "SHARE")]
    pub(crate) busy_cap: Option<f64>,
    /// Blocks: in each of them every policy runs once
    #[arg(long, default_value_t = 1)]
    pub(crate) blocks: usize,
    /// Lanes at once, where the sink bears company
    #[arg(long, value_name = "N", default_value_t = SIDE_BY_SIDE)]
    pub(crate) side_by_side: usize,
    /// Of the order of the lanes and of the intervals
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The same results as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Writes tuning.json, tuning.md and tuning.html
#[derive(Debug, Args)]
pub(crate) struct TuningArgs {
    /// Directory for report pages while it runs; what is put there is removed at the end
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// The agent's control socket [default: /run/tidegate/api.sock]
    #[arg(long, value_name = "PATH", env = "TIDEGATE_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Directory for the report
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
    /// Which sinks
    #[arg(long, value_enum, default_value_t = Sinks::Promises)]
    pub(crate) sink: Sinks,
    /// A few minutes to try the plumbing by; the figures are not to be quoted
    #[arg(long)]
    pub(crate) quick: bool,
}

/// Prints two tables, and whether 128 differs from 256 at all
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    /// Bytes of a record on the wire
    #[arg(long, default_value_t = 512)]
    pub(crate) record_bytes: usize,
    /// From the last byte of a flush to its acknowledgement
    #[arg(long, default_value = "2ms", value_parser = parse_span)]
    pub(crate) delay: Nanos,
    /// Runs of every cell
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=12))]
    pub(crate) repetitions: u8,
    /// Length of a run; its first fifth is left out
    #[arg(long, default_value = "1500ms", value_parser = parse_span)]
    pub(crate) span: Nanos,
    /// Of the order of the runs
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// The same results as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Records a second on one thread
#[derive(Debug, Args)]
pub(crate) struct MicroArgs {
    /// The same results as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Nanoseconds per read of a settings page, beside a mutex and a bare atomic load
    Page(BenchPageArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchPageArgs {
    /// Results as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// Prints {"pid": …}, waits for a line on standard input, works, prints a summary. It talks by poll, readv and writev,
/// so that its own talk is in no count of read and write
#[derive(Debug, Args)]
pub(crate) struct SyscallLoadArgs {
    /// Calls in all, or rounds of the mix
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) calls: u64,
    /// Threads that share the calls, all alive until the last is done
    #[arg(long, default_value_t = 1)]
    pub(crate) threads: u64,
    /// Which call
    #[arg(long, value_enum, default_value_t = Call::Getppid)]
    pub(crate) syscall: Call,
    /// Reads and writes that succeed and fail in a known mix, instead of one call
    #[arg(long)]
    pub(crate) mix: bool,
    /// Begin at once
    #[arg(long)]
    pub(crate) go: bool,
    /// Stay alive after the summary until standard input says a line or ends
    #[arg(long)]
    pub(crate) hold: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Call {
    Getppid,
    Getuid,
}

/// Prints {"pid": …}, waits for a line on standard input, works, prints a summary
#[derive(Debug, Args)]
pub(crate) struct SwitchLoadArgs {
    /// Pairs of threads
    #[arg(long, default_value_t = 1)]
    pub(crate) pairs: u64,
    /// Switches a second in all; 0 for as many as there can be
    #[arg(long, default_value_t = 0)]
    pub(crate) rate: u64,
    /// How long
    #[arg(long, default_value_t = 5)]
    pub(crate) seconds: u64,
    /// Begin at once
    #[arg(long)]
    pub(crate) go: bool,
}

/// Prints {"pid": …} of the reader, works for a while, prints the waits as the reader saw them
#[derive(Debug, Args)]
pub(crate) struct SocketLoadArgs {
    /// Kind of socket
    #[arg(long, value_enum)]
    pub(crate) kind: SocketKind,
    /// How sender and reader behave
    #[arg(long, value_enum)]
    pub(crate) pattern: Pattern,
    /// How long
    #[arg(long, default_value_t = 10)]
    pub(crate) seconds: u64,
    /// Wait for a line on standard input before the first message
    #[arg(long)]
    pub(crate) wait: bool,
    /// Be the sender, on this address
    #[arg(long, hide = true)]
    pub(crate) send_to: Option<Address>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SocketKind {
    Tcp,
    Unix,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// A message each 50 ms; the reader polls, sleeps 20 ms, then reads all
    Poll20,
    /// Messages at 0, 4, 8 and 12 ms; the reader reads all at 20 ms
    Burst4,
    /// Bursts at one message a millisecond, read at one each two milliseconds
    SlowReader,
}
