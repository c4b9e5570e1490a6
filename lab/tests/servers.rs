//! Real database servers as sinks: every record stands in the table or the stream, once, and nothing stays behind when
//! the laboratory is gone.

#![expect(clippy::unwrap_used, reason = "a helper of a test reports what it could not do by panicking")]

mod kit;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use postgres::{Client, Config, NoTls};

use kit::Part;

const RECORDS: u64 = 100 + 4_000;

/// A folder that a server's ordinary user can pass through, or cannot.
fn room_of_mode(mode: u32) -> tempfile::TempDir {
    let room = tempfile::tempdir().unwrap();
    std::fs::set_permissions(room.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    room
}

fn room() -> tempfile::TempDir {
    room_of_mode(0o755)
}

/// Starts a server in `room`; `None`, and a word on it, where its programs are not installed.
#[expect(clippy::print_stdout, reason = "whoever runs the tests is told what was not tested")]
fn serve(kind: &str, room: &Path) -> Option<(Part, String)> {
    let installed = match kind {
        "postgres" => Path::new("/usr/lib/postgresql").is_dir(),
        _ => ["redis-server", "redis-check-rdb"].iter().any(|program| Path::new("/usr/bin").join(program).exists()),
    };
    if !installed {
        println!("skipped: no {kind} here (`cargo xtask setup` installs it)");
        return None;
    }
    let mut server = Part::start(&["serve", kind, "--dir", &room.to_string_lossy()]);
    let at = server.address();
    Some((server, at))
}

/// A load through a pipeline named `name` into `sink`; every record is acknowledged.
fn fill(sink: &str, name: &str) {
    let mut pipeline = Part::start(&[
        "pipeline",
        "--listen",
        "127.0.0.1:0",
        "--sink",
        sink,
        "--policy",
        "batcher",
        "--interval",
        "10ms",
        "--name",
        name,
    ]);
    let address = pipeline.address();
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
        .args(["load", "--connect", &address, "--phases", "100x1s,4000x1s", "--record-bytes", "120"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stats = pipeline.stop();
    assert_eq!((&stats["events_out"], &stats["sink_errors"]), (&RECORDS.into(), &0.into()), "{stats}");
    assert!(stats["flushes"].as_u64().unwrap() < RECORDS / 4, "many records a flush: {stats}");
}

fn ask(folder: &str) -> Client {
    Config::new().host_path(folder).user("postgres").dbname("postgres").connect(NoTls).unwrap()
}

#[test]
fn postgres_has_every_record_once_by_copy_and_by_insert() {
    let room = room();
    let Some((server, folder)) = serve("postgres", room.path()) else { return };
    for how in ["copy", "insert"] {
        fill(&format!("postgres:{how}:{folder}"), how);
        let question = format!(
            "SELECT count(*), count(DISTINCT sequence), max(sequence), min(length(payload)), max(length(payload)), \
             min(position('\\x20'::bytea IN payload)) FROM tidegate_lab_{how}"
        );
        let row = ask(&folder).query_one(question.as_str(), &[]).unwrap();
        let got: [i64; 3] = [0, 1, 2].map(|column| row.get(column));
        let records = RECORDS.cast_signed();
        assert_eq!(got, [records, records, records - 1], "{how}");
        assert_eq!([3, 4].map(|column| row.get::<_, i32>(column)), [100, 100], "{how}: the payload is whole");
        assert!(row.get::<_, i32>(5) > 0, "{how}: the payload is text as it was sent");
    }
    end(server, room.path());
}

#[test]
fn a_pipeline_that_starts_again_begins_with_an_empty_table() {
    let room = room();
    let Some((server, folder)) = serve("postgres", room.path()) else { return };
    let sink = format!("postgres:copy:{folder}");
    fill(&sink, "twice");
    fill(&sink, "twice");
    let rows: i64 = ask(&folder).query_one("SELECT count(*) FROM tidegate_lab_twice", &[]).unwrap().get(0);
    assert_eq!(rows, RECORDS.cast_signed());
    end(server, room.path());
}

/// One connection, twenty milliseconds a statement, a hundred a second asked for: most of them have to wait for longer and
/// longer, and a generator that waited with them would not see it.
#[test]
fn statements_that_find_no_connection_free_count_their_wait() {
    let room = room();
    let Some((server, folder)) = serve("postgres", room.path()) else { return };
    let load = |connections: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
            .args(["load", "--postgres", &folder, "--statement", "SELECT pg_sleep(0.02)", "--json", "-"])
            .args(["--connections", connections, "--traffic", "even@100x2s"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["acknowledged"], 200);
        report["by_event"]["p50_ms"].as_f64().unwrap()
    };
    let (held_up, free) = (load("1"), load("8"));
    assert!(held_up > 900.0, "the median waits a second: {held_up} ms");
    assert!((20.0..300.0).contains(&free), "{free} ms where a connection is always free");
    end(server, room.path());
}

#[test]
fn a_statement_that_cannot_be_is_refused_before_the_load_begins() {
    let room = room();
    let Some((server, folder)) = serve("postgres", room.path()) else { return };
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
        .args(["load", "--postgres", &folder, "--statement", "SELEKT 1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("SELEKT 1") && error.contains("syntax"), "{error}");
    end(server, room.path());
}

#[test]
fn redis_has_every_record_once() {
    let room = room();
    let Some((server, socket)) = serve("redis", room.path()) else { return };
    fill(&format!("redis:{socket}"), "stream");
    let at = redis::ConnectionAddr::Unix(socket.into());
    let mut connection = redis::Client::open(at).unwrap().get_connection().unwrap();
    let length: u64 = redis::cmd("XLEN").arg("tidegate-lab:stream").query(&mut connection).unwrap();
    assert_eq!(length, RECORDS);
    end(server, room.path());
}

/// Asked to stop, a server ends in order and takes its folder with it.
fn end(server: Part, room: &Path) {
    let pid = rustix::process::Pid::from_child(&server.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut server = server;
    assert!(server.child.wait().unwrap().success());
    assert_eq!(std::fs::read_dir(room).unwrap().count(), 0, "nothing stays behind");
}

#[test]
fn a_killed_laboratory_leaves_no_server_and_no_folder() {
    for kind in ["postgres", "redis"] {
        let room = room();
        let Some((mut starter, _)) = serve(kind, room.path()) else { continue };
        starter.child.kill().unwrap();
        starter.child.wait().unwrap();
        wait_until(|| std::fs::read_dir(room.path()).unwrap().count() == 0);
    }
}

#[expect(clippy::disallowed_methods, reason = "real processes are waited for, between looks at what they leave")]
fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..400 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("waited in vain");
}

#[test]
fn a_folder_that_is_out_of_reach_is_refused_with_a_remedy() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: an ordinary user's server runs as that user, who reaches its own folders");
        return;
    }
    let room = room_of_mode(0o700);
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate-lab"))
        .args(["serve", "redis", "--dir"])
        .arg(room.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    let no_server = error.contains("redis-tools");
    assert!(!output.status.success() && (no_server || error.contains("like /tmp")), "{error}");
    assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 0, "nothing stays behind");
}
