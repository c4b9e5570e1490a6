//! The command line: arguments as typed in, one file a command. Parses, dispatches, and turns errors into exit codes.

pub mod agent;
pub mod client;
pub mod diff;
pub mod doctor;
mod evidence;
pub mod exit;
pub mod flame;
pub mod formats;
pub mod import;
pub mod pipelines;
pub mod read;
pub mod record;
pub mod replay;
mod shell;
pub mod simulate;
pub mod sockets;
pub mod span;
pub mod symbolizer;
pub mod syscalls;
pub mod table;
pub mod top;
pub mod tune;
pub mod watching;
mod why;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXIT_CODES: &str = "Exit codes:
  0  done; `doctor`: everything is there
  1  failed, the message says what, where and what to do
  2  the arguments are wrong
  3  no agent answers at the socket
  4  the agent refused the request, the message says why
  5  `doctor`: something works less well
  6  `doctor`: something does not work at all

Environment:
  TIDEGATE_SOCKET  path of the control socket, wherever the agent is asked
  TIDEGATE_LOG     what is logged on standard error, e.g. `debug` or `tidegate::serve=debug`";

/// Shows where the time of this host goes, and keeps batch size and flush interval of local pipelines right
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent::AgentArgs),
    Record(record::RecordArgs),
    Replay(replay::ReplayArgs),
    Flame(flame::FlameArgs),
    Top(top::TopArgs),
    Diff(diff::DiffArgs),
    Import(import::ImportArgs),
    Syscalls(syscalls::SyscallsArgs),
    Sockets(sockets::SocketsArgs),
    Pipelines(pipelines::PipelinesArgs),
    Doctor(doctor::DoctorArgs),
    Tune(tune::TuneArgs),
    Simulate(simulate::SimulateArgs),
    #[command(hide = true)]
    Symbolizer(symbolizer::SymbolizerArgs),
    /// Stop, and become a command when let go
    #[command(hide = true, name = crate::run::oneshot::command::LAUNCHER)]
    StopAndExec {
        /// The command
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<std::ffi::OsString>,
    },
    #[command(hide = true)]
    Completions(shell::CompletionsArgs),
    #[command(hide = true)]
    Man(shell::ManArgs),
    /// Print the names of all metrics, one a line
    #[command(hide = true)]
    MetricsNames,
}

/// Parses the arguments and does what they say.
pub fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    // By this name it is this very program, whatever has been installed over its file since.
    crate::symbolize::set_program("/proc/self/exe");
    log_to_stderr(&command);
    exit::code(run(&command))
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Agent(args) => agent::run(args),
        Command::Record(args) => return record::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Flame(args) => flame::run(args),
        Command::Top(args) => top::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Import(args) => import::run(args),
        Command::Syscalls(args) => syscalls::run(args),
        Command::Sockets(args) => sockets::run(args),
        Command::Pipelines(args) => pipelines::run(args),
        Command::Doctor(args) => return doctor::run(args),
        Command::Tune(args) => tune::run(args),
        Command::Simulate(args) => simulate::run(args),
        Command::Symbolizer(args) => symbolizer::run(*args),
        Command::StopAndExec { command } => {
            let (error, code) = crate::run::oneshot::command::stop_and_exec(command);
            return Ok(exit::said(&error, code));
        }
        Command::Completions(args) => shell::completions(args),
        Command::Man(args) => shell::man(args),
        Command::MetricsNames => shell::metrics_names(),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// The agent tells what it does; every other command speaks up only when something is wrong.
fn log_to_stderr(command: &Command) {
    let usual = if matches!(command, Command::Agent(_)) { "info" } else { "warn" };
    let filter = std::env::var_os("TIDEGATE_LOG").filter(|asked| !asked.is_empty()).and_then(|asked| {
        let bad = match asked.to_str().map(log_filter) {
            Some(Ok(filter)) => return Some(filter),
            Some(Err(bad)) => bad,
            None => "not UTF-8".to_owned(),
        };
        say_bad_log(&asked.to_string_lossy(), &bad, usual);
        None
    });
    let filter = filter.unwrap_or_else(|| tracing_subscriber::EnvFilter::new(usual));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
}

#[expect(clippy::print_stderr, reason = "there is no log yet in which it could be said")]
fn say_bad_log(asked: &str, bad: &str, usual: &str) {
    eprintln!("TIDEGATE_LOG={asked:?}: {bad} (want e.g. `debug` or `tidegate::serve=debug`); logging at `{usual}`");
}

/// What `TIDEGATE_LOG` asks for. A lone word that is nearly a level would be taken for the name of a module, and then
/// nothing at all would be logged.
fn log_filter(asked: &str) -> Result<tracing_subscriber::EnvFilter, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for word in asked.split(',').map(|word| word.trim().to_lowercase()).filter(|word| !word.contains(['=', ':', '['])) {
        let near = LEVELS.iter().map(|level| (strsim::damerau_levenshtein(level, &word), level)).min();
        if let Some((1..=2, level)) = near.filter(|_| word.len() > 2) {
            return Err(format!("no level is named {word}; did you mean {level}?"));
        }
    }
    tracing_subscriber::EnvFilter::try_new(asked).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_of_every_command_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_for_people_shows_an_example() {
        for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("tidegate "), "no example in the help of {}", command.get_name());
        }
    }

    #[test]
    fn a_log_level_that_is_none_is_told_and_not_taken_for_a_module() {
        for good in ["debug", "INFO", "tidegate::serve=debug", "warn,tidegate=trace", "tidegate", "hyper", "3"] {
            assert!(log_filter(good).is_ok(), "{good}");
        }
        for (bad, says) in
            [("debgu", "did you mean debug?"), ("info,wran", "wran"), ("tidegate=loud", "expected one of")]
        {
            let told = log_filter(bad).map(|_| ()).unwrap_err();
            assert!(told.contains(says), "{bad}: {told}");
        }
    }
}
