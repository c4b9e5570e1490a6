//! The binary as people and scripts meet it: messages that help, and the documented exit codes.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tidegate::source::clock::monotonic;
use tidegate::units::Nanos;

fn tidegate(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.args(args).env_remove("TIDEGATE_SOCKET").output().expect("run the binary")
}

fn check(args: &[&str], code: i32, says: &[&str]) {
    let Output { status, stdout, stderr } = tidegate(args);
    let said = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert_eq!(status.code(), Some(code), "{args:?}: {said}");
    for part in says {
        assert!(said.contains(part), "{args:?} does not say {part:?}: {said}");
    }
}

/// A running agent, ended when dropped.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["agent", "--no-cpu", "--socket"]).arg(socket).stderr(Stdio::null());
        let agent = Self(command.spawn().expect("start the agent"));
        let start = monotonic();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(monotonic().since(start) < Nanos::from_secs(20), "the agent does not answer");
            std::thread::yield_now();
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            self.0.wait().expect("wait for the agent");
        }
    }
}

#[test]
fn without_an_agent_the_message_names_the_socket_and_the_remedy() {
    let says = ["no agent at /nonexistent/s", "start `tidegate agent`", "--socket"];
    for command in [&["pipelines"][..], &["tune", "status"], &["tune", "why", "x"], &["tune", "pause"]] {
        check(&[command, &["--socket", "/nonexistent/s"]].concat(), 3, &says);
    }
}

#[test]
fn a_log_filter_that_cannot_be_read_is_told_and_the_command_goes_on() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let Output { status, stdout, stderr } =
        command.arg("metrics-names").env("TIDEGATE_LOG", "tidegate=loud").output().expect("run the binary");
    let told = String::from_utf8_lossy(&stderr);
    assert!(status.success() && !stdout.is_empty());
    assert_eq!(told.matches("TIDEGATE_LOG=\"tidegate=loud\"").count(), 1, "{told}");
    assert!(told.contains("`warn`"), "the level in force is named: {told}");
}

#[test]
fn wrong_arguments_are_named_with_the_nearest_right_one() {
    check(&["pipelinse"], 2, &["pipelinse", "pipelines"]);
    check(&["pipelines", "--sokcet", "/a"], 2, &["--sokcet", "--socket"]);
    check(&["tune", "pin", "x"], 2, &["--batch-bytes"]);
    check(&["tune", "mode", "x", "off"], 2, &["observe, canary, on or manual"]);
    check(&["tune", "bounds", "x"], 2, &["--batch-bytes"]);
    check(&["tune", "bounds", "x", "--flush-interval", "5ms"], 2, &["MIN..MAX", "500us..50ms"]);
    check(&["tune", "pin", "x", "--flush-interval", "20"], 2, &["unit", "20ms"]);
    check(&["agent", "--hz", "0"], 2, &["1..=999"]);
}

#[test]
fn a_faulty_configuration_keeps_the_agent_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("tidegate.toml");
    std::fs::write(&file, "[cpu]\nherz = 97\n").unwrap();
    let file = file.to_str().unwrap();
    check(&["agent", "--config", file], 1, &[file, "cpu.herz", "did you mean `cpu.hz`?"]);
    check(&["agent", "--config", "/nonexistent.toml"], 1, &["/nonexistent.toml", "--config"]);
}

#[test]
fn a_socket_that_cannot_be_had_is_named() {
    check(&["agent", "--socket", "/proc/nothing/here.sock"], 1, &["/proc/nothing", "create directory"]);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    check(&["agent", "--socket", file.to_str().unwrap()], 1, &["not a socket"]);
}

#[test]
fn the_preflight_is_json_on_request_and_its_exit_code_tells_the_worst() {
    let Output { status, stdout, .. } = tidegate(&["doctor", "-o", "json", "--socket", "/nonexistent/s"]);
    let checks: serde_json::Value = serde_json::from_slice(&stdout).expect("it is JSON");
    let worst = |wanted| checks.as_array().unwrap().iter().any(|c| c["status"] == wanted);
    let code = if worst("missing") { 6 } else { 5 };
    assert!(worst("degraded"), "no agent runs at that socket");
    assert_eq!(status.code(), Some(code));
}

#[test]
fn an_agent_that_is_asked_to_stop_leaves_no_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("api.sock");
    let at = socket.to_str().unwrap();
    let mut agent = Agent::start(&socket);
    check(&["pipelines", "--socket", at], 0, &["no pipeline"]);
    check(&["pipelines", "-o", "json", "--socket", at], 0, &["[]"]);
    check(&["pipelines", "show", "ingest", "--socket", at], 4, &["no pipeline named ingest", "404"]);
    check(&["pipelines", "show", "../health", "--socket", at], 4, &["bad-name"]);
    check(&["tune", "pause", "--socket", at], 0, &["paused"]);
    check(&["tune", "status", "--socket", at], 0, &["tuning paused"]);
    check(&["agent", "--socket", at], 1, &["in use"]);
    let pid = i32::try_from(agent.0.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(agent.0.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn the_names_of_the_metrics_are_one_a_line() {
    let Output { status, stdout, .. } = tidegate(&["metrics-names"]);
    let names = String::from_utf8(stdout).unwrap();
    assert!(status.success() && names.lines().all(|n| n.starts_with("tidegate_")), "{names}");
    assert!(names.lines().any(|n| n == "tidegate_pipeline_decisions_total"));
}
