//! A host that vanishes without a word, in a network of the test's own: that needs root, `unshare` and `ip`.

use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::Duration;

use tidegate_client::pool::{Pool, PoolOptions, Reach, Tcp};
use tidegate_client::{Nanos, clock};

/// Set in the process that has a network of its own.
const INSIDE: &str = "TIDEGATE_TEST_OWN_NETWORK";
const NAME: &str = "an_idle_connection_to_a_host_that_vanished_is_found_within_three_seconds";

#[test]
fn an_idle_connection_to_a_host_that_vanished_is_found_within_three_seconds() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if !rustix::process::getuid().is_root() {
        eprintln!("left out: a network of its own needs root");
        return;
    }
    let me = std::env::current_exe().unwrap();
    let script = "ip link set lo up || exit 99; exec \"$0\" --exact \"$1\"";
    let ran = Command::new("unshare").args(["--net", "sh", "-c", script]).arg(me).arg(NAME).env(INSIDE, "1").output();
    match ran {
        Err(error) => eprintln!("left out: unshare: {error} (apt-get install util-linux)"),
        Ok(output) if output.status.code() == Some(99) => eprintln!("left out: no `ip` (apt-get install iproute2)"),
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
    }
}

fn inside() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("it has an address");
    let pool = Pool::new(Tcp, PoolOptions::default()).expect("its threads start");
    drop(pool.get(&address).expect("it listens"));
    assert_eq!(pool.status()[0].1.resting, 1);
    assert!(
        Command::new("ip").args(["link", "set", "lo", "down"]).status().expect("run ip").success(),
        "cut the network"
    );
    let begin = clock::monotonic();
    while pool.status()[0].1.reach == Reach::Up {
        assert!(clock::monotonic() - begin < Nanos::from_millis(3_000), "it is still taken for up");
        thread::park_timeout(Duration::from_millis(5));
    }
    assert!(pool.get(&address).is_err(), "a connection to nobody was lent");
}
