//! `tidegate doctor`: what this host allows, what is degraded, how to fix it.

use std::io::Write;
use std::process::ExitCode;

use super::client::AgentAt;
use super::exit;
use super::watching::Output;
use crate::doctor::{Asker, Doctor, worst};
use crate::serve::check::{Check, Status};

/// Say what this host allows, what is degraded, and how to fix it
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Changes nothing; with --try probes are attached for a few seconds. Exit code 0 if everything is there, 5 if something works less well, 6 if something does not work.

Examples:
  sudo tidegate doctor
  sudo tidegate doctor --try
  tidegate doctor -o json | jq '.[] | select(.status != \"ok\")'"
)]
pub struct DoctorArgs {
    #[command(flatten)]
    at: AgentAt,
    /// Attach every kind of probe for a moment and see whether what it should see is seen; needs root
    #[arg(long = "try")]
    attempt: bool,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let doctor = Doctor::here(&args.at.socket, Asker::Command);
    let checks = if args.attempt { doctor.checks_and_trial() } else { doctor.checks() };
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, &checks)?;
            writeln!(out)?;
        }
        Output::Table => print(&mut out, &checks)?,
    }
    Ok(exit::of_status(worst(&checks)))
}

fn print(out: &mut impl Write, checks: &[Check]) -> std::io::Result<()> {
    let width = checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    for Check { name, status, cause, remedy } in checks {
        writeln!(out, "{status:<8}  {name:<width$}  {cause}")?;
        if let Some(remedy) = remedy {
            writeln!(out, "{:<8}  {:<width$}  fix: {remedy}", "", "")?;
        }
    }
    let count = |wanted| checks.iter().filter(|c| c.status == wanted).count();
    let (degraded, missing) = (count(Status::Degraded), count(Status::Missing));
    writeln!(out, "{} ok, {degraded} degraded, {missing} missing", count(Status::Ok))
}
