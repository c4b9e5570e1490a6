//! A process that was never changed is watched by its number, for as long as it runs, and nothing is set on it.

use std::process::{Child, Command};

use serde_json::json;

use crate::serve_agent::{Host, ask, get, until};

struct Sleeper(Child);

impl Sleeper {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().expect("it is always there"))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

fn watch(pid: u32, mode: &str) -> String {
    json!({
        "knobs": {
            "batch_bytes": {"min": 4096, "max": 524_288, "default": 262_144},
            "flush_interval_us": {"min": 1000, "max": 250_000, "default": 250_000}
        },
        "mode": mode,
        "lease": {"ttl_ms": 300, "hold_ms": 0},
        "watch": {"pid": pid, "event_bytes": 512}
    })
    .to_string()
}

#[tokio::test]
async fn a_watched_process_has_no_page_and_no_lease_and_is_there_until_it_ends() {
    let (host, other) = (Host::new(), Sleeper::start());
    host.with_agent(None, async |socket| {
        let pid = other.0.id();
        let answer = ask(socket, "PUT", "/v1/pipelines/shipper", &watch(pid, "observe")).await;
        assert_eq!((answer.status, answer.json()["settings_page"].as_str()), (201, Some("")), "{answer:?}");
        // Longer than the lease would live.
        tokio::time::sleep(std::time::Duration::from_millis(600)).await;
        let shown = get(socket, "/v1/pipelines/shipper").await;
        assert_eq!((shown["pid"].as_u64(), shown["state"].as_str()), (Some(u64::from(pid)), Some("observe")));
        assert!(!socket.with_file_name("pages").join("0").join("shipper").exists());
        drop(other);
        until("it has ended", async || ask(socket, "GET", "/v1/pipelines/shipper", "").await.status == 404).await;
    })
    .await;
}

#[tokio::test]
async fn nothing_can_be_set_on_a_process_that_is_only_watched() {
    let (host, other) = (Host::new(), Sleeper::start());
    host.with_agent(None, async |socket| {
        let pid = other.0.id();
        let refused = ask(socket, "PUT", "/v1/pipelines/shipper", &watch(pid, "on")).await;
        assert_eq!((refused.status, refused.problem().as_str()), (422, "watch-only"));
        assert_eq!(ask(socket, "PUT", "/v1/pipelines/shipper", &watch(u32::MAX, "observe")).await.status, 404);
        assert_eq!(ask(socket, "PUT", "/v1/pipelines/shipper", &watch(pid, "observe")).await.status, 201);
        for (method, path, body) in [
            ("PUT", "override", r#"{"batch_bytes": 8192}"#),
            ("POST", "mode", r#"{"mode": "on"}"#),
            ("POST", "rollback", ""),
            ("POST", "signals", r#"{"sequence": 1, "events_in": 5}"#),
            ("POST", "ack", r#"{"sequence": 1, "generation": 3, "batch_bytes": 65536, "flush_interval_us": 20000}"#),
        ] {
            let answer = ask(socket, method, &format!("/v1/pipelines/shipper/{path}"), body).await;
            assert_eq!((answer.status, answer.problem().as_str()), (409, "watch-only"), "{method} {path}");
        }
        assert_eq!(ask(socket, "DELETE", "/v1/pipelines/shipper", "").await.status, 204);
    })
    .await;
}
