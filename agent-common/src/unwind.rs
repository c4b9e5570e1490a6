//! Unwind tables: how the user space of the agent tells the unwinder where a frame's caller is.
//!
//! A table is the rows of one file, sorted by `pc`; a row holds from its `pc` to that of the next. All tables lie in one
//! array; a [`TableRange`] says where. All mappings of executable code lie in another array, those of one address space
//! side by side and sorted; a [`SpaceRange`] says where those of a process are. A [`MappingEntry`] leads from an address
//! to a table, and says what to take off the address.

/// One row. Looked up by the address of the instruction that made the call: for every frame but the innermost, and that
/// which a signal interrupted, by the return address − 1. The return address lies at CFA − 8 on `x86_64`, always; the caller's stack pointer is the CFA.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnwindRow {
    /// First address it holds for, relative to the table's base.
    pub pc: u32,
    /// Meaning by `rule`; mostly the CFA's distance from a register, in words of 8 bytes.
    pub cfa: i16,
    /// A [`CfaRule`] as a number in the lower bits, [`RULE_BITS`] of them. The upper ones say where the caller's `rbx` is:
    /// 0 unchanged, [`RBX_UNKNOWN`], else saved at CFA − 8 × (this + 1).
    pub rule: u8,
    /// Where the caller's frame pointer is: 0 unchanged, [`RBP_UNDEFINED`], [`RBP_AT_RBP`], else saved at CFA + 8 × this.
    pub rbp: i8,
}

/// Bits of [`UnwindRow::rule`] that hold the rule.
pub const RULE_BITS: u32 = 4;

/// The rule in [`UnwindRow::rule`].
pub const RULE_MASK: u8 = (1 << RULE_BITS) - 1;

/// The upper bits of [`UnwindRow::rule`] where `rbx` is saved at a place that they do not hold. It is followed for the
/// sake of the few lines of assembly that bind functions at their first call: they alone count their frame from it.
pub const RBX_UNKNOWN: u8 = 15;

/// [`UnwindRow::rbp`] of a frame pointer that cannot be known.
pub const RBP_UNDEFINED: i8 = i8::MIN;

/// [`UnwindRow::rbp`] of a frame pointer that is the word at the frame pointer: functions that align their stack.
pub const RBP_AT_RBP: i8 = i8::MIN + 1;

/// How the canonical frame address is found.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CfaRule {
    /// No function here: a gap in the table.
    Gap = 0,
    /// Stack pointer + 8 × `cfa`.
    Rsp = 1,
    /// Frame pointer + 8 × `cfa`.
    Rbp = 2,
    /// A PLT entry: stack pointer + 8, and 8 more from byte `cfa` of the 16-byte entry on. The table's base is a multiple
    /// of 16, so `pc & 15` says which byte.
    Plt = 3,
    /// The word at frame pointer + 8 × `cfa`: functions that align their stack.
    RbpDeref = 4,
    /// The word at stack pointer + 8 × `cfa`, + 8.
    RspDeref = 5,
    /// The return from a signal handler: all registers are in the `ucontext` of the signal frame, which begins at stack
    /// pointer + 8 × `cfa`: rbp at 120, rsp at 160, rip at 168. The address is one that was interrupted, not one after a call.
    Signal = 6,
    /// The entry of a thread: nobody called it.
    Entry = 7,
    /// Something the unwinder cannot do.
    Unsupported = 8,
    /// `rbx` + 8 × `cfa`.
    Rbx = 9,
    /// Stack pointer + 8 × `cfa`, and the return address in `rdi`: the few instructions in which glibc's `vfork` keeps it
    /// out of the stack that parent and child share. Only of the innermost frame that register is known.
    Rdi = 10,
}

impl CfaRule {
    /// Every rule, by its number.
    pub const ALL: [Self; 11] = [
        Self::Gap,
        Self::Rsp,
        Self::Rbp,
        Self::Plt,
        Self::RbpDeref,
        Self::RspDeref,
        Self::Signal,
        Self::Entry,
        Self::Unsupported,
        Self::Rbx,
        Self::Rdi,
    ];

    /// The rule of a row.
    pub fn of(row: &UnwindRow) -> Self {
        Self::ALL.get(usize::from(row.rule & RULE_MASK)).copied().unwrap_or(Self::Unsupported)
    }
}

/// Where the rows of a table lie in the array of all rows. `len` 0: not loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableRange {
    /// Index of its first row.
    pub start: u32,
    /// Number of rows.
    pub len: u32,
}

/// What is mapped at an address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MappingEntry {
    /// To be taken off an address to get the `pc` of a row.
    pub bias: u64,
    /// First address of the mapping.
    pub begin: u64,
    /// Address after its last.
    pub end: u64,
    /// Index of its table, or a `MAPPING_…`.
    pub table: u32,
    /// Zero.
    pub reserved: u32,
}

/// [`MappingEntry::table`] of code made at run time: only frame pointers can be followed.
pub const MAPPING_JIT: u32 = u32::MAX;
/// [`MappingEntry::table`] of a file whose table could not be made or found no room.
pub const MAPPING_NO_TABLE: u32 = u32::MAX - 1;
/// [`MappingEntry::table`] of a file whose table is being made.
pub const MAPPING_PENDING: u32 = u32::MAX - 2;

/// Where the mappings of a process lie in the array of all mappings, sorted by their begin. Processes that were forked
/// and have mapped nothing of their own share those of their parent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceRange {
    /// Index of its first mapping.
    pub start: u32,
    /// Number of mappings.
    pub len: u32,
}
