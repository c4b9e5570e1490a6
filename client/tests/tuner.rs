//! The tuner against a stand-in agent: it comes late, names bad pages, dies and comes back; the pipeline never waits.

#![expect(clippy::unwrap_used, reason = "a helper of a test reports what it could not do by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tidegate_client::abi::{KnobRange, Knobs, LeaseTerms, Mode, OnExpiry, Registration, RegistrationReply};
use tidegate_client::lease::Phase;
use tidegate_client::page::PageWriter;
use tidegate_client::tuner::{Contact, RegisterError, State};
use tidegate_client::{Bytes, Nanos, Tuner, clock};

const DEADLINE: Nanos = Nanos::from_millis(20_000);
/// So far off that it never ends within a test.
const FAR: u64 = u64::MAX / 2;

/// Answers every registration with the page of the moment.
struct Agent {
    socket: PathBuf,
    page: Arc<Mutex<PathBuf>>,
    stop: Option<(SyncSender<()>, JoinHandle<u32>)>,
}

impl Agent {
    fn start(socket: &Path, page: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let page = Arc::new(Mutex::new(page.to_owned()));
        let (stop, stopped) = sync_channel(1);
        let of_thread = Arc::clone(&page);
        let thread = std::thread::spawn(move || {
            let mut registrations = 0;
            for stream in listener.incoming() {
                if stopped.try_recv().is_ok() {
                    break;
                }
                let mut stream = stream.unwrap();
                let mut request = [0; 8192];
                let n = stream.read(&mut request).unwrap();
                assert!(request[..n].starts_with(b"PUT /v1/pipelines/ingest HTTP/1.1\r\n"));
                let reply = RegistrationReply {
                    name: "ingest".into(),
                    settings_page: of_thread.lock().unwrap().clone(),
                    values: vec!["batch_bytes".into(), "flush_interval_us".into()],
                    generation: 0,
                    mode: Mode::On,
                };
                let body = serde_json::to_string(&reply).unwrap();
                let reply = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(reply.as_bytes()).unwrap();
                registrations += 1;
            }
            registrations
        });
        Self { socket: socket.to_owned(), page, stop: Some((stop, thread)) }
    }

    /// Returns how many registrations it took.
    fn stop(mut self) -> u32 {
        let (stop, thread) = self.stop.take().unwrap();
        stop.send(()).unwrap();
        drop(std::os::unix::net::UnixStream::connect(&self.socket).unwrap());
        fs::remove_file(&self.socket).unwrap();
        thread.join().unwrap()
    }
}

fn registration(lease: LeaseTerms) -> Registration {
    Registration { mode: Mode::On, lease, ..Registration::new(Knobs::default()) }
}

