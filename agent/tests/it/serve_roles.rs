//! Every route for every kind of caller.

use tidegate::event::Input;
use tidegate::serve::routes::{ROUTES, Route, Who};

use crate::serve_kit::{AGENT, Answer, READER, REGISTRATION, Stage, TUNER, pipeline, stage, view};

const ROOT: u32 = 0;
const OWNER: u32 = 1000;
const OTHER_OWNER: u32 = 1001;
const NOBODY: u32 = 65_534;
const CALLERS: [u32; 7] = [ROOT, AGENT.0, OWNER, OTHER_OWNER, READER, TUNER, NOBODY];

/// Who may use which route of a pipeline that `OWNER` owns, written down apart from the code's own table: a letter for each
/// of those callers, in their order, where he may.
///
/// R root, A the agent's own user, O the owner, o the owner of another pipeline, r the reader, t the tuner, n nobody.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("GET", "/v1/health", "RAOortn"),
    ("GET", "/v1/guidance", "RAOortn"),
    // Of a profile everybody gets his own part.
    ("GET", "/v1/profiles/{kind}", "RAOortn"),
    ("GET", "/v1/profiles/{kind}/diff", "RAOortn"),
    ("GET", "/v1/hotspots", "RAOortn"),
    ("GET", "/v1/doctor", "RA..r.."),
    ("GET", "/v1/metrics", "RA..r.."),
    ("GET", "/v1/syscalls", "RA..r.."),
    ("GET", "/v1/sockets", "RA..r.."),
    ("GET", "/v1/pipelines", "RAOort."),
    ("PUT", "/v1/pipelines/{name}", "..O...."),
    ("GET", "/v1/pipelines/{name}", "RAO.rt."),
    ("DELETE", "/v1/pipelines/{name}", "RAO...."),
    ("GET", "/v1/pipelines/{name}/settings", "RAO.rt."),
    ("GET", "/v1/pipelines/{name}/signals", "RAO.rt."),
    ("GET", "/v1/pipelines/{name}/decisions", "RAO.rt."),
    ("POST", "/v1/pipelines/{name}/signals", "RAO...."),
    ("POST", "/v1/pipelines/{name}/ack", "RAO...."),
    ("POST", "/v1/pipelines/{name}/lease", "RAO...."),
    ("PUT", "/v1/pipelines/{name}/bounds", "RAO...."),
    ("POST", "/v1/pipelines/{name}/mode", "RAO..t."),
    ("PUT", "/v1/pipelines/{name}/override", "RA...t."),
    ("DELETE", "/v1/pipelines/{name}/override", "RA...t."),
    ("POST", "/v1/pipelines/{name}/rollback", "RA...t."),
    ("POST", "/v1/tuning/pause", "RA...t."),
    ("POST", "/v1/tuning/resume", "RA...t."),
];

fn may(route: &Route, caller: u32) -> bool {
    let (method, path) = (route.method.as_str(), route.path);
    let line = ALLOWED.iter().find(|(m, p, _)| (*m, *p) == (method, path));
    let (_, _, who) =
        line.unwrap_or_else(|| panic!("{method} {path} is in no line of this test: decide who may use it"));
    let place = CALLERS.iter().position(|c| *c == caller).expect("one of the callers");
    who.as_bytes()[place] != b'.'
}

async fn ask(stage: &Stage, route: &Route, caller: u32, name: &str) -> Answer {
    let body = match route.path {
        "/v1/pipelines/{name}" if route.method == "PUT" => REGISTRATION,
        "/v1/pipelines/{name}/override" if route.method == "PUT" => r#"{"batch_bytes": 8192}"#,
        "/v1/pipelines/{name}/bounds" => r#"{"batch_bytes": {"min": 8192, "max": 16384}}"#,
        "/v1/pipelines/{name}/mode" => r#"{"mode": "observe"}"#,
        "/v1/pipelines/{name}/signals" if route.method == "POST" => r#"{"sequence": 1, "events_in": 5}"#,
        "/v1/pipelines/{name}/ack" => {
            r#"{"sequence": 1, "generation": 3, "batch_bytes": 65536, "flush_interval_us": 20000}"#
        }
        _ => "",
    };
    stage.ask(caller, route.method.as_str(), &route.path.replace("{name}", name).replace("{kind}", "cpu"), body).await
}

