//! Server-sent events: the newest view in, events of one pipeline out, for as long as somebody reads. Holds no queue: who
//! reads slowly is shown the newest state next, and nothing of what came between.
//!
//! The body is asked for its next event only when there is room in the connection, and then looks at the newest view.
//! While nothing happens a comment goes out now and then, so that either end finds out when the other has gone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::watch;

use crate::serve::app::App;
use crate::serve::view::View;
use crate::serve::watchers::Place;

/// Media type of event streams.
pub const EVENT_STREAM: &str = "text/event-stream";
/// Time after which a comment goes out when nothing else does.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What a stream shows of a view.
pub trait Feed: Send + 'static {
    /// The events that are due, or that there are none, or that there will be no more.
    fn next(&mut self, view: &View) -> Next;
}

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// These events.
    Events(String),
    /// Nothing yet.
    Nothing,
    /// The last event.
    Last(String),
}

/// One event: its kind, its id and its data, which must hold no line break.
pub fn event(kind: &str, id: u64, data: &str) -> String {
    format!("event: {kind}\nid: {id}\ndata: {data}\n\n")
}

/// A stream of what `feed` shows. The place is held until the stream ends or is let go.
pub fn respond(app: &App, place: Place, feed: impl Feed) -> Response {
    let state = State { views: app.views.clone(), feed: Box::new(feed), _place: place };
    let mut response = Response::new(Body::new(Events { step: Some(Box::pin(step(state))) }));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

struct State {
    views: watch::Receiver<Arc<View>>,
    feed: Box<dyn Feed>,
    _place: Place,
}

type Step = Pin<Box<dyn Future<Output = (String, Option<State>)> + Send>>;

/// The next text of the stream, and what remains of it.
async fn step(mut state: State) -> (String, Option<State>) {
    // Counted from the last text, not from the last view: views come ten times a second, with or without news.
    let mut quiet = std::pin::pin!(tokio::time::sleep(KEEP_ALIVE));
    loop {
        let view = state.views.borrow_and_update().clone();
        match state.feed.next(&view) {
            Next::Events(text) => return (text, Some(state)),
            Next::Last(text) => return (text, None),
            Next::Nothing => {}
        }
        tokio::select! {
            changed = state.views.changed() => {
                if changed.is_err() {
                    return (": the agent is stopping\n\n".to_owned(), None);
                }
            }
            () = &mut quiet => return (": still here\n\n".to_owned(), Some(state)),
        }
    }
}

/// The body of a response.
struct Events {
    step: Option<Step>,
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(running) = &mut self.step else { return Poll::Ready(None) };
        let (text, state) = ready!(running.as_mut().poll(cx));
        self.step = state.map(|state| -> Step { Box::pin(step(state)) });
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))))
    }
}
