//! Exit codes: the outcome of a command in, a message on standard error and a number out.

use std::io::{self, Write as _};
use std::process::ExitCode;

use crate::cli::client::AskError;
use crate::serve::check::Status;

const FAILED: u8 = 1;
const NO_AGENT: u8 = 3;
const REFUSED: u8 = 4;
const DEGRADED: u8 = 5;
const MISSING: u8 = 6;

/// What the process ends with.
pub fn code(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => said(&error, number(&error)),
    }
}

/// Says what failed, and ends with that number.
pub fn said(error: &anyhow::Error, number: u8) -> ExitCode {
    // With standard error gone there is nobody left to tell; the number still tells.
    let said = writeln!(io::stderr(), "tidegate: {error:#}");
    drop(said);
    ExitCode::from(number)
}

/// Exit code of the preflight.
pub fn of_status(status: Status) -> ExitCode {
    match status {
        Status::Ok => ExitCode::SUCCESS,
        Status::Degraded => ExitCode::from(DEGRADED),
        Status::Missing => ExitCode::from(MISSING),
    }
}

fn number(error: &anyhow::Error) -> u8 {
    match error.downcast_ref::<AskError>() {
        Some(AskError::NoAgent { .. }) => NO_AGENT,
        Some(AskError::Refused(_)) => REFUSED,
        Some(AskError::Broken { .. }) | None => FAILED,
    }
}

/// `tidegate pipelines | head` ends early, and that is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
