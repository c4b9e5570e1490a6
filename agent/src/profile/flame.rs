//! Flame graphs, drawn by inferno.

use inferno::flamegraph::color::{MultiPalette, Palette};
use inferno::flamegraph::{Options, TextTruncateDirection, from_lines};

use super::folded::{Folded, folded_text};

/// Why a graph could not be drawn.
#[derive(Debug, thiserror::Error)]
pub enum FlameError {
    /// There is nothing to draw.
    #[error("no samples: nothing ran on a CPU in that time, or nothing of that process (is the pid right?)")]
    Empty,
    /// The drawing failed.
    #[error("draw the flame graph: {0}")]
    Draw(String),
}

/// An interactive SVG: width is samples, kernel frames stand apart by colour.
pub fn flame_svg(folded: &Folded, title: &str, subtitle: &str) -> Result<Vec<u8>, FlameError> {
    if folded.is_empty() {
        return Err(FlameError::Empty);
    }
    let text = folded_text(folded);
    let mut options = Options::default();
    title.clone_into(&mut options.title);
    options.subtitle = Some(subtitle.to_owned());
    "samples".clone_into(&mut options.count_name);
    options.colors = Palette::Multi(MultiPalette::Java);
    // The same frame has the same colour in every graph, so that two can be compared by eye.
    options.hash = true;
    options.font_size = 12;
    // The start of a path says more than its end: which crate, which module.
    options.text_truncate_direction = TextTruncateDirection::Right;
    options.min_width = 0.1;
    let mut svg = Vec::new();
    from_lines(&mut options, text.lines(), &mut svg).map_err(|cause| FlameError::Draw(cause.to_string()))?;
    Ok(svg)
}
