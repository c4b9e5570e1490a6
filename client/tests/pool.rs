//! The pool against real sockets: what it lends is open, a peer that is gone is found in time, and callers fail fast.

mod kit;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use tidegate_client::pool::{Health, Pool, PoolError, PoolOptions, Reach, Tcp, Transport, Unix};
use tidegate_client::{Nanos, clock};

use kit::until;

const FAST: PoolOptions = PoolOptions {
    per_peer: 4,
    connect_within: Duration::from_millis(500),
    wait_within: Duration::from_millis(200),
    check_every: Duration::from_millis(20),
};

/// An echo server; counts its connections and ends them all with itself.
struct Echo {
    address: SocketAddr,
    accepted: &'static AtomicUsize,
    stop: &'static AtomicBool,
    thread: Option<thread::JoinHandle<()>>,
}

impl Echo {
    fn start(address: &str) -> Self {
        let listener = TcpListener::bind(address).expect("bind");
        let address = listener.local_addr().expect("it has an address");
        let accepted: &'static AtomicUsize = Box::leak(Box::default());
        let stop: &'static AtomicBool = Box::leak(Box::default());
        let thread = thread::spawn(move || {
            let mut open: Vec<TcpStream> = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                accepted.fetch_add(1, Ordering::SeqCst);
                let mut reader = stream.try_clone().expect("duplicate");
                open.push(stream);
                thread::spawn(move || {
                    let mut byte = [0];
                    while reader.read_exact(&mut byte).and_then(|()| reader.write_all(&byte)).is_ok() {}
                });
            }
            for stream in open {
                stream.shutdown(std::net::Shutdown::Both).ok();
            }
        });
        Self { address, accepted, stop, thread: Some(thread) }
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        TcpStream::connect(self.address).ok();
        self.thread.take().map(|thread| thread.join().ok());
    }
}

fn pool(options: PoolOptions) -> Pool<Tcp> {
    Pool::new(Tcp, options).expect("its threads start")
}

fn ping(connection: &mut TcpStream) -> std::io::Result<u8> {
    connection.write_all(b"x")?;
    let mut answer = [0];
    connection.read_exact(&mut answer).map(|()| answer[0])
}

#[test]
fn a_connection_that_was_given_back_is_used_again() {
    let echo = Echo::start("127.0.0.1:0");
    let pool = pool(FAST);
    for _ in 0..1_000 {
        assert_eq!(ping(&mut pool.get(&echo.address).unwrap()).unwrap(), b'x');
    }
    assert_eq!(echo.accepted.load(Ordering::SeqCst), 1);
    pool.get(&echo.address).unwrap().discard();
    assert_eq!(ping(&mut pool.get(&echo.address).unwrap()).unwrap(), b'x');
    assert_eq!(echo.accepted.load(Ordering::SeqCst), 2, "a discarded connection was lent again");
}

/// TCP, with a check that takes until somebody connects meanwhile, or a tenth of a second: the peer answers a ping late.
struct SlowCheck {
    connects: &'static AtomicUsize,
    checks: &'static AtomicUsize,
}

impl Transport for SlowCheck {
    type Address = SocketAddr;
    type Connection = TcpStream;

    fn connect(&self, to: &SocketAddr, within: Duration) -> std::io::Result<TcpStream> {
        self.connects.fetch_add(1, Ordering::SeqCst);
        Tcp.connect(to, within)
    }

    fn check(&self, connection: &mut TcpStream) -> Health {
        let (begin, before) = (clock::monotonic(), self.connects.load(Ordering::SeqCst));
        self.checks.fetch_add(1, Ordering::SeqCst);
        while self.connects.load(Ordering::SeqCst) == before && clock::monotonic() - begin < Nanos::from_millis(100) {
            thread::park_timeout(Duration::from_millis(1));
        }
        Tcp.check(connection)
    }
}

#[test]
fn a_connection_that_is_just_being_looked_at_is_waited_for() {
    let (connects, checks) = (&*Box::leak(Box::<AtomicUsize>::default()), &*Box::leak(Box::<AtomicUsize>::default()));
    let echo = Echo::start("127.0.0.1:0");
    let pool = Pool::new(SlowCheck { connects, checks }, FAST).expect("its threads start");
    drop(pool.get(&echo.address).unwrap());
    for _ in 0..5 {
        let before = checks.load(Ordering::SeqCst);
        until("the connection is being looked at", || checks.load(Ordering::SeqCst) > before);
        // Each thread begins its search at a place of its own.
        let (pool, address) = (pool.clone(), echo.address);
        let other = thread::spawn(move || ping(&mut pool.get(&address).unwrap()));
        assert_eq!(other.join().unwrap().unwrap(), b'x');
    }
    assert_eq!(connects.load(Ordering::SeqCst), 1, "a second connection was made beside one that rested");
}

