//! Import: text of somebody else's profiler in, a profile out. Folded lines are read as `flamegraph.pl` and inferno do, the
//! output of `perf script` is collapsed by inferno. What could not be taken as it is, is told.

use std::borrow::Cow;
use std::collections::BTreeSet;

use inferno::collapse::Collapse as _;
use inferno::collapse::perf::{Folder, Options};

use super::model::{Builder, Frame, Origin, Owner, Profile};
use crate::aggregate::lost::Lost;
use crate::symbolize::names::clean;
use crate::units::{Nanos, ProfileKind};

/// A profile that was read, and what is to be said about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The profile. Its values are of the kind that was asked for; of a kind that is no CPU profile, how many samples are
    /// behind them is not known.
    pub profile: Profile,
    /// What was not taken as it stood, in words.
    pub notes: Vec<String>,
}

/// Why a text is no profile.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// `perf script` writes other text.
    #[error("read it as output of `perf script`: {0}")]
    Perf(std::io::Error),
    /// No line is a stack.
    #[error("no line is a stack: want folded lines (`main;parse 12`) or the output of `perf script`")]
    Nothing,
}

/// Reads folded lines, or the output of `perf script`: which of them it is shows in its lines.
pub fn import(bytes: &[u8], kind: ProfileKind) -> Result<Imported, ImportError> {
    let text = String::from_utf8_lossy(bytes);
    let mut imported = if is_perf_script(&text) { perf_script(&text, kind)? } else { folded(&text, kind) };
    if matches!(text, Cow::Owned(_)) {
        imported.notes.push("bytes that are no UTF-8 were replaced".to_owned());
    }
    if imported.profile.is_empty() { Err(ImportError::Nothing) } else { Ok(imported) }
}

/// Frames of `perf script` are indented, and begin with their address.
fn is_perf_script(text: &str) -> bool {
    let address = |line: &str| {
        let digits = line.trim_start().split(' ').next().unwrap_or_default();
        line.starts_with([' ', '\t']) && digits.len() >= 4 && digits.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let counts = |line: &str| matches!(split(line), Line::Stack { .. });
    text.lines().find(|line| address(line) || counts(line)).is_some_and(address)
}

/// What a line of folded text is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Line<'a> {
    Empty,
    Stack {
        path: &'a str,
        count: u64,
        /// The count had a fraction, which was rounded.
        rounded: bool,
        /// There were two counts, of a comparison; this is the second.
        two: bool,
    },
    Unreadable,
}

fn split(line: &str) -> Line<'_> {
    let line = line.trim();
    if line.is_empty() || line.starts_with("# ") {
        return Line::Empty;
    }
    let Some((rest, (count, rounded))) = last_number(line) else { return Line::Unreadable };
    let (path, two) = last_number(rest).map_or((rest, false), |(path, _)| (path, true));
    if path.is_empty() { Line::Unreadable } else { Line::Stack { path, count, rounded, two } }
}

/// Splits the number off the end of a line, rounded.
fn last_number(line: &str) -> Option<(&str, (u64, bool))> {
    let (rest, number) = line.rsplit_once([' ', '\t'])?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if number.is_empty() || number == "." || !digits(whole) || !digits(fraction) {
        return None;
    }
    let value = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    let up = u64::from(fraction.as_bytes().first().is_some_and(|digit| *digit >= b'5'));
    Some((rest.trim_end(), (value.saturating_add(up), fraction.bytes().any(|digit| digit != b'0'))))
}

