//! The threads of a pool, in a process that has no other pool.

mod kit;

use std::thread;
use std::time::Duration;

use tidegate_client::pool::{Pool, PoolOptions, Tcp};

use kit::until;

fn pool_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a process has tasks").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| ["tidegate-pool\n", "tidegate-probe\n"].contains(&name.as_str())).count()
}

#[test]
fn the_threads_of_a_pool_end_with_its_last_handle() {
    let options = PoolOptions { check_every: Duration::from_millis(10), ..PoolOptions::default() };
    let pool = Pool::new(Tcp, options).unwrap();
    let other = pool.clone();
    until("both run", || pool_threads() == 2);
    drop(pool);
    thread::park_timeout(Duration::from_millis(50));
    assert_eq!(pool_threads(), 2, "one handle is left");
    drop(other);
    until("both have ended", || pool_threads() == 0);
}
