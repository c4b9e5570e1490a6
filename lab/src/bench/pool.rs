//! What it costs to borrow a connection that rests and give it back: alone, by as many threads at once as there are CPUs,
//! and by twice as many, beside a pool that is a stack under a mutex. Real sockets; nothing is sent on them.

use std::hint::black_box;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use tidegate_client::clock;
use tidegate_client::pool::{Pool, PoolOptions, Unix};

use super::{Peer, interleave};
use crate::cli::BenchArgs;

const LOANS: u32 = 50_000;
const LIMIT_NS: f64 = 100.0;

/// Measures and prints nanoseconds a loan.
pub(crate) fn run(args: &BenchArgs) -> Result<()> {
    let path = std::env::temp_dir().join(format!("tidegate-lab-bench-{}.sock", std::process::id()));
    let listener = UnixListener::bind(&path).with_context(|| format!("listen at {}", path.display()))?;
    let result = (|| {
        let pool = Pool::new(Unix, PoolOptions::default()).context("start a pool")?;
        let cpus = thread::available_parallelism().map_or(2, usize::from).max(2);
        // Each thread finds one of its own from the first loan on.
        let warm: Vec<_> = (0..2 * cpus).map(|_| pool.get(&path)).collect::<Result<_, _>>().context("connect")?;
        drop(warm);
        let stack: Mutex<Vec<UnixStream>> = Mutex::new(Vec::new());
        for _ in 0..2 * cpus {
            let stream = UnixStream::connect(&path).context("connect")?;
            stack.lock().unwrap_or_else(PoisonError::into_inner).push(stream);
        }
        let borrow = || drop(black_box(pool.get(&path)));
        let pop = || {
            let taken = stack.lock().unwrap_or_else(PoisonError::into_inner).pop();
            stack.lock().unwrap_or_else(PoisonError::into_inner).extend(black_box(taken));
        };
        let mut peers: Vec<Peer<'_>> = vec![
            ("a loan, one thread", Some(LIMIT_NS), Box::new(|| time(1, &borrow))),
            ("a loan, a thread on each CPU", Some(LIMIT_NS), Box::new(|| time(cpus, &borrow))),
            ("a loan, two threads on each CPU", Some(LIMIT_NS), Box::new(|| time(2 * cpus, &borrow))),
            ("a stack under a mutex, one thread", None, Box::new(|| time(1, &pop))),
            ("a stack under a mutex, a thread on each CPU", None, Box::new(|| time(cpus, &pop))),
        ];
        interleave(&mut peers).show(args)
    })();
    drop(listener);
    // Gone already, or of no use to anybody.
    std::fs::remove_file(&path).ok();
    result
}

/// Nanoseconds of CPU per loan while so many threads do nothing else.
#[expect(clippy::cast_precision_loss, reason = "a round lasts well under a day")]
fn time(threads: usize, loan: &(impl Fn() + Sync)) -> f64 {
    let start = Barrier::new(threads);
    let spans: Vec<u64> = thread::scope(|scope| {
        let work = || {
            start.wait();
            let begin = clock::monotonic();
            for _ in 0..LOANS {
                loan();
            }
            (clock::monotonic() - begin).0
        };
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(|thread| thread.join().expect("a loan does not panic")).collect()
    });
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    // Threads beyond the CPUs take turns: a loan takes its share of the time.
    let share = (cpus as f64 / threads as f64).min(1.0);
    share * spans.iter().sum::<u64>() as f64 / (threads as f64 * f64::from(LOANS))
}
