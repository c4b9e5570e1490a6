//! Jobs in, side by side, outcomes out: starts their lanes, reads every lane's counters at its marks, measures who else
//! used the processors, and ends all. Knows nothing of blocks or statistics.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidegate_client::{Nanos, clock};

use super::children::Part;
use super::cpu::{Cpus, Reading, owner_of};
use super::job::{Downstream, Job};
use super::lane::{Failing, Lane, Outcome, Place, pause};
use crate::out::note;
use crate::sink::Listening;
use crate::stop::Stop;

/// From the start of the last process to the first record.
const SETTLE: Nanos = Nanos::from_millis(300);
/// What starting a lane may take on a busy machine.
const START: Nanos = Nanos::from_millis(400);
const LOOK: Nanos = Nanos::from_millis(200);

/// What lanes that ran at once measured.
pub(crate) struct Together {
    /// In the order of the jobs.
    pub(crate) outcomes: Vec<Outcome>,
    /// Share of all processors that others took meanwhile.
    pub(crate) foreign: f64,
    /// Cores that the lanes and the agent took.
    pub(crate) cores: f64,
}

/// Runs jobs in a directory of its own, gone with it.
pub(crate) struct Runner<'a> {
    stop: &'a Stop,
    directory: PathBuf,
    socket: PathBuf,
    cpus: Option<Cpus>,
    agent: Option<u32>,
    lanes: Cell<u64>,
    deadline: Option<Nanos>,
}

impl<'a> Runner<'a> {
    /// A directory under `parent`, and the agent at `socket` if there is one.
    pub(crate) fn new(stop: &'a Stop, parent: &Path, socket: &Path) -> Result<Self> {
        let directory = parent.join(format!("lab-compare-{}", std::process::id()));
        fs::create_dir_all(parent)
            .and_then(|()| fs::create_dir(&directory))
            .with_context(|| format!("create {} (name a directory of yours with --dir)", directory.display()))?;
        let agent = owner_of(socket);
        Ok(Self {
            stop,
            directory,
            socket: socket.to_owned(),
            cpus: Cpus::divide(),
            agent,
            lanes: Cell::new(0),
            deadline: None,
        })
    }

    /// The same with a span after which no more is begun than must be.
    pub(crate) fn hurried(mut self, span: Nanos) -> Self {
        self.deadline = Some(clock::monotonic() + span);
        self
    }

