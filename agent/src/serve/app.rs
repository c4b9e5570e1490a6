//! What the routes share: the newest view, the inbox, the pages, and the clock they are handed. They own no state.

use std::sync::Arc;
use std::time::Duration;

use tidegate_client::abi::Guidance;
use tokio::sync::watch;

use crate::event::Input;
use crate::serve::check::Preflight;
use crate::serve::claims::Claims;
use crate::serve::pages::Pages;
use crate::serve::problem::Refusal;
use crate::serve::render::Renderer;
use crate::serve::view::{PipelineView, View};
use crate::serve::watchers::Watchers;
use crate::source::inbox::InboxSender;
use crate::units::{Generation, Nanos, PipelineName, Settings, Uid};

/// Everything a route may use; cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    /// The newest view.
    pub views: watch::Receiver<Arc<View>>,
    /// The door for requests that change state.
    pub inbox: InboxSender,
    /// Settings pages, to look at.
    pub pages: Pages,
    /// Names on their way in.
    pub claims: Claims,
    /// Draws profiles.
    pub renderer: Renderer,
    /// The measured table of guidance.
    pub guidance: Arc<Guidance>,
    /// Runs the preflight.
    pub preflight: Preflight,
    /// The monotonic clock.
    pub clock: fn() -> Nanos,
    /// The wall clock, for times that people give.
    pub wall: fn() -> Nanos,
    /// User the agent runs as.
    pub agent: Uid,
    /// Places for those who wait.
    pub watchers: Watchers,
}

/// Longest wait for the run loop to take up a request. It turns ten times a second, and clients wait three seconds.
const TAKEN_UP_WITHIN: Duration = Duration::from_secs(2);

impl App {
    /// The newest view.
    pub fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }

    /// The settings of a pipeline: what its page says, which is written before the view is.
    pub fn newest(&self, shown: &PipelineView) -> (Generation, Settings) {
        self.pages.look(shown.uid, &shown.name).unwrap_or((shown.generation, shown.settings))
    }

    /// Now.
    pub fn now(&self) -> Nanos {
        (self.clock)()
    }

    /// Hands a request to the run loop.
    pub fn send(&self, input: Input) -> Result<(), Refusal> {
        self.inbox
            .send(input)
            .map_err(|full| Refusal::unavailable("inbox-full", full.to_string(), "try again in a second"))
    }

    /// The first view that fits, from now on.
    pub async fn wait_for(&self, within: Duration, fits: impl Fn(&View) -> bool) -> Result<Arc<View>, Refusal> {
        let mut views = self.views.clone();
        match tokio::time::timeout(within, views.wait_for(|view| fits(view))).await {
            Ok(Ok(view)) => Ok(view.clone()),
            Ok(Err(_stopped)) => Err(stopping()),
            Err(_elapsed) => Err(Refusal::unavailable(
                "busy",
                format!("the agent did not take the request up within {} s", within.as_secs()),
                "try again in a second; if it stays so, see `tidegate doctor`",
            )),
        }
    }

    /// The first view that fits within that time; `None` when there is none, which here is an answer like any other.
    pub async fn changed(&self, within: Duration, fits: impl Fn(&View) -> bool) -> Result<Option<Arc<View>>, Refusal> {
        let mut views = self.views.clone();
        match tokio::time::timeout(within, views.wait_for(|view| fits(view))).await {
            Ok(Ok(view)) => Ok(Some(view.clone())),
            Ok(Err(_stopped)) => Err(stopping()),
            Err(_elapsed) => Ok(None),
        }
    }

    /// The first view that shows what a request led to.
    pub async fn taken_up(&self, fits: impl Fn(&View) -> bool) -> Result<Arc<View>, Refusal> {
        self.wait_for(TAKEN_UP_WITHIN, fits).await
    }
}

fn stopping() -> Refusal {
    Refusal::unavailable("stopping", "the agent is stopping", "ask the next agent")
}

/// The pipeline of that name.
pub fn pipeline<'v>(view: &'v View, name: &PipelineName) -> Result<&'v PipelineView, Refusal> {
    view.pipelines.iter().find(|p| p.name == *name).ok_or_else(|| {
        let known = view.pipelines.iter().map(|p| p.name.as_str());
        let near = known
            .map(|k| (strsim::damerau_levenshtein(k, name.as_str()), k))
            .filter(|(distance, _)| *distance <= 2)
            .min();
        let fix = "see `tidegate pipelines` for the registered ones";
        let fix = near.map_or(fix.to_owned(), |(_, k)| format!("{fix}; did you mean {k}?"));
        Refusal::not_found("no-pipeline", format!("no pipeline named {name}"), fix)
    })
}
