//! Running other programs from the workspace: where it lies, what a program prints, how it ended.
//! Gives captured text or a log; never interprets what it ran.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::leash::{self, Leash};
use crate::ui;

/// The checked-out repository and the folder that cargo builds into.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
}

/// What a program that was followed left behind.
pub(crate) struct Followed {
    pub(crate) outcome: Outcome,
    /// Standard output and standard error, in the order in which they came.
    pub(crate) log: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
}

/// Where the lines of a followed program go while it runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    /// To the spinner on a terminal, to standard output elsewhere, so that a log of a remote run is whole.
    Lines,
    /// To the spinner only.
    Quiet,
}

impl Workspace {
    pub(crate) fn find() -> Result<Self> {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("xtask lies outside a workspace: run `cargo xtask` in the clone")?;
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
        Ok(Self { root: root.to_owned(), target })
    }

    /// A program to run at the root, with cargo's own folder of binaries on the path.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env("PATH", path_with_cargo_bin()).stdin(Stdio::null());
        command
    }

    pub(crate) fn cargo(&self) -> Command {
        self.command("cargo")
    }
}

/// Cargo's home, as cargo finds it.
pub(crate) fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME").map_or_else(
        || std::env::var_os("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from).join(".cargo"),
        PathBuf::from,
    )
}

fn path_with_cargo_bin() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let bin = cargo_home().join("bin");
    // Tools of the administrator (bpftool, syscount) lie where an ordinary user's path does not lead.
    let admin = [PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")];
    let all = std::iter::once(bin).chain(std::env::split_paths(&path)).chain(admin);
    std::env::join_paths(all).unwrap_or(path)
}

/// The file that a program name leads to.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&path_with_cargo_bin()).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// Standard output of a program that succeeds; its standard error is in the error when it does not.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output = command.output().with_context(|| format!("run `{shown}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{shown}` failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end with a view of its newest line.
pub(crate) fn follow(what: &str, command: &mut Command, echo: Echo) -> Result<Followed> {
    let progress = ui::Progress::start(what);
    let shown = show(command);
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    let leash = Leash::start(command.stdout(writer.try_clone().context("share a pipe")?).stderr(writer))?;
    // The command keeps its ends of the pipe open; without this the reader would wait for ever.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut log = String::new();
    for raw in BufReader::new(reader).split(b'\n') {
        let raw = raw.with_context(|| format!("read what `{shown}` prints"))?;
        let text = String::from_utf8_lossy(&raw);
        progress.latest(&text);
        if echo == Echo::Lines && !progress.is_shown() {
            ui::line(&text);
        }
        log.push_str(&text);
        log.push('\n');
    }
    let status = leash.wait()?;
    if leash::is_called_off() {
        bail!("interrupted in `{shown}`");
    }
    let outcome = if status.success() { Outcome::Success } else { Outcome::Failure };
    if outcome == Outcome::Failure && (progress.is_shown() || echo == Echo::Quiet) {
        drop(progress);
        ui::note(log.trim_end());
    }
    Ok(Followed { outcome, log })
}

/// Runs a program that has to succeed.
pub(crate) fn must(what: &str, command: &mut Command) -> Result<()> {
    let shown = show(command);
    match follow(what, command, Echo::Quiet)?.outcome {
        Outcome::Success => Ok(()),
        Outcome::Failure => bail!("{what}: `{shown}` failed; what it said stands above"),
    }
}

/// A command as a person would type it.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| quote(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=+:,@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Writes a file only when that changes it: cargo rebuilds by the time of the last change.
pub(crate) fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_followed_program_keeps_both_streams_in_order() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; echo three; exit 3"]);
        let followed = follow("try", &mut command, Echo::Quiet).expect("sh runs");
        assert_eq!(followed.log, "one\ntwo\nthree\n");
        assert_eq!(followed.outcome, Outcome::Failure);
    }

    #[test]
    fn a_shown_command_can_be_pasted() {
        let mut command = Command::new("echo");
        command.args(["a b", "it's", "plain"]);
        assert_eq!(show(&command), r"echo 'a b' 'it'\''s' plain");
    }

    #[test]
    fn a_failed_capture_says_what_the_program_said() {
        let error = capture(Command::new("sh").args(["-c", "echo why >&2; exit 1"])).expect_err("it fails");
        assert!(error.to_string().contains("why"), "{error}");
    }
}