#[test]
fn threads_share_no_connection_and_never_have_more_than_the_limit() {
    let echo = Echo::start("127.0.0.1:0");
    let pool = pool(PoolOptions { wait_within: Duration::from_secs(20), ..FAST });
    thread::scope(|scope| {
        for id in 0..12_u8 {
            let (pool, address) = (pool.clone(), echo.address);
            scope.spawn(move || {
                for _ in 0..200 {
                    let mut connection = pool.get(&address).unwrap();
                    connection.write_all(&[id]).unwrap();
                    let mut answer = [0];
                    connection.read_exact(&mut answer).unwrap();
                    assert_eq!(answer[0], id, "two threads had one connection");
                }
            });
        }
    });
    assert!(echo.accepted.load(Ordering::SeqCst) <= 4);
    let (_, status) = pool.status().remove(0);
    assert_eq!((status.lent, status.reach), (0, Reach::Up));
}

#[test]
fn when_all_are_in_use_a_caller_waits_its_time_and_is_told() {
    let echo = Echo::start("127.0.0.1:0");
    let pool = pool(FAST);
    let held: Vec<_> = (0..4).map(|_| pool.get(&echo.address).unwrap()).collect();
    let begin = clock::monotonic();
    let error = pool.get(&echo.address).map(drop).expect_err("all are in use");
    assert!(matches!(error, PoolError::AllInUse { limit: 4, .. }), "{error}");
    assert!(clock::monotonic() - begin >= Nanos::from_millis(200));
    let (tell, told) = sync_channel(1);
    let (waiting, address) = (pool.clone(), echo.address);
    let waiter = thread::spawn(move || {
        tell.send(()).unwrap();
        waiting.get(&address).map(drop)
    });
    told.recv().unwrap();
    drop(held);
    waiter.join().unwrap().expect("one was given back");
}

#[test]
fn connections_that_the_peer_ended_are_not_lent_and_a_restarted_peer_is_found() {
    let mut echo = Echo::start("127.0.0.1:0");
    let pool = pool(FAST);
    drop((0..3).map(|_| pool.get(&echo.address).unwrap()).collect::<Vec<_>>());
    echo.stop();
    until("the ended connections are gone", || pool.status()[0].1.resting == 0);
    let begin = clock::monotonic();
    assert!(matches!(pool.get(&echo.address).map(drop), Err(PoolError::Down { .. })), "nobody listens");
    for _ in 0..1_000 {
        assert!(pool.get(&echo.address).is_err());
    }
    assert!(clock::monotonic() - begin < Nanos::from_millis(500), "failing takes long");
    let again = Echo::start(&echo.address.to_string());
    until("the peer is up again", || pool.status()[0].1.reach == Reach::Up);
    assert_eq!(ping(&mut pool.get(&again.address).unwrap()).unwrap(), b'x');
}

#[test]
fn a_peer_that_does_not_answer_is_found_within_three_seconds_and_then_at_once() {
    // A backlog that is full drops what comes: to a caller that is a host which does not answer.
    let listener = socket(1);
    let address = listener.local_addr().unwrap();
    let mut fill = Vec::new();
    until("the backlog is full", || match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        Ok(stream) => {
            fill.push(stream);
            false
        }
        Err(_full) => true,
    });
    let pool = pool(PoolOptions::default());
    let begin = clock::monotonic();
    let error = pool.get(&address).map(drop).expect_err("it does not answer");
    assert!(matches!(error, PoolError::Down { .. }), "{error}");
    assert!(clock::monotonic() - begin < Nanos::from_millis(3_000), "{:?}", clock::monotonic() - begin);
    let begin = clock::monotonic();
    assert!(pool.get(&address).is_err());
    assert!(clock::monotonic() - begin < Nanos::from_millis(50), "a peer known to be down is waited for");
}

/// A listener with a backlog of that length.
fn socket(backlog: i32) -> TcpListener {
    use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
    let fd = socket(AddressFamily::INET, SocketType::STREAM, None).expect("make a socket");
    bind(&fd, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("bind");
    listen(&fd, backlog).expect("listen");
    TcpListener::from(fd)
}

#[test]
fn unix_sockets_are_pooled_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let pool = Pool::new(Unix, FAST).unwrap();
    assert!(matches!(pool.get(&path).map(drop), Err(PoolError::Down { .. })), "there is no socket");
    let listener = UnixListener::bind(&path).unwrap();
    until("the peer is up", || pool.status()[0].1.reach == Reach::Up);
    let (mut far, _) = listener.accept().unwrap();
    far.write_all(b"!").unwrap();
    // What nobody asked for would be taken for the answer to the next question.
    until("a connection with something to say is gone", || pool.status()[0].1.resting == 0);
}