/// Reads folded lines; the first frame is the thread's name.
pub fn folded(text: &str, kind: ProfileKind) -> Imported {
    let mut builder = Builder::default();
    let (mut unreadable, mut fractions, mut comparisons) = (0_u64, 0_u64, 0_u64);
    let mut frames = Vec::new();
    for line in text.lines() {
        let (path, count) = match split(line) {
            Line::Empty => continue,
            Line::Unreadable => {
                unreadable += 1;
                continue;
            }
            Line::Stack { path, count, rounded, two } => {
                fractions += u64::from(rounded);
                comparisons += u64::from(two);
                (path, count)
            }
        };
        let mut names = path.split(';');
        let comm = frame(names.next().unwrap_or_default());
        let owner = builder.owner(Owner::named(comm.name));
        frames.clear();
        frames.extend(names.map(frame).map(|Frame { name, origin }| builder.frame(&name, origin)));
        let (samples, weight) = if kind == ProfileKind::Cpu { (count, 0) } else { (0, count) };
        builder.add(owner, &frames, samples, weight);
    }
    let notes = [
        (unreadable, "lines are no stacks and were left out"),
        (fractions, "counts had fractions and were rounded"),
        (comparisons, "lines hold two counts, of a comparison: the second was taken"),
    ];
    let notes = notes.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
    Imported { notes: notes.collect(), profile: builder.finish(kind, Nanos(0), Nanos(0), Lost::default()) }
}

fn frame(text: &str) -> Frame {
    let text = text.trim();
    let (name, kernel) = text.strip_suffix("_[k]").map_or((text, false), |name| (name, true));
    let name = clean(name);
    let name = if name.trim().is_empty() { "[empty]".to_owned() } else { name };
    let origin = if kernel { Origin::Kernel } else { Origin::of_text(&name) };
    Frame { name: name.into(), origin }
}

fn perf_script(text: &str, kind: ProfileKind) -> Result<Imported, ImportError> {
    let mut options = Options::default();
    options.annotate_kernel = true;
    options.annotate_jit = true;
    options.nthreads = 1;
    let text: String = text.lines().map(without_probe).flat_map(|line| [line, "\n"]).collect();
    let events: Vec<String> = events(&text).into_iter().map(str::to_owned).collect();
    let mut lines = Vec::new();
    let text = text.lines().map(without_period).fold(String::with_capacity(text.len()), |all, line| all + &line + "\n");
    Folder::from(options).collapse(text.as_bytes(), &mut lines).map_err(ImportError::Perf)?;
    let mut imported = folded(&String::from_utf8_lossy(&lines), kind);
    if let [first, others @ ..] = events.as_slice()
        && !others.is_empty()
    {
        imported.notes.push(format!("only the samples of {first} were taken, not those of {}", others.join(", ")));
    }
    Ok(imported)
}

/// The header of a dynamic probe's sample without the addresses behind it, which inferno takes for a stack of one frame.
fn without_probe(line: &str) -> &str {
    let is_place = |c: char| c.is_ascii_hexdigit() || " <-)".contains(c);
    let header = line.trim_end().rsplit_once(" (").filter(|_| !line.starts_with([' ', '\t', '#']));
    match header {
        Some((header, place)) if header.ends_with(':') && place.chars().all(is_place) => header,
        _ => line,
    }
}

/// A header without the period of its sample. inferno weighs by periods, whose unit differs from event to event; counted
/// are samples here.
fn without_period(line: &str) -> Cow<'_, str> {
    let trimmed = line.trim_end();
    let event =
        trimmed.rsplit_once(' ').filter(|(_, event)| event.ends_with(':') && !line.starts_with([' ', '\t', '#']));
    let period = event.and_then(|(rest, event)| Some((rest.trim_end().rsplit_once(' ')?, event)));
    match period {
        Some(((rest, period), event))
            if period.bytes().all(|b| b.is_ascii_digit()) && rest.trim_end().ends_with(':') =>
        {
            Cow::Owned(format!("{rest} {event}"))
        }
        _ => Cow::Borrowed(line),
    }
}

