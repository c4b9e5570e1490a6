//! What a person reads: lines on standard output, notes on standard error, a spinner where there is a terminal.
//! Takes text, gives nothing back but elapsed time; never decides anything.

use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// One line of the result.
#[expect(clippy::print_stdout, reason = "the one place where xtask prints its results")]
pub(crate) fn line(text: impl Display) {
    println!("{text}");
}

/// One line beside the result: progress, warnings, errors.
#[expect(clippy::print_stderr, reason = "the one place where xtask prints its notes")]
pub(crate) fn note(text: impl Display) {
    eprintln!("{text}");
}

/// Time since its start.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "xtask measures real commands, it has no virtual time")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// A span for people: `0.4 s`, `81 s`, `12 min 05 s`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 {
        format!("{seconds:.1} s")
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else {
        let whole = duration.as_secs();
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// Progress of one piece of work: a spinner on a terminal, else a line at its start and nothing more.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub(crate) fn start(what: &str) -> Self {
        if !stderr().is_terminal() {
            note(format_args!("… {what}"));
            return Self { bar: None };
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4}  {prefix}  {wide_msg:.dim}") {
            bar.set_style(style);
            bar.set_prefix(what.to_owned());
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        Self { bar: Some(bar) }
    }

    /// Whether there is a terminal that shows this.
    pub(crate) fn is_shown(&self) -> bool {
        self.bar.is_some()
    }

    /// The newest line of the work's own output.
    pub(crate) fn latest(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.trim().to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Rows under a header, each column as wide as its widest cell; numbers (cells of a column whose header ends in `>`)
/// are set to the right.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let heads: Vec<(&str, Side)> = header
        .iter()
        .map(|head| head.strip_suffix('>').map_or((*head, Side::Left), |head| (head, Side::Right)))
        .collect();
    let widths: Vec<usize> = heads
        .iter()
        .enumerate()
        .map(|(i, (head, _))| {
            let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
            cells.chain([head.chars().count()]).max().unwrap_or(0)
        })
        .collect();
    let render = |cells: Vec<&str>| {
        let mut text = String::new();
        for ((cell, width), (_, side)) in cells.iter().zip(&widths).zip(&heads) {
            let pad = " ".repeat(width - cell.chars().count());
            match side {
                Side::Left => text.extend([cell, pad.as_str(), "  "]),
                Side::Right => text.extend([pad.as_str(), cell, "  "]),
            }
        }
        text.trim_end().to_owned()
    };
    let mut lines = vec![render(heads.iter().map(|(head, _)| *head).collect())];
    lines.extend(rows.iter().map(|row| render(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_numbers_stand_to_the_right() {
        let rows = vec![vec!["clippy".to_owned(), "7".to_owned()], vec!["tidy".to_owned(), "120".to_owned()]];
        assert_eq!(table(&["step", "s>"], &rows), "step      s\nclippy    7\ntidy    120");
    }

    #[test]
    fn long_spans_are_told_in_minutes() {
        assert_eq!(span(Duration::from_millis(420)), "0.4 s");
        assert_eq!(span(Duration::from_secs(81)), "81 s");
        assert_eq!(span(Duration::from_secs(725)), "12 min 05 s");
    }
}
