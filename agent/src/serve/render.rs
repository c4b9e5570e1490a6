//! Names windows and draws profiles on a thread of its own, so that symbols of a big binary never delay a tick.
//!
//! Slices are handed over when they close, while their processes most likely still live; windows follow, are named and
//! kept packed; a request draws from those.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::{StackCounts, StackKey};
use crate::event::Mapping;
pub use crate::profile::Format as ProfileFormat;
use crate::profile::model::Profile;
use crate::profile::{About, FormatError, name_stacks, plain_owner, write};
use crate::serve::archive::Archive;
use crate::serve::compare::{self, Comparison};
use crate::serve::filter::Filter;
use crate::serve::span::Span;
use crate::serve::view::NamesView;
use crate::serve::windows::{Found, Windows};
pub use crate::serve::windows::{Question, Stretch};
use crate::symbolize::Names;
use crate::units::{Bytes, Nanos, Pid, ProfileKind};

/// Jobs that may wait.
const CAPACITY: usize = 64;

/// What to draw.
#[derive(Clone, Debug)]
pub struct RenderRequest {
    /// What is asked for.
    pub question: Question,
    /// The form.
    pub format: ProfileFormat,
}

/// What was drawn.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// For the header of the reply.
    pub content_type: &'static str,
    /// The profile.
    pub bytes: Vec<u8>,
    /// What could not be read of the history, in words.
    pub trouble: Option<String>,
}

/// Why nothing was drawn.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Of no window that the span takes was the kind recorded.
    #[error("not recorded")]
    NotRecorded {
        /// What could not be read of the history.
        trouble: Option<String>,
    },
    /// There is nothing of before to compare with.
    #[error("no baseline")]
    NoBaseline,
    /// It was recorded, and nothing was seen.
    #[error("no sample")]
    NothingSeen,
    /// Nothing to draw, or drawing failed.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Too many wait.
    #[error("{CAPACITY} profiles are being drawn already: try again in a second")]
    Busy,
    /// The thread has ended.
    #[error("the thread that draws profiles has ended: restart the agent, its log says why")]
    Gone,
}

enum Job {
    Resolve(Arc<StackCounts>),
    Close(Stretch),
    Learn(Vec<Mapping>),
    Names(oneshot::Sender<Vec<u8>>),
    Render(Box<RenderRequest>, Reply),
    Compare(Box<(Question, Comparison)>, Reply),
    Rank(Box<(Question, Span, usize)>, Reply),
}

type Reply = oneshot::Sender<Result<Rendered, RenderError>>;

/// A handle to the thread; cheap to clone. The thread ends with the last handle.
#[derive(Clone, Debug)]
pub struct Renderer {
    jobs: SyncSender<Job>,
    skipped: Arc<AtomicU64>,
    names: Arc<Mutex<NamesView>>,
}

impl Renderer {
    /// Starts the thread; what memory does not hold is in `archive`.
    pub fn start(archive: impl Archive + 'static, most_debug: Bytes) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(CAPACITY);
        let names = Arc::<Mutex<NamesView>>::default();
        let shown = Arc::clone(&names);
        let work = move || work(&queue, Windows::over(Box::new(archive), most_debug), &shown);
        std::thread::Builder::new().name("tg-render".to_owned()).spawn(work)?;
        Ok(Self { jobs, skipped: Arc::default(), names })
    }

    /// Hands a slice over for its names to be looked up. A full queue skips it: what is missing is looked up later.
    pub fn resolve(&self, slice: Arc<StackCounts>) {
        if let Err(TrySendError::Disconnected(_)) = self.jobs.try_send(Job::Resolve(slice)) {
            tracing::error!("the thread that draws profiles has ended");
        }
    }

    /// Hands a closed window over to be named and kept. One that finds the queue full is lost, and counted.
    pub fn close(&self, window: Stretch) {
        if self.jobs.try_send(Job::Close(window)).is_err() {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("a window of profiles is lost: the thread that names them is behind, or has ended");
        }
    }

    /// Tells where code is mapped; hands it back when the queue is full, to be told again.
    pub fn learn(&self, mappings: Vec<Mapping>) -> Result<(), Vec<Mapping>> {
        match self.jobs.try_send(Job::Learn(mappings)) {
            Err(TrySendError::Full(Job::Learn(mappings))) => Err(mappings),
            _ => Ok(()),
        }
    }

