//! The arguments of a load as they are typed.

#![expect(clippy::doc_markdown, reason = "these comments are the help text, where markup would show")]

use std::path::PathBuf;

use clap::Args;
use tidegate_client::Nanos;

use super::law::Traffic;
use super::schedule::Phases;
use super::sizes::Sizes;
use crate::net::Address;
use crate::time::parse_span;

/// Rates that pass through a cold, a warm and a hot regime, and the steps between them.
pub(crate) const DEFAULT_PHASES: &str = "300x8s,5000x8s,55000x8s,300x8s,20000x8s,55000x8s";

/// Open loop: a record's latency counts from the time it was due, however late it was sent
#[derive(Debug, Args)]
#[command(after_help = "\
Traffic is LAW@RATExSPAN, with options after colons; commas separate parts that follow one another:
  even@5000x8s                              equal gaps, as --phases has them
  poisson@5000x30s                          as independent users come
  onoff@20000x30s:on=1s:off=1s:low=0        by turns, silent or at `low`
  burst@5000x60s:factor=10:share=0.1:mean=200ms
                                            random bursts; 5000/s on average
  ramp@100-20000x30s                        in a straight line
  daily@5000x60s:swing=0.8:day=60s          night and noon, compressed
  flash@500x60s:peak=5000:at=15s:rise=1200ms:fall=10s
                                            a crowd comes at once, leaves slowly
  trace@FILE:speed=1                        lines like `1.5ms 12` or `1500000,12`:
                                            an offset (ns without a unit), a count
Options that are left out are as shown. Sizes of records:
  512                                       all alike
  lognormal@600:sigma=1:max=4MiB            mean 600: most smaller, few much larger
  zipf@64:s=1.2:max=1MiB                    64 times a rank, small ones most often

Examples:
  tidegate-lab load --connect 127.0.0.1:9000 \\
    --traffic burst@5000x60s --record-bytes lognormal@600 --plot run.svg
  tidegate-lab load --connect 127.0.0.1:9000 \\
    --traffic poisson@300x8s,flash@300x60s:peak=20000 --hlog run.hlog
  tidegate-lab load --postgres /tmp/tidegate-lab-postgres-4711 \\
    --statement 'SELECT 1' --traffic poisson@500x30s")]
pub(crate) struct LoadArgs {
    /// The pipeline: HOST:PORT or unix:PATH
    #[arg(long, value_name = "ADDR", required_unless_present = "postgres")]
    pub(crate) connect: Option<Address>,
    /// Instead of a pipeline, execute a statement at PostgreSQL for each record: the folder of its socket, or words like
    /// "host=/run/postgresql user=me dbname=test"
    #[arg(long, value_name = "DIR|WORDS", conflicts_with = "connect", requires = "statement")]
    pub(crate) postgres: Option<String>,
    /// What to execute; prepared once a connection
    #[arg(long, value_name = "SQL", requires = "postgres")]
    pub(crate) statement: Option<String>,
    /// How many statements can be under way at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) connections: u16,
    /// Rates and spans, RATExSPAN separated by commas: even arrivals
    #[arg(long, default_value = DEFAULT_PHASES)]
    pub(crate) phases: Phases,
    /// Laws of arrival instead of --phases; see below
    #[arg(long, value_name = "SPEC", conflicts_with = "phases")]
    pub(crate) traffic: Option<Traffic>,
    /// The same seed gives the same arrivals and sizes
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Begin with this long at the first rate, left out of the results
    #[arg(long, default_value = "0", value_parser = parse_span)]
    pub(crate) warmup: Nanos,
    /// Bytes of a record on the wire, or a law of sizes; see below
    #[arg(long, value_name = "SPEC", default_value = "512")]
    pub(crate) record_bytes: Sizes,
    /// Records that fall due within this span go out in one write: the finer, the more CPU time it takes
    #[arg(long, value_name = "SPAN", default_value = "1ms", value_parser = parse_span)]
    pub(crate) coalesce: Nanos,
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
    /// A compressed histogram a second, as HdrHistogram's own tools read it
    #[arg(long, value_name = "FILE")]
    pub(crate) hlog: Option<PathBuf>,
    /// Latency over time and the curve of percentiles as SVG
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,
}
