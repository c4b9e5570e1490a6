//! The bytes of a connection on their way out: hyper's bare answers to malformed requests in, problem documents out.
//!
//! hyper answers what it cannot parse by itself, with an empty body; every error of this socket says what and what to
//! do, so such an answer is replaced as it is written. A caller who does not read is dropped after a while.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::http::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use tokio::time::Sleep;

use crate::serve::problem::Refusal;

/// The answers that hyper makes by itself.
const BARE: [(&[u8], StatusCode); 3] = [
    (b"HTTP/1.1 400 ", StatusCode::BAD_REQUEST),
    (b"HTTP/1.1 414 ", StatusCode::URI_TOO_LONG),
    (b"HTTP/1.1 431 ", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
];
/// What tells them from the routes' own answers, which always have a body.
const EMPTY_BODY: &[u8] = b"\r\ncontent-length: 0\r\n";

/// A connection with both guards.
#[derive(Debug)]
pub(crate) struct Guarded<T> {
    io: T,
    /// What stands in for an answer that was swallowed, and how much of it has gone out.
    instead: Option<(Vec<u8>, usize)>,
    stalled_after: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<T> Guarded<T> {
    pub(crate) fn new(io: T, stalled_after: Duration) -> Self {
        Self { io, instead: None, stalled_after, stalled: None }
    }
}

impl<T: Write + Unpin> Guarded<T> {
    fn poll_out(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match Pin::new(&mut self.io).poll_write(cx, bytes) {
            Poll::Ready(done) => {
                self.stalled = None;
                Poll::Ready(done)
            }
            Poll::Pending => self.poll_stalled(cx),
        }
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let after = self.stalled_after;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(after)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the caller does not read")))
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((bytes, mut at)) = self.instead.take() {
            if at == bytes.len() {
                break;
            }
            match self.poll_out(cx, &bytes[at..]) {
                Poll::Ready(Ok(n)) => {
                    at += n;
                    self.instead = Some((bytes, at));
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {
                    self.instead = Some((bytes, at));
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn bare_status(bytes: &[u8]) -> Option<StatusCode> {
    let (_, status) = BARE.into_iter().find(|(line, _)| bytes.starts_with(line))?;
    bytes.windows(EMPTY_BODY.len()).any(|w| w.eq_ignore_ascii_case(EMPTY_BODY)).then_some(status)
}

impl<T: Read + Unpin> Read for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: Write + Unpin> Write for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_instead(cx))?;
        if let Some(status) = bare_status(buf) {
            self.instead = Some((Refusal::from_status(status).to_wire(), 0));
            return Poll::Ready(Ok(buf.len()));
        }
        self.poll_out(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_answer_is_replaced() {
        assert_eq!(
            bare_status(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n"),
            Some(StatusCode::BAD_REQUEST)
        );
        assert_eq!(bare_status(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 12\r\n\r\n"), None);
        assert_eq!(bare_status(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"), None);
    }
}
