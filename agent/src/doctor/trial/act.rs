//! What a trial does for the probes to see: spins, calls, sends and reads, each in a known amount.
//! Lives in real time, unlike the rest of the agent: its waits are what is measured.

use std::io::{Read, Result, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::Duration;

use crate::source::clock::monotonic;
use crate::units::Nanos;

/// Calls of `getppid` that [`calls`] makes.
pub(super) const CALLS: u64 = 1000;
/// Messages that a socket action sends.
pub(super) const MESSAGES: u64 = 4;
/// Length of each.
pub(super) const MESSAGE: usize = 64;
/// How long each waits at the least.
pub(super) const WAIT: Duration = Duration::from_millis(25);
/// Long enough for the walk over the descriptors to find what was just opened.
const TO_BE_FOUND: Duration = Duration::from_millis(250);

#[expect(clippy::unnecessary_wraps, reason = "an action, and others may fail")]
pub(super) fn nothing() -> Result<()> {
    Ok(())
}

/// Half a second of work.
#[expect(clippy::unnecessary_wraps, reason = "an action, and others may fail")]
pub(super) fn spin() -> Result<()> {
    let end = monotonic() + Nanos::from_millis(500);
    let mut x = 1_u64;
    while monotonic() < end {
        for i in 0..10_000 {
            x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(i));
        }
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "an action, and others may fail")]
pub(super) fn calls() -> Result<()> {
    for _ in 0..CALLS {
        // The raw call: libc keeps no cache of it.
        let _parent = rustix::process::getppid();
    }
    Ok(())
}

pub(super) fn tcp() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let sender = TcpStream::connect(listener.local_addr()?)?;
    sender.set_nodelay(true)?;
    let (reader, _) = listener.accept()?;
    stream(sender, reader)
}

pub(super) fn unix() -> Result<()> {
    let (sender, reader) = UnixStream::pair()?;
    stream(sender, reader)
}

pub(super) fn udp() -> Result<()> {
    let (sender, reader) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    sender.connect(reader.local_addr()?)?;
    messages(|bytes| sender.send(bytes), |bytes| reader.recv(bytes))
}

pub(super) fn unix_datagrams() -> Result<()> {
    let (sender, reader) = UnixDatagram::pair()?;
    messages(|bytes| sender.send(bytes), |bytes| reader.recv(bytes))
}

fn messages(send: impl Fn(&[u8]) -> Result<usize>, receive: impl Fn(&mut [u8]) -> Result<usize>) -> Result<()> {
    sleep(TO_BE_FOUND);
    for _ in 0..MESSAGES {
        send(&[1; MESSAGE])?;
        sleep(WAIT);
        receive(&mut [0; MESSAGE])?;
    }
    sleep(TO_BE_FOUND);
    Ok(())
}

/// Two threads that wake each other in turn, each asleep most of the time.
pub(super) fn hand_over() -> Result<()> {
    const TURNS: u32 = 60;
    let (mut here, mut there) = UnixStream::pair()?;
    let other = std::thread::spawn(move || -> Result<()> {
        for _ in 0..TURNS {
            there.read_exact(&mut [0])?;
            sleep(Duration::from_millis(2));
            there.write_all(&[1])?;
        }
        Ok(())
    });
    for _ in 0..TURNS {
        here.write_all(&[1])?;
        here.read_exact(&mut [0])?;
    }
    sleep(Duration::from_millis(300));
    other.join().unwrap_or_else(|_panic| Err(std::io::Error::other("the other thread broke off")))
}

/// Takes both ends, so that they stay open to the end: a walk has seen them by then.
fn stream(mut sender: impl Write, mut reader: impl Read) -> Result<()> {
    sleep(TO_BE_FOUND);
    for _ in 0..MESSAGES {
        sender.write_all(&[1; MESSAGE])?;
        sleep(WAIT);
        reader.read_exact(&mut [0; MESSAGE])?;
    }
    sleep(TO_BE_FOUND);
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a trial lives in real time: its waits are what is measured")]
fn sleep(length: Duration) {
    std::thread::sleep(length);
}