/// Names of the events that were sampled, in the order in which they appear.
fn events(text: &str) -> Vec<&str> {
    let mut known = BTreeSet::new();
    let headers = text.lines().filter(|line| !line.starts_with([' ', '\t', '#']));
    let names = headers.filter_map(|line| {
        let last = line.trim_end().rsplit(' ').next()?.strip_suffix(':')?;
        // `cycles:ppp:` and `cycles:` are the same event.
        let is_modifier = |part: &str| part.bytes().all(|b| b"ukhpPGHSD".contains(&b));
        Some(last.rsplit_once(':').filter(|(_, end)| is_modifier(end)).map_or(last, |(name, _)| name))
    });
    names.filter(|name| !name.is_empty() && known.insert(*name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::folded_text;

    fn lines(text: &str) -> (String, Vec<String>) {
        let imported = import(text.as_bytes(), ProfileKind::Cpu).unwrap();
        (folded_text(&imported.profile), imported.notes)
    }

    #[test]
    fn folded_lines_of_every_shape_are_read_and_the_rest_is_counted() {
        let (text, notes) = lines(
            "java;Lorg/x/Main;.run_[j] 3\r\n\n# a comment 9\nswapper;do_idle_[k] 7\n\
             perl;main::BEGIN (x.pl:3) 2.5\nno count here\nnode;~foo /app/x.js:12 4\n  c++;f(int, a<b>) 1  \n\
             swapper;do_idle_[k] 1\nrust;[u8; 8]::f 2\n;; 1\nlone 5\n",
        );
        assert_eq!(
            text,
            "[empty];[empty];[empty] 1\nc++;f(int, a<b>) 1\njava;Lorg/x/Main;.run_[j] 3\nlone 5\n\
             node;~foo /app/x.js:12 4\nperl;main::BEGIN (x.pl:3) 3\nrust;[u8;8]::f 2\nswapper;do_idle_[k] 8\n"
        );
        let notes = notes.join("; ");
        assert!(notes.contains("1 lines are no stacks") && notes.contains("1 counts had fractions"), "{notes}");
    }

    #[test]
    fn lines_of_a_comparison_are_read_as_what_came_after() {
        let (text, notes) = lines("a;b 10 20\na;c 1 0\n");
        assert_eq!(text, "a;b 20\n");
        assert!(notes[0].contains("comparison"), "{notes:?}");
    }

    #[test]
    fn perf_script_is_read_with_kernel_frames_marked_and_other_events_told() {
        let (text, notes) = lines(
            "# captured on: today\n\
             app 4242 [001] 100.000001:   10101010 cpu-clock:ppp: \n\
             \tffffffff81a00000 do_syscall_64+0x5c ([kernel.kallsyms])\n\
             \t    7f0000001234 write+0x14 (/usr/lib/libc.so.6)\n\
             \t    55d000001000 main+0x10 (/usr/bin/app)\n\
             \n\
             app 4242 [001] 100.010002:   10101010 cpu-clock:ppp: \n\
             \t    55d000001000 main+0x10 (/usr/bin/app)\n\
             \n\
             app 4242 [001] 100.020002:          1 sched:sched_switch: \n\
             \t    55d000001000 main+0x10 (/usr/bin/app)\n\n",
        );
        assert_eq!(text, "app;main 1\napp;main;write;do_syscall_64_[k] 1\n");
        assert_eq!(notes, ["only the samples of cpu-clock were taken, not those of sched:sched_switch"]);
    }

    #[test]
    fn samples_of_a_dynamic_probe_keep_their_stacks() {
        let (text, notes) = lines(
            "app 77 [000] 5.000001: probe_app:open: (55d000001000)\n\
             \t    55d000001000 open_log+0x0 (/usr/bin/app)\n\
             \t    55d000002000 main+0x10 (/usr/bin/app)\n\n\
             app 77 [000] 6.000001: probe_app:open: (55d000001000 <- 55d000002000)\n\
             \t    55d000002000 main+0x10 (/usr/bin/app)\n\n",
        );
        assert_eq!((text.as_str(), notes.len()), ("app;main 1\napp;main;open_log 1\n", 0));
    }

    #[test]
    fn what_is_no_profile_is_refused() {
        for text in ["", "\n\n", "hello\nworld\n", "# only a comment 3\n", "\u{0}\u{1}"] {
            assert!(import(text.as_bytes(), ProfileKind::Cpu).is_err(), "{text:?}");
        }
    }
}
