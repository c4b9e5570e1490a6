//! What the routes answer.

use std::sync::Arc;

use axum::http::Request;
use tidegate::event::Input;
use tidegate::serve::pages::Publisher;
use tidegate::units::{Generation, Nanos, Pid, Uid};

use crate::serve_kit::{AGENT, NOW, REGISTRATION, Stage, name, pipeline, registration, stage, view};

const OWNER: u32 = 1000;

async fn refused(stage: &Stage, method: &str, path: &str, body: &str, status: u16, code: &str) -> serde_json::Value {
    let answer = stage.ask(0, method, path, body).await;
    assert_eq!((answer.status, answer.problem().as_str()), (status, code), "{method} {path} {body}");
    answer.json()
}

#[tokio::test]
async fn health_says_how_the_agent_is() {
    let mut unwell = view(Vec::new());
    unwell.degraded = vec!["no BTF".to_owned()];
    let health = stage(unwell).ask(65_534, "GET", "/v1/health", "").await.json();
    assert_eq!((&health["status"], &health["degraded"][0]), (&"degraded".into(), &"no BTF".into()));
    let mut stuck = view(Vec::new());
    stuck.now = Nanos(0);
    refused(&stage(stuck), "GET", "/v1/health", "", 503, "stuck").await;
}

#[tokio::test]
async fn anybody_may_read_the_measured_guidance() {
    let guidance = stage(view(Vec::new())).ask(65_534, "GET", "/v1/guidance", "").await.json();
    let uses: Vec<_> = guidance["rows"].as_array().expect("it has rows").iter().map(|row| &row["use"]).collect();
    assert_eq!(uses.len(), 6, "{guidance}");
    assert!(uses.contains(&&"real-time".into()) && uses.contains(&&"high-throughput".into()), "{guidance}");
    assert!(guidance["command"].as_str().is_some_and(|c| c.starts_with("tidegate-lab guidance")), "{guidance}");
}

#[tokio::test]
async fn wrong_paths_methods_and_arguments_are_problems_too() {
    let stage = stage(view(vec![pipeline("ingest", OWNER)]));
    refused(&stage, "GET", "/v2/health", "", 404, "no-route").await;
    let fix = refused(&stage, "GET", "/", "", 404, "no-route").await["fix"].to_string();
    assert!(fix.contains("GET /v1/health") && fix.contains("PUT /v1/pipelines/{name}/override"), "{fix}");
    refused(&stage, "DELETE", "/v1/health", "", 405, "method-not-allowed").await;
    refused(&stage, "GET", "/v1/pipelines/ingset", "", 404, "no-pipeline").await["fix"]
        .as_str()
        .filter(|fix| fix.contains("did you mean ingest?"))
        .expect("the nearest name is offered");
    refused(&stage, "GET", "/v1/pipelines/%2e%2e", "", 400, "bad-name").await;
    refused(&stage, "GET", "/v1/profiles/cpu?form=svg", "", 400, "bad-query").await;
    refused(&stage, "GET", "/v1/profiles/cpu?from=yesterday", "", 400, "bad-time").await;
    refused(&stage, "GET", "/v1/profiles/cpu?from=now&to=-5s", "", 400, "bad-span").await;
    refused(&stage, "GET", "/v1/profiles/cpu", "", 404, "not-recorded").await;
    refused(&stage, "GET", "/v1/profiles/gpu", "", 404, "no-kind").await;
    refused(&stage, "GET", "/v1/profiles/wall?seconds=61", "", 400, "bad-seconds").await;
    refused(&stage, "GET", "/v1/profiles/wall?seconds=1&from=-5s", "", 400, "bad-span").await;
    refused(&stage, "GET", "/v1/profiles/sock?seconds=1", "", 400, "pid-missing").await;
    let fix = refused(&stage, "GET", "/v1/profiles/offcpu", "", 404, "not-recorded").await["fix"].to_string();
    assert!(fix.contains("?seconds=10") && fix.contains("[profiles] kinds"), "{fix}");
    refused(&stage, "GET", "/v1/syscalls?seconds=61", "", 400, "bad-seconds").await;
    refused(&stage, "GET", "/v1/sockets", "", 400, "pid-missing").await;
    let method = stage.ask(0, "DELETE", "/v1/health", "").await;
    assert_eq!(method.header("allow"), Some("GET,HEAD"));
}

