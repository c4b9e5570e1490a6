//! `tidegate doctor`: what this host allows, what is degraded, how to fix it.

use std::io::Write as _;
use std::process::ExitCode;

use super::client::AgentAt;
use super::exit;
use super::watching::Output;
use crate::doctor::{Asker, Doctor, worst};
use crate::serve::check::{Check, Status};

/// Say what this host allows, what is degraded, and how to fix it
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Changes nothing. Exit code 0 if everything is there, 5 if something works less well, 6 if something does not work.

Examples:
  sudo tidegate doctor
  tidegate doctor -o json | jq '.[] | select(.status != \"ok\")'"
)]
pub struct DoctorArgs {
    #[command(flatten)]
    at: AgentAt,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
pub fn run(args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let checks = Doctor::here(&args.at.socket, Asker::Command).checks();
    let mut out = std::io::stdout().lock();
    match args.output {
        Output::Json => {
            serde_json::to_writer_pretty(&mut out, &checks)?;
            writeln!(out)?;
        }
        Output::Table => write!(out, "{}", text(&checks))?,
    }
    Ok(exit::of_status(worst(&checks)))
}

fn text(checks: &[Check]) -> String {
    let width = checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { name, status, cause, remedy } in checks {
        text.push_str(&format!("{status:<8}  {name:<width$}  {cause}\n"));
        if let Some(remedy) = remedy {
            text.push_str(&format!("{:<8}  {:<width$}  fix: {remedy}\n", "", ""));
        }
    }
    let count = |wanted| checks.iter().filter(|c| c.status == wanted).count();
    let (degraded, missing) = (count(Status::Degraded), count(Status::Missing));
    text.push_str(&format!("{} ok, {degraded} degraded, {missing} missing\n", count(Status::Ok)));
    text
}