// Time is virtual: a route that waits for a tick that never comes gives up at once.
#[tokio::test(start_paused = true)]
async fn every_route_lets_in_whom_it_should_and_nobody_else() {
    for route in ROUTES {
        for caller in CALLERS {
            let stage = stage(view(vec![pipeline("ingest", OWNER), pipeline("other", OTHER_OWNER)]));
            let answer = ask(&stage, route, caller, "ingest").await;
            let (method, path) = (route.method, route.path);
            if may(route, caller) {
                assert_ne!(answer.status, 403, "{method} {path} as {caller}: {answer:?}");
            } else {
                assert_eq!(answer.status, 403, "{method} {path} as {caller}: {answer:?}");
                answer.problem();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_caller_may_not_do_never_reaches_the_inbox() {
    for route in ROUTES.iter().filter(|r| r.method != "GET") {
        let mut stage = stage(view(vec![pipeline("ingest", OWNER)]));
        assert_eq!(ask(&stage, route, NOBODY, "ingest").await.status, 403);
        assert_eq!(stage.inbox.try_next(), None, "{} {}", route.method, route.path);
    }
}

#[tokio::test(start_paused = true)]
async fn a_free_name_is_anybodys_to_register_and_nobodys_to_read() {
    for caller in [ROOT, OWNER, NOBODY] {
        let others = |r: &&Route| r.who != Who::Tuner || caller == ROOT;
        for route in ROUTES.iter().filter(|r| r.path.contains("{name}")).filter(others) {
            let stage = stage(view(Vec::new()));
            let status = ask(&stage, route, caller, "free").await.status;
            // Nobody takes the registration up here, so it ends as "busy".
            let want = if route.who == Who::Namesake { 503 } else { 404 };
            assert_eq!(status, want, "{} {} as {caller}", route.method, route.path);
        }
    }
}

#[tokio::test]
async fn a_listing_shows_an_owner_his_own_only() {
    let stage = stage(view(vec![pipeline("ingest", OWNER), pipeline("other", OTHER_OWNER)]));
    let names = async |caller| {
        let listed = stage.ask(caller, "GET", "/v1/pipelines", "").await.json();
        listed
            .as_array()
            .expect("a list")
            .iter()
            .map(|p| p["name"].as_str().unwrap_or("?").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(ROOT).await, ["ingest", "other"]);
    assert_eq!(names(READER).await, ["ingest", "other"]);
    assert_eq!(names(TUNER).await, ["ingest", "other"]);
    assert_eq!(names(OWNER).await, ["ingest"]);
}

#[tokio::test]
async fn a_caller_without_credentials_gets_nothing() {
    use tower::ServiceExt as _;
    let stage = stage(view(Vec::new()));
    for route in ROUTES {
        let request = axum::http::Request::builder()
            .method(route.method)
            .uri(route.path.replace("{name}", "x").replace("{kind}", "cpu"))
            .body(axum::body::Body::empty())
            .expect("the request is well-formed");
        let response = tidegate::serve::routes::router(&stage.app).oneshot(request).await.expect("it answers");
        assert_eq!(response.status(), 403, "{} {}", route.method, route.path);
    }
}

#[tokio::test(start_paused = true)]
async fn bounds_are_narrowed_by_the_owner_and_widened_again_by_root_up_to_the_registration() {
    let narrow = || {
        let mut pipeline = pipeline("ingest", OWNER);
        pipeline.bounds.batch_bytes.max = 100_000;
        stage(view(vec![pipeline]))
    };
    let path = "/v1/pipelines/ingest/bounds";
    let set = async |caller, max: u64| {
        let mut stage = narrow();
        let body = format!(r#"{{"batch_bytes": {{"min": 8192, "max": {max}}}}}"#);
        let answer = stage.ask(caller, "PUT", path, &body).await;
        let asked = match stage.inbox.try_next() {
            Some(Input::Bound { knobs, .. }) => Some((knobs.batch_bytes.max, knobs.flush_interval_us.max)),
            _ => None,
        };
        (answer.status, asked)
    };
    // Nobody takes it up here, so what is let through ends as "busy".
    assert_eq!(set(OWNER, 50_000).await, (503, Some((50_000, 250_000))));
    assert_eq!(set(OWNER, 100_001).await, (403, None), "an owner widened his bounds");
    assert_eq!(set(ROOT, 524_288).await, (503, Some((524_288, 250_000))));
    assert_eq!(set(ROOT, 524_289).await, (403, None), "beyond what the pipeline accepts");
    let upside_down = narrow().ask(OWNER, "PUT", path, r#"{"batch_bytes": {"min": 9000, "max": 8999}}"#).await;
    assert_eq!((upside_down.status, upside_down.problem().as_str()), (422, "bounds-inverted"));
}
