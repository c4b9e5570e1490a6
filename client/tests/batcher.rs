//! The batcher between threads: nothing is lost, senders wait for room, shorter settings take hold at once.

use std::collections::VecDeque;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use tidegate_client::abi::{Knobs, LeaseTerms, Registration, ReportWord};
use tidegate_client::batcher::Closed;
use tidegate_client::rule::{Cause, L0, Queue, Rule, Sink, Verdict};
use tidegate_client::{Batcher, Bytes, Nanos, Options, ReportPage, Settings, Source, Tuner, clock};

const FOREVER: Nanos = Nanos(u64::MAX / 4);

fn own(batch: Bytes, interval: Nanos) -> Options {
    Options { source: Source::Own(Settings { batch, interval }), ..Options::default() }
}

/// The flush whose cost is measured has to take some real time.
fn let_pass(span: Duration) {
    let until = clock::monotonic() + span.into();
    while clock::monotonic() < until {
        thread::park_timeout((until - clock::monotonic()).into());
    }
}

#[test]
fn every_event_comes_out_once_and_in_order_of_its_sender() {
    const SENDERS: usize = 3;
    const EVENTS: u64 = 20_000;
    let small = L0::by_settings(Bytes(700));
    let batcher = Batcher::new(Options {
        rule: Box::new(small),
        capacity: Bytes(2_000),
        ..own(Bytes(500), Nanos::from_millis(1))
    })
    .unwrap();
    let mut next = [0; SENDERS];
    thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let batcher = batcher.clone();
                scope.spawn(move || {
                    for n in 0..EVENTS {
                        batcher.push((sender, n), Bytes(1 + n % 40)).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            for sender in senders {
                sender.join().unwrap();
            }
            batcher.close();
        });
        while let Some(batch) = batcher.next_batch() {
            assert!(batch.bytes() <= small.batch_max);
            for (sender, n) in batch.items() {
                let expected: &mut u64 = &mut next[*sender];
                assert_eq!(*n, *expected, "sender {sender}");
                *expected += 1;
            }
            batch.acknowledge();
        }
    });
    assert_eq!(next, [EVENTS; SENDERS]);
}

#[test]
fn a_closed_batcher_gives_back_what_it_does_not_take_and_flushes_what_it_has() {
    let batcher = Batcher::new(own(Bytes(1_000), FOREVER)).unwrap();
    batcher.push("kept", Bytes(4)).unwrap();
    batcher.close();
    assert_eq!(batcher.push("late", Bytes(4)), Err(Closed("late")));
    let mut more = VecDeque::from([("a", Bytes(1)), ("b", Bytes(1))]);
    assert_eq!(batcher.push_all(&mut more), Err(Closed(())));
    assert_eq!(more, [("a", Bytes(1)), ("b", Bytes(1))]);
    let batch = batcher.next_batch().unwrap();
    assert_eq!(batch.items(), ["kept"]);
    batch.acknowledge();
    assert!(batcher.next_batch().is_none());
}

#[test]
fn an_event_larger_than_queue_and_batch_still_passes_alone() {
    let options = Options { capacity: Bytes(100), ..own(Bytes(10), FOREVER) };
    let batcher = Batcher::new(Options { rule: Box::new(L0::by_settings(Bytes(50))), ..options }).unwrap();
    batcher.push('x', Bytes(5_000)).unwrap();
    let batch = batcher.next_batch().unwrap();
    assert_eq!((batch.events(), batch.cause()), (1, Cause::Panic));
    batch.acknowledge();
}

#[test]
fn what_gathers_behind_a_flush_in_flight_is_drained_as_one_backlog() {
    let batcher = Batcher::new(own(Bytes(100), FOREVER)).unwrap();
    let push = |n: u64| (0..n).for_each(|i| batcher.push(i, Bytes(10)).unwrap());
    push(10);
    let first = batcher.next_batch().unwrap();
    assert_eq!((first.events(), first.cause()), (10, Cause::Size));
    push(35);
    first.acknowledge();
    let second = batcher.next_batch().unwrap();
    assert_eq!((second.events(), second.cause()), (35, Cause::Backlog));
    second.acknowledge();
}