#[tokio::test(start_paused = true)]
async fn a_faulty_registration_is_refused_at_its_place() {
    let mut stage = stage(view(Vec::new()));
    let path = "/v1/pipelines/ingest";
    refused(&stage, "PUT", path, "{", 400, "bad-json").await;
    let unknown = REGISTRATION.replace("\"mode\"", "\"mood\"");
    refused(&stage, "PUT", path, &unknown, 400, "bad-json").await;
    let inverted = REGISTRATION.replace("4096", "999999");
    let problem = refused(&stage, "PUT", path, &inverted, 422, "bounds-inverted").await;
    assert_eq!(problem["pointer"], "/knobs/batch_bytes");
    assert_eq!(stage.inbox.try_next(), None, "a refused registration was handed on");
}

/// Plays the run loop's part: takes one request up, writes the page, shows the pipeline.
async fn take_up(stage: &mut Stage, publisher: &mut Publisher) -> Input {
    let input = stage.inbox.next().await;
    if let Input::Register { name, uid, resumed, .. } = &input {
        let mut shown = pipeline(name.as_str(), uid.0);
        shown.generation = resumed.map_or(Generation(0), |(generation, _)| generation);
        shown.settings = resumed.map_or(shown.settings, |(_, settings)| settings);
        let next = view(vec![shown]);
        assert_eq!(publisher.publish(&next.pipelines, Nanos::SECOND), [""; 0]);
        stage.views.send_replace(Arc::new(next));
    }
    input
}

#[tokio::test]
async fn a_registration_names_the_page_and_an_heir_takes_it_up() {
    let mut stage = stage(view(Vec::new()));
    let me = Uid(rustix::process::getuid().as_raw());
    let mut publisher = Publisher::new(stage.app.pages.clone(), me);
    let path = stage.app.pages.path(Uid(OWNER), &name("ingest"));

    let app = stage.app.clone();
    let register = async |stage: &mut Stage, publisher: &mut Publisher| {
        let asking = Stage {
            app: app.clone(),
            views: stage.views.clone(),
            inbox: tidegate::source::inbox::inbox().1,
            directory: tempfile::tempdir().unwrap(),
        };
        tokio::join!(asking.ask(OWNER, "PUT", "/v1/pipelines/ingest", REGISTRATION), take_up(stage, publisher))
    };
    let (answer, input) = register(&mut stage, &mut publisher).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.json()["settings_page"], path.to_str().unwrap());
    assert_eq!(answer.json()["values"], serde_json::json!(["batch_bytes", "flush_interval_us"]));
    let Input::Register { pid, start_ticks, uid, resumed, registration: sent, .. } = input else { panic!("{input:?}") };
    assert_eq!((pid, start_ticks, uid, resumed, *sent), (Pid(4242), 7, Uid(OWNER), None, registration()));

    // The agent publishes generation 9, dies, and another starts on the same pages.
    let mut tuned = pipeline("ingest", OWNER);
    tuned.generation = Generation(9);
    assert_eq!(publisher.publish(&[tuned.clone()], Nanos::SECOND), [""; 0]);
    drop(publisher);
    stage.views.send_replace(Arc::new(view(Vec::new())));
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
    let mut heir = Publisher::new(stage.app.pages.clone(), me);
    let (answer, input) = register(&mut stage, &mut heir).await;
    assert_eq!(answer.json()["generation"], 9, "{answer:?}");
    let Input::Register { resumed, .. } = input else { panic!("{input:?}") };
    assert_eq!(resumed, Some((Generation(9), tuned.settings)));
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap()), inode, "another file");
}

#[tokio::test]
async fn settings_that_were_just_decided_reach_the_page_of_their_own_user_only() {
    let me = rustix::process::getuid().as_raw();
    let stage = stage(view(vec![pipeline("ingest", me)]));
    let mut publisher = Publisher::new(stage.app.pages.clone(), Uid(me));
    let shown = stage.app.view().pipelines[0].clone();
    let decided = |generation| (Generation(generation), shown.settings);
    publisher.publish_at_once(&shown.name, shown.uid, decided(7), Nanos::SECOND);
    assert_eq!(publisher.publish(&stage.app.view().pipelines, Nanos::SECOND), [""; 0], "a page that is not open waits");
    let on_page = || stage.app.newest(&shown).0;
    assert_eq!(on_page(), Generation(3));
    publisher.publish_at_once(&shown.name, Uid(me + 1), decided(8), Nanos::SECOND);
    assert_eq!(on_page(), Generation(3), "the name had another user");
    publisher.publish_at_once(&shown.name, shown.uid, decided(9), Nanos::SECOND);
    assert_eq!(on_page(), Generation(9));
}

