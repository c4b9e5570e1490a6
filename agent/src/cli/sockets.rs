//! `tidegate sockets`: queues of sockets and the time that bytes wait in them, without a daemon.

use super::syscalls::print_json;
use super::table::{self, Cell};
use super::watching::{Output, Rows, WatchArgs};
use crate::run::oneshot::{Extra, Watching, watch};
use crate::serve::listing::socket_row;
use crate::serve::view::SocketJson;
use crate::source::Wanted;

/// Show socket queues, and how long bytes wait before they are read (residency), for TCP, UDP and Unix sockets
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Watching starts when `attached` appears on standard error. Bytes that waited already are counted as unmeasured.

Examples:
  tidegate sockets --pid 4242 --seconds 5
  tidegate sockets --pid 4242 -o json | jq '.[] | {fd, p50_ns, receive_queue_bytes}'

Reads through splice and io_uring do not pass the tracepoint; their bytes are retired at the next read."
)]
pub struct SocketsArgs {
    #[command(flatten)]
    watch: WatchArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub fn run(args: &SocketsArgs) -> anyhow::Result<()> {
    anyhow::ensure!(
        !args.watch.pids.is_empty(),
        "say whose sockets with --pid PID: residency is watched process by process, so that others pay nothing"
    );
    args.watch.check()?;
    let watching = Watching {
        wanted: Wanted { sockets: Some(args.watch.pid_set()), ..Wanted::default() },
        length: args.watch.length(),
        hertz: 97,
        latency_slots: 1,
        extra: Extra::Nothing,
    };
    let mut rows = Rows::of(&args.watch.pids);
    watch(&watching, |_| Ok(()), |event| rows.observe(event))?;
    let mut listing: Vec<SocketJson> = rows.sockets.values().map(|r| socket_row(r, rows.comm(r.seen.pid))).collect();
    listing.sort_by_key(|row| (row.pid, row.fd.unwrap_or(i32::MAX)));
    let out = std::io::stdout().lock();
    match args.output {
        Output::Json => {
            print_json(out, &listing)?;
            losses(std::io::stderr().lock(), &rows)
        }
        Output::Table => print_table(out, &listing, &rows),
    }
}

fn losses(mut out: impl std::io::Write, rows: &Rows) -> anyhow::Result<()> {
    if rows.sockets_left_out > 0 {
        writeln!(out, "left out: {} rows of further sockets", rows.sockets_left_out)?;
    }
    table::losses(&mut out, &rows.lost)
}

fn print_table(mut out: impl std::io::Write, listing: &[SocketJson], rows: &Rows) -> anyhow::Result<()> {
    let head = [
        "pid",
        "fd",
        "kind",
        "local",
        "remote",
        "recv queue",
        "send queue",
        "read",
        "oldest p50",
        "mean",
        "p50",
        "p99",
        "overflows",
    ];
    let body = listing.iter().map(|r| {
        vec![
            Cell::number(r.pid),
            Cell::maybe(r.fd.map(|fd| fd.to_string())),
            Cell::text(r.kind),
            Cell::text(&r.local),
            Cell::text(&r.remote),
            Cell::right(table::bytes(r.receive_queue_bytes)),
            Cell::right(table::bytes(r.send_queue_bytes)),
            Cell::right(table::bytes(r.read_bytes)),
            Cell::maybe(r.oldest_p50_ns.map(table::nanos)),
            Cell::maybe(r.mean_ns.map(table::nanos)),
            Cell::maybe(r.p50_ns.map(table::nanos)),
            Cell::maybe(r.p99_ns.map(table::nanos)),
            Cell::number(r.overflows),
        ]
    });
    writeln!(out, "{}", table::table(&head, body))?;
    losses(out, rows)
}
