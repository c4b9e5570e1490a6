//! Hostile and clumsy callers: nothing they send holds a connection open, costs memory, or gets a bare answer.

use std::time::Duration;

use tidegate::serve::accept::Limits;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::serve_kit::{Answer, pipeline, raw, read_all, stage, view};

const GET_HEALTH: &[u8] = b"GET /v1/health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

fn my_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

// Time is virtual and jumps as soon as everybody waits: the five seconds pass at once.
#[tokio::test(start_paused = true)]
async fn a_half_sent_head_is_cut_off_after_its_time() {
    stage(view(Vec::new()))
        .serving(Limits::default(), async |socket| {
            let start = tokio::time::Instant::now();
            let mut stream = UnixStream::connect(socket).await.unwrap();
            stream.write_all(b"GET /v1/health HTTP/1.1\r\nhost:").await.unwrap();
            assert_eq!(read_all(&mut stream).await, b"");
            assert_eq!(start.elapsed().as_secs(), 5);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_half_sent_body_is_cut_off_after_its_time() {
    stage(view(Vec::new()))
        .serving(Limits::default(), async |socket| {
            let start = tokio::time::Instant::now();
            let request = b"PUT /v1/pipelines/a HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{";
            let answer = raw(socket, request).await;
            assert_eq!((answer.status, answer.problem().as_str()), (408, "body-timeout"));
            assert_eq!(start.elapsed().as_secs(), 5);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    stage(view(Vec::new()))
        .serving(Limits::default(), async |socket| {
            let mut stream = UnixStream::connect(socket).await.unwrap();
            stream.write_all(b"GET /v1/health HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let answer = Answer::parse(&read_all(&mut stream).await);
            assert_eq!(answer.status, 200);
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_does_not_read_is_dropped() {
    let many = (0..2_000).map(|i| pipeline(&format!("p{i}"), my_uid())).collect();
    stage(view(many))
        .serving(Limits::default(), async |socket| {
            let mut stream = UnixStream::connect(socket).await.unwrap();
            stream.write_all(b"GET /v1/pipelines HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            tokio::time::sleep(Duration::from_secs(31)).await;
            let got = read_all(&mut stream).await;
            assert!(got.starts_with(b"HTTP/1.1 200"));
            assert!(!got.ends_with(b"]"), "{} bytes: the whole answer came", got.len());
        })
        .await;
}

#[tokio::test]
async fn oversized_and_malformed_requests_get_whole_problems() {
    let long_header = format!("GET /v1/health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(17 * 1024));
    let long_path = format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(70 * 1024));
    let stated = "PUT /v1/pipelines/a HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 65537\r\n\r\n";
    let big_body = format!("{stated}{}", "z".repeat(65_537));
    let cases: [(&[u8], u16, &str); 8] = [
        (b"hello?\r\n\r\n", 400, "malformed-http"),
        (b"GET /v1/health HTTP/9.9\r\n\r\n", 400, "malformed-http"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed-http"),
        (b"GET /v1/health HTTP/1.1\r\nbad header\r\n\r\n", 400, "malformed-http"),
        (b"PUT /v1/pipelines/a HTTP/1.1\r\ncontent-length: x\r\n\r\n", 400, "malformed-http"),
        (long_header.as_bytes(), 431, "header-too-large"),
        (long_path.as_bytes(), 431, "header-too-large"),
        (big_body.as_bytes(), 413, "body-too-large"),
    ];
    stage(view(Vec::new()))
        .serving(Limits::default(), async |socket| {
            for (bytes, status, code) in cases {
                let answer = raw(socket, bytes).await;
                let what = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
                assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{what:?}");
            }
            assert_eq!(raw(socket, GET_HEALTH).await.status, 200, "the agent still answers");
        })
        .await;
}

#[tokio::test]
async fn a_request_cut_anywhere_leaves_the_agent_well() {
    stage(view(Vec::new()))
        .serving(Limits::default(), async |socket| {
            for cut in 0..GET_HEALTH.len() {
                let mut stream = UnixStream::connect(socket).await.unwrap();
                stream.write_all(&GET_HEALTH[..cut]).await.unwrap();
                drop(stream);
            }
            assert_eq!(raw(socket, GET_HEALTH).await.status, 200);
        })
        .await;
}

#[tokio::test]
async fn callers_beyond_the_limit_are_told_to_come_again() {
    let limits = Limits { connections: 4, kept_for_root: 2, per_user: 2, ..Limits::default() };
    // Root has the whole table, an ordinary user his share: both tests run the same code.
    let (room, status) = if my_uid() == 0 { (4, 503) } else { (2, 429) };
    stage(view(Vec::new()))
        .serving(limits, async |socket| {
            let mut held = Vec::new();
            for _ in 0..room {
                let mut stream = UnixStream::connect(socket).await.unwrap();
                stream.write_all(b"GET /v1").await.unwrap();
                held.push(stream);
            }
            let answer = raw(socket, GET_HEALTH).await;
            assert_eq!(answer.status, status);
            assert_eq!(answer.header("retry-after"), Some("1"));
            answer.problem();
            held.clear();
            while raw(socket, GET_HEALTH).await.status != 200 {
                tokio::task::yield_now().await;
            }
        })
        .await;
}

#[tokio::test]
async fn web_pages_are_kept_out() {
    let stage = stage(view(Vec::new()));
    for (field, value) in [("origin", "http://localhost:8080"), ("referer", "http://a/"), ("origin", "null")] {
        for path in ["/v1/health", "/v1/nothing"] {
            let request = axum::http::Request::builder().uri(path).header(field, value);
            let answer = stage.ask_with(0, request, "").await;
            assert_eq!((answer.status, answer.problem().as_str()), (403, "from-a-browser"));
        }
    }
}
