//! The whole agent in this process, on this host without probes: a pipeline registers, reports, is tuned, and finds its
//! settings again after the agent has been replaced.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::config::{Config, Switch};
use tidegate::doctor::{Asker, Doctor};
use tidegate::run::live::{Report, RunOptions, run};
use tidegate_client::abi::ReportWord;
use tidegate_client::page::{PageReader, Snapshot};
use tidegate_client::report::ReportPage;
use tokio::time::Instant;

use crate::serve_kit::{Answer, raw};

/// Nothing here takes longer on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Host {
    pub(crate) directory: TempDir,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory for the test") }
    }

    fn config(&self) -> Config {
        let mut config = Config { cpu: Switch::Off, ..Config::default() };
        config.move_socket(&self.socket());
        config
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    /// Runs an agent while `test` runs, then ends it as a signal would.
    pub(crate) async fn with_agent(&self, record: Option<PathBuf>, test: impl AsyncFnOnce(&Path)) -> Report {
        let config = self.config();
        let preflight = Doctor::here(&config.socket, Asker::Agent).preflight();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let agent = run(&config, RunOptions { record, preflight }, async { stopped.await.unwrap_or(()) });
        let tested = async {
            until("the agent answers", async || config.socket.exists()).await;
            test(&config.socket).await;
            drop(stop);
        };
        tokio::join!(agent, tested).0.expect("the agent runs")
    }
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Answer {
    let len = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}");
    raw(socket, head.as_bytes()).await
}

