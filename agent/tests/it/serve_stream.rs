//! Those who wait: long polls, and streams of events.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tidegate::serve::accept::Limits;
use tidegate::serve::view::{PipelineView, View};
use tidegate::units::{BatchSize, Generation, Nanos};
use tidegate_client::abi::{Applied, DecisionJson, SignalsJson};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::serve_kit::{NOW, Stage, pipeline, raw, stage, view};

fn my_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

fn with_generation(generation: u64) -> PipelineView {
    let mut shown = pipeline("ingest", my_uid());
    shown.generation = Generation(generation);
    shown.settings.batch = BatchSize(10_000 + generation);
    shown
}

fn show(stage: &Stage, pipelines: Vec<PipelineView>) {
    stage.views.send_replace(Arc::new(view(pipelines)));
}

/// A stream that has been opened, as text.
struct Events(UnixStream, String);

impl Events {
    async fn open(socket: &Path, path: &str, more: &str) -> Self {
        let mut stream = UnixStream::connect(socket).await.expect("connect");
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n{more}\r\n");
        stream.write_all(head.as_bytes()).await.expect("the other end is there");
        let mut events = Self(stream, String::new());
        let head = events.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        events
    }

    /// What comes up to and with that text.
    async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.1.find(end) {
                return self.1.drain(..at + end.len()).collect();
            }
            let mut more = [0; 4096];
            let n = self.0.read(&mut more).await.expect("the other end is there");
            assert!(n > 0, "the stream ended at {:?}", self.1);
            self.1.push_str(std::str::from_utf8(&more[..n]).expect("events are text"));
        }
    }

    /// The next event, without the framing of the transfer.
    async fn next(&mut self) -> (String, Option<u64>, String) {
        let text = self.until("\n\n").await;
        let field =
            |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned());
        (
            field("event:").unwrap_or_default(),
            field("id:").and_then(|id| id.parse().ok()),
            field("data:").unwrap_or_default(),
        )
    }
}