    /// Whether the time is up.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| clock::monotonic() >= deadline)
    }

    /// A name that no pipeline before it had: the agent would take it for the same one.
    fn name(&self, label: &str) -> String {
        let number = self.lanes.get() + 1;
        self.lanes.set(number);
        let plain: String =
            label.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).take(40).collect();
        format!("lab-{plain}-{number}")
    }

    /// Runs `jobs` at once, all of them with the same begin.
    pub(crate) fn together(&self, jobs: &[Job]) -> Result<Together> {
        self.run(jobs, Failing::Tells)
    }

    /// The same for jobs that may ask too much: a load that gives up before its acknowledgements is a result.
    pub(crate) fn together_whatever(&self, jobs: &[Job]) -> Result<Together> {
        self.run(jobs, Failing::Counts)
    }

    fn run(&self, jobs: &[Job], failing: Failing) -> Result<Together> {
        let server = self.start_server(jobs)?;
        let target = server.as_ref().map(|(_, target)| target.as_str());
        let (mut lanes, begin) = self.start_lanes(jobs, target)?;
        // Lanes and servers are children of this process.
        let ours: Vec<u32> = self.agent.into_iter().chain([std::process::id()]).collect();
        let (foreign, cores) = self.watch(&mut lanes, begin, &ours)?;
        let finish = |lane: Lane| lane.finish(self.stop, &self.directory, failing);
        let outcomes = lanes.into_iter().map(finish).collect::<Result<_>>()?;
        if let Some((mut part, _)) = server {
            part.terminate()?;
            part.wait()?;
        }
        Ok(Together { outcomes, foreign, cores })
    }

    /// Starts every lane; the first phases begin at the instant returned. It has to be known before a sink starts, so on
    /// a busy machine it is tried again with more time.
    fn start_lanes(&self, jobs: &[Job], server: Option<&str>) -> Result<(Vec<Lane>, Nanos)> {
        let warmup = jobs.iter().map(|j| j.warmup).max().unwrap_or_default();
        let lanes_n = u64::try_from(jobs.len()).unwrap_or(1);
        let cpus = self.cpus.as_ref();
        let place = Place { directory: &self.directory, socket: &self.socket, cpus, server };
        let mut late = Nanos(0);
        for patience in [1, 2, 4, 8] {
            let start = clock::monotonic() + SETTLE + Nanos(START.0 * (lanes_n + 1) * patience);
            let begin = start + warmup;
            let mut lanes = Vec::new();
            for job in jobs {
                lanes.push(Lane::start(job.clone(), self.name(&job.label), begin, &place)?);
            }
            for lane in &mut lanes {
                lane.wait_for_agent(self.stop)?;
            }
            for lane in &mut lanes {
                let own_start = Nanos(begin.0 - lane.job.warmup.0);
                lane.start_load(own_start, cpus)?;
            }
            late = clock::monotonic() - start;
            if late == Nanos(0) {
                return Ok((lanes, begin));
            }
        }
        bail!("the lanes took {} ms longer to start than they may: the machine is too busy", late.0 / 1_000_000)
    }

    /// Reads counters as their marks come; returns foreign share and own cores over the time of the phases.
    fn watch(&self, lanes: &mut [Lane], begin: Nanos, ours: &[u32]) -> Result<(f64, f64)> {
        let all = lanes.iter().enumerate();
        let mut marks: Vec<(Nanos, usize)> =
            all.flat_map(|(i, lane)| lane.job.marks.iter().map(move |at| (begin + *at, i))).collect();
        marks.sort_unstable();
        let end = marks.last().map_or(begin, |(at, _)| *at);
        let bar = progress(end - begin);
        pause(self.stop, begin)?;
        let before = Reading::take(ours).context("read /proc/stat")?;
        for (at, lane) in marks {
            while clock::monotonic() < at {
                pause(self.stop, (clock::monotonic() + LOOK).min(at))?;
                bar.set_position((clock::monotonic() - begin).0 / 1_000_000);
            }
            lanes[lane].look()?;
            if let Some(lost) = lanes[lane].mark()? {
                bar.suspend(|| note(&lost));
            }
        }
        let after = Reading::take(ours).context("read /proc/stat")?;
        bar.finish_and_clear();
        Ok((after.foreign_since(&before), after.cores_since(&before)))
    }

    /// Starts the server that the jobs flush to, if it is one.
    fn start_server(&self, jobs: &[Job]) -> Result<Option<(Part, String)>> {
        let Some(kind) = jobs.iter().find_map(|job| match &job.downstream {
            Downstream::Server(kind) => Some(kind.clone()),
            _ => None,
        }) else {
            return Ok(None);
        };
        let words = ["serve", &kind, "--dir", &self.directory.to_string_lossy()].map(str::to_owned);
        let mut part = Part::start(kind.clone(), &words)?;
        let listening: Listening = part.line()?;
        // One transaction a flush, or one pipeline of commands.
        let target = if kind == "postgres" { "postgres:copy" } else { "redis" };
        Ok(Some((part, format!("{target}:{}", listening.listening))))
    }
}

impl Drop for Runner<'_> {
    fn drop(&mut self) {
        // What cannot be removed was made unremovable by somebody else.
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// Progress, on a terminal only.
fn progress(span: Nanos) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(span.0 / 1_000_000), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3} %, {eta} left") {
        bar.set_style(style);
    }
    bar
}
