//! Stacks in, documents out, off the runtime's thread. A placeholder: nothing is drawn yet.

use std::sync::Arc;

use crate::aggregate::stacks::StackCounts;
use crate::units::{Nanos, Pid};

/// Draws profiles; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Renderer {}

/// What to draw.
#[derive(Clone, Debug)]
pub struct RenderRequest {
    /// Windows to merge.
    pub profiles: Vec<Arc<StackCounts>>,
    /// Of this process only.
    pub pid: Option<Pid>,
    /// As what.
    pub format: ProfileFormat,
    /// Start of the span asked for.
    pub from: Nanos,
    /// End of it.
    pub to: Nanos,
    /// Whether raw kernel addresses may be shown.
    pub kernel_addresses: Visible,
}

/// As what a profile is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileFormat {
    /// A flame graph.
    Svg,
    /// Folded lines.
    Folded,
    /// A tree as JSON.
    Json,
}

/// To whom raw kernel addresses are shown: to root alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visible {
    /// The reader is root.
    Root,
    /// The reader is somebody else.
    Others,
}

/// A document.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// Its media type.
    pub content_type: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Why nothing was drawn.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// There is no renderer in this build.
    #[error("no renderer in this build")]
    Absent,
}

impl Renderer {
    /// Draws a document.
    #[expect(clippy::unused_async, reason = "the renderer proper works on a thread of its own")]
    pub async fn render(&self, _request: RenderRequest) -> Result<Rendered, RenderError> {
        Err(RenderError::Absent)
    }
}
