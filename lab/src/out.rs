//! Output: JSON and tables on standard output, notes on standard error.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// One JSON line on standard output, flushed: whoever started this process waits for it.
pub(crate) fn json_line(value: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_string(value).context("write JSON")?;
    line.push('\n');
    text(&line)
}

/// Text on standard output, flushed.
pub(crate) fn text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("write to standard output")
}

/// A line on standard error; a closed one is nobody's loss.
pub(crate) fn note(line: &str) {
    writeln!(io::stderr().lock(), "{line}").ok();
}

/// JSON to a file, or to standard output for `-`.
pub(crate) fn json_file(path: &Path, value: &impl Serialize) -> Result<()> {
    if path == Path::new("-") {
        return json_line(value);
    }
    let mut json = serde_json::to_string_pretty(value).context("write JSON")?;
    json.push('\n');
    fs::write(path, json).with_context(|| format!("write {} (does its directory exist?)", path.display()))
}