    /// How those do who look names up.
    pub fn names_view(&self) -> NamesView {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Windows lost because the thread was behind.
    pub fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// The table of names as JSON, the last record of a recording.
    pub async fn names(&self) -> Result<Vec<u8>, RenderError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Names(reply))?;
        answer.await.map_err(|_dropped| RenderError::Gone)
    }

    /// Draws a profile.
    pub async fn render(&self, request: RenderRequest) -> Result<Rendered, RenderError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Render(Box::new(request), reply))?;
        answer.await.unwrap_or(Err(RenderError::Gone))
    }

    /// Compares two spans.
    pub async fn compare(&self, question: Question, comparison: Comparison) -> Result<Rendered, RenderError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Compare(Box::new((question, comparison)), reply))?;
        answer.await.unwrap_or(Err(RenderError::Gone))
    }

    /// Ranks what takes most, and what grew since the span of before.
    pub async fn rank(&self, question: Question, before: Span, most: usize) -> Result<Rendered, RenderError> {
        let (reply, answer) = oneshot::channel();
        self.send(Job::Rank(Box::new((question, before, most)), reply))?;
        answer.await.unwrap_or(Err(RenderError::Gone))
    }

    fn send(&self, job: Job) -> Result<(), RenderError> {
        self.jobs.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => RenderError::Busy,
            TrySendError::Disconnected(_) => RenderError::Gone,
        })
    }
}

fn work(queue: &Receiver<Job>, mut windows: Windows, names: &Mutex<NamesView>) {
    // Names are never urgent: whatever the host runs goes first. Failing that, they cost a little latency.
    if let Err(errno) = rustix::process::nice(10) {
        tracing::debug!(%errno, "lower the priority of the renderer");
    }
    while let Ok(job) = queue.recv() {
        match job {
            Job::Resolve(slice) => windows.note(&slice),
            Job::Close(window) => windows.close(&window),
            Job::Learn(mappings) => mappings.iter().for_each(|mapping| windows.learn(mapping)),
            Job::Names(reply) => {
                let json = serde_json::to_vec(windows.names()).unwrap_or_default();
                if reply.send(json).is_err() {
                    tracing::debug!("nobody waits for the names any more");
                }
            }
            Job::Render(request, to) => answer(to, render(&mut windows, &request)),
            Job::Compare(asked, to) => answer(to, compare::compare(&mut windows, &asked.0, &asked.1)),
            Job::Rank(asked, to) => answer(to, compare::rank(&mut windows, &asked.0, asked.1, asked.2)),
        }
        *names.lock().unwrap_or_else(PoisonError::into_inner) = windows.names_view();
    }
}

fn answer(to: Reply, drawn: Result<Rendered, RenderError>) {
    if to.send(drawn).is_err() {
        tracing::debug!("a profile was drawn for a client that has gone");
    }
}

fn render(windows: &mut Windows, request: &RenderRequest) -> Result<Rendered, RenderError> {
    let RenderRequest { question, format } = request;
    let Found { profile, windows, covered, trouble } = windows.find(question);
    if windows == 0 {
        return Err(RenderError::NotRecorded { trouble });
    }
    if profile.is_empty() {
        return Err(RenderError::NothingSeen);
    }
    let rendered = draw_profile(&profile, &question.filter.whose(), covered, *format)?;
    Ok(Rendered { trouble, ..rendered })
}

/// Draws a merged profile whose names are known.
pub fn draw(
    merged: &StackCounts,
    names: &Names,
    pid: Option<Pid>,
    format: ProfileFormat,
    lost: &Lost,
) -> Result<Rendered, RenderError> {
    let keep = |key: &StackKey| pid.is_none_or(|pid| pid == key.pid);
    let profile = name_stacks(merged, ProfileKind::Cpu, names, lost, keep, plain_owner);
    let whose = Filter { pid, ..Filter::default() }.whose();
    draw_profile(&profile, &whose, merged.end.since(merged.start), format)
}

fn draw_profile(
    profile: &Profile,
    whose: &str,
    covered: Nanos,
    format: ProfileFormat,
) -> Result<Rendered, RenderError> {
    let about = About { whose: whose.to_owned(), covered: Some(covered), ..About::default() };
    let bytes = write(profile, format, &about)?;
    Ok(Rendered { content_type: format.content_type(), bytes, trouble: None })
}