async fn poll(socket: &Path, query: &str, more: &str) -> crate::serve_kit::Answer {
    let head =
        format!("GET /v1/pipelines/ingest/settings?{query} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n");
    raw(socket, head.as_bytes()).await
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_is_answered_at_once_when_something_is_new_and_else_when_it_comes() {
    let stage = stage(view(vec![with_generation(3)]));
    stage
        .serving(Limits::default(), async |socket| {
            let start = tokio::time::Instant::now();
            assert_eq!(poll(socket, "wait=30s&after=2", "").await.json()["generation"], 3);
            assert_eq!(start.elapsed(), Duration::ZERO, "there was something new");

            let unchanged = poll(socket, "wait=30s&after=3", "").await;
            assert_eq!((unchanged.status, unchanged.header("etag")), (304, Some("\"3\"")));
            assert_eq!(start.elapsed().as_secs(), 30);
            let tagged = poll(socket, "wait=2s", "if-none-match: \"3\"\r\n").await;
            assert_eq!((tagged.status, start.elapsed().as_secs()), (304, 32), "an ETag says the same as `after`");

            let (answer, ()) = tokio::join!(poll(socket, "wait=30s&after=3", ""), async {
                tokio::time::sleep(Duration::from_secs(7)).await;
                show(&stage, vec![with_generation(3)]);
                tokio::time::sleep(Duration::from_secs(1)).await;
                show(&stage, vec![with_generation(4)]);
            });
            assert_eq!(
                (answer.json()["generation"].as_u64(), answer.json()["batch_bytes"].as_u64()),
                (Some(4), Some(10_004))
            );
            assert_eq!(start.elapsed().as_secs(), 40);

            let (answer, ()) = tokio::join!(poll(socket, "wait=30s&after=4", ""), async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                show(&stage, Vec::new());
            });
            assert_eq!((answer.status, answer.problem().as_str()), (404, "no-pipeline"));
            assert_eq!(poll(socket, "wait=61s&after=4", "").await.problem(), "bad-query");
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_settings_begins_with_the_newest_and_is_resumed_by_its_last_event() {
    let stage = stage(view(vec![with_generation(3)]));
    stage
        .serving(Limits::default(), async |socket| {
            let path = "/v1/pipelines/ingest/settings";
            let mut events = Events::open(socket, path, "").await;
            let (kind, id, data) = events.next().await;
            assert_eq!((kind.as_str(), id), ("settings", Some(3)));
            assert!(data.contains("\"batch_bytes\":10003"), "{data}");
            show(&stage, vec![with_generation(4)]);
            assert_eq!(events.next().await.1, Some(4));
            drop(events);

            let mut resumed = Events::open(socket, path, "last-event-id: 4\r\n").await;
            let start = tokio::time::Instant::now();
            let views_without_news = async {
                loop {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    show(&stage, vec![with_generation(4)]);
                }
            };
            tokio::select! {
                text = resumed.until("\n\n") => assert!(text.contains(": still here"), "nothing is new: {text}"),
                () = views_without_news => {}
            }
            assert_eq!(start.elapsed().as_secs(), 15);
            show(&stage, vec![with_generation(5)]);
            assert_eq!(resumed.next().await.1, Some(5));
            show(&stage, Vec::new());
            assert_eq!(resumed.next().await, ("gone".to_owned(), None, "ingest".to_owned()));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_watcher_gets_the_newest_generation_only() {
    let stage = stage(view(vec![with_generation(1)]));
    stage
        .serving(Limits::default(), async |socket| {
            let mut events = Events::open(socket, "/v1/pipelines/ingest/settings", "").await;
            assert_eq!(events.next().await.1, Some(1));
            // No turn of the runtime in between: as if the connection had no room.
            for generation in 2..500 {
                show(&stage, vec![with_generation(generation)]);
            }
            assert_eq!(events.next().await.1, Some(499));
        })
        .await;
}

fn decided(count: u64) -> PipelineView {
    let decision = |sequence| {
        Arc::new(DecisionJson {
            name: "ingest".to_owned(),
            sequence,
            time_ns: sequence,
            generation: sequence,
            applied: Applied::Applied,
            batch_bytes: 1,
            flush_interval_us: 1,
            from_batch_bytes: 1,
            from_flush_interval_us: 1,
            policy: "regime".to_owned(),
            reason: "warm".to_owned(),
            explanation: "in a sentence".to_owned(),
            bound_by: None,
            model: None,
            predicted: None,
            effect: None,
            signals: SignalsJson::default(),
        })
    };
    let mut shown = pipeline("ingest", my_uid());
    shown.decisions = Arc::new((1..=count).map(decision).collect());
    shown
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_decisions_leaves_none_out_and_goes_on_with_a_new_agent() {
    let stage = stage(view(vec![decided(2)]));
    stage
        .serving(Limits::default(), async |socket| {
            let path = "/v1/pipelines/ingest/decisions";
            let mut events = Events::open(socket, path, "").await;
            assert_eq!((events.next().await.1, events.next().await.1), (Some(1), Some(2)));
            show(&stage, vec![decided(5)]);
            for sequence in 3..=5 {
                let (kind, id, data) = events.next().await;
                assert_eq!((kind.as_str(), id), ("decision", Some(sequence)));
                assert!(data.contains("in a sentence"), "{data}");
            }
            let mut resumed = Events::open(socket, path, "last-event-id: 4\r\n").await;
            assert_eq!(resumed.next().await.1, Some(5));
            let mut of_an_earlier_agent = Events::open(socket, path, "last-event-id: 4000\r\n").await;
            assert_eq!(of_an_earlier_agent.next().await.1, Some(1));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_signals_has_an_event_a_tick() {
    let at = |time: u64| {
        let mut shown = pipeline("ingest", my_uid());
        shown.signals.time_ns = time;
        View { now: NOW + Nanos(time), ..view(vec![shown]) }
    };
    let stage = stage(at(100));
    stage
        .serving(Limits::default(), async |socket| {
            let mut events = Events::open(socket, "/v1/pipelines/ingest/signals", "").await;
            let (kind, id, data) = events.next().await;
            assert_eq!((kind.as_str(), id), ("signals", Some(100)));
            assert!(data.contains("\"rate\":5000"), "{data}");
            stage.views.send_replace(Arc::new(at(200)));
            assert_eq!(events.next().await.1, Some(200));
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn watchers_have_their_own_limit_and_a_place_is_free_when_one_goes() {
    let stage = stage(view(vec![with_generation(1)]));
    let limits = Limits { per_user: 256, ..Limits::default() };
    let places = if my_uid() == 0 { 64 } else { 56 };
    stage
        .serving(limits, async |socket| {
            let path = "/v1/pipelines/ingest/settings";
            let mut held = Vec::new();
            for _ in 0..places {
                held.push(Events::open(socket, path, "").await);
            }
            let answer = poll(socket, "wait=1s&after=1", "").await;
            assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
            assert_eq!(answer.problem(), "no-watcher-free");
            assert_eq!(poll(socket, "after=1", "").await.status, 200, "who does not wait needs no place");
            held.pop();
            while poll(socket, "wait=1s&after=1", "").await.status != 304 {
                tokio::task::yield_now().await;
            }
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_went_to_another_user_is_watched_no_more() {
    let stage = stage(view(vec![with_generation(1)]));
    stage
        .serving(Limits::default(), async |socket| {
            let mut events = Events::open(socket, "/v1/pipelines/ingest/settings", "").await;
            assert_eq!(events.next().await.1, Some(1));
            let mut of_another = with_generation(2);
            of_another.uid.0 += 1;
            show(&stage, vec![of_another]);
            assert_eq!(events.next().await.0, "gone");
        })
        .await;
}
