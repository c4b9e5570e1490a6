//! Residency against what the reader itself knows.

use agent_common::{LossReason, SampleKind};
use tidegate::event::Sample;
use tidegate::serve::listing::socket_row;
use tidegate::serve::view::SocketJson;
use tidegate::source::Wanted;
use tidegate::source::ebpf::LoadOptions;
use tidegate::units::Nanos;

use crate::kit::{Probes, Subject, close};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("a_message_that_waits_20_ms_is_seen_to_tcp", || waits_of_one("tcp")),
    ("a_message_that_waits_20_ms_is_seen_to_unix", || waits_of_one("unix")),
    ("a_message_that_waits_20_ms_is_seen_to_udp", || waits_of_one("udp")),
    ("a_message_that_waits_20_ms_is_seen_to_unixgram", || waits_of_one("unixgram")),
    ("a_burst_of_datagrams_is_weighed_one_by_one_udp", || burst("udp")),
    ("a_burst_of_datagrams_is_weighed_one_by_one_unixgram", || burst("unixgram")),
    ("datagrams_that_found_no_room_are_counted", overflow),
    ("stacks_of_readers_weigh_what_waited_for_them", stacks_of_readers),
    ("samples_of_readers_weigh_together_what_all_reads_waited", sampled_readers),
    ("a_burst_is_weighed_byte_by_byte_tcp", || burst("tcp")),
    ("a_burst_is_weighed_byte_by_byte_unix", || burst("unix")),
    ("a_slow_reader_is_seen_as_it_sees_itself_tcp", || slow_reader("tcp")),
    ("a_slow_reader_is_seen_as_it_sees_itself_unix", || slow_reader("unix")),
    ("a_socket_that_lives_for_less_than_a_tick_keeps_its_bytes", short_lives),
    ("a_second_watch_counts_only_what_it_saw_tcp", || second_watch("tcp")),
    ("a_second_watch_counts_only_what_it_saw_unix", || second_watch("unix")),
];

/// Slack for the time between the message's own stamp and the kernel's, on a busy machine.
const SLACK: u64 = 300_000;

#[derive(serde::Deserialize)]
struct Truth {
    mean_ns: u64,
    p50_ns: u64,
    oldest_p50_ns: u64,
    messages: u64,
}

fn look(kind: &str, pattern: &str) -> (SocketJson, Truth) {
    let subject = Subject::start(&format!("socket {kind} {pattern}"));
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&Wanted { sockets: Some([pid].into()), ..Wanted::default() });
    let (_subject, said) = probes.while_acting(subject);
    let truth: Truth = serde_json::from_str(&said).expect("the subject tells what it knows");
    let rows = &probes.seen().rows;
    let read = rows.sockets.values().max_by_key(|r| r.stats.read_bytes).expect("its sockets were seen");
    let socket = socket_row(read, rows.comm(pid.0));
    assert_eq!((socket.kind, socket.read_bytes), (kind, 64 * truth.messages));
    assert_eq!(socket.unmeasured_bytes, 0);
    (socket, truth)
}

fn waits_of_one(kind: &str) {
    let (socket, truth) = look(kind, "one");
    close("median", socket.p50_ns.expect("measured"), truth.p50_ns, 10, SLACK);
    close("oldest", socket.oldest_p50_ns.expect("measured"), truth.oldest_p50_ns, 10, SLACK);
}

fn burst(kind: &str) {
    let (socket, truth) = look(kind, "burst");
    close("oldest", socket.oldest_p50_ns.expect("measured"), truth.oldest_p50_ns, 10, SLACK);
    close("mean", socket.mean_ns.expect("measured"), truth.mean_ns, 10, SLACK);
}

fn slow_reader(kind: &str) {
    let (socket, truth) = look(kind, "slow-reader");
    close("mean", socket.mean_ns.expect("measured"), truth.mean_ns, 10, SLACK);
    close("median", socket.p50_ns.expect("measured"), truth.p50_ns, 10, SLACK);
}

fn overflow() {
    let subject = Subject::start("overflow 5000");
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&Wanted { sockets: Some([pid].into()), ..Wanted::default() });
    probes.run_for(Nanos::from_millis(250));
    let (_subject, said) = probes.while_acting(subject);
    let truth: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let (read, lost) = (truth["read"].as_u64().expect("a number"), truth["lost"].as_u64().expect("a number"));
    assert!(lost > 0, "all 5,000 found room: nothing is tested");
    let rows = &probes.seen().rows;
    let reader = rows.sockets.values().max_by_key(|row| row.stats.read_bytes).expect("its sockets were seen");
    let reader = socket_row(reader, String::new());
    assert_eq!((reader.read_bytes, reader.overflows, reader.unmeasured_bytes), (64 * read, lost, 0));
}

