//! What the tests with real processes share: a part of the laboratory that runs, speaks JSON, and ends with its test.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A running part of the laboratory, ended with its test.
pub(crate) struct Part {
    pub(crate) child: Child,
    pub(crate) lines: BufReader<ChildStdout>,
}

impl Part {
    pub(crate) fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    pub(crate) fn line(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    pub(crate) fn address(&mut self) -> String {
        self.line()["listening"].as_str().unwrap().to_owned()
    }

    /// Asks for the end; returns the summary.
    pub(crate) fn stop(mut self) -> Value {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let summary = self.line();
        assert!(self.child.wait().unwrap().success());
        summary
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // One that has ended already needs no killing.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}
