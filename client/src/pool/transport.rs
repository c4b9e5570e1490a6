//! What is pooled: how a connection is made, and how one that rests is looked at. Never sends a byte on a connection.
//!
//! A TCP connection finds a peer that has vanished without a word: keep-alive probes begin after a second of silence, and
//! two seconds without an answer end it. A Unix socket needs none of that: the kernel knows of both ends.

use std::fmt::Debug;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt::{
    Timeout, set_socket_keepalive, set_socket_timeout, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
    set_tcp_nodelay, set_tcp_user_timeout, socket_error,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Silence after which a TCP peer is asked whether it is still there, and time between two such questions.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// Time without an answer, to a probe or to data, that ends a connection, ms.
const ANSWER_WITHIN_MS: u32 = 2_000;

/// How a resting connection looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Open, and nothing waits to be read.
    Open,
    /// Ended by the other side, or with something to read that nobody asked for: not to be used again.
    Closed,
    /// The other side no longer answers.
    Unreachable,
}

/// Makes connections of one kind.
pub trait Transport: Send + Sync + 'static {
    /// Where to connect to.
    type Address: Ord + Clone + Debug + Send + Sync + 'static;
    /// A connection.
    type Connection: Send + 'static;

    /// Connects, waiting no longer than `within`.
    fn connect(&self, to: &Self::Address, within: Duration) -> io::Result<Self::Connection>;

    /// Looks at a connection that rests. A protocol with a ping of its own can send it here; whoever asks for a connection
    /// while this is the only one that rests waits for the answer, so it must come soon or be given up.
    fn check(&self, connection: &mut Self::Connection) -> Health;
}

/// TCP, without delay of small writes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

/// Unix stream sockets.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unix;

impl Transport for Tcp {
    type Address = SocketAddr;
    type Connection = TcpStream;

    fn connect(&self, to: &SocketAddr, within: Duration) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(to, within)?;
        set_tcp_nodelay(&stream, true)?;
        set_socket_keepalive(&stream, true)?;
        set_tcp_keepidle(&stream, PROBE_AFTER)?;
        set_tcp_keepintvl(&stream, PROBE_AFTER)?;
        set_tcp_keepcnt(&stream, 1)?;
        set_tcp_user_timeout(&stream, ANSWER_WITHIN_MS)?;
        Ok(stream)
    }

    fn check(&self, connection: &mut TcpStream) -> Health {
        resting(connection)
    }
}

impl Transport for Unix {
    type Address = PathBuf;
    type Connection = UnixStream;

    fn connect(&self, to: &PathBuf, within: Duration) -> io::Result<UnixStream> {
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // A listener whose backlog is full makes a connect wait, for as long as a send may take.
        set_socket_timeout(&fd, Timeout::Send, Some(within))?;
        connect(&fd, &SocketAddrUnix::new(to)?)?;
        set_socket_timeout(&fd, Timeout::Send, None)?;
        Ok(UnixStream::from(fd))
    }

    fn check(&self, connection: &mut UnixStream) -> Health {
        resting(connection)
    }
}

/// A connection that rests should have nothing to say.
fn resting(connection: &impl AsFd) -> Health {
    let mut asked = [PollFd::new(connection, PollFlags::IN | PollFlags::RDHUP)];
    match poll(&mut asked, Some(&Timespec::default())) {
        Ok(0) | Err(rustix::io::Errno::INTR) => Health::Open,
        Ok(_) => match socket_error(connection) {
            Ok(Err(errno)) if is_unreachable(&errno.into()) => Health::Unreachable,
            _ => Health::Closed,
        },
        Err(_) => Health::Closed,
    }
}

/// Whether an error says that the other side does not answer, rather than that it said no.
pub(super) fn is_unreachable(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut, WouldBlock};
    matches!(error.kind(), TimedOut | WouldBlock | HostUnreachable | NetworkUnreachable | NetworkDown)
}
