//! Stream sockets of both kinds under one name: `HOST:PORT` for TCP, `unix:PATH` for a Unix socket.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tidegate_client::{Nanos, clock};

use crate::time::sleep;

/// Where to listen or connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// `HOST:PORT`; port 0 lets the kernel choose.
    Tcp(String),
    /// `unix:PATH`.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("address \"unix:\": a path is missing, like unix:/tmp/lab.sock".into()),
            Some(path) => Ok(Self::Unix(path.into())),
            None if text.rsplit_once(':').is_some_and(|(h, p)| !h.is_empty() && p.parse::<u16>().is_ok()) => {
                Ok(Self::Tcp(text.into()))
            }
            None => Err(format!("address {text:?}: want HOST:PORT or unix:PATH, like 127.0.0.1:0")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => f.write_str(at),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listener; the file of a Unix socket goes away with it.
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds. What stands in the way of a Unix socket is cleared only if it is a socket that nobody answers.
    pub(crate) fn bind(address: &Address) -> Result<Self> {
        match address {
            Address::Tcp(at) => Ok(Self::Tcp(TcpListener::bind(at).with_context(|| format!("listen on {at}"))?)),
            Address::Unix(path) => {
                if let Ok(meta) = path.symlink_metadata() {
                    if !meta.file_type().is_socket() {
                        bail!("listen on {address}: something else than a socket is there (choose another path)");
                    }
                    if UnixStream::connect(path).is_ok() {
                        bail!("listen on {address}: in use (stop its owner, or choose another path)");
                    }
                    std::fs::remove_file(path).with_context(|| format!("clear the dead socket {address}"))?;
                }
                let listener = UnixListener::bind(path).with_context(|| format!("listen on {address}"))?;
                Ok(Self::Unix(listener, path.clone()))
            }
        }
    }

    /// Where it listens, the port that the kernel chose filled in.
    pub(crate) fn address(&self) -> Result<Address> {
        Ok(match self {
            Self::Tcp(l) => Address::Tcp(l.local_addr().context("ask for the bound port")?.to_string()),
            Self::Unix(_, path) => Address::Unix(path.clone()),
        })
    }

    pub(crate) fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(l) => Stream::from_tcp(l.accept()?.0),
            Self::Unix(l, _) => Ok(Stream::Unix(l.accept()?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            // A file that is gone already needs no removing.
            std::fs::remove_file(path).ok();
        }
    }
}

/// A connection of either kind.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn from_tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    pub(crate) fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp(at) => Self::from_tcp(TcpStream::connect(at)?),
            Address::Unix(path) => UnixStream::connect(path).map(Self::Unix),
        }
    }

    /// Tries again for a while: the other side may still be starting.
    pub(crate) fn connect_patiently(address: &Address, patience: Nanos) -> Result<Self> {
        let end = clock::monotonic() + patience;
        loop {
            match Self::connect(address) {
                Ok(stream) => return Ok(stream),
                Err(e) if clock::monotonic() >= end => {
                    return Err(e).with_context(|| format!("connect to {address} (is it running?)"));
                }
                Err(_) => sleep(Nanos::from_millis(20)),
            }
        }
    }

    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(s) => s.try_clone().map(Self::Tcp),
            Self::Unix(s) => s.try_clone().map(Self::Unix),
        }
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.shutdown(how),
            Self::Unix(s) => s.shutdown(how),
        }
    }

    pub(crate) fn set_timeouts(&self, span: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.set_read_timeout(Some(span)).and_then(|()| s.set_write_timeout(Some(span))),
            Self::Unix(s) => s.set_read_timeout(Some(span)).and_then(|()| s.set_write_timeout(Some(span))),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
        }
    }
}

// Past the C library, whose wrappers keep no frame pointer: a profile then shows which function of the pipeline asked the
// kernel, and not only that somebody did.
impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self, buf, RecvFlags::empty()).map(|(length, _)| length)?)
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(send(self, buf, SendFlags::NOSIGNAL)?)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A read or write that ran into the stream's timeout.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_bad_ones_named() {
        assert_eq!("127.0.0.1:0".parse(), Ok(Address::Tcp("127.0.0.1:0".into())));
        assert_eq!("unix:/a/b".parse(), Ok(Address::Unix("/a/b".into())));
        for bad in ["", "unix:", "localhost", ":80", "h:70000"] {
            let error = bad.parse::<Address>().unwrap_err();
            assert!(error.contains(bad) && error.contains("like"), "{error}");
        }
    }

    #[test]
    fn only_a_dead_socket_is_cleared_from_the_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let address = Address::Unix(path.clone());
        drop(UnixListener::bind(&path).unwrap());
        let live = Listener::bind(&address).unwrap();
        assert!(Listener::bind(&address).is_err_and(|e| e.to_string().contains("in use")));
        drop(live);
        assert!(!path.exists(), "a listener takes its file with it");
        std::fs::write(&path, "precious").unwrap();
        assert!(Listener::bind(&address).is_err_and(|e| e.to_string().contains("something else")));
        assert!(path.exists());
    }
}
