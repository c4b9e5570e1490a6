//! `tidegate agent`: the daemon.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::config::{Config, Switch};
use crate::doctor::{Asker, Doctor};
use crate::run::live::{RunOptions, asked_to_stop, run as run_agent};

/// Run the agent: watch this host, serve the control socket, tune the pipelines that register
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "Runs in the foreground and logs on standard error. SIGTERM or an interrupt ends it cleanly: the socket goes, the
settings pages stay, and pipelines hold their settings until the lease ends.

Examples:
  sudo tidegate agent
  sudo tidegate agent --socket /run/tidegate/api.sock --record /var/tmp/today.events
  tidegate agent --socket $XDG_RUNTIME_DIR/tidegate.sock     without root: no probes, tunes from reports"
)]
pub struct AgentArgs {
    /// Configuration file [default: /etc/tidegate/tidegate.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Control socket to serve; its directory also gets the settings pages
    #[arg(long, value_name = "PATH", env = "TIDEGATE_SOCKET")]
    socket: Option<PathBuf>,
    /// Directory for the history of profiles [default: /var/lib/tidegate, or `state` beside a socket of one's own]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Keep no history on disk: the last minutes only
    #[arg(long, conflicts_with = "state")]
    no_history: bool,
    /// Record everything that is seen, to be replayed
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// CPU samples per second and CPU; a prime keeps out of step with periodic work
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=999))]
    hz: Option<u64>,
    /// Sample CPU stacks only while somebody asks for them
    #[arg(long)]
    no_cpu: bool,
    /// Start with tuning paused
    #[arg(long)]
    paused: bool,
}

/// Runs the command.
pub fn run(args: &AgentArgs) -> anyhow::Result<()> {
    let config = settings(args)?;
    let preflight = Doctor::here(&config.socket, Asker::Agent).preflight();
    let options = RunOptions { record: args.record.clone(), preflight };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    runtime.block_on(run_agent(&config, options, asked_to_stop()))?;
    Ok(())
}

/// The file's settings with the flags laid over them.
fn settings(args: &AgentArgs) -> anyhow::Result<Config> {
    let mut config = Config::load(args.config.as_deref())?;
    if let Some(socket) = &args.socket {
        let socket = std::path::absolute(socket).with_context(|| format!("find {}", socket.display()))?;
        config.move_socket(&socket);
    }
    if let Some(state) = &args.state {
        config.move_state(&std::path::absolute(state).with_context(|| format!("find {}", state.display()))?);
    }
    if args.no_history {
        config.history = None;
    }
    config.hertz = args.hz.unwrap_or(config.hertz);
    if args.no_cpu {
        config.cpu = Switch::Off;
    }
    if args.paused {
        config.tune = Switch::Off;
    }
    Ok(config)
}
