//! What moves through each descriptor, against what the process itself counts; and the process that counts.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use agent_common::{
    FLOW_ANSWERED, FLOW_EACH_WRITE, FLOW_READS, FLOW_SYNCS, FLOW_WRITES, FlowCalls, FlowFlushes, FlowRow, LossReason,
};
use serde::{Deserialize, Serialize};
use tidegate::source::Wanted;
use tidegate::source::ebpf::LoadOptions;
use tidegate::units::Nanos;

use crate::kit::{Probes, Subject, close};
use crate::subject::{line, number, tell};

pub(crate) const CASES: &[(&str, fn())] = &[
    ("a_flush_ends_with_its_answer_and_costs_what_it_took", answered),
    ("a_flush_of_a_file_ends_with_its_sync", synced),
    ("a_flush_begins_when_its_first_write_does_and_not_when_it_is_done", blocked),
    ("calls_bytes_errors_and_refusals_of_a_descriptor_are_exact", exact),
    ("a_descriptor_that_is_used_again_begins_from_nothing", reused),
    ("a_full_table_of_flows_is_counted_as_lost", overflow),
    ("a_second_watch_of_flows_begins_from_nothing", second_watch),
];

/// What a subject knows of one descriptor.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Truth {
    fd: i32,
    flushes: u64,
    bytes: u64,
    bytes_squared: u64,
    duration_ns: u64,
    bytes_us: u64,
    us_squared: u64,
}

impl Truth {
    fn flushed(&mut self, bytes: u64, took: Duration) {
        let us = u64::try_from(took.as_micros()).expect("short");
        self.flushes += 1;
        self.bytes += bytes;
        self.bytes_squared += bytes * bytes;
        self.duration_ns += u64::try_from(took.as_nanos()).expect("short");
        self.bytes_us += bytes * us;
        self.us_squared += us * us;
    }
}

fn look(task: &str) -> (Vec<FlowRow>, String, Probes) {
    let subject = Subject::start(task);
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions::default());
    probes.watch(&Wanted { flows: [pid].into(), ..Wanted::default() });
    assert_eq!(probes.attached(), ["flows"]);
    let (_subject, said) = probes.while_acting(subject);
    let rows = probes.seen().rows.flows.values().filter(|row| row.key.pid == pid.0).copied().collect();
    (rows, said, probes)
}

fn of_fd(rows: &[FlowRow], fd: i32) -> &FlowRow {
    rows.iter().find(|row| i32::try_from(row.key.fd) == Ok(fd)).expect("the descriptor was seen")
}

fn compare(seen: &FlowFlushes, truth: &Truth) {
    assert_eq!((seen.flushes, seen.bytes, seen.bytes_squared), (truth.flushes, truth.bytes, truth.bytes_squared));
    close("duration", seen.duration_ns, truth.duration_ns, 3, 20_000 * truth.flushes);
    close("bytes by duration", seen.bytes_us, truth.bytes_us, 5, 20 * truth.bytes);
    close("duration squared", seen.us_squared, truth.us_squared, 8, 40 * truth.duration_ns / 1_000);
    assert_eq!(seen.sizes.iter().map(|n| u64::from(*n)).sum::<u64>(), truth.flushes);
    assert_eq!((seen.intervals, seen.gaps.iter().map(|n| u64::from(*n)).sum()), (truth.flushes - 1, truth.flushes - 1));
}

fn answered() {
    let (rows, said, _) = look("flows answered");
    let truth: Truth = serde_json::from_str(&said).expect("the subject tells what it knows");
    let row = of_fd(&rows, truth.fd);
    compare(&row.stats.flushes[FLOW_ANSWERED], &truth);
    let each = &row.stats.flushes[FLOW_EACH_WRITE];
    assert_eq!((each.flushes, each.bytes), (2 * truth.flushes, truth.bytes), "a header and a body each");
    // 5 ms between the end of one and the begin of the next: 2^12 to 2^13 µs.
    let gaps = &row.stats.flushes[FLOW_ANSWERED].gaps;
    assert!(gaps[13] >= gaps.iter().sum::<u32>() * 8 / 10, "{gaps:?}");
    assert_eq!(row.stats.open_ns, 0, "nothing waits for its answer");
    assert!(row.target.starts_with(b"socket:["), "{:?}", row.target);
}

fn synced() {
    let (rows, said, _) = look("flows synced");
    let truth: Truth = serde_json::from_str(&said).expect("the subject tells what it knows");
    let row = of_fd(&rows, truth.fd);
    compare(&row.stats.flushes[FLOW_ANSWERED], &truth);
    assert_eq!(row.stats.ways[FLOW_SYNCS].calls, truth.flushes);
    assert!(row.target.starts_with(b"/"), "{:?}", row.target);
}

