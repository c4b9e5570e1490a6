//! Every route for every kind of caller.

use tidegate::serve::routes::{ROUTES, Route, Who};

use crate::serve_kit::{AGENT, Answer, REGISTRATION, Stage, pipeline, stage, view};

const ROOT: u32 = 0;
const OWNER: u32 = 1000;
const OTHER_OWNER: u32 = 1001;
const NOBODY: u32 = 65_534;
const CALLERS: [u32; 5] = [ROOT, AGENT.0, OWNER, OTHER_OWNER, NOBODY];

/// Who may use which route of a pipeline that `OWNER` owns, written down apart from the code's own table.
fn may(route: &Route, caller: u32) -> bool {
    let root = [ROOT, AGENT.0].contains(&caller);
    let owner = caller == OWNER;
    match (route.method.as_str(), route.path) {
        // Of a profile everybody gets his own part.
        ("GET", "/v1/health" | "/v1/profiles/{kind}" | "/v1/profiles/{kind}/diff" | "/v1/hotspots") => true,
        ("GET", "/v1/pipelines") => root || owner || caller == OTHER_OWNER,
        ("PUT", "/v1/pipelines/{name}") => owner,
        ("GET" | "DELETE", "/v1/pipelines/{name}")
        | (
            "GET",
            "/v1/pipelines/{name}/settings" | "/v1/pipelines/{name}/signals" | "/v1/pipelines/{name}/decisions",
        )
        | ("POST", "/v1/pipelines/{name}/lease") => root || owner,
        ("GET", "/v1/doctor" | "/v1/metrics" | "/v1/syscalls" | "/v1/sockets")
        | ("PUT" | "DELETE", "/v1/pipelines/{name}/override")
        | ("POST", "/v1/tuning/pause" | "/v1/tuning/resume") => root,
        (method, path) => panic!("{method} {path} is in no line of this test: decide who may use it"),
    }
}

async fn ask(stage: &Stage, route: &Route, caller: u32, name: &str) -> Answer {
    let body = match route.path {
        "/v1/pipelines/{name}" if route.method == "PUT" => REGISTRATION,
        "/v1/pipelines/{name}/override" if route.method == "PUT" => r#"{"batch_bytes": 8192}"#,
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
        for route in ROUTES.iter().filter(|r| r.path.contains("{name}") && r.who != Who::Root) {
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