#[test]
fn a_report_balances_events_in_with_events_out_lost_and_queued() {
    let dir = tempfile::tempdir().unwrap();
    let report = ReportPage::create(dir.path(), "x").unwrap();
    let path = report.path().to_owned();
    let word = |w: ReportWord| {
        let at = 16 + 8 * w as usize;
        u64::from_ne_bytes(fs::read(&path).unwrap()[at..at + 8].try_into().unwrap())
    };
    let batcher = Batcher::new(Options { report: Some(report), ..own(Bytes(20), FOREVER) }).unwrap();
    for i in 0..2 {
        batcher.push(i, Bytes(10)).unwrap();
    }
    batcher.next_batch().unwrap().acknowledge();
    for i in 0..3 {
        batcher.push(i, Bytes(10)).unwrap();
    }
    let dropped = batcher.next_batch().unwrap();
    dropped.note_failure();
    drop(dropped);
    batcher.push(9, Bytes(10)).unwrap();
    assert_eq!((word(ReportWord::EventsIn), word(ReportWord::BytesIn)), (6, 60));
    assert_eq!((word(ReportWord::EventsOut), word(ReportWord::EventsLost), word(ReportWord::QueueEvents)), (2, 3, 1));
    assert_eq!((word(ReportWord::Flushes), word(ReportWord::FlushErrors), word(ReportWord::QueueBytes)), (1, 2, 10));
    assert_eq!((word(ReportWord::BatchBytes), word(ReportWord::QueueCapacity)), (20, 64 << 20));
}

#[test]
fn once_a_flush_has_shown_its_cost_waiting_alone_begins_the_next() {
    let options = own(Bytes::from_kib(256), FOREVER);
    let batcher = Batcher::new(Options { rule: Box::new(L0::by_waiting(Bytes::from_kib(512))), ..options }).unwrap();
    batcher.push(0, Bytes::from_kib(256)).unwrap();
    let first = batcher.next_batch().unwrap();
    assert_eq!(first.cause(), Cause::Size, "no cost is known yet");
    let_pass(Duration::from_millis(5));
    first.acknowledge();
    batcher.push(1, Bytes(1)).unwrap();
    let began = clock::monotonic();
    let second = batcher.next_batch().unwrap();
    assert_eq!(second.cause(), Cause::Waiting);
    assert!(clock::monotonic() - began >= Nanos::from_millis(5), "a lone event waits as long as a flush takes");
    second.acknowledge();
}

#[test]
fn time_that_senders_wait_for_room_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let report = ReportPage::create(dir.path(), "x").unwrap();
    let path = report.path().to_owned();
    let stalled = || {
        let at = 16 + 8 * ReportWord::StalledNs as usize;
        u64::from_ne_bytes(fs::read(&path).unwrap()[at..at + 8].try_into().unwrap())
    };
    let batcher =
        Batcher::new(Options { report: Some(report), capacity: Bytes(10), ..own(Bytes(10), FOREVER) }).unwrap();
    batcher.push(0, Bytes(10)).unwrap();
    let in_flight = batcher.next_batch().unwrap();
    batcher.push(1, Bytes(10)).unwrap();
    assert_eq!(stalled(), 0, "there was room");
    thread::scope(|scope| {
        let sender = scope.spawn(|| batcher.push(2, Bytes(10)));
        let_pass(Duration::from_millis(20));
        in_flight.acknowledge();
        batcher.next_batch().unwrap().acknowledge();
        sender.join().unwrap().unwrap();
    });
    let waited = Nanos(stalled());
    assert!(waited >= Nanos::from_millis(10) && waited < Nanos::from_millis(5_000), "{waited:?}");
}

#[test]
fn without_an_agent_a_tuned_batcher_runs_on_its_own_settings() {
    let dir = tempfile::tempdir().unwrap();
    let registration = Registration { lease: LeaseTerms::default(), ..Registration::new(Knobs::default()) };
    let tuner = Tuner::register_at(dir.path().join("no.sock"), "x", registration).unwrap();
    let batcher = Batcher::new(Options::tuned(tuner)).unwrap();
    let began = clock::monotonic();
    for i in 0..256 {
        batcher.push(i, Bytes::from_kib(1)).unwrap();
    }
    let batch = batcher.next_batch().unwrap();
    assert_eq!((batch.events(), batch.cause()), (256, Cause::Size));
    batch.acknowledge();
    batcher.push(0, Bytes(1)).unwrap();
    let batch = batcher.next_batch().unwrap();
    assert_eq!(batch.cause(), Cause::Age);
    assert!(clock::monotonic() - began >= Nanos::from_millis(250));
    batch.acknowledge();
}