/// The stacks of the readers of 30 messages, and the byte-microseconds that the socket counted.
fn reader_stacks(period: u64, pattern: &str) -> (Vec<Sample>, u64) {
    let subject = Subject::start(&format!("socket unix {pattern}"));
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions { socket_period: period, ..LoadOptions::default() });
    probes.watch(&Wanted { sockets: Some([pid].into()), socket_stacks: true, ..Wanted::default() });
    let (_subject, _) = probes.while_acting(subject);
    let waited = probes.seen().rows.sockets.values().map(|row| row.stats.byte_us).sum();
    let of_readers = |s: &&Sample| s.pid == pid && s.kind == SampleKind::Socket;
    (probes.seen().samples.iter().filter(of_readers).cloned().collect(), waited)
}

fn stacks_of_readers() {
    let (samples, waited) = reader_stacks(1_000, "one");
    assert_eq!(samples.len(), 30, "each read ended a wait of more than a period");
    assert_eq!(samples.iter().map(|s| s.weight).sum::<u64>(), waited);
    assert!(samples.iter().all(|s| !s.kernel.is_empty() && !s.user.is_empty()), "a reader without a stack");
}

/// 600 reads, most of which waited for less than a period: the sum of the weights comes out right in the mean.
fn sampled_readers() {
    let (samples, waited) = reader_stacks(64 * 1_000_000, "slow-reader");
    assert!((60..600).contains(&samples.len()), "{} samples", samples.len());
    close("weight", samples.iter().map(|s| s.weight).sum(), waited, 25, 0);
}

fn short_lives() {
    let subject = Subject::start("short 200");
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&Wanted { sockets: Some([pid].into()), ..Wanted::default() });
    let (_subject, _) = probes.while_acting(subject);
    // One more tick: what closed last is told by the walk after it.
    probes.flush();
    let read: u64 = probes.seen().rows.sockets.values().map(|row| row.stats.read_bytes).sum();
    assert_eq!(read, 200 * 64, "bytes of short connections went missing");
    assert_eq!(probes.seen().rows.lost[LossReason::SocketTableFull], 0);
}

/// Watched, then not or its queue alone, then again, with another process watched throughout or with nobody: each watch
/// begins anew.
fn second_watch(kind: &str) {
    let other = Subject::start("wait");
    for (others, is_looked_at) in [(true, false), (false, false), (false, true), (true, true)] {
        let subject = Subject::start(&format!("socket {kind} one"));
        let pid = subject.pid();
        let mut probes = Probes::load(LoadOptions::default());
        probes.watch(&Wanted { sockets: Some([pid].into()), ..Wanted::default() });
        let acting = std::thread::spawn(move || {
            let mut subject = subject;
            let said = subject.act();
            (subject, said)
        });
        probes.run_for(Nanos::from_millis(400));
        let sockets = others.then(|| [other.pid()].into());
        let queues = is_looked_at.then_some(pid).into_iter().collect();
        probes.watch(&Wanted { sockets, queues, ..Wanted::default() });
        assert!(others || !probes.attached().contains(&"sockets"), "queues alone need no probe");
        probes.run_for(Nanos::from_millis(400));
        let of_subject = probes.seen().rows.sockets.values().filter(|row| row.seen.pid == pid.0);
        let told: Vec<(bool, bool)> = of_subject.map(|r| (r.seen.fd >= 0, r.stats.is_followed())).collect();
        assert!(told.iter().all(|(is_open, _)| *is_open), "what a walk leaves out is told as closed");
        if is_looked_at {
            assert!(told.contains(&(true, false)) && !told.contains(&(true, true)), "{told:?}");
        }
        let mut wanted = vec![pid];
        wanted.push(other.pid());
        probes.watch(&Wanted { sockets: Some(wanted.into_iter().collect()), ..Wanted::default() });
        while !acting.is_finished() {
            probes.run_for(Nanos::TICK);
        }
        probes.flush();
        let (_subject, _said) = acting.join().expect("the subject acted");
        let rows = &probes.seen().rows;
        assert_eq!(rows.lost[LossReason::SocketTableFull], 0, "an ended watch is no full table");
        let read = rows.sockets.values().filter(|r| r.seen.pid == pid.0).max_by_key(|r| r.stats.read_bytes);
        let socket = socket_row(read.expect("its sockets were seen"), String::new());
        assert!(socket.fd.is_some(), "the open socket is told as closed");
        // 30 messages in 1.5 s, 0.8 s of them before the second watch.
        assert!((2..=22).contains(&socket.reads), "{} reads", socket.reads);
        close("median", socket.p50_ns.expect("measured"), 20_000_000, 10, SLACK);
    }
}