pub(crate) async fn get(socket: &Path, path: &str) -> Value {
    let answer = ask(socket, "GET", path, "").await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

fn registration(report: &Path, mode: &str) -> String {
    json!({
        "knobs": {
            "batch_bytes": {"min": 4096, "max": 524_288, "default": 262_144},
            "flush_interval_us": {"min": 1_000, "max": 250_000, "default": 250_000},
        },
        "mode": mode,
        "report": report,
        "lease": {"ttl_ms": 1_000, "hold_ms": 1_000},
    })
    .to_string()
}

/// Reports what a pipeline under some load would, 400 events of 512 bytes at a time.
fn report_load(page: &ReportPage, settings: Snapshot) {
    page.add(ReportWord::EventsIn, 400);
    page.add(ReportWord::BytesIn, 400 * 512);
    page.add(ReportWord::EventsOut, 400);
    page.add(ReportWord::BytesOut, 400 * 512);
    page.add(ReportWord::Flushes, 1);
    page.add(ReportWord::FlushesByAge, 1);
    page.add(ReportWord::FlushNs, 10_000_000);
    page.latency(tidegate_client::units::Nanos::from_millis(20), 400);
    page.set(ReportWord::QueueCapacity, 64 << 20);
    page.set(ReportWord::Generation, settings.generation);
    page.set(ReportWord::BatchBytes, settings.values[0]);
    page.set(ReportWord::FlushIntervalUs, settings.values[1]);
    page.touch();
}

fn now_boot() -> u64 {
    tidegate::source::clock::boottime().0
}

#[tokio::test]
async fn a_pipeline_is_tuned_from_its_reports_and_taken_up_again_by_the_next_agent() {
    let host = Host::new();
    let report = ReportPage::create(host.directory.path(), "ingest").unwrap();
    let body = registration(report.path(), "on");
    let mut left = Snapshot::default();
    let mut inode = 0;

    let first = host.with_agent(Some(host.directory.path().join("run.events")), async |socket| {
        let answer = ask(socket, "PUT", "/v1/pipelines/ingest", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let page = PathBuf::from(answer.json()["settings_page"].as_str().unwrap());
        inode = std::fs::metadata(&page).unwrap().ino();
        let reader = PageReader::open(&page).unwrap();
        until("a decision is applied", async || {
            report_load(&report, reader.read().unwrap());
            reader.read().unwrap().generation > answer.json()["generation"].as_u64().unwrap()
        })
        .await;
        // A change between the two looks is rare; then they are taken again. The load goes on: its end is a change.
        until("page and socket say the same", async || {
            report_load(&report, reader.read().unwrap());
            left = reader.read().unwrap();
            let said = get(socket, "/v1/pipelines/ingest/settings").await;
            said["generation"] == left.generation
                && said["batch_bytes"] == left.values[0]
                && said["flush_interval_us"] == left.values[1]
        })
        .await;
        assert!((4096..=524_288).contains(&left.values[0]) && (1_000..=250_000).contains(&left.values[1]), "{left:?}");
        assert!(left.expires_boottime_ns > now_boot(), "the lease has lapsed");
        let decisions = get(socket, "/v1/pipelines/ingest/decisions").await;
        let newest = decisions.as_array().unwrap().iter().rfind(|d| d["generation"] == left.generation).unwrap();
        assert_eq!(newest["batch_bytes"], left.values[0]);
        assert!(
            newest["signals"]["rate"].as_f64().unwrap() > 0.0 && newest["explanation"].as_str().unwrap().len() > 10
        );
    });
    let first = first.await;
    assert!(first.decisions > 0 && first.published > 0, "{first:?}");
    assert!(!host.socket().exists(), "the socket stays behind");
    assert!(std::fs::metadata(host.directory.path().join("run.events")).unwrap().len() > 4096);

    host.with_agent(None, async |socket| {
        let answer = ask(socket, "PUT", "/v1/pipelines/ingest", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let page = PathBuf::from(answer.json()["settings_page"].as_str().unwrap());
        assert_eq!(std::fs::metadata(&page).unwrap().ino(), inode, "the page is another file");
        let now = PageReader::open(&page).unwrap().read().unwrap();
        assert!(now.generation >= left.generation, "{now:?} after {left:?}");
        assert!(now.expires_boottime_ns > now_boot(), "the lease is not renewed");
    })
    .await;
}

#[tokio::test]
async fn a_report_that_is_cut_short_or_lies_does_no_harm_and_is_told() {
    let host = Host::new();
    let report = ReportPage::create(host.directory.path(), "ingest").unwrap();
    let body = registration(report.path(), "on");
    host.with_agent(None, async |socket| {
        assert_eq!(ask(socket, "PUT", "/v1/pipelines/ingest", &body).await.status, 201);
        let degraded = async || {
            let signals = get(socket, "/v1/pipelines/ingest/signals").await;
            signals["degraded"].as_array().unwrap().iter().map(ToString::to_string).collect::<String>()
        };
        until("the report is read", async || {
            report_load(&report, Snapshot::default());
            get(socket, "/v1/pipelines/ingest/signals").await["rate"].as_f64().is_some()
        })
        .await;
        assert_eq!(degraded().await.matches("report").count(), 0, "a good report is doubted");
        let spoil = std::fs::OpenOptions::new().write(true).open(report.path()).unwrap();
        spoil.set_len(100).unwrap();
        until("the cut is told", async || degraded().await.contains("report")).await;
        spoil.set_len(4096).unwrap();
        until("a page without its magic is told", async || degraded().await.contains("report")).await;
        assert_eq!(ask(socket, "GET", "/v1/health", "").await.status, 200);
        std::fs::remove_file(report.path()).unwrap();
        until("its absence is told", async || degraded().await.contains("report")).await;
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_fills_up_ends_the_recording_and_not_the_agent() {
    let host = Host::new();
    let report = ReportPage::create(host.directory.path(), "ingest").unwrap();
    let body = registration(report.path(), "observe");
    host.with_agent(Some("/dev/full".into()), async |socket| {
        // Each tick records the report of each pipeline: enough to fill the writer's buffer within a second.
        for n in 0..8 {
            assert_eq!(ask(socket, "PUT", &format!("/v1/pipelines/p{n}"), &body).await.status, 201);
        }
        until("the full disk is told", async || {
            report_load(&report, Snapshot::default());
            get(socket, "/v1/health").await["degraded"].to_string().contains("/dev/full: No space left")
        })
        .await;
        until("the agent goes on", async || {
            report_load(&report, Snapshot::default());
            get(socket, "/v1/pipelines/p0/signals").await["rate"].as_f64().is_some()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn in_mode_observe_the_page_keeps_the_pipelines_own_defaults() {
    let host = Host::new();
    let report = ReportPage::create(host.directory.path(), "ingest").unwrap();
    let body = registration(report.path(), "observe");
    host.with_agent(None, async |socket| {
        let answer = ask(socket, "PUT", "/v1/pipelines/ingest", &body).await;
        let reader = PageReader::open(Path::new(answer.json()["settings_page"].as_str().unwrap())).unwrap();
        until("there is advice", async || {
            report_load(&report, reader.read().unwrap());
            let decisions = get(socket, "/v1/pipelines/ingest/decisions").await;
            decisions.as_array().unwrap().iter().any(|d| d["applied"] == "advised")
        })
        .await;
        assert_eq!(reader.read().unwrap().values[..2], [262_144, 250_000]);
    })
    .await;
}

#[tokio::test]
async fn a_pipeline_can_be_pinned_freed_and_removed() {
    let host = Host::new();
    let report = ReportPage::create(host.directory.path(), "ingest").unwrap();
    let body = registration(report.path(), "on");
    host.with_agent(None, async |socket| {
        let answer = ask(socket, "PUT", "/v1/pipelines/ingest", &body).await;
        let page = PathBuf::from(answer.json()["settings_page"].as_str().unwrap());
        let pin = ask(socket, "PUT", "/v1/pipelines/ingest/override", r#"{"batch_bytes": 8192}"#).await;
        assert_eq!((pin.status, &pin.json()["state"]), (200, &"manual".into()), "{pin:?}");
        until("the pin is on the page", async || PageReader::open(&page).unwrap().read().unwrap().values[0] == 8192)
            .await;
        let free = ask(socket, "DELETE", "/v1/pipelines/ingest/override", "").await;
        assert_eq!((free.status, &free.json()["state"]), (200, &"on".into()), "{free:?}");
        assert_eq!(ask(socket, "POST", "/v1/tuning/pause", "").await.status, 204);
        assert_eq!(get(socket, "/v1/pipelines").await[0]["state"], "paused");
        assert_eq!(ask(socket, "POST", "/v1/tuning/resume", "").await.status, 204);
        assert_eq!(ask(socket, "DELETE", "/v1/pipelines/ingest", "").await.status, 204);
        until("the page is gone", async || !page.exists()).await;
        assert_eq!(ask(socket, "GET", "/v1/pipelines/ingest", "").await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn a_pipeline_without_a_page_is_tuned_from_what_it_posts() {
    let host = Host::new();
    let mut body: Value = serde_json::from_str(&registration(Path::new("/unused"), "on")).unwrap();
    body.as_object_mut().unwrap().remove("report");
    host.with_agent(None, async |socket| {
        assert_eq!(ask(socket, "PUT", "/v1/pipelines/ingest", &body.to_string()).await.status, 201);
        let mut sequence = 0;
        until("a decision is applied", async || {
            sequence += 1;
            let said = json!({
                "sequence": sequence,
                "events_in": 400 * sequence, "bytes_in": 400 * 512 * sequence,
                "events_out": 400 * sequence, "bytes_out": 400 * 512 * sequence,
                "flushes": sequence, "flushes_by_age": sequence, "flush_ns": 10_000_000 * sequence,
                "queue_capacity": 64 << 20, "latency": [[20, 400 * sequence]],
            });
            let posted = ask(socket, "POST", "/v1/pipelines/ingest/signals", &said.to_string()).await;
            assert_eq!(posted.status, 204, "{posted:?}");
            get(socket, "/v1/pipelines/ingest/settings").await["generation"].as_u64().unwrap() > 0
        })
        .await;
        let signals = get(socket, "/v1/pipelines/ingest/signals").await;
        assert!(signals["rate"].as_f64().is_some_and(|rate| rate > 0.0), "{signals}");
        let bad =
            ask(socket, "POST", "/v1/pipelines/ingest/signals", r#"{"sequence": 1, "latency": [[224, 1]]}"#).await;
        assert_eq!((bad.status, bad.problem().as_str()), (422, "out-of-range"));
    })
    .await;
}

#[tokio::test]
async fn bounds_hold_through_a_restart_of_the_pipeline_and_modes_change_what_the_agent_may() {
    let host = Host::new();
    let report = ReportPage::create(host.directory.path(), "ingest").unwrap();
    let body = registration(report.path(), "on");
    host.with_agent(None, async |socket| {
        let answer = ask(socket, "PUT", "/v1/pipelines/ingest", &body).await;
        let reader = PageReader::open(Path::new(answer.json()["settings_page"].as_str().unwrap())).unwrap();
        let narrow = r#"{"batch_bytes": {"min": 8192, "max": 16384}}"#;
        let shown = ask(socket, "PUT", "/v1/pipelines/ingest/bounds", narrow).await;
        assert_eq!((shown.status, &shown.json()["bounds"]["batch_bytes"]["max"]), (200, &16_384.into()), "{shown:?}");
        until("the settings have moved in", async || (8192..=16_384).contains(&reader.read().unwrap().values[0])).await;
        let again = ask(socket, "PUT", "/v1/pipelines/ingest", &body).await;
        assert_eq!(again.status, 200);
        assert_eq!(get(socket, "/v1/pipelines/ingest").await["bounds"]["batch_bytes"]["max"], 16_384);
        let back = ask(socket, "POST", "/v1/pipelines/ingest/rollback", "").await;
        assert_eq!(back.status, 200, "{back:?}");
        let observed = ask(socket, "POST", "/v1/pipelines/ingest/mode", r#"{"mode": "observe"}"#).await;
        assert_eq!((observed.status, &observed.json()["state"]), (200, &"observe".into()), "{observed:?}");
    })
    .await;
}
