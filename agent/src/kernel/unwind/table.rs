//! The unwind table of one file: rows to load, and how an address in a mapping of the file becomes the `pc` of a row.

use std::fs::File;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::LazyLock;

use agent_common::{CfaRule, UnwindRow};

use super::compile::compile;
use super::elf::{BuildId, Elf, FrameSection, Limits, Segment, TableError, reader};

/// What makes two files share a table.
///
/// The build id alone would let anyone write a file with the id of another one and have everybody's stacks go by it: the
/// contents of the frame sections are part, by a hash that nobody can foresee.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableId {
    /// Build id, when the file has one.
    pub build_id: Option<BuildId>,
    contents: u64,
}

impl TableId {
    pub(super) fn of(build_id: Option<BuildId>, code: &[Segment], frames: &[FrameSection<'_>]) -> Self {
        // One key for the life of the agent.
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let mut hasher = KEY.build_hasher();
        for Segment { offset, file_size, address, size } in code {
            for field in [offset, file_size, address, size] {
                hasher.write_u64(*field);
            }
        }
        for section in frames {
            hasher.write_u64(section.address);
            hasher.write_usize(section.bytes.len());
            hasher.write(&section.bytes);
        }
        Self { build_id, contents: hasher.finish() }
    }

    /// One that differs for each number.
    #[cfg(test)]
    pub(super) fn of_test(contents: u64) -> Self {
        Self { build_id: None, contents }
    }
}

/// Rows of one file.
#[derive(Clone, Debug)]
pub struct Table {
    /// Who it is.
    pub id: TableId,
    /// Address, as linked, of `pc` 0; a multiple of the page size.
    pub base: u64,
    /// Sorted by `pc`, which is unique.
    pub rows: Vec<UnwindRow>,
    /// Executable parts of the file, by address.
    pub segments: Vec<Segment>,
    /// What could not be described.
    pub skipped: Skipped,
}

/// Descriptions that could not be made into rows, by reason. All but the first three have a row that says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Functions that lie outside of the code: what the linker threw away.
    pub outside: u32,
    /// Functions that begin inside another one.
    pub overlapping: u32,
    /// Entries that do not decode.
    pub damaged: u32,
    /// The frame is at a register that is not followed.
    pub register: u32,
    /// The frame is at a distance that a row does not hold.
    pub distance: u32,
    /// The frame is at an expression of no known shape.
    pub expression: u32,
    /// The return address is not where calls put it.
    pub return_address: u32,
    /// The frame pointer is saved at a place that a row does not hold: known as unknown, the rest of the row serves.
    pub frame_pointer: u32,
}

impl Skipped {
    /// Each reason with its count.
    pub fn by_reason(&self) -> [(&'static str, u32); 8] {
        let Self { outside, overlapping, damaged, register, distance, expression, return_address, frame_pointer } =
            *self;
        [
            ("outside", outside),
            ("overlapping", overlapping),
            ("damaged", damaged),
            ("register", register),
            ("distance", distance),
            ("expression", expression),
            ("return address", return_address),
            ("frame pointer", frame_pointer),
        ]
    }
}

impl Table {
    /// The table of an open regular file. `go_on` is asked every so often and ends the work by saying no.
    pub fn of_file(file: &File, limits: Limits, go_on: &mut dyn FnMut() -> bool) -> Result<Self, TableError> {
        let cache = reader(file);
        compile(&Elf::parse(&cache, limits)?, limits, go_on)
    }

    /// The table of a file that is in memory: the vDSO.
    pub fn of_bytes(bytes: &[u8], limits: Limits, go_on: &mut dyn FnMut() -> bool) -> Result<Self, TableError> {
        compile(&Elf::parse(bytes, limits)?, limits, go_on)
    }

    /// What to take off an address in a mapping, which begins at `start` and shows the file from `offset` on, to get the
    /// `pc` of a row. `None` when the mapping shows no code of this file.
    pub fn bias(&self, start: u64, offset: u64) -> Option<u64> {
        bias(&self.segments, self.base, start, offset)
    }

    /// The row that holds for `pc`.
    pub fn row(&self, pc: u64) -> Option<UnwindRow> {
        row_at(&self.rows, pc)
    }

    /// Bytes of code by rule: what its rows cover.
    pub fn coverage(&self) -> Vec<(CfaRule, u64)> {
        let ends = self.rows.iter().skip(1).map(|row| row.pc);
        let mut bytes = CfaRule::ALL.map(|rule| (rule, 0));
        for (row, end) in self.rows.iter().zip(ends) {
            if let Some((_, sum)) = bytes.get_mut(CfaRule::of(row) as usize) {
                *sum += u64::from(end - row.pc);
            }
        }
        bytes.to_vec()
    }
}

/// [`Table::bias`] of a file whose rows are elsewhere.
pub fn bias(segments: &[Segment], base: u64, start: u64, offset: u64) -> Option<u64> {
    const PAGE: u64 = 4_096;
    let shows = |s: &&Segment| {
        let first = s.offset & !(PAGE - 1);
        let end = s.offset.saturating_add(s.file_size).checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        (first..end).contains(&offset)
    };
    let segment = segments.iter().find(shows)?;
    // Where the first byte of the mapping was linked for; a kernel maps whole pages, so it may lie before the segment.
    let linked = segment.address.wrapping_sub(segment.offset).wrapping_add(offset);
    Some(start.wrapping_sub(linked).wrapping_add(base))
}

/// The row of a sorted list that holds for `pc`.
pub fn row_at(rows: &[UnwindRow], pc: u64) -> Option<UnwindRow> {
    let pc = u32::try_from(pc).ok()?;
    let after = rows.partition_point(|row| row.pc <= pc);
    rows.get(after.checked_sub(1)?).copied()
}
