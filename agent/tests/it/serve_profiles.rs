//! Profiles at the socket: whose they are, when they are of, and what is said where there are none.

use std::sync::Arc;

use agent_common::{LossReason, SampleKind, UnwindEnd, WaitReason};
use tidegate::aggregate::lost::Lost;
use tidegate::aggregate::stacks::{StackCounts, StackKey, Tally};
use tidegate::event::Comm;
use tidegate::serve::losses::LossLog;
use tidegate::serve::render::Stretch;
use tidegate::serve::view::View;
use tidegate::units::{CgroupId, Nanos, Pid, ProfileKind, Uid};

use crate::serve_kit::{AGENT, Answer, NOW, Stage, stage, view};

const ALICE: u32 = 1000;
const BOB: u32 = 1001;
/// No process has a number as high: what it did is known from its samples alone.
const GONE: u32 = 4_194_400;

fn comm(text: &str) -> Comm {
    let mut comm = [0; 16];
    comm.iter_mut().zip(text.bytes().take(15)).for_each(|(to, from)| *to = from);
    Comm(comm)
}

/// A second of samples: (process, user, thread, samples).
fn second(nth: u64, rows: &[(u32, u32, &str, u64)]) -> Arc<StackCounts> {
    let mut counts = StackCounts::starting(Nanos::from_secs(nth));
    counts.end = Nanos::from_secs(nth + 1);
    for (pid, uid, name, samples) in rows {
        let key = StackKey {
            kind: SampleKind::Cpu,
            pid: Pid(*pid),
            comm: comm(name),
            cgroup: CgroupId(0),
            uid: Uid(*uid),
            reason: WaitReason::Other,
            user_end: UnwindEnd::Entry,
            kernel: Box::new([0xffff_ffff_8100_0000]),
            user: Box::new([0x0055_5555_0000]),
            thread: None,
            waker: None,
        };
        counts.counts.insert(key, Tally { samples: *samples, weight: samples * 10 });
    }
    Arc::new(counts)
}

fn cpu() -> Arc<[ProfileKind]> {
    Arc::new([ProfileKind::Cpu])
}

/// A host where root, Alice and Bob run the same program, one after the other under the same number.
fn shared() -> Stage {
    let mut losses = LossLog::default();
    losses.note(Nanos::from_secs(995), Lost::default());
    losses.note(Nanos::from_secs(999), Lost::of(LossReason::RingFull, 5));
    let rows: &[_] = &[(GONE, 0, "of-root", 1), (GONE, ALICE, "of-alice", 2), (GONE, BOB, "of-bob", 4)];
    let slices = vec![second(998, rows)];
    stage(View { slices, recorded: cpu(), losses, ..view(Vec::new()) })
}

async fn folded(stage: &Stage, uid: u32, query: &str) -> Answer {
    stage.ask(uid, "GET", &format!("/v1/profiles/cpu?format=folded{query}"), "").await
}

#[tokio::test]
async fn root_sees_everything_and_a_user_what_ran_as_him_and_every_loss() {
    let stage = shared();
    for root in [0, AGENT.0] {
        let all = folded(&stage, root, "").await.body;
        assert!(["of-root", "of-alice", "of-bob"].iter().all(|name| all.contains(name)), "{all}");
    }
    for (user, own, foreign) in [(ALICE, "of-alice", ["of-bob", "of-root"]), (BOB, "of-bob", ["of-alice", "of-root"])] {
        for query in ["", &format!("&pid={GONE}")] {
            let seen = folded(&stage, user, query).await;
            assert!(
                seen.status == 200 && seen.body.contains(own) && seen.body.contains("[lost: ring_full] 5"),
                "{seen:?}"
            );
            assert!(foreign.iter().all(|name| !seen.body.contains(name)), "{seen:?}");
        }
    }
    for format in ["svg", "json", "folded"] {
        for user in [0, ALICE] {
            let path = format!("/v1/profiles/cpu?format={format}");
            let shown = stage.ask(user, "GET", &path, "").await;
            assert_eq!(shown.status, 200, "{shown:?}");
            assert!(!shown.body.contains("ffffffff81"), "an address of the kernel is shown as {format}");
        }
    }
    // Somebody else's name finds nothing, and is not told from one that nobody has.
    for query in ["&comm=of-alice", "&comm=of-nobody"] {
        assert!(!folded(&stage, BOB, query).await.body.contains("of-alice"));
    }
    assert_eq!(stage.ask(ALICE, "GET", "/v1/profiles/wakeup", "").await.status, 403);
    assert_eq!(stage.ask(ALICE, "GET", "/v1/profiles/cpu?seconds=1", "").await.status, 403);
}

