//! The command line as it is typed; each subcommand's module makes ready what it needs.

#![expect(clippy::doc_markdown, reason = "these comments are the help text, where markup would show")]

mod measure;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tidegate_client::Nanos;

use crate::load::args::{DEFAULT_PHASES, LoadArgs};
use crate::net::Address;
use crate::pipeline::policy::Policy;
use crate::sink::delay::Steps;
use crate::time::{parse_bytes, parse_span};

pub(crate) use measure::{CompareArgs, GuidanceArgs, MicroArgs, SweepArgs, TuningArgs};

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
    /// Run a database server of one's own for as long as this process lives
    Serve(ServeArgs),
    /// Be a server
    #[command(hide = true)]
    Servant(ServantArgs),
    /// Sweep after a server
    #[command(hide = true)]
    Broom(BroomArgs),
    /// Send records at a scheduled rate and measure when each is acknowledged
    Load(Box<LoadArgs>),
    /// Run flush policies side by side under the same load and print one table
    Compare(CompareArgs),
    /// Run the proof of the tuner: every comparison, its oracle, the highest rates, verdicts and a report
    Tuning(TuningArgs),
    /// Batch size against concurrency, in a closed loop
    Sweep(SweepArgs),
    /// What the steps of a pipeline do alone
    Micro(MicroArgs),
    /// Measure which batch and which flush time suit which messages
    Guidance(GuidanceArgs),
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

/// Prints {"listening": …, "pid": …} when the server answers: the folder of PostgreSQL's socket, or Redis's socket. A root
/// user's server runs as nobody. When this process ends, however it does, the server ends and its folder is removed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate-lab serve postgres --dir /tmp
  tidegate-lab pipeline --sink postgres:copy:/tmp/tidegate-lab-postgres-4711 …
  tidegate-lab serve postgres --dir /tmp --set synchronous_commit=off
  tidegate-lab serve redis --dir /tmp --set appendfsync=always
  tidegate-lab pipeline --sink redis:/tmp/tidegate-lab-redis-4711/redis.sock …")]
pub(crate) struct ServeArgs {
    /// Which server
    #[arg(value_enum)]
    pub(crate) server: ServerKind,
    /// Where to make the server's folder
    #[arg(long, default_value = ".")]
    pub(crate) dir: PathBuf,
    /// A setting of the server's own, besides its defaults; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ServerKind {
    /// A fresh cluster with PostgreSQL's defaults
    Postgres,
    /// Appending to a file that is synced each second
    Redis,
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        })
    }
}

#[derive(Debug, Args)]
pub(crate) struct ServantArgs {
    /// Where to run
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Whom to run as
    #[arg(long, requires = "gid")]
    pub(crate) uid: Option<u32>,
    /// With which group
    #[arg(long, requires = "uid")]
    pub(crate) gid: Option<u32>,
    /// What to end by when the parent dies
    #[arg(long)]
    pub(crate) death_signal: i32,
    /// What to be called
    #[arg(long)]
    pub(crate) name: OsString,
    /// What to run
    #[arg(required = true, last = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Args)]
pub(crate) struct BroomArgs {
    /// What to remove in the end
    pub(crate) folder: PathBuf,
}

/// Prints {"listening": "ADDRESS", …} when ready; SIGTERM drains, prints a summary and exits 0
#[derive(Debug, Args)]
pub(crate) struct PipelineArgs {
    /// Where records come in: HOST:PORT (port 0: any) or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Address,
    /// Where flushes go: HOST:PORT or unix:PATH of a `tidegate-lab sink`; file:PATH (appended and synced);
    /// postgres:copy:DIR or postgres:insert:DIR (DIR holds the server's socket; or words like "host=/run/postgresql
    /// user=me dbname=test"; a transaction a flush, into a table of the pipeline's name); redis:SOCKET (a pipeline of
    /// commands a flush, into a stream)
    #[arg(long, value_name = "SINK")]
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
    /// Let the agent look and advise, and keep the settings
    #[arg(long)]
    pub(crate) observe: bool,
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

#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Nanoseconds per read of a settings page, beside a mutex and a bare atomic load
    Page(BenchArgs),
    /// Nanoseconds to borrow a connection from the pool and give it back, alone and by several threads at once
    Pool(BenchArgs),
    /// Milliseconds from a full queue to the agent and to its flush, and from a decision to the page and to a watcher
    Reaction(BenchReactionArgs),
    /// A pipeline whose throughput is asked for by lines of standard input, while agents come and go
    #[command(hide = true)]
    Cost(BenchCostArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// Results as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchReactionArgs {
    /// The agent's control socket
    #[arg(long, value_name = "PATH", env = "TIDEGATE_SOCKET")]
    pub(crate) socket: PathBuf,
    /// Pipelines to register
    #[arg(long, default_value_t = 200)]
    pub(crate) pipelines: usize,
    /// How often each is measured
    #[arg(long, default_value_t = 300)]
    pub(crate) rounds: usize,
    /// Results as JSON, `-` for standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct BenchCostArgs {
    /// The agent's control socket, which need not be there yet
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: PathBuf,
    /// Where sockets and the report page go
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Length of a stretch at full speed; its first fifth is left out
    #[arg(long, default_value = "2s", value_parser = parse_span)]
    pub(crate) span: Nanos,
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
