//! What subjects do. A subject prints its parameters when it is ready, acts when it reads a line, prints what it knows of
//! its own doing as one line of JSON, and ends when it reads another.

use std::io::{BufRead as _, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// Environment variable that makes this binary a subject.
pub(crate) const TASK: &str = "TIDEGATE_TEST_SUBJECT";

pub(crate) fn line() {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).expect("the test holds the other end");
}

pub(crate) fn tell(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).expect("the test holds the other end");
}

pub(crate) fn run(task: &str) {
    let words: Vec<&str> = task.split(' ').collect();
    match words.as_slice() {
        ["getppid", calls, threads] => getppid(number(calls), number(threads)),
        ["mix", rounds] => mix(number(rounds)),
        ["spin", millis] => spin(number(millis)),
        ["bursts", millis] => bursts(number(millis)),
        ["socket", kind, pattern] => socket(kind, pattern),
        ["spawn", processes] => spawn(number(processes)),
        ["short", connections] => short(number(connections)),
        #[cfg(feature = "ebpf")]
        ["history", directory] => crate::history::write_for_ever(directory, tell),
        #[cfg(feature = "ebpf")]
        ["flows", rest @ ..] => crate::flows::act(rest),
        ["overflow", messages] => overflow(number(messages)),
        ["wait"] => {
            tell("ready");
            line();
        }
        other => assert!(crate::waits::run(other), "unknown task {task:?}"),
    }
}

pub(crate) fn number(text: &&str) -> u64 {
    text.parse().expect("a number")
}

/// Exactly `calls` calls, spread over threads that all live while they are made.
fn getppid(calls: u64, threads: u64) {
    let gate = Arc::new(Barrier::new(usize::try_from(threads).expect("few") + 1));
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let gate = gate.clone();
            std::thread::spawn(move || {
                gate.wait();
                for _ in 0..calls / threads {
                    // The raw call: libc keeps no cache of it.
                    let _parent = rustix::process::getppid();
                }
                gate.wait();
            })
        })
        .collect();
    tell("ready");
    line();
    gate.wait();
    gate.wait();
    tell("done");
    for worker in workers {
        worker.join().expect("a worker never panics");
    }
    line();
}

/// Per round: one write of 100 bytes, one read of 64, one read that fails, two writes that fail.
fn mix(rounds: u64) {
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").expect("it is always there");
    let zero = std::fs::File::open("/dev/zero").expect("it is always there");
    let mut buffer = [0_u8; 64];
    tell("ready");
    line();
    for _ in 0..rounds {
        assert_eq!(rustix::io::pwrite(&null, &[0; 100], 0), Ok(100));
        assert_eq!(rustix::io::pread(&zero, &mut buffer, 0), Ok(64));
        assert!(rustix::io::pread(&null, &mut buffer, 0).is_err(), "not open for reading");
        assert!(rustix::io::pwrite(&zero, &[0; 7], 0).is_err(), "not open for writing");
        assert!(rustix::io::pwrite(&zero, &[0; 7], 0).is_err(), "not open for writing");
    }
    tell("done");
    line();
}

#[inline(never)]
pub(crate) fn spin_in_the_inner_function(rounds: u64) -> u64 {
    (0..rounds).fold(1_u64, |x, i| std::hint::black_box(x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(i)))
}

#[inline(never)]
fn spin_in_the_outer_function(length: Duration) -> u64 {
    let start = now();
    let mut x = 0;
    while start.elapsed() < length {
        x ^= spin_in_the_inner_function(100_000);
    }
    x
}

fn spin(millis: u64) {
    tell("ready");
    line();
    std::hint::black_box(spin_in_the_outer_function(Duration::from_millis(millis)));
    tell(&format!("{{\"cpu_ns\":{}}}", process_cpu()));
    line();
}

/// 50 µs of work, then 450 µs of sleep, again and again.
fn bursts(millis: u64) {
    tell("ready");
    line();
    let before = process_cpu();
    let start = now();
    while start.elapsed() < Duration::from_millis(millis) {
        let burst = now();
        while burst.elapsed() < Duration::from_micros(50) {
            std::hint::black_box(spin_in_the_inner_function(1000));
        }
        sleep(Duration::from_micros(450));
    }
    tell(&format!("{{\"cpu_ns\":{}}}", process_cpu() - before));
    line();
}

fn process_cpu() -> i64 {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    cpu.tv_sec * 1_000_000_000 + cpu.tv_nsec
}

#[expect(clippy::disallowed_methods, reason = "a subject lives in real time: its sleeps are what is measured")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "a subject lives in real time: its sleeps are what is measured")]
pub(crate) fn sleep(length: Duration) {
    std::thread::sleep(length);
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

fn pair(kind: &str) -> (Box<dyn Stream>, Box<dyn Stream>) {
    if kind == "tcp" {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let sender = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        sender.set_nodelay(true).expect("a TCP option");
        (Box::new(sender), Box::new(listener.accept().expect("it connected").0))
    } else if kind == "udp" {
        let (sender, reader) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
        let (sender, reader) = (sender.expect("a port"), reader.expect("a port"));
        sender.connect(reader.local_addr().expect("bound")).expect("a port that is open");
        (Box::new(Messages(sender)), Box::new(Messages(reader)))
    } else if kind == "unixgram" {
        let (sender, reader) = UnixDatagram::pair().expect("two descriptors");
        (Box::new(Messages(sender)), Box::new(Messages(reader)))
    } else {
        let (sender, reader) = UnixStream::pair().expect("two descriptors");
        (Box::new(sender), Box::new(reader))
    }
}

/// A socket whose every read takes one message.
struct Messages<T: std::os::fd::AsFd>(T);

impl<T: std::os::fd::AsFd> Read for Messages<T> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        Ok(rustix::io::read(&self.0, buffer)?)
    }
}

