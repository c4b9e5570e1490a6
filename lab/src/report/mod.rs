//! The report of the proof: figures in, Markdown and one self-contained page of HTML out. Computes nothing; what it shows
//! stands in the JSON beside it.

mod axis;
mod html;
mod markdown;
mod plot;
mod style;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::tuning::Proof;

/// Writes `tuning.md` and `tuning.html`.
pub(crate) fn write(proof: &Proof, directory: &Path) -> Result<()> {
    for (name, text) in [("tuning.md", markdown::render(proof)), ("tuning.html", html::render(proof))] {
        let file = directory.join(name);
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// A latency with as many figures as it deserves.
fn ms(value: f64) -> String {
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
