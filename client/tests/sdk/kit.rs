//! The programs that speak for the C header and the Python module, built or found, and talked to line by line.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

/// An SDK under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sdk {
    /// C, with the sanitizers of addresses and of undefined behaviour.
    C,
    /// C, with the sanitizer of threads.
    CThreads,
    /// Python.
    Python,
}

/// This folder.
fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(super::FOLDER)
}

impl Sdk {
    /// The program; `None`, and a line that says so, where this host has no compiler or interpreter.
    pub(crate) fn program(self) -> Option<Command> {
        static C: OnceLock<Option<PathBuf>> = OnceLock::new();
        static THREADS: OnceLock<Option<PathBuf>> = OnceLock::new();
        match self {
            Self::C => C.get_or_init(|| build("address,undefined")).as_ref().map(Command::new),
            // Its shadow memory has no room in some layouts of an address space: one without chance has.
            Self::CThreads => THREADS.get_or_init(|| build("thread")).as_ref().map(|program| {
                let mut command = Command::new("setarch");
                command.arg("-R").arg(program);
                command
            }),
            Self::Python => {
                let mut command = Command::new("python3");
                if command.arg("--version").stdout(Stdio::null()).status().is_err() {
                    return left_out("python3");
                }
                let mut command = Command::new("python3");
                command.args(["-B", "-W", "error"]).arg(here().join("probe.py"));
                Some(command)
            }
        }
    }

    /// Starts the program.
    pub(crate) fn start(self, arguments: &[&str]) -> Option<Probe> {
        let mut child = self
            .program()?
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program is there");
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Some(Probe { child, input: Some(input), output: BufReader::new(output) })
    }
}

fn left_out(program: &str) -> Option<Command> {
    writeln!(std::io::stderr(), "left out: no {program} on this host (cargo xtask setup)").ok();
    None
}

fn build(sanitizers: &str) -> Option<PathBuf> {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("probe-{}-{sanitizers}", std::process::id()));
    let mut gcc = Command::new("gcc");
    gcc.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-g", "-fno-sanitize-recover=all"]);
    gcc.arg(format!("-fsanitize={sanitizers}")).arg("-pthread").arg(here().join("probe.c")).arg("-o").arg(&out);
    match gcc.status() {
        Ok(status) => assert!(status.success(), "gcc: {status}"),
        Err(_none) => {
            left_out("gcc");
            return None;
        }
    }
    Some(out)
}

/// A program that answers.
pub(crate) struct Probe {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Probe {
    /// Says a line.
    pub(crate) fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("not ended yet");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("the program listens");
    }

    /// Hears a line.
    pub(crate) fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("read a line");
        assert!(!line.is_empty(), "the program ended early: {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    /// Says a line and hears one.
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    /// Ends its input; what it has left to say. A sanitizer that found something makes it fail.
    pub(crate) fn end(mut self) -> String {
        drop(self.input.take());
        let rest: Vec<String> = (&mut self.output).lines().map_while(Result::ok).collect();
        let status = self.child.wait().expect("wait for the program");
        assert!(status.success(), "the program: {status}");
        rest.join("\n")
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        if self.input.is_some() {
            // Its end is told by the failed test already.
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}
