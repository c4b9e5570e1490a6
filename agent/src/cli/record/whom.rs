//! Whom a recording is of: processes, a cgroup, a command or the whole host; and how much CPU time the kernel charges them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::run::oneshot::Subject;
use crate::run::oneshot::command::Launched;
use crate::source::{Scope, cpu_time, processes};
use crate::units::{CgroupId, Nanos, Pid};

/// Whom to record.
#[derive(Clone, Debug, clap::Args)]
#[group(multiple = true)]
pub(super) struct WhomArgs {
    /// Record this process only; may be given more than once
    #[arg(short, long = "pid", value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,
    /// Record what runs in this cgroup and below: a path such as /system.slice/ssh.service
    #[arg(long, value_name = "PATH", conflicts_with = "pids")]
    cgroup: Option<PathBuf>,
}

/// Whom a recording is of.
#[derive(Debug)]
pub(super) struct Whom {
    pub(super) scope: Scope,
    pub(super) command: Option<Launched>,
    charged: Charged,
    text: String,
}

impl Whom {
    /// Checks that they are there; starts the command, stopped.
    pub(super) fn new(args: &WhomArgs, command: &[OsString]) -> anyhow::Result<Self> {
        if !command.is_empty() {
            let asked = args.pids.is_empty() && args.cgroup.is_none();
            anyhow::ensure!(asked, "a command is recorded alone: leave out --pid and --cgroup, or the command");
            let command = Launched::stopped(command)?;
            let pids = BTreeSet::from([command.pid()]);
            let text = format!("{} (process {} and those that it starts)", command.name(), command.pid());
            return Ok(Self {
                scope: Scope::Pids(pids.clone()),
                charged: Charged::Command(command.pid(), Watched::default()),
                command: Some(command),
                text,
            });
        }
        if let Some(path) = &args.cgroup {
            let directory = directory(path)?;
            let found = std::fs::metadata(&directory)
                .with_context(|| format!("--cgroup {}: look at {}", path.display(), directory.display()))?;
            // The number of its directory is a cgroup's id.
            let scope = Scope::Cgroups(BTreeSet::from([CgroupId(found.ino())]));
            let text = format!("cgroup {}", path.display());
            return Ok(Self { scope, command: None, charged: Charged::Cgroup(directory, Watched::default()), text });
        }
        for pid in &args.pids {
            // A typing error should not look like an idle process.
            let there = processes::look_up(Pid(*pid)).is_some();
            anyhow::ensure!(there, "--pid {pid}: there is no such process (`ps -e` lists them)");
        }
        let pids: BTreeSet<Pid> = args.pids.iter().copied().map(Pid).collect();
        let names: Vec<String> = pids.iter().map(ToString::to_string).collect();
        Ok(if pids.is_empty() {
            let text = "the whole host".to_owned();
            Self { scope: Scope::Host, command: None, charged: Charged::Host(Watched::default()), text }
        } else {
            let plural = if pids.len() == 1 { "process" } else { "processes" };
            let text = format!("{plural} {}", names.join(", "));
            Self { charged: Charged::of(&pids), scope: Scope::Pids(pids), command: None, text }
        })
    }

    /// The processes that were named.
    pub(super) fn pids(&self) -> BTreeSet<Pid> {
        match &self.scope {
            Scope::Pids(pids) => pids.clone(),
            Scope::Host | Scope::Cgroups(_) => BTreeSet::new(),
        }
    }

    /// CPU time that the kernel charged them with meanwhile, and whom.
    pub(super) fn charged(&self) -> Option<(Nanos, &'static str)> {
        self.charged.sum()
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        self.text.clone()
    }
}

impl Subject for Whom {
    fn attached(&mut self) -> anyhow::Result<()> {
        self.charged.look();
        self.command.as_ref().map_or(Ok(()), Launched::let_go)
    }

    fn is_over(&mut self) -> anyhow::Result<bool> {
        // Before it is reaped: then nobody knows any more what it was charged with.
        let over = self.command.as_ref().map_or(Ok(false), Launched::has_ended)?;
        self.charged.look();
        Ok(over)
    }

    fn ended(&mut self) -> anyhow::Result<()> {
        self.charged.look();
        self.command.as_mut().map_or(Ok(()), Launched::reap)
    }
}

/// Where a cgroup is: the path as it is in the file system, or as the kernel writes it.
fn directory(path: &Path) -> anyhow::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("find where cgroups are mounted")?;
    let mut mounted = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then_some(PathBuf::from(place))
    });
    let root = mounted.next().context(
        "--cgroup: no hierarchy of version 2 is mounted here (mount -t cgroup2 none /sys/fs/cgroup/unified makes one)",
    )?;
    if path.starts_with(&root) {
        return Ok(path.to_owned());
    }
    Ok(root.join(path.strip_prefix("/").unwrap_or(path)))
}

/// CPU time at the first look and at the last.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    first: Option<Nanos>,
    last: Option<Nanos>,
}

impl Watched {
    fn look(&mut self, now: Option<Nanos>) {
        self.first = self.first.or(now);
        self.last = now.or(self.last);
    }

    fn sum(&self) -> Option<Nanos> {
        Some(self.last?.since(self.first?))
    }
}

/// What the kernel charges.
#[derive(Debug)]
enum Charged {
    Processes(BTreeMap<Pid, Watched>),
    Command(Pid, Watched),
    Cgroup(PathBuf, Watched),
    Host(Watched),
}

impl Charged {
    fn of(pids: &BTreeSet<Pid>) -> Self {
        Self::Processes(pids.iter().map(|pid| (*pid, Watched::default())).collect())
    }

    /// Looks once more; the time of a process that has ended is the one last seen.
    fn look(&mut self) {
        match self {
            Self::Processes(pids) => pids.iter_mut().for_each(|(pid, seen)| seen.look(cpu_time::of_process(*pid))),
            Self::Command(pid, seen) => seen.look(cpu_time::of_process_and_reaped(*pid)),
            Self::Cgroup(directory, seen) => seen.look(cpu_time::of_cgroup(directory)),
            Self::Host(seen) => seen.look(cpu_time::of_host()),
        }
    }

    /// How much there was, and whom it was charged to.
    fn sum(&self) -> Option<(Nanos, &'static str)> {
        match self {
            Self::Processes(pids) => {
                let sums: Option<Vec<Nanos>> = pids.values().map(Watched::sum).collect();
                let whom = if pids.len() == 1 { "the process" } else { "the processes" };
                Some((sums?.into_iter().fold(Nanos(0), |sum, part| sum + part), whom))
            }
            Self::Command(_, seen) => Some((seen.sum()?, "the command and the children it waited for")),
            Self::Cgroup(_, seen) => Some((seen.sum()?, "the cgroup")),
            Self::Host(seen) => Some((seen.sum()?, "the host")),
        }
    }
}