/// Flushes by age alone, at an age that can be changed from outside.
struct ByAge(Arc<AtomicU64>);

impl Rule for ByAge {
    fn decide(&self, _: &Settings, queue: &Queue, sink: Sink, now: Nanos) -> Verdict {
        let age = Nanos(self.0.load(Ordering::Relaxed));
        match queue.oldest.filter(|_| sink != Sink::Busy).map(|oldest| oldest + age) {
            None => Verdict::Wait { until: None },
            Some(due) if now >= due => Verdict::Flush { cause: Cause::Age, take: queue.bytes },
            Some(due) => Verdict::Wait { until: Some(due) },
        }
    }
}

#[test]
fn a_flusher_asleep_wakes_for_the_first_event_and_for_shorter_settings() {
    let age = Arc::new(AtomicU64::new(1_000_000));
    let rule = Box::new(ByAge(Arc::clone(&age)));
    let batcher = Batcher::new(Options { rule, ..Options::default() }).unwrap();
    let (tell, told) = sync_channel(1);
    let far_end = batcher.clone();
    let thread = thread::spawn(move || {
        while let Some(batch) = far_end.next_batch() {
            tell.send(batch.events()).unwrap();
            batch.acknowledge();
        }
    });
    let next = || told.recv_timeout(Duration::from_secs(20)).expect("the flusher sleeps on");
    // Most of these meet a flusher that sleeps without a time to wake at.
    for i in 0..100 {
        batcher.push(i, Bytes(1)).unwrap();
        assert_eq!(next(), 1);
    }
    age.store(FOREVER.0, Ordering::Relaxed);
    batcher.push(0, Bytes(1)).unwrap();
    assert!(told.recv_timeout(Duration::from_millis(20)).is_err(), "an age of centuries is not reached");
    // Not yet due, so that the flusher must be told of an earlier time and not of a flush.
    age.store(200_000_000, Ordering::Relaxed);
    batcher.push(1, Bytes(1)).unwrap();
    assert_eq!(next(), 2);
    batcher.close();
    thread.join().unwrap();
}

/// How often this thread has gone to sleep.
fn sleeps() -> u64 {
    let status = fs::read_to_string("/proc/thread-self/status").expect("a thread has a status");
    let count = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:")).expect("it counts switches");
    count.trim().parse().expect("a count is a number")
}

#[test]
fn a_flusher_sleeps_once_for_a_flush_that_an_event_begins() {
    const FLUSHES: u64 = 60;
    let batcher = Batcher::new(own(Bytes::from_kib(64), Nanos::from_millis(2))).unwrap();
    let flusher = batcher.clone();
    let slept = thread::spawn(move || {
        let before = sleeps();
        while let Some(batch) = flusher.next_batch() {
            batch.acknowledge();
        }
        sleeps() - before
    });
    for n in 0..FLUSHES {
        batcher.push(n, Bytes(1)).unwrap();
        while batcher.queued().0 > 0 {
            thread::park_timeout(Duration::from_millis(1));
        }
    }
    batcher.close();
    let sleeps = slept.join().unwrap();
    assert!(sleeps <= FLUSHES + FLUSHES / 3, "{sleeps} sleeps for {FLUSHES} flushes");
}

#[test]
fn threads_that_ask_for_batches_side_by_side_share_them_out_and_all_end() {
    const EVENTS: u64 = 300;
    let batcher = Batcher::new(own(Bytes(10), FOREVER)).unwrap();
    let flushers: Vec<_> = (0..3)
        .map(|_| {
            let batcher = batcher.clone();
            thread::spawn(move || {
                let mut taken = Vec::new();
                while let Some(batch) = batcher.next_batch() {
                    taken.extend_from_slice(batch.items());
                    batch.acknowledge();
                }
                taken
            })
        })
        .collect();
    for n in 0..EVENTS {
        batcher.push(n, Bytes(5)).unwrap();
    }
    batcher.close();
    let mut taken: Vec<u64> = flushers.into_iter().flat_map(|f| f.join().unwrap()).collect();
    taken.sort_unstable();
    assert_eq!(taken, (0..EVENTS).collect::<Vec<_>>());
}
