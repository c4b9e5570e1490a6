//! A PostgreSQL of the bench's own, and either generator run against it: a rate and a span in, latencies out. Everything
//! that is started here ends with it.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::figures::Samples;
use super::{CONNECTIONS, Generator};
use crate::leash::{Leash, poll};
use crate::setup;
use crate::shell::{self, Workspace};

/// A range of an index: work for the processor, of nearly the same length each time, so that what differs is the generator;
/// and about a millisecond of it, so that what the two clients do for a statement (ours takes some 25 µs longer at the
/// median, by the library that it speaks through) does not decide what is asked, which is how they account for waiting.
pub(super) const STATEMENT: &str =
    "SELECT sum(abalance), max(filler) FROM pgbench_accounts WHERE aid BETWEEN 20000 AND 25000";
/// A new cluster is made in this, on a slow disk too.
const PATIENCE: Duration = Duration::from_secs(90);

/// A server and what measures it. Fields end in this order: the server first, its folder last.
pub(super) struct Stage<'a> {
    workspace: &'a Workspace,
    lab: PathBuf,
    pgbench: PathBuf,
    socket: String,
    _server: Leash,
    folder: tempfile::TempDir,
}

#[derive(Deserialize)]
struct Listening {
    listening: String,
}

#[derive(Deserialize)]
struct Report {
    missing: u64,
    slices: Vec<Slice>,
}

#[derive(Deserialize)]
struct Slice {
    /// Microseconds, and how many statements took them.
    counts: Vec<(u64, usize)>,
}

impl<'a> Stage<'a> {
    pub(super) fn set(workspace: &'a Workspace) -> Result<Self> {
        let Some(programs) = setup::postgres_programs() else {
            bail!("no PostgreSQL with pgbench is installed: `cargo xtask setup` installs Debian's package postgresql");
        };
        let mut build = workspace.cargo();
        shell::must("build tidegate-lab in release", build.args(["build", "--release", "-p", "tidegate-lab"]))?;
        let lab = workspace.target.join("release/tidegate-lab");
        let folder = tempfile::Builder::new().prefix("tidegate-bench-load-").tempdir().context("make a folder")?;
        // A root user's server runs as an ordinary one, who has to pass through.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
            .context("open a folder to pass through")?;
        let said = folder.path().join("serve.out");
        let mut serve = workspace.command(&lab);
        serve.args(["serve", "postgres", "--dir"]).arg(folder.path());
        serve.stdout(File::create(&said).with_context(|| format!("create {}", said.display()))?);
        let server = Leash::start(&mut serve)?;
        let mut line = String::new();
        let ready = poll(PATIENCE, || {
            line = fs::read_to_string(&said).with_context(|| format!("read {}", said.display()))?;
            if !line.ends_with('\n') && server.has_ended()? {
                bail!("the server did not start; its own words stand above");
            }
            Ok(line.ends_with('\n'))
        })?;
        if !ready {
            bail!("the server does not answer within {} s", PATIENCE.as_secs());
        }
        let Listening { listening: socket } = serde_json::from_str(&line).context("read where the server listens")?;
        let stage = Self { workspace, lab, pgbench: programs.join("pgbench"), socket, _server: server, folder };
        fs::write(stage.folder.path().join("statement.sql"), format!("{STATEMENT};\n"))
            .context("write the statement")?;
        shell::must("fill PostgreSQL", stage.pgbench().args(["-i", "-q", "-s", "1", "postgres"]))?;
        Ok(stage)
    }

    fn pgbench(&self) -> std::process::Command {
        let mut command = self.workspace.command(&self.pgbench);
        command.args(["-h", &self.socket, "-U", "postgres"]);
        command
    }

    /// Mean time of a statement on a server that does nothing else, microseconds.
    pub(super) fn service_time(&self) -> Result<f64> {
        let log = self.log_of(&["-c", "1", "-T", "3"])?;
        let samples = read_log(&log)?;
        if samples.len() < 10 {
            bail!("pgbench executed {} statements in 3 s: too slow to measure anything by", samples.len());
        }
        Ok(samples.mean())
    }