impl<T: std::os::fd::AsFd> Write for Messages<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(rustix::io::write(&self.0, bytes)?)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const MESSAGE: usize = 64;

/// Processes that do next to nothing, one after the other.
fn spawn(processes: u64) {
    tell("ready");
    line();
    for _ in 0..processes {
        assert!(std::process::Command::new("/bin/true").status().expect("it is always there").success());
    }
    tell("done");
    line();
}

/// Sends more than a UDP socket has room for, then reads what is there.
fn overflow(messages: u64) {
    let (sender, reader) = (UdpSocket::bind("127.0.0.1:0"), UdpSocket::bind("127.0.0.1:0"));
    let (sender, reader) = (sender.expect("a port"), reader.expect("a port"));
    sender.connect(reader.local_addr().expect("bound")).expect("a port that is open");
    reader.set_nonblocking(true).expect("an option of every descriptor");
    tell("ready");
    line();
    for _ in 0..messages {
        sender.send(&[1; MESSAGE]).expect("sending never waits for the reader");
    }
    let mut read = 0;
    while reader.recv(&mut [0; MESSAGE]).is_ok() {
        read += 1;
    }
    tell(&format!("{{\"read\":{read},\"lost\":{}}}", messages - read));
    line();
}

/// Connections that each carry one message and close.
fn short(connections: u64) {
    tell("ready");
    line();
    for _ in 0..connections {
        let (mut sender, mut reader) = pair("tcp");
        sender.write_all(&[1; MESSAGE]).expect("the reader lives");
        reader.read_exact(&mut [0; MESSAGE]).expect("the sender wrote");
    }
    tell("done");
    line();
}

/// Messages carry the time they were sent; the reader tells how long they waited in truth.
fn socket(kind: &str, pattern: &str) {
    let (mut sender, mut reader) = pair(kind);
    tell("ready");
    line();
    let epoch = now();
    let send = move |sender: &mut Box<dyn Stream>| {
        let mut message = [0_u8; MESSAGE];
        message[..8].copy_from_slice(&u64::try_from(epoch.elapsed().as_nanos()).expect("soon").to_le_bytes());
        sender.write_all(&message).expect("the reader lives");
    };
    let mut waits = Vec::new();
    let mut oldest = Vec::new();
    let mut note = |bytes: &[u8], at: u64| {
        let each = bytes.chunks_exact(MESSAGE).map(|m| at - u64::from_le_bytes(*m.first_chunk().expect("8 of 64")));
        let each: Vec<u64> = each.collect();
        oldest.extend(each.first());
        waits.extend(each);
    };
    let mut buffer = [0_u8; 64 * MESSAGE];
    let at = || u64::try_from(epoch.elapsed().as_nanos()).expect("soon");
    match pattern {
        "one" | "burst" => {
            for _ in 0..30 {
                // An odd number: one of them is in the middle.
                let messages = if pattern == "one" { 1 } else { 5 };
                let first = now();
                for i in 0..messages {
                    sleep(Duration::from_millis(4 * i).saturating_sub(first.elapsed()));
                    send(&mut sender);
                }
                sleep(Duration::from_millis(20).saturating_sub(first.elapsed()));
                let mut taken = 0;
                // A stream gives all that waits at once, a socket of messages one at a time.
                while taken < usize::try_from(messages).expect("few") * MESSAGE {
                    let n = reader.read(&mut buffer).expect("data waits");
                    note(&buffer[..n], at());
                    taken += n;
                }
                sleep(Duration::from_millis(30));
            }
        }
        "slow-reader" => {
            let writer = std::thread::spawn(move || {
                for _ in 0..600 {
                    send(&mut sender);
                    sleep(Duration::from_millis(1));
                }
            });
            for _ in 0..600 {
                reader.read_exact(&mut buffer[..MESSAGE]).expect("data comes");
                note(&buffer[..MESSAGE], at());
                sleep(Duration::from_millis(2));
            }
            writer.join().expect("the sender never panics");
        }
        other => panic!("unknown pattern {other:?}"),
    }
    let median = |mut v: Vec<u64>| {
        v.sort_unstable();
        v[v.len() / 2]
    };
    let mean = waits.iter().sum::<u64>() / waits.len() as u64;
    tell(&format!(
        "{{\"mean_ns\":{mean},\"p50_ns\":{},\"oldest_p50_ns\":{},\"messages\":{}}}",
        median(waits.clone()),
        median(oldest),
        waits.len()
    ));
    line();
}