fn blocked() {
    let (rows, said, _) = look("flows blocked");
    let truth: Truth = serde_json::from_str(&said).expect("the subject tells what it knows");
    let row = of_fd(&rows, truth.fd);
    compare(&row.stats.flushes[FLOW_ANSWERED], &truth);
    let stalled = row.stats.ways[FLOW_WRITES].total_ns;
    assert!(stalled > truth.flushes * 5_000_000, "each write waited for room for 5 ms: {stalled} ns");
}

fn exact() {
    let (rows, said, probes) = look("flows exact");
    let fds: Vec<i32> = serde_json::from_str(&said).expect("the subject tells its descriptors");
    let [reader, out] = fds[..] else { panic!("two descriptors, not {fds:?}") };
    let ways = |fd| of_fd(&rows, fd).stats.ways;
    let counts = |c: FlowCalls| (c.calls, c.bytes, c.errors, c.again, c.timed);
    assert_eq!(counts(ways(reader)[FLOW_READS]), (700, 500 * 64, 0, 200, 700));
    assert_eq!(counts(ways(out)[FLOW_WRITES]), (300, 300 * 100, 0, 0, 300));
    assert_eq!(counts(ways(out)[FLOW_READS]), (40, 0, 40, 0, 40), "it is not open for reading");
    assert_eq!(probes.seen().rows.lost[LossReason::FlowTableFull], 0);
}

fn reused() {
    let (rows, said, _) = look("flows reused");
    let fd: i32 = serde_json::from_str(&said).expect("the subject tells its descriptor");
    let mut lives: Vec<&FlowRow> = rows.iter().filter(|row| i32::try_from(row.key.fd) == Ok(fd)).collect();
    lives.sort_by_key(|row| row.stats.first_ns);
    let told: Vec<(u64, bool)> =
        lives.iter().map(|row| (row.stats.ways[FLOW_WRITES].bytes, row.key.ended_ns != 0)).collect();
    assert_eq!(told, [(10, true), (20, true), (30, false)], "closed, replaced, open");
}

fn overflow() {
    let (rows, _, probes) = look("flows many 3000");
    let lost = probes.seen().rows.lost[LossReason::FlowTableFull];
    assert!(lost > 0, "3,000 descriptors in a moment found room");
    assert!(rows.len() >= 1_000, "only {} were told", rows.len());
}

fn second_watch() {
    let subject = Subject::start("flows twice");
    let pid = subject.pid();
    let mut probes = Probes::load(LoadOptions::default());
    let on = Wanted { flows: [pid].into(), ..Wanted::default() };
    probes.watch(&on);
    let (subject, said) = probes.while_acting(subject);
    let fd: u32 = serde_json::from_str(&said).expect("the subject tells its descriptor");
    probes.watch(&Wanted::default());
    assert!(probes.attached().is_empty(), "nobody wants it");
    probes.run_for(Nanos::TICK);
    probes.watch(&on);
    let (_subject, _) = probes.while_acting(subject);
    let written: Vec<u64> = probes
        .seen()
        .rows
        .flows
        .values()
        .filter(|row| (row.key.pid, row.key.fd) == (pid.0, fd))
        .map(|row| row.stats.ways[FLOW_WRITES].bytes)
        .collect();
    assert_eq!(written, [10, 10], "each watch has what it saw");
}

/// What a subject does.
pub(crate) fn act(words: &[&str]) {
    match words {
        ["answered"] => act_answered(),
        ["synced"] => act_synced(),
        ["blocked"] => act_blocked(),
        ["exact"] => act_exact(),
        ["reused"] => act_reused(),
        ["many", times] => act_many(number(times)),
        ["twice"] => act_twice(),
        other => panic!("unknown task {other:?}"),
    }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a subject measures itself")]
    Instant::now()
}

fn pause(span: Duration) {
    #[expect(clippy::disallowed_methods, reason = "a subject is slow on purpose")]
    std::thread::sleep(span);
}

/// Forty flushes of a header and a body, each answered after 2 ms and 2 ms for each 10,000 bytes; 5 ms between them.
fn act_answered() {
    let (mut ours, mut sink) = UnixStream::pair().expect("a pair");
    std::thread::spawn(move || {
        let mut header = [0_u8; 8];
        while sink.read_exact(&mut header).is_ok() {
            let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
            sink.read_exact(&mut vec![0; length]).expect("a body follows");
            pause(Duration::from_micros(2_000 + length as u64 / 5));
            sink.write_all(&[1; 8]).expect("it waits for it");
        }
    });
    tell("ready");
    line();
    let mut truth = Truth { fd: ours.as_raw_fd(), ..Truth::default() };
    for i in 0..40_u16 {
        let body = vec![7; usize::from(2_000 + 1_000 * (i % 10))];
        let mut header = [0; 8];
        header[..2].copy_from_slice(&u16::try_from(body.len()).expect("short").to_ne_bytes());
        let began = now();
        ours.write_all(&header).expect("it reads");
        ours.write_all(&body).expect("it reads");
        ours.read_exact(&mut [0; 8]).expect("it answers");
        truth.flushed(8 + body.len() as u64, began.elapsed());
        pause(Duration::from_millis(5));
    }
    tell(&serde_json::to_string(&truth).expect("plain data"));
    line();
}

