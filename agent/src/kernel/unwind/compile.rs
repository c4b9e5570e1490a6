//! Described functions in, the sorted rows of a table out: overlaps cut, gaps marked, rows that change nothing dropped.

use agent_common::{CfaRule, UnwindRow};
use gimli::{BaseAddresses, LittleEndian};
use object::ReadRef;

use super::cfi::{Function, Functions};
use super::elf::{Elf, FrameKind, Limits, Segment, TableError};
use super::table::{Skipped, Table, TableId};

/// Between functions linkers fill up to the next multiple of this with what is never executed: no gap worth a row.
const PADDING: u32 = 16;
/// Code at the entry of a program: 61 bytes in the loader of glibc, which does most.
const ENTRY_BYTES: u32 = 64;
const PAGE: u64 = 4_096;

/// The table of a file. `go_on` is asked every so often and ends the work by saying no.
pub fn compile<'data, R: ReadRef<'data>>(
    elf: &Elf<'data, R>,
    limits: Limits,
    go_on: &mut dyn FnMut() -> bool,
) -> Result<Table, TableError> {
    elf.check_machine()?;
    let code = elf.code();
    let base = base_of(&code)?;
    let frames = elf.frames()?;
    let id = TableId::of(elf.build_id(), &code, &frames);
    let mut functions = Functions::new(base, &code, limits);
    let mut bases = BaseAddresses::default();
    if let Some(text) = elf.address_of(".text") {
        bases = bases.set_text(text);
    }
    if let Some(got) = elf.address_of(".got") {
        bases = bases.set_got(got);
    }
    for section in &frames {
        let bases = bases.clone().set_eh_frame(section.address);
        match section.kind {
            FrameKind::Eh => {
                functions.read(section.kind, &gimli::EhFrame::new(&section.bytes, LittleEndian), &bases, go_on)?;
            }
            FrameKind::Debug => {
                functions.read(section.kind, &gimli::DebugFrame::new(&section.bytes, LittleEndian), &bases, go_on)?;
            }
        }
    }
    let Functions { mut all, rows, mut skipped, .. } = functions;
    let mut rows = assemble(&mut all, &rows, &mut skipped);
    if rows.is_empty() {
        return Err(TableError::NoFrames);
    }
    mark_entry(&mut rows, elf.entry().checked_sub(base).and_then(|entry| u32::try_from(entry).ok()));
    Ok(Table { id, base, rows, segments: code, skipped })
}

/// Address of `pc` 0. Rows count in 32 bits, so the code must fit.
fn base_of(code: &[Segment]) -> Result<u64, TableError> {
    let base = code.first().ok_or(TableError::NoCode)?.address & !(PAGE - 1);
    let size = code.iter().map(Segment::end).max().unwrap_or(base) - base;
    let limit = u64::from(u32::MAX);
    if size > limit { Err(TableError::TooLarge { what: "code in bytes", size, limit }) } else { Ok(base) }
}

/// Puts functions in order and their rows in one list.
fn assemble(all: &mut [Function], rows: &[UnwindRow], skipped: &mut Skipped) -> Vec<UnwindRow> {
    all.sort_by_key(|function| (function.start, function.kind));
    let kept = without_repeats(all);
    let mut out: Vec<UnwindRow> = Vec::with_capacity(rows.len());
    let mut covered = None;
    for (index, function) in kept.iter().enumerate() {
        // What begins inside of another function ends that one: so do the tables that exceptions are found by.
        let next = kept.get(index + 1).map_or(u32::MAX, |next| next.start);
        if next < function.end {
            skipped.overlapping += 1;
        }
        let end = function.end.min(next);
        if let Some(covered) = covered
            && function.start - covered >= PADDING
        {
            push(&mut out, gap(covered));
        }
        let own = rows.get(function.first..function.first + function.count).unwrap_or(&[]);
        own.iter().take_while(|row| row.pc < end).for_each(|row| push(&mut out, *row));
        covered = Some(end);
    }
    if let Some(covered) = covered {
        push(&mut out, gap(covered));
    }
    out.shrink_to_fit();
    out
}

/// One description for each start, and none for debuggers where there is one for exceptions.
fn without_repeats(sorted: &[Function]) -> Vec<Function> {
    let mut kept: Vec<Function> = Vec::with_capacity(sorted.len());
    let mut described_until = 0;
    for function in sorted {
        let repeats = kept.last().is_some_and(|last| last.start == function.start);
        let second_choice = function.kind == FrameKind::Debug && function.start < described_until;
        if repeats || second_choice || function.count == 0 {
            continue;
        }
        if function.kind == FrameKind::Eh {
            described_until = described_until.max(function.end);
        }
        kept.push(*function);
    }
    kept
}

/// Programs, and the loader before them, begin in a few lines of assembly that often are not described. Nobody calls them.
fn mark_entry(rows: &mut Vec<UnwindRow>, entry: Option<u32>) {
    let Some(entry) = entry.filter(|entry| *entry != 0) else { return };
    let after = rows.partition_point(|row| row.pc <= entry);
    let marked = UnwindRow { pc: entry, cfa: 0, rule: CfaRule::Entry as u8, rbp: 0 };
    match after.checked_sub(1).and_then(|at| rows.get_mut(at)) {
        Some(row) if CfaRule::of(row) != CfaRule::Gap => return,
        Some(row) if row.pc == entry => *row = marked,
        _ => rows.insert(after, marked),
    }
    // What follows them is not described either, but it is called.
    let end = entry.saturating_add(ENTRY_BYTES);
    let after = rows.partition_point(|row| row.pc <= entry);
    if rows.get(after).is_none_or(|next| next.pc > end) {
        rows.insert(after, gap(end));
    }
}

fn gap(pc: u32) -> UnwindRow {
    UnwindRow { pc, cfa: 0, rule: CfaRule::Gap as u8, rbp: 0 }
}

/// Appends a row unless the one before it says the same.
fn push(out: &mut Vec<UnwindRow>, row: UnwindRow) {
    let same = |last: &UnwindRow| (last.cfa, last.rule, last.rbp) == (row.cfa, row.rule, row.rbp);
    match out.last_mut() {
        Some(last) if same(last) => {}
        Some(last) if last.pc == row.pc => *last = row,
        _ => out.push(row),
    }
}
