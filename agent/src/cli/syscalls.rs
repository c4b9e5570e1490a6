//! `tidegate syscalls`: counts system calls by process and call, without a daemon.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use super::table::{self, Cell};
use super::watching::{Output, Rows, WatchArgs};
use crate::run::oneshot::{Extra, Watching, watch};
use crate::serve::listing::syscall_row;
use crate::serve::view::SyscallJson;
use crate::source::Wanted;
use crate::source::io_uring::users;
use crate::units::Pid;

/// Count system calls: calls, errors, bytes and latency by process and call
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Counting starts when `attached` appears on standard error.

Examples:
  tidegate syscalls --pid 4242 --seconds 5
  tidegate syscalls --pid 4242 --latency full
  tidegate syscalls --seconds 1 -o json | jq '.[0]'

Calls, errors and bytes are exact. `timed` calls give the quantiles; `total` is their mean times all calls.

Calls made through io_uring pass the system call tracepoints by and are not seen.")]
pub struct SyscallsArgs {
    #[command(flatten)]
    watch: WatchArgs,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
    /// Rows to print, dearest first; 0 for all
    #[arg(long, value_name = "N", default_value_t = 0)]
    top: usize,
    /// Latency slots, a power of two: fewer save memory, but threads that share one lose latencies (never calls)
    #[arg(long, value_name = "N", default_value_t = 65_536, value_parser = slots)]
    latency_slots: u32,
    /// Time one call in 16, chosen by chance, or every one; calls are counted exactly either way
    #[arg(long, value_enum, default_value_t)]
    latency: Latency,
    /// Attach an empty pair of probes instead: the floor of `cargo xtask bench syscalls`
    #[arg(long, hide = true)]
    floor: bool,
}

/// Which calls are timed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
enum Latency {
    /// One in 16, chosen by chance: total time is estimated from them.
    #[default]
    Sampled,
    /// Every one, at twice the cost.
    Full,
}

fn slots(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(n) if n.is_power_of_two() && n <= 65_536 => Ok(n),
        _ => Err("want a power of two from 1 to 65536".to_owned()),
    }
}

/// Runs the command.
pub fn run(args: &SyscallsArgs) -> anyhow::Result<()> {
    args.watch.check()?;
    let watching = Watching {
        wanted: Wanted { syscalls: (!args.floor).then(|| args.watch.scope()), ..Wanted::default() },
        length: args.watch.length(),
        hertz: 97,
        latency_slots: args.latency_slots,
        extra: match args.latency {
            _ if args.floor => Extra::Floor,
            Latency::Sampled => Extra::Nothing,
            Latency::Full => Extra::FullLatency,
        },
    };
    let mut rows = Rows::of(&args.watch.pids);
    watch(&watching, |_| Ok(()), |event| rows.observe(event))?;
    let mut listing: Vec<SyscallJson> =
        rows.syscalls.values().chain(&rows.ended).map(|row| syscall_row(row, rows.comm(row.pid))).collect();
    listing.sort_by_key(|row| std::cmp::Reverse((row.total_ns, row.calls)));
    if args.top > 0 {
        listing.truncate(args.top);
    }
    show(args.output, std::io::stdout().lock(), std::io::stderr().lock(), &listing, &rows)?;
    let listed: BTreeSet<Pid> = listing.iter().map(|row| Pid(row.pid)).chain(args.watch.pid_set()).collect();
    tell_rings(std::io::stderr().lock(), &users(Path::new("/proc"), listed))
}

/// Beside the listing, so that it can be read in either form.
fn tell_rings(mut beside: impl Write, users: &BTreeSet<Pid>) -> anyhow::Result<()> {
    for pid in users {
        writeln!(beside, "degraded: process {pid} has an io_uring: what it does through it is in no count above")?;
    }
    Ok(())
}

/// A program that reads the listing has its standard output for itself; what was lost is told beside it.
fn show(
    output: Output,
    out: impl Write,
    mut beside: impl Write,
    listing: &[SyscallJson],
    rows: &Rows,
) -> anyhow::Result<()> {
    match output {
        Output::Json => {
            print_json(out, &listing)?;
            table::losses(&mut beside, &rows.lost)
        }
        Output::Table => print_table(out, listing, rows),
    }
}

/// Prints any listing as JSON, one array.
pub fn print_json(mut out: impl Write, listing: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut out, listing)?;
    writeln!(out)?;
    Ok(())
}

fn print_table(mut out: impl Write, listing: &[SyscallJson], rows: &Rows) -> anyhow::Result<()> {
    let head = ["pid", "comm", "syscall", "calls", "in flight", "errors", "bytes", "timed", "total", "p50", "p99"];
    let body = listing.iter().map(|r| {
        vec![
            Cell::number(r.pid),
            Cell::text(&r.comm),
            Cell::text(&r.syscall),
            Cell::number(r.calls),
            Cell::number(r.in_flight),
            Cell::number(r.errors),
            Cell::maybe(r.bytes.map(table::bytes)),
            Cell::number(r.calls.saturating_sub(r.untimed)),
            Cell::maybe(r.total_ns.map(table::nanos)),
            Cell::maybe(r.p50_ns.map(table::nanos)),
            Cell::maybe(r.p99_ns.map(table::nanos)),
        ]
    });
    writeln!(out, "{}", table::table(&head, body))?;
    table::losses(&mut out, &rows.lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_told_however_the_listing_is_printed_and_never_within_json() {
        let mut rows = Rows::default();
        rows.lost.set(agent_common::LossReason::SlotCollision, 1_234);
        let lost = "lost: slot_collision 1,234\n";
        let (mut out, mut beside) = (Vec::new(), Vec::new());
        show(Output::Json, &mut out, &mut beside, &[], &rows).unwrap();
        assert_eq!((String::from_utf8(out).unwrap().as_str(), beside), ("[]\n", lost.as_bytes().to_vec()));
        let (mut out, mut beside) = (Vec::new(), Vec::new());
        show(Output::Table, &mut out, &mut beside, &[], &rows).unwrap();
        assert!(String::from_utf8(out).unwrap().ends_with(lost) && beside.is_empty());
    }
}
