//! Arguments that every look at the kernel shares, and the rows it collects.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use agent_common::{FlowRow, SocketRow, SyscallRow};

use crate::aggregate::lost::Lost;
use crate::event::{Body, Event};
use crate::source::Scope;
use crate::units::Pid;

/// How a listing is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// A table for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

/// Whom to watch and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct WatchArgs {
    /// Watch this process only; may be given more than once
    #[arg(short, long = "pid", value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Vec<u32>,
    /// Watch for this long; an interrupt ends it early and shows what was seen
    #[arg(short, long, value_name = "N", default_value_t = 10.0, value_parser = seconds)]
    pub seconds: f64,
}

/// Parses a number of seconds: more than 0, at most a day.
pub fn seconds(text: &str) -> Result<f64, String> {
    const DAY: f64 = 86_400.0;
    match text.parse::<f64>() {
        Ok(s) if s > 0.0 && s <= DAY => Ok(s),
        _ => Err("want a number of seconds above 0 and at most 86400".to_owned()),
    }
}

impl WatchArgs {
    /// For how long.
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// The processes that were named.
    pub fn pid_set(&self) -> BTreeSet<Pid> {
        self.pids.iter().copied().map(Pid).collect()
    }

    /// The named processes, or the whole host.
    pub fn scope(&self) -> Scope {
        if self.pids.is_empty() { Scope::Host } else { Scope::Pids(self.pid_set()) }
    }

    /// An error for each named process that does not exist: a typing error should not look like an idle process.
    pub fn check(&self) -> anyhow::Result<()> {
        for pid in &self.pids {
            anyhow::ensure!(
                crate::source::processes::look_up(Pid(*pid)).is_some(),
                "--pid {pid}: there is no such process (`ps -e` lists them)"
            );
        }
        Ok(())
    }
}

/// Sockets kept: a server of short connections makes thousands a second.
const MOST_SOCKETS: usize = 4096;

/// The newest row of everything that was counted.
#[derive(Debug, Default)]
pub struct Rows {
    /// System calls.
    pub syscalls: BTreeMap<(u32, u32), SyscallRow>,
    /// System calls of processes whose number another process has got since.
    pub ended: Vec<SyscallRow>,
    /// Sockets by cookie.
    pub sockets: BTreeMap<u64, SocketRow>,
    /// Descriptors, by process, number and first use.
    pub flows: BTreeMap<(u32, u32, u64), FlowRow>,
    /// Rows of sockets that found no room here.
    pub sockets_left_out: u64,
    /// Losses.
    pub lost: Lost,
    names: HashMap<u32, String>,
}

impl Rows {
    /// No rows yet, and the names of the processes that will be watched: one that ends before the first tick has one too.
    pub fn of(pids: &[u32]) -> Self {
        let named = |pid: &u32| Some((*pid, crate::source::processes::look_up(Pid(*pid))?.comm.to_text()));
        Self { names: pids.iter().filter_map(named).collect(), ..Self::default() }
    }

    /// Takes in an event.
    pub fn observe(&mut self, event: &Event<'_>) {
        match &event.body {
            Body::Syscall(row) => {
                // Counters that fell belong to another process, which got the number of one that ended.
                if let Some(before) = self.syscalls.insert((row.pid, row.nr), **row)
                    && before.calls > row.calls
                {
                    self.ended.push(before);
                }
            }
            Body::Socket(row) if self.sockets.len() < MOST_SOCKETS || self.sockets.contains_key(&row.seen.cookie) => {
                self.sockets.insert(row.seen.cookie, **row);
            }
            Body::Socket(_) => self.sockets_left_out += 1,
            Body::Flow(row) => {
                let key = (row.key.pid, row.key.fd, row.stats.first_ns);
                if self.flows.len() < MOST_SOCKETS || self.flows.contains_key(&key) {
                    self.flows.insert(key, **row);
                }
            }
            Body::Process(process) => {
                self.names.insert(process.pid.0, process.comm.to_text());
            }
            Body::Loss(reason, count) => self.lost.set(*reason, *count),
            _ => {}
        }
    }

    /// Name of a process, `-` when it ended before it could be asked.
    pub fn comm(&self, pid: u32) -> String {
        self.names.get(&pid).cloned().unwrap_or_else(|| "-".to_owned())
    }
}