#[tokio::test]
async fn settings_are_what_the_page_says_and_their_tag_spares_the_rest() {
    let me = rustix::process::getuid().as_raw();
    let stage = stage(view(vec![pipeline("ingest", me)]));
    let mut publisher = Publisher::new(stage.app.pages.clone(), Uid(me));
    assert_eq!(publisher.publish(&stage.app.view().pipelines, Nanos::SECOND), [""; 0]);
    let answer = stage.ask(me, "GET", "/v1/pipelines/ingest/settings", "").await;
    let json = answer.json();
    assert_eq!((answer.header("etag"), &json["generation"]), (Some("\"3\""), &3.into()));
    assert_eq!((&json["batch_bytes"], &json["flush_interval_us"]), (&65_536.into(), &20_000.into()));
    for (tag, status) in [("\"3\"", 304), ("W/\"3\", \"1\"", 304), ("*", 304), ("\"2\"", 200), ("garbage", 200)] {
        let request = Request::builder().uri("/v1/pipelines/ingest/settings").header("if-none-match", tag);
        assert_eq!(stage.ask_with(me, request, "").await.status, status, "{tag}");
    }
}

#[tokio::test]
async fn a_full_inbox_says_try_again() {
    let stage = stage(view(vec![pipeline("ingest", OWNER)]));
    while stage.app.inbox.send(Input::Pause).is_ok() {}
    let answer = stage.ask(OWNER, "POST", "/v1/pipelines/ingest/lease", "").await;
    assert_eq!((answer.status, answer.problem().as_str()), (503, "inbox-full"));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let stage = stage(view(vec![pipeline("ingest", OWNER)]));
    let answer = stage.ask(AGENT.0, "GET", "/v1/metrics", "").await;
    assert!(answer.header("content-type").is_some_and(|t| t.starts_with("application/openmetrics-text")));
    for line in [
        "tidegate_pipeline_events_per_second{pipeline=\"ingest\"} 5000.0",
        "tidegate_pipeline_flush_interval_seconds{pipeline=\"ingest\"} 0.02",
        "tidegate_pipeline_decisions_total{pipeline=\"ingest\",reason=\"warm\"} 2.0",
    ] {
        assert!(answer.body.contains(line), "{line} is not in\n{}", answer.body);
    }
    assert!(!answer.body.contains("tidegate_pipeline_queue_bytes{"), "an unknown figure is shown");
}

#[tokio::test]
async fn a_pin_outside_the_bounds_is_refused() {
    let mut stage = stage(view(vec![pipeline("ingest", OWNER)]));
    let path = "/v1/pipelines/ingest/override";
    refused(&stage, "PUT", path, r#"{"batch_bytes": 1}"#, 422, "out-of-range").await;
    refused(&stage, "PUT", path, "{}", 422, "empty-override").await;
    refused(&stage, "PUT", path, r#"{"batch": 1}"#, 400, "bad-json").await;
    for (method, body) in [("PUT", r#"{"batch_bytes": 8192}"#), ("DELETE", "")] {
        let request = Request::builder().method(method).uri(path).header("if-match", "\"999\"");
        let answer = stage.ask_with(0, request, body).await;
        assert!(answer.status == 412 && answer.body.contains("generation-changed"), "{method}: {}", answer.body);
    }
    assert_eq!(stage.inbox.try_next(), None);
    let mut later = (*stage.app.view()).clone();
    later.now = NOW + Nanos::SECOND;
    stage.views.send_replace(Arc::new(later));
    assert_eq!(stage.ask(0, "PUT", path, r#"{"batch_bytes": 8192}"#).await.status, 200);
    assert!(matches!(stage.inbox.try_next(), Some(Input::Override { uid: Uid(0), .. })));
}
