//! A recorded load: a file of offsets and counts in, due times out. The file is checked line by line when it is opened, and
//! read again as the load goes on, so that memory does not grow with its length. Never written to.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use tidegate_client::Nanos;

use crate::time::parse_span;

/// A trace whose every line has been checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Trace {
    path: PathBuf,
    speed: f64,
    span: Nanos,
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    at: Nanos,
    count: u64,
}

impl Trace {
    pub(crate) fn open(path: &Path, speed: f64) -> Result<Self, String> {
        let shown = path.display();
        let file = File::open(path).map_err(|e| format!("trace {shown}: {e}"))?;
        let (mut last, mut records) = (None, 0_u64);
        for (index, line) in BufReader::new(file).lines().enumerate() {
            let number = index + 1;
            let wrong = |error: String| format!("trace {shown}, line {number}: {error}");
            let line = line.map_err(|e| wrong(e.to_string()))?;
            let Some(entry) = entry(&line, number).map_err(wrong)? else { continue };
            if last.is_some_and(|last| entry.at < last) {
                return Err(wrong(format!("{line:?} comes before the line above it (sort by time)")));
            }
            records = records.saturating_add(entry.count);
            last = Some(entry.at);
        }
        let Some(last) = last.filter(|_| records > 0) else { return Err(format!("trace {shown}: no record in it")) };
        let mut trace = Self { path: path.to_owned(), speed, span: Nanos(0) };
        trace.span = trace.scaled(last) + Nanos(1);
        Ok(trace)
    }

    /// From its begin to just after its last record.
    pub(crate) fn span(&self) -> Nanos {
        self.span
    }

    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    #[expect(clippy::allow_attributes_without_reason, reason = "below 104 days a double is exact to a nanosecond")]
    fn scaled(&self, at: Nanos) -> Nanos {
        if (self.speed - 1.0).abs() < f64::EPSILON { at } else { Nanos((at.0 as f64 / self.speed) as u64) }
    }

    /// All of its records. Ends early when the file has changed since it was checked; then records are missing.
    pub(crate) fn read(&self) -> TraceReader {
        TraceReader { lines: File::open(&self.path).ok().map(BufReader::new), number: 0, left: 0, at: Nanos(0) }
    }
}

/// Reads through a trace.
#[derive(Debug)]
pub(crate) struct TraceReader {
    lines: Option<BufReader<File>>,
    number: usize,
    at: Nanos,
    left: u64,
}

impl TraceReader {
    /// When the next record is due.
    pub(crate) fn next(&mut self, trace: &Trace) -> Option<Nanos> {
        while self.left == 0 {
            let mut line = String::new();
            if self.lines.as_mut()?.read_line(&mut line).ok()? == 0 {
                return None;
            }
            self.number += 1;
            if let Some(entry) = entry(&line, self.number).ok()? {
                (self.at, self.left) = (trace.scaled(entry.at), entry.count);
            }
        }
        self.left -= 1;
        (self.at < trace.span).then_some(self.at)
    }
}

/// `OFFSET COUNT` or `OFFSET,COUNT`; an offset without a unit is in nanoseconds, a count that is left out is 1. Empty lines,
/// comments and a header in the first line say nothing.
fn entry(line: &str, number: usize) -> Result<Option<Entry>, String> {
    let line = line.trim();
    let mut words = line.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
    let Some(first) = words.next().filter(|word| !word.starts_with('#')) else { return Ok(None) };
    if number == 1 && first.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Ok(None);
    }
    let want = "want an offset and a count, like `1500000 12` or `1.5ms,12`";
    let at =
        first.parse().map(Nanos).or_else(|_unused| parse_span(first)).map_err(|_unused| format!("{line:?}: {want}"))?;
    let count = match words.next() {
        None => 1,
        Some(count) => count.parse().map_err(|_unused| format!("{line:?}: {want}"))?,
    };
    if words.next().is_some() {
        return Err(format!("{line:?}: {want}"));
    }
    Ok(Some(Entry { at, count }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn times(trace: &Trace) -> Vec<u64> {
        let mut reader = trace.read();
        std::iter::from_fn(|| reader.next(trace)).map(|at| at.0).collect()
    }

    #[test]
    fn both_ways_of_writing_a_trace_are_read() {
        let table = file("t_ns,count\n0,2\n# a pause\n\n1500,1\n1500,0\n2000\n");
        let trace = Trace::open(table.path(), 1.0).unwrap();
        assert_eq!((times(&trace), trace.span()), (vec![0, 0, 1500, 2000], Nanos(2001)));
        let words = file("1us 2\n4us\n");
        let fast = Trace::open(words.path(), 2.0).unwrap();
        assert_eq!((times(&fast), fast.span()), (vec![500, 500, 2000], Nanos(2001)));
    }

    #[test]
    fn a_bad_line_is_named_by_its_number() {
        for (text, names) in [
            ("1 1\nx 2\n", "line 2: \"x 2\""),
            ("5 1\n\n4 1\n", "line 3: \"4 1\" comes before"),
            ("1 1 1\n", "line 1"),
            ("1 -1\n", "line 1"),
            ("1.5 1\n", "line 1"),
            ("t,n\nt,n\n", "line 2"),
            ("# nothing\n5 0\n", "no record"),
        ] {
            let file = file(text);
            let error = Trace::open(file.path(), 1.0).unwrap_err();
            assert!(error.contains(names), "{text:?}: {error}");
        }
    }
}