fn act_synced() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut file = File::create(directory.path().join("out")).expect("a file");
    tell("ready");
    line();
    let mut truth = Truth { fd: file.as_raw_fd(), ..Truth::default() };
    for i in 0..30 {
        let body = vec![7; 40_000 + 1_000 * (i % 10)];
        let began = now();
        for part in body.chunks(16_384) {
            file.write_all(part).expect("room");
        }
        file.sync_data().expect("it can be synced");
        truth.flushed(body.len() as u64, began.elapsed());
        pause(Duration::from_millis(1));
    }
    tell(&serde_json::to_string(&truth).expect("plain data"));
    line();
}

/// Twenty flushes, each one write of more than the socket holds, to a sink that begins to read after 5 ms.
fn act_blocked() {
    let (mut ours, mut sink) = UnixStream::pair().expect("a pair");
    let body = vec![7; 600_000];
    let length = body.len();
    std::thread::spawn(move || {
        let mut bytes = vec![0; length];
        while sink.read_exact(&mut bytes[..1]).is_ok() {
            pause(Duration::from_millis(6));
            sink.read_exact(&mut bytes[1..]).expect("the rest follows");
            sink.write_all(&[1]).expect("it waits for it");
        }
    });
    tell("ready");
    line();
    let mut truth = Truth { fd: ours.as_raw_fd(), ..Truth::default() };
    for _ in 0..20 {
        let began = now();
        ours.write_all(&body).expect("it reads");
        ours.read_exact(&mut [0]).expect("it answers");
        truth.flushed(length as u64, began.elapsed());
    }
    tell(&serde_json::to_string(&truth).expect("plain data"));
    line();
}

/// 500 reads of 64 bytes and 200 that find nothing; 300 writes of 100 bytes and 40 reads that fail.
fn act_exact() {
    let (mut reader, mut writer) = UnixStream::pair().expect("a pair");
    let mut out = OpenOptions::new().write(true).open("/dev/null").expect("it is always there");
    writer.write_all(&vec![1; 500 * 64]).expect("room");
    reader.set_nonblocking(true).expect("any socket can be");
    let mut buffer = [0; 64];
    tell("ready");
    line();
    for _ in 0..500 {
        reader.read_exact(&mut buffer).expect("it is there");
    }
    for _ in 0..200 {
        assert_eq!(reader.read(&mut buffer).map_err(|e| e.kind()), Err(ErrorKind::WouldBlock));
    }
    for _ in 0..300 {
        out.write_all(&[0; 100]).expect("it takes everything");
    }
    for _ in 0..40 {
        assert!(rustix::io::read(&out, &mut buffer).is_err(), "not open for reading");
    }
    tell(&serde_json::to_string(&[reader.as_raw_fd(), out.as_raw_fd()]).expect("plain data"));
    line();
}

/// One number, three descriptors: the first closed, the second replaced by the third.
fn act_reused() {
    let null = || OpenOptions::new().write(true).open("/dev/null").expect("it is always there");
    let third = null();
    tell("ready");
    line();
    let mut first = null();
    let fd = first.as_raw_fd();
    first.write_all(&[0; 10]).expect("it takes everything");
    drop(first);
    let mut second = std::os::fd::OwnedFd::from(null());
    assert_eq!(second.as_raw_fd(), fd);
    assert_eq!(rustix::io::write(&second, &[0; 20]), Ok(20));
    rustix::io::dup2(&third, &mut second).expect("both are open");
    assert_eq!(rustix::io::write(&second, &[0; 30]), Ok(30));
    tell(&fd.to_string());
    line();
}

fn act_many(times: u64) {
    tell("ready");
    line();
    for _ in 0..times {
        let mut null = OpenOptions::new().write(true).open("/dev/null").expect("it is always there");
        null.write_all(&[0; 1]).expect("it takes everything");
    }
    tell("done");
    line();
}

fn act_twice() {
    let mut null = OpenOptions::new().write(true).open("/dev/null").expect("it is always there");
    tell("ready");
    for _ in 0..2 {
        line();
        null.write_all(&[0; 10]).expect("it takes everything");
        tell(&null.as_raw_fd().to_string());
    }
    line();
}
