//! A comparison in words: a diff in, a ranked table of what grew and what shrank out.

use std::fmt::Write as _;

use super::{Change, Diff, Side, Step};
use crate::profile::heading::amount;
use crate::profile::noise::FALSE_FINDINGS;
use crate::units::ProfileKind;

/// The text: at most `most` lines each way.
pub fn diff_text(diff: &Diff, most: usize) -> String {
    let mut text = String::new();
    let written = write(&mut text, diff, most);
    debug_assert!(written.is_ok(), "a string takes everything");
    text
}

fn write(text: &mut String, diff: &Diff, most: usize) -> std::fmt::Result {
    let kind = diff.stacks.kind;
    writeln!(text, "{}: shares of each profile, so that both count the same", kind.title())?;
    for (name, side) in ["before", "after"].iter().zip(&diff.sides) {
        writeln!(text, "  {name:<6} {}", side_text(kind, side))?;
    }
    let unknown = diff.functions.iter().any(|change| change.own.believed.is_none());
    if unknown {
        writeln!(
            text,
            "Whether a change is more than chance cannot be told: the number of samples behind these values is not known."
        )?;
    }
    let counts = |step: &Step| step.believed != Some(false) && step.growth() != 0.0;
    let changed: Vec<&Change> = diff.functions.iter().filter(|c| counts(&c.own)).collect();
    table(text, "grew", changed.iter().copied().filter(|c| c.own.growth() > 0.0), most)?;
    table(text, "shrank", changed.iter().rev().copied().filter(|c| c.own.growth() < 0.0), most)?;
    callers(text, diff, most)?;
    if !unknown {
        let noise = diff.functions.iter().filter(|c| c.own.before + c.own.after > 0.0 && !counts(&c.own)).count();
        let rate = FALSE_FINDINGS * 100.0;
        writeln!(text, "{noise} more functions differ by no more than chance (false discovery rate {rate:.0} %).")?;
    }
    Ok(())
}

fn side_text(kind: ProfileKind, side: &Side) -> String {
    let Side { total, samples, seconds, lost } = side;
    let mut text = amount(kind, *total);
    if kind != ProfileKind::Cpu && *samples > 0 {
        text = format!("{text} from {samples} samples");
    }
    if *seconds > 0.0 {
        text = format!("{text} in {seconds:.1} s");
    }
    if lost.samples() > 0 {
        text = format!("{text}, {} samples lost", lost.samples());
    }
    text
}

fn table<'a>(
    text: &mut String,
    what: &str,
    changes: impl Iterator<Item = &'a Change>,
    most: usize,
) -> std::fmt::Result {
    let changes: Vec<&Change> = changes.collect();
    if changes.is_empty() {
        return writeln!(text, "\nnothing {what}");
    }
    writeln!(text, "\n{what:<7}   points ±se      own share         total share       function")?;
    for change in changes.iter().take(most) {
        let own = &change.own;
        writeln!(
            text,
            "        {:>+7.2} {:<6} {:>6.2} → {:<6.2} % {:>6.2} → {:<6.2} %  {}",
            own.growth() * 100.0,
            error(own),
            own.before * 100.0,
            own.after * 100.0,
            change.all.before * 100.0,
            change.all.after * 100.0,
            change.frame.name,
        )?;
    }
    if changes.len() > most {
        writeln!(text, "        and {} more", changes.len() - most)?;
    }
    Ok(())
}

/// Functions whose total changed though what ends in them did not: they call more, or less, than before.
fn callers(text: &mut String, diff: &Diff, most: usize) -> std::fmt::Result {
    let moved = |c: &&Change| c.all.believed == Some(true) && c.own.believed != Some(true);
    let mut changes: Vec<&Change> = diff.functions.iter().filter(moved).collect();
    changes.sort_by(|a, b| b.all.growth().abs().total_cmp(&a.all.growth().abs()));
    if changes.is_empty() {
        return Ok(());
    }
    writeln!(text, "\nby what they call  ±se      total share       function")?;
    for change in changes.iter().take(most) {
        let all = &change.all;
        let (before, after) = (all.before * 100.0, all.after * 100.0);
        let points = all.growth() * 100.0;
        writeln!(
            text,
            "        {points:>+7.2} {:<6} {before:>6.2} → {after:<6.2} %  {}",
            error(all),
            change.frame.name
        )?;
    }
    if changes.len() > most {
        writeln!(text, "        and {} more", changes.len() - most)?;
    }
    Ok(())
}

fn error(step: &Step) -> String {
    step.error.map_or_else(|| "±?".to_owned(), |error| format!("±{:.2}", error * 100.0))
}
