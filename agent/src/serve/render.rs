//! Draws profiles on a thread of its own, so that symbols of a big binary never delay a tick.
//!
//! Windows are handed over when they close, while their processes most likely still live; a request draws from what is
//! known by then and looks up the rest.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use tokio::sync::oneshot;

use crate::aggregate::lost::Lost;
use crate::aggregate::stacks::{StackCounts, StackKey};
use crate::profile::{FlameError, flame_svg, folded_text, name_stacks, plain_owner, profile_json};
use crate::symbolize::{Names, Resolver};
use crate::units::{Nanos, Pid, ProfileKind};

/// Jobs that may wait.
const CAPACITY: usize = 64;

/// The form of a profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProfileFormat {
    /// A flame graph.
    #[default]
    Svg,
    /// Folded stacks.
    Folded,
    /// JSON.
    Json,
}

/// What to draw.
#[derive(Clone, Debug)]
pub struct RenderRequest {
    /// The windows, oldest first.
    pub profiles: Vec<Arc<StackCounts>>,
    /// One process, or all.
    pub pid: Option<Pid>,
    /// The form.
    pub format: ProfileFormat,
    /// First instant asked for.
    pub from: Nanos,
    /// Last instant asked for.
    pub to: Nanos,
    /// What was lost meanwhile.
    pub lost: Lost,
}

/// What was drawn.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// For the header of the reply.
    pub content_type: &'static str,
    /// The profile.
    pub bytes: Vec<u8>,
}

/// Why nothing was drawn.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// Nothing to draw, or drawing failed.
    #[error(transparent)]
    Flame(#[from] FlameError),
    /// JSON failed.
    #[error("write the profile: {0}")]
    Json(#[from] serde_json::Error),
    /// Too many wait.
    #[error("{CAPACITY} profiles are being drawn already: try again in a second")]
    Busy,
    /// The thread has ended.
    #[error("the thread that draws profiles has ended: restart the agent, its log says why")]
    Gone,
}

enum Job {
    Resolve(Arc<StackCounts>),
    Names(oneshot::Sender<Vec<u8>>),
    Render(Box<RenderRequest>, oneshot::Sender<Result<Rendered, RenderError>>),
}

/// A handle to the thread; cheap to clone. The thread ends with the last handle.
#[derive(Clone, Debug)]
pub struct Renderer {
    jobs: SyncSender<Job>,
}

impl Renderer {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(CAPACITY);
        std::thread::Builder::new().name("tg-render".to_owned()).spawn(move || work(&queue))?;
        Ok(Self { jobs })
    }

    /// Hands a window over for its names to be looked up. A full queue skips it: a request looks up what is missing.
    pub fn resolve(&self, window: Arc<StackCounts>) {
        if let Err(TrySendError::Disconnected(_)) = self.jobs.try_send(Job::Resolve(window)) {
            tracing::error!("the thread that draws profiles has ended");
        }
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

    fn send(&self, job: Job) -> Result<(), RenderError> {
        self.jobs.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => RenderError::Busy,
            TrySendError::Disconnected(_) => RenderError::Gone,
        })
    }
}

fn work(queue: &Receiver<Job>) {
    // Names are never urgent: whatever the host runs goes first. Failing that, they cost a little latency.
    if let Err(errno) = rustix::process::nice(10) {
        tracing::debug!(%errno, "lower the priority of the renderer");
    }
    let mut resolver = Resolver::new();
    while let Ok(job) = queue.recv() {
        match job {
            Job::Resolve(window) => resolver.resolve(&window),
            Job::Names(reply) => {
                let json = serde_json::to_vec(resolver.names()).unwrap_or_default();
                if reply.send(json).is_err() {
                    tracing::debug!("nobody waits for the names any more");
                }
            }
            Job::Render(request, reply) => {
                if reply.send(render(&mut resolver, &request)).is_err() {
                    tracing::debug!("a profile was drawn for a client that has gone");
                }
            }
        }
    }
}

fn render(resolver: &mut Resolver, request: &RenderRequest) -> Result<Rendered, RenderError> {
    let mut merged = StackCounts::starting(request.from);
    for window in &request.profiles {
        merged.merge(window);
    }
    if let Some(pid) = request.pid {
        merged.counts.retain(|key, _| key.pid == pid);
    }
    resolver.resolve(&merged);
    draw(&merged, resolver.names(), request.pid, request.format, &request.lost)
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
    let folded = name_stacks(merged, ProfileKind::Cpu, names, lost, keep, plain_owner);
    Ok(match format {
        ProfileFormat::Svg => {
            let whose = pid.map_or_else(|| "whole host".to_owned(), |pid| format!("process {pid}"));
            let title = format!("On-CPU time, {whose}");
            let seconds = merged.end.since(merged.start).as_secs_f64();
            let subtitle = format!("{} samples over {seconds:.0} s, {} lost", merged.total(), lost.samples());
            Rendered { content_type: "image/svg+xml", bytes: flame_svg(&folded, &title, &subtitle)? }
        }
        ProfileFormat::Folded => {
            Rendered { content_type: "text/plain; charset=utf-8", bytes: folded_text(&folded).into_bytes() }
        }
        ProfileFormat::Json => Rendered { content_type: "application/json", bytes: profile_json(&folded)? },
    })
}