#[tokio::test]
async fn closed_windows_and_open_slices_add_up_and_none_is_counted_twice() {
    let stage = stage(View { recorded: cpu(), ..view(Vec::new()) });
    let window = |nth: u64, samples: u64| {
        let mut stacks = StackCounts::clone(&second(nth, &[(GONE, ALICE, "app", samples)]));
        stacks.end = stacks.start + Nanos::from_secs(10);
        Stretch { stacks: Arc::new(stacks), kinds: cpu(), lost: Lost::of(LossReason::RingFull, 1) }
    };
    for (nth, samples) in [(960, 1), (970, 10), (980, 100)] {
        stage.app.renderer.close(window(nth, samples));
    }
    // The view is older than the newest window: its slices are in that already.
    let slices = vec![second(988, &[(GONE, ALICE, "app", 1_000)]), second(990, &[(GONE, ALICE, "app", 10_000)])];
    stage.views.send_replace(Arc::new(View { slices, recorded: cpu(), now: NOW, ..view(Vec::new()) }));
    let total = async |query: &str| -> u64 {
        let text = folded(&stage, 0, query).await.body;
        let app = text.lines().filter(|line| line.starts_with("app"));
        app.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    assert_eq!(total("&from=0").await, 10_111);
    assert_eq!(total("&from=-40s&to=-30s").await, 1);
    assert_eq!(total("&from=-30s&to=-10s").await, 110);
    let lost = folded(&stage, 0, "&from=-40s&to=-10s").await.body;
    assert!(lost.contains("[lost: ring_full] 3"), "{lost}");
}

#[tokio::test]
async fn what_was_not_recorded_is_told_from_what_was_not_seen() {
    let quiet = View { slices: vec![second(998, &[])], recorded: cpu(), ..view(Vec::new()) };
    let stage = stage(quiet);
    for (path, code) in [
        ("/v1/profiles/cpu?pid=7", "no-samples"),
        ("/v1/profiles/cpu?from=-60s&to=-30s", "not-recorded"),
        ("/v1/profiles/wall", "not-recorded"),
    ] {
        let answer = stage.ask(0, "GET", path, "").await;
        assert_eq!((answer.status, answer.problem().as_str()), (404, code), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn what_grew_is_named_with_its_shares_and_only_to_whom_it_belongs() {
    let window = |nth: u64, rows: &[(u32, u32, &str, u64)]| {
        let mut stacks = StackCounts::clone(&second(nth, rows));
        stacks.end = stacks.start + Nanos::from_secs(10);
        for (key, _) in rows.iter().zip(1..) {
            // A function of its own for each thread.
            let entry = stacks.counts.keys().find(|k| k.comm == comm(key.2)).cloned().unwrap();
            let tally = stacks.counts.remove(&entry).unwrap();
            let user: Box<[u64]> = Box::new([0x0055_5555_0000 + u64::from(key.2.as_bytes()[0]) * 0x1000]);
            stacks.counts.insert(StackKey { user, kernel: Box::new([]), ..entry }, tally);
        }
        Stretch { stacks: Arc::new(stacks), kinds: cpu(), lost: Lost::default() }
    };
    let stage = stage(View { recorded: cpu(), ..view(Vec::new()) });
    for nth in 0..20 {
        let (steady, grown) = if nth < 16 { (80, 20) } else { (20, 80) };
        let rows = [(GONE, ALICE, "steady", steady), (GONE, ALICE, "grown", grown), (GONE, BOB, "bobs", 500)];
        stage.app.renderer.close(window(790 + nth * 10, &rows));
    }
    let spots = stage.ask(ALICE, "GET", "/v1/hotspots?from=-50s&to=-10s", "").await.json();
    let function = spots["grown"][0]["function"].as_str().unwrap().to_owned();
    let before = spots["grown"][0]["own_before"].as_f64().unwrap();
    assert!(
        (before - 0.2).abs() < 0.001 && (spots["grown"][0]["own"].as_f64().unwrap() - 0.8).abs() < 0.001,
        "{spots}"
    );
    assert_eq!(spots["hottest"].as_array().unwrap().len(), 2, "Bob's is not Alice's to see: {spots}");
    assert_eq!((&spots["now"]["samples"], &spots["baseline"]["samples"]), (&400.into(), &1_600.into()));
    let words = spots["words"][0].as_str().unwrap();
    assert!(words.contains("from 20.0 % to 80.0 %") && words.starts_with(&function), "{words}");
    let path = "/v1/profiles/cpu/diff?from=-50s&to=-10s&diff_from=-3m&diff_to=-50s";
    let text = stage.ask(ALICE, "GET", &format!("{path}&format=text"), "").await.body;
    assert!(text.contains(&function), "{text}");
    assert!(stage.ask(ALICE, "GET", path, "").await.body.starts_with("<?xml"));
    let none =
        stage.ask(ALICE, "GET", "/v1/profiles/cpu/diff?from=-50s&to=-10s&diff_from=-900s&diff_to=-800s", "").await;
    assert_eq!((none.status, none.problem().as_str()), (404, "no-baseline"));
    for path in ["/v1/hotspots?kind=gpu", "/v1/hotspots?from=-10m&to=-9m", "/v1/profiles/wall/diff"] {
        assert_eq!(stage.ask(ALICE, "GET", path, "").await.status, 404, "{path}");
    }
}
