//! The C header and the Python module with a running agent: they register, report, are tuned, and outlive it.

#[path = "../../../client/tests/sdk/kit.rs"]
mod kit;

use kit::{Probe, Sdk};

use crate::serve_agent::{Host, get, until};

/// Where the programs lie, under the manifest of this crate.
const FOLDER: &str = "../client/tests/sdk";

/// Why it runs on its own settings, and generation and phase of those it runs by.
fn look(probe: &mut Probe) -> (String, u64, String) {
    let line = probe.ask("");
    let (why, settings) = line.split_once(" | ").or(line.split_once("| ")).expect("two parts");
    let mut words = settings.split(' ').skip(2);
    let generation = words.next().and_then(|word| word.parse().ok()).expect("a generation");
    (why.trim().to_owned(), generation, words.next().unwrap_or_default().to_owned())
}

async fn check(sdk: Sdk) {
    let host = Host::new();
    let directory = host.directory.path().to_str().expect("a plain path").to_owned();
    let socket = format!("{directory}/api.sock");
    let Some(mut probe) = sdk.start(&["run", &socket, "ingest", &directory]) else { return };
    let (why, generation, phase) = look(&mut probe);
    assert!(!why.is_empty(), "{sdk:?}: there is no agent yet");
    assert_eq!((generation, phase.as_str()), (0, "own"));
    host.with_agent(None, async |socket| {
        until("it runs by a decision of the agent", async || {
            let (_, generation, phase) = look(&mut probe);
            generation > 0 && phase == "live"
        })
        .await;
        assert_eq!(look(&mut probe).0, "", "{sdk:?}");
        // The first decision needs two reports; they may have come before the first events did.
        until("its report tells of events and flushes", async || {
            let signals = get(socket, "/v1/pipelines/ingest/signals").await;
            signals["rate"].as_f64().is_some_and(|rate| rate > 0.0) && signals["flush_ms"].is_f64()
        })
        .await;
        let signals = get(socket, "/v1/pipelines/ingest/signals").await;
        assert!(signals["flush_ms"].as_f64().is_some_and(|ms| (9.0..11.0).contains(&ms)), "{sdk:?}: {signals}");
        assert!(!signals["degraded"].to_string().contains("report"), "{sdk:?}: {signals}");
        let shown = get(socket, "/v1/pipelines/ingest").await;
        assert_eq!(shown["registration"]["mode"], "on");
        assert_eq!(shown["registration"]["lease"]["ttl_ms"], 1_000);
    })
    .await;
    // A lease of a second and a hold of another: it goes over by both.
    until("the lease is held", async || look(&mut probe).2 == "held").await;
    until("its own settings are back", async || look(&mut probe).2 == "own").await;
    host.with_agent(None, async |_| {
        until("the next agent is found", async || look(&mut probe).2 == "live").await;
    })
    .await;
    assert_eq!(probe.end(), "");
}

#[tokio::test]
async fn a_pipeline_in_c_is_tuned_holds_and_comes_back() {
    check(Sdk::C).await;
}

#[tokio::test]
async fn a_pipeline_in_c_has_no_race_between_its_threads() {
    check(Sdk::CThreads).await;
}

#[tokio::test]
async fn a_pipeline_in_python_is_tuned_holds_and_comes_back() {
    check(Sdk::Python).await;
}