    /// Latencies of a run.
    pub(super) fn latencies(&self, generator: Generator, rate: u32, seconds: u32, seed: usize) -> Result<Samples> {
        let samples = match generator {
            Generator::Tidegate => self.ours(rate, seconds, seed)?,
            Generator::Pgbench => {
                let (clients, rate, seconds, seed) =
                    (CONNECTIONS.to_string(), rate.to_string(), seconds.to_string(), format!("--random-seed={seed}"));
                // One thread, so that one schedule feeds all connections.
                let log = self.log_of(&["-c", &clients, "-j", "1", "-R", &rate, "-T", &seconds, &seed])?;
                read_log(&log)?
            }
        };
        let due = f64::from(rate) * f64::from(seconds);
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let share = samples.len() as f64 / due;
        if !(0.7..1.3).contains(&share) {
            bail!("{generator:?} executed {} statements where {due} were due", samples.len());
        }
        Ok(samples)
    }

    fn ours(&self, rate: u32, seconds: u32, seed: usize) -> Result<Samples> {
        let json = self.folder.path().join("ours.json");
        let mut load = self.workspace.command(&self.lab);
        load.args(["load", "--postgres", &self.socket, "--statement", STATEMENT, "--slices"]);
        load.args(["--connections", &CONNECTIONS.to_string(), "--seed", &seed.to_string()]);
        load.args(["--traffic", &format!("poisson@{rate}x{seconds}s"), "--json"]).arg(&json);
        self.follow(&mut load)?;
        let text = fs::read_to_string(&json).with_context(|| format!("read {}", json.display()))?;
        let report: Report = serde_json::from_str(&text).context("read the report of a load")?;
        if report.missing > 0 {
            bail!("{} statements were never executed", report.missing);
        }
        let counts = report.slices.into_iter().flat_map(|slice| slice.counts);
        #[expect(clippy::cast_precision_loss, reason = "microseconds far below 2^52")]
        let values = counts.flat_map(|(micros, count)| std::iter::repeat_n(micros as f64, count));
        Ok(Samples::new(values.collect()))
    }

    /// Runs pgbench on the statement and says where its log lies.
    fn log_of(&self, args: &[&str]) -> Result<PathBuf> {
        let logs = self.folder.path().join("logs");
        if logs.exists() {
            fs::remove_dir_all(&logs).context("remove the log of the run before")?;
        }
        fs::create_dir(&logs).context("make a folder for logs")?;
        let mut run = self.pgbench();
        run.args(["-n", "-M", "prepared", "-l", "--log-prefix"]).arg(logs.join("log")).args(args);
        run.arg("-f").arg(self.folder.path().join("statement.sql")).arg("postgres");
        self.follow(&mut run)?;
        Ok(logs)
    }

    fn follow(&self, command: &mut std::process::Command) -> Result<()> {
        let shown = shell::show(command);
        let said = self.folder.path().join("said");
        let file = File::create(&said).context("make a file for what a program says")?;
        command.stdout(file.try_clone().context("share a file")?).stderr(file);
        let status = Leash::start(command)?.wait()?;
        if !status.success() {
            bail!("`{shown}` failed ({status}): {}", fs::read_to_string(&said).unwrap_or_default().trim());
        }
        Ok(())
    }
}

/// Latencies of pgbench's logs in a folder.
fn read_log(logs: &Path) -> Result<Samples> {
    let mut micros = Vec::new();
    for entry in fs::read_dir(logs).context("read pgbench's logs")? {
        let path = entry.context("read pgbench's logs")?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for line in text.lines() {
            let latency = latency_of(line).with_context(|| format!("pgbench's log says {line:?}"))?;
            micros.push(latency);
        }
    }
    Ok(Samples::new(micros))
}

/// The third word of a line: the time of a transaction in microseconds, counted, under `-R`, from when it was due; the last
/// word, how late it began, is in it.
fn latency_of(line: &str) -> Option<f64> {
    line.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// Processes that wanted to run in the last minute.
pub(super) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latency_of_a_logged_transaction_is_its_third_word() {
        assert_eq!(latency_of("1 0 2376 0 1795291089 135862 69"), Some(2_376.0));
        assert_eq!(latency_of("1 0 skipped 0 1795291089 135862 69"), None);
    }
}
