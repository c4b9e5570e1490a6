//! Subjects that wait, and know for how long. Each lets a worker of its own do the waiting from its first instant to its
//! end, so that the totals of that thread are all of its life.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use crate::subject::{line, now, number, sleep, spin_in_the_inner_function, tell};

/// What a waiting thread knows of itself.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Told {
    pub(crate) tid: u32,
    /// By its own clock, without what it ran or waited for a CPU meanwhile.
    pub(crate) waited_ns: u64,
    /// As the kernel's own account has it.
    pub(crate) run_ns: u64,
    pub(crate) run_delay_ns: u64,
}

const ROUNDS: u64 = 50;
const WAIT: Duration = Duration::from_millis(20);

/// Runs a subject, if `task` is one of these.
pub(crate) fn run(task: &[&str]) -> bool {
    match task {
        ["waits", kind] => {
            let kind = (*kind).to_owned();
            worker(move || wait(&kind));
        }
        ["silent", millis] => silent(Duration::from_millis(number(millis))),
        _ => return false,
    }
    true
}

fn worker(act: impl FnOnce() -> u64 + Send + 'static) {
    tell("ready");
    line();
    let (done, heard) = sync_channel(1);
    let (until, hold) = UnixStream::pair().expect("two descriptors");
    let thread = std::thread::spawn(move || {
        let waited_ns = act();
        done.send((own_tid(), waited_ns)).expect("it listens");
        let mut fds = [PollFd::new(&until, PollFlags::IN)];
        poll(&mut fds, None).expect("the other end is closed at last");
    });
    let (tid, waited_ns) = heard.recv().expect("it sends");
    // While it waits here, what it has run and waited for a CPU stands still.
    sleep(Duration::from_millis(50));
    let [run_ns, run_delay_ns] = schedstat(&format!("/proc/self/task/{tid}/schedstat"));
    let told = Told { tid, waited_ns, run_ns, run_delay_ns };
    tell(&serde_json::to_string(&told).expect("plain numbers"));
    line();
    drop(hold);
    thread.join().expect("a worker never panics");
    // Its last totals are sent when it leaves its CPU for good.
    sleep(Duration::from_millis(50));
    tell("ended");
    line();
}

fn own_tid() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().try_into().expect("a thread id is positive")
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).expect("not that long")
}

/// Running, waiting for a CPU.
fn schedstat(path: &str) -> [u64; 2] {
    let text = std::fs::read_to_string(path).expect("the kernel keeps it");
    let words: Vec<u64> = text.split_ascii_whitespace().map(|word| word.parse().expect("a number")).collect();
    [words[0], words[1]]
}

fn delayed() -> u64 {
    schedstat("/proc/thread-self/schedstat")[1]
}

/// What this thread has run, brought up to this instant.
fn cpu() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).expect("it rises from zero")
}

/// How long `act` was neither running nor waiting for a CPU.
fn timed(act: impl FnOnce()) -> u64 {
    let before = delayed();
    let (ran, begin) = (cpu(), now());
    act();
    let passed = nanos(begin.elapsed());
    passed.saturating_sub(cpu() - ran).saturating_sub(delayed() - before)
}

fn wait(kind: &str) -> u64 {
    match kind {
        "sleep" => (0..ROUNDS).map(|_| timed(|| sleep(WAIT))).sum(),
        "lock" => {
            let (sender, receiver) = sync_channel(1);
            others(move || sender.send(()).is_ok());
            (0..ROUNDS).map(|_| timed(|| receiver.recv().expect("it sends"))).sum()
        }
        "socket" => {
            let (mut near, mut far) = UnixStream::pair().expect("two descriptors");
            others(move || far.write_all(&[1]).is_ok());
            (0..ROUNDS).map(|_| timed(|| near.read_exact(&mut [0]).expect("it writes"))).sum()
        }
        "pipe" => {
            let (near, far) = rustix::pipe::pipe().expect("two descriptors");
            others(move || rustix::io::write(&far, &[1]).is_ok());
            (0..ROUNDS).map(|_| timed(|| assert_eq!(rustix::io::read(&near, &mut [0; 1]), Ok(1)))).sum()
        }
        "io" => {
            let path = std::env::temp_dir().join(format!("tidegate-test-{}", std::process::id()));
            let page = vec![7; 1 << 20];
            timed(|| {
                let mut file = std::fs::File::create(&path).expect("a file in the directory for such files");
                for _ in 0..60 {
                    file.write_all(&page).expect("there is room");
                    file.sync_data().expect("a disk");
                }
                std::fs::remove_file(&path).expect("it was made above");
            })
        }
        // On another CPU after every wait.
        "migrate" => (0..150)
            .map(|round| {
                let mut cpus = rustix::thread::CpuSet::new();
                cpus.set(round % 2);
                rustix::thread::sched_setaffinity(None, &cpus).expect("two CPUs");
                std::hint::black_box(spin_in_the_inner_function(20_000));
                timed(|| sleep(Duration::from_millis(10)))
            })
            .sum(),
        other => panic!("unknown wait {other:?}"),
    }
}

/// Does `act` each time the wait is over, in a thread of its own.
fn others(mut act: impl FnMut() -> bool + Send + 'static) {
    std::thread::spawn(move || {
        for _ in 0..ROUNDS {
            sleep(WAIT);
            if !act() {
                return;
            }
        }
    });
}

/// Two threads that are never switched of their own will: one spins, one waits, both from before the look to after it.
fn silent(length: Duration) {
    let (tids, heard) = sync_channel(1);
    let spinner = tids.clone();
    std::thread::spawn(move || {
        spinner.send(own_tid()).expect("it listens");
        loop {
            std::hint::black_box(spin_in_the_inner_function(1_000_000));
        }
    });
    let spinning = heard.recv().expect("it sends");
    std::thread::spawn(move || {
        tids.send(own_tid()).expect("it listens");
        loop {
            wait_in_the_parked_thread();
        }
    });
    let parked = heard.recv().expect("it sends");
    sleep(Duration::from_millis(100));
    tell("ready");
    line();
    sleep(length);
    tell(&format!("[{spinning},{parked}]"));
    line();
}

#[inline(never)]
fn wait_in_the_parked_thread() {
    std::thread::park();
    std::hint::black_box(());
}