/// Polls until `ready`, and says what was waited for when the deadline passes.
fn wait_for(what: &str, mut ready: impl FnMut() -> bool) {
    let end = clock::monotonic() + DEADLINE;
    while !ready() {
        assert!(clock::monotonic() < end, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

fn dirs() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (socket, page) = (dir.path().join("api.sock"), dir.path().join("page"));
    (dir, socket, page)
}

#[test]
fn an_agent_that_comes_late_is_found_and_its_settings_are_taken_at_once() {
    let (_dir, socket, page) = dirs();
    let mut tuner = Tuner::register_at(socket.clone(), "ingest", registration(LeaseTerms::default())).unwrap();
    wait_for("a failed contact", || matches!(tuner.status().contact, Contact::Failed(_)));
    assert_eq!(tuner.settings().batch, Bytes(256 << 10));
    let status = tuner.status();
    assert_eq!((status.state, status.generation), (State::Default, 0));
    assert!(status.to_string().contains("tidegate agent"), "{status}");

    let mut writer = PageWriter::open(&page, &[1, 1]).unwrap();
    writer.publish(7, &[8192, 5_000], FAR).unwrap();
    let agent = Agent::start(&socket, &page);
    wait_for("generation 7", || tuner.read().generation == 7);
    assert_eq!(tuner.settings().batch, Bytes(8192));
    assert_eq!(tuner.status().state, State::Connected);
    writer.publish(8, &[16_384, 5_000], FAR).unwrap();
    assert_eq!(tuner.settings().batch, Bytes(16_384), "a change is seen by the very next read");
    agent.stop();
}

#[test]
fn when_the_agent_dies_settings_are_held_then_given_up_then_taken_up_from_its_successor() {
    let (_dir, socket, page) = dirs();
    let terms = LeaseTerms { ttl_ms: 300, hold_ms: 400, on_expiry: OnExpiry::Default };
    let mut writer = PageWriter::open(&page, &[1, 1]).unwrap();
    let ends = clock::boottime() + Nanos::from_millis(600);
    writer.publish(1, &[8192, 5_000], ends.0).unwrap();
    let agent = Agent::start(&socket, &page);
    let mut tuner = Tuner::register_at(socket.clone(), "ingest", registration(terms)).unwrap();
    wait_for("the first settings", || tuner.read().phase == Phase::Live);
    agent.stop();

    wait_for("the hold", || tuner.read().phase == Phase::Held);
    assert!(clock::boottime() >= ends);
    assert_eq!(tuner.settings().batch, Bytes(8192));
    wait_for("the pipeline's own settings", || tuner.read().phase == Phase::Own);
    assert!(clock::boottime() >= ends + Nanos::from_millis(400));
    assert_eq!(tuner.settings().batch, Bytes(256 << 10));

    // The successor begins with a page of its own, as after a new boot of its directory.
    drop(writer);
    fs::remove_file(&page).unwrap();
    let mut writer = PageWriter::open(&page, &[1, 1]).unwrap();
    writer.publish(1, &[4096, 1_000], FAR).unwrap();
    let agent = Agent::start(&socket, &page);
    wait_for("the successor's settings", || tuner.settings().batch == Bytes(4096));
    assert_eq!(tuner.status().state, State::Connected);
    assert!(agent.stop() >= 1);
}

#[test]
fn a_lease_that_is_not_renewed_ends_for_a_pipeline_that_hardly_reads() {
    let (_dir, socket, page) = dirs();
    let terms = LeaseTerms { ttl_ms: 200, hold_ms: 0, on_expiry: OnExpiry::Default };
    let mut writer = PageWriter::open(&page, &[1, 1]).unwrap();
    let ends = clock::boottime() + Nanos::from_millis(500);
    writer.publish(1, &[8192, 5_000], ends.0).unwrap();
    let agent = Agent::start(&socket, &page);
    let mut tuner = Tuner::register_at(socket.clone(), "ingest", registration(terms)).unwrap();
    wait_for("a connection", || tuner.status().state == State::Connected);
    assert_eq!(tuner.read().phase, Phase::Live);
    wait_for("the end", || clock::boottime() > ends + Nanos::from_millis(200));
    assert_eq!(tuner.read().phase, Phase::Own, "the second read of all, far from the sixty-fourth");
    agent.stop();
}

#[test]
fn a_page_that_cannot_be_used_is_named_in_the_status_and_costs_nothing_else() {
    let (dir, socket, page) = dirs();
    fs::write(&page, [0; 100]).unwrap();
    let agent = Agent::start(&socket, &page);
    let mut tuner = Tuner::register_at(socket.clone(), "ingest", registration(LeaseTerms::default())).unwrap();
    wait_for("a bad page", || matches!(tuner.status().contact, Contact::BadPage(_)));
    let text = tuner.status().to_string();
    assert!(text.contains("default") && text.contains("100 bytes"), "{text}");
    assert_eq!(tuner.settings().batch, Bytes(256 << 10));

    let good = dir.path().join("good");
    PageWriter::open(&good, &[1, 1]).unwrap().publish(2, &[8192, 9], FAR).unwrap();
    *agent.page.lock().unwrap() = good;
    wait_for("the good page", || tuner.settings().batch == Bytes(8192));
    agent.stop();
}

#[test]
fn a_registration_that_contradicts_itself_is_refused_with_its_values() {
    let good = Knobs::default();
    let bad = Knobs { batch_bytes: KnobRange { min: 5, max: 4, default: 4 }, ..good };
    let register = |name: &str, knobs, lease| {
        let registration = Registration { lease, ..Registration::new(knobs) };
        Tuner::register_at("/nonexistent".into(), name, registration).map(drop).unwrap_err()
    };
    let error = register("ingest", bad, LeaseTerms::default());
    assert!(matches!(error, RegisterError::Bounds { knob: "batch_bytes", min: 5, .. }));
    assert!(error.to_string().contains("min 5"), "{error}");
    assert!(matches!(register("../x", good, LeaseTerms::default()), RegisterError::Name(_)));
    let none = LeaseTerms { ttl_ms: 0, ..LeaseTerms::default() };
    assert!(matches!(register("ingest", good, none), RegisterError::Lease));
}
