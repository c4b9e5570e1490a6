//! What the tests of the socket share: an app over a view that the test makes, and a caller that speaks raw bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use axum::http::{Request, Response};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tidegate::serve::accept::{Limits, serve};
use tidegate::serve::app::App;
use tidegate::serve::archive::NoArchive;
use tidegate::serve::check::{Check, Preflight, Status};
use tidegate::serve::claims::Claims;
use tidegate::serve::groups::{Granted, Grants, Groups};
use tidegate::serve::listener::Bound;
use tidegate::serve::pages::Pages;
use tidegate::serve::peer::{Peer, PeerProcess};
use tidegate::serve::render::Renderer;
use tidegate::serve::routes::router;
use tidegate::serve::view::{PipelineView, TuningState, View};
use tidegate::serve::watchers::Watchers;
use tidegate::source::inbox::{Inbox, inbox};
use tidegate::units::{BatchSize, FlushInterval, Generation, Nanos, Pid, PipelineName, Settings, Uid};
use tidegate_client::abi::{Registration, SignalsJson};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tower::ServiceExt as _;

/// The user the agent of the tests runs as; not root, so that root is seen to be root by its own right.
pub(crate) const AGENT: Uid = Uid(990);
/// The instant at which the clock of these tests stands.
pub(crate) const NOW: Nanos = Nanos::from_secs(1_000);

/// A test that waits for something that never comes ends then.
const LONGEST: std::time::Duration = std::time::Duration::from_mins(1);

/// A registration that is right in every respect.
pub(crate) const REGISTRATION: &str = r#"{
    "knobs": {
        "batch_bytes": {"min": 4096, "max": 524288, "default": 262144},
        "flush_interval_us": {"min": 1000, "max": 250000, "default": 250000}
    },
    "mode": "on"
}"#;

/// A member of the group that reads, and one of the group that tunes; all other users are in neither.
pub(crate) const READER: u32 = 2001;
pub(crate) const TUNER: u32 = 2002;

fn grants(uid: u32) -> Grants {
    let granted = |member| if uid == member { Granted::Yes } else { Granted::No };
    Grants { read: granted(READER), tune: granted(TUNER) }
}

/// An app, and the ends that the run loop would hold.
pub(crate) struct Stage {
    pub(crate) app: App,
    pub(crate) views: watch::Sender<Arc<View>>,
    pub(crate) inbox: Inbox,
    pub(crate) directory: TempDir,
}

pub(crate) fn stage(view: View) -> Stage {
    let directory = tempfile::tempdir().expect("make a directory");
    let (sender, inbox) = inbox();
    let (views, seen) = watch::channel(Arc::new(view));
    let preflight = Preflight::new(|| {
        vec![Check { name: "root", status: Status::Ok, cause: "the tests say so".to_owned(), remedy: None }]
    });
    let app = App {
        views: seen,
        inbox: sender,
        pages: Pages::under(&directory.path().join("pages")),
        claims: Claims::default(),
        renderer: Renderer::start(NoArchive, tidegate::units::Bytes(0)).expect("start a thread"),
        guidance: Arc::new(tidegate::serve::guidance::built_in()),
        preflight,
        clock: || NOW,
        wall: || NOW,
        agent: AGENT,
        watchers: Watchers::default(),
    };
    Stage { app, views, inbox, directory }
}

impl Stage {
    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("api.sock")
    }

    /// Serves on a real socket while `test` runs.
    pub(crate) async fn serving(&self, limits: Limits, test: impl AsyncFnOnce(&Path)) {
        let bound = Bound::bind(&self.socket()).expect("bind the socket");
        let local = tokio::task::LocalSet::new();
        local
            .run_until(async {
                tokio::select! {
                    () = serve(bound.listener(), router(&self.app), limits, Groups::default()) => unreachable!("it serves for ever"),
                    in_time = tokio::time::timeout(LONGEST, test(bound.path())) => in_time.expect("it takes for ever"),
                }
            })
            .await;
    }

    /// Asks the router as `uid`, without a socket.
    pub(crate) async fn ask(&self, uid: u32, method: &str, path: &str, body: &str) -> Answer {
        self.ask_with(uid, Request::builder().method(method).uri(path), body).await
    }

    pub(crate) async fn ask_with(&self, uid: u32, request: axum::http::request::Builder, body: &str) -> Answer {
        let process = Some(PeerProcess { pid: Pid(4242), start_ticks: 7 });
        let request = request
            .extension(Peer { uid: Uid(uid), process, grants: grants(uid) })
            .body(Body::from(body.to_owned()))
            .expect("the request is well-formed");
        Answer::from_response(router(&self.app).oneshot(request).await.expect("a router cannot fail")).await
    }
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    async fn from_response(response: Response<Body>) -> Self {
        let status = response.status().as_u16();
        let text = |v: &axum::http::HeaderValue| String::from_utf8_lossy(v.as_bytes()).into_owned();
        let headers = response.headers().iter().map(|(k, v)| (k.to_string(), text(v))).collect();
        let body = response.into_body().collect().await.expect("read the body").to_bytes();
        Self { status, headers, body: String::from_utf8_lossy(&body).into_owned() }
    }

    /// From the bytes of a connection.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines.next().and_then(|l| l.split(' ').nth(1)).and_then(|s| s.parse().ok()).unwrap_or(0);
        let headers = lines.filter_map(|l| l.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned())).collect();
        Self { status, headers, body: body.to_owned() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"))
    }

    /// Checks that this is a whole problem document, and returns its code.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let json = self.json();
        assert_eq!(json["status"], self.status, "{self:?}");
        for field in ["type", "title", "code", "detail", "fix"] {
            assert!(json[field].as_str().is_some_and(|s| !s.is_empty()), "no {field} in {self:?}");
        }
        json["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends bytes and reads until the other end closes.
pub(crate) async fn raw(socket: &Path, bytes: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(socket).await.expect("connect");
    // The other end may close before it has read everything: that is its answer.
    if let Err(error) = stream.write_all(bytes).await {
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    }
    Answer::parse(&read_all(&mut stream).await)
}

/// Reads until the other end closes, in whatever way.
pub(crate) async fn read_all(stream: &mut UnixStream) -> Vec<u8> {
    let mut got = Vec::new();
    if let Err(error) = stream.read_to_end(&mut got).await {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    got
}

pub(crate) fn name(text: &str) -> PipelineName {
    PipelineName::try_from(text.to_owned()).expect("the name is right")
}

pub(crate) fn registration() -> Registration {
    serde_json::from_str(REGISTRATION).expect("the registration is right")
}

/// A pipeline of a user.
pub(crate) fn pipeline(text: &str, uid: u32) -> PipelineView {
    PipelineView {
        name: name(text),
        pid: Pid(4242),
        uid: Uid(uid),
        registration: Arc::new(registration()),
        bounds: registration().knobs,
        state: TuningState::On,
        settings: Settings { batch: BatchSize(65_536), interval: FlushInterval(20_000) },
        generation: Generation(3),
        signals: SignalsJson { name: text.to_owned(), rate: Some(5_000.0), ..SignalsJson::default() },
        decisions: Arc::default(),
        decisions_by_reason: vec![("warm", 2)],
    }
}

/// A view of those pipelines, made just now.
pub(crate) fn view(pipelines: Vec<PipelineView>) -> View {
    View { now: NOW, pipelines, ..View::default() }
}
