//! User stacks, frame by frame, from the tables that the agent made of each file's unwind information.
//!
//! In come the registers with which the thread left its user side, out go return addresses and the reason for the end. It
//! never guesses where a table speaks: frame pointers are followed only where code was made at run time or has no row.

use core::ffi::c_void;

use agent_common::{
    CfaRule, MAPPING_JIT, MAPPING_NO_TABLE, MAPPING_PENDING, MAX_FRAMES, MappingEntry, RBP_AT_RBP, RBP_UNDEFINED,
    RBX_UNKNOWN, RULE_BITS, RULE_MASK, SpaceRange, TableRange, UnwindEnd, UnwindRow,
};
use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};

use crate::arch::{self, RETURN_AT, SIGNAL_BP, SIGNAL_BX, SIGNAL_IP, SIGNAL_SP, USER_END};
use crate::emit::{FRAMES_BYTES, From, SCRATCH, Scratch};
use crate::task;

/// Rows of all tables. The agent sizes it by a budget and fills it through a mapping.
#[map]
static ROWS: Array<UnwindRow> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Where each table lies in [`ROWS`].
#[map]
static TABLES: Array<TableRange> = Array::with_max_entries(4096, BPF_F_MMAPABLE);

/// How often each table was used, so that what is least used makes room.
#[map]
static TABLE_HITS: PerCpuArray<u64> = PerCpuArray::with_max_entries(4096, 0);

/// Mappings of executable code, those of one address space side by side and sorted.
#[map]
static MAPPINGS: Array<MappingEntry> = Array::with_max_entries(32_768, BPF_F_MMAPABLE);

/// Where the mappings of each process lie in [`MAPPINGS`].
#[map]
pub static SPACES: HashMap<u32, SpaceRange> = HashMap::with_max_entries(32_768, BPF_F_NO_PREALLOC);

/// Steps that find one of the mappings of a process: up to 4,095.
const MAPPING_STEPS: usize = 12;
/// Steps that find one of the rows of a table: up to 4 million.
const ROW_STEPS: usize = 22;

/// [`Walk::why`] while it goes on.
const GOES_ON: u32 = u32::MAX;
/// [`Walk::why`] where a table is being made: [`UnwindEnd::NoTable`], but the agent can go on.
const PENDING: u32 = u32::MAX - 1;

/// [`Walk::bx_at`] of a register that nobody has touched: [`Walk::bx`].
const UNSAVED: u64 = 0;
/// [`Walk::bx_at`] of a register that cannot be known.
const UNKNOWN: u64 = u64::MAX;

/// A walk from frame to frame.
#[repr(C)]
pub struct Walk {
    ip: u64,
    sp: u64,
    bp: u64,
    /// The register `rbx`, as the thread left its user side.
    bx: u64,
    /// Where the one of this frame is saved: read when it is needed, which is rarely. [`UNSAVED`] or [`UNKNOWN`] otherwise.
    bx_at: u64,
    /// The register `rdi` of the innermost frame; 0 in all others, where nobody knows it.
    di: u64,
    /// The mapping of the frame before: callers and callees are neighbours.
    mapping: MappingEntry,
    /// Its table.
    table: TableRange,
    /// The mappings of the process.
    space: SpaceRange,
    /// Where the next frame goes, in bytes.
    at: u32,
    why: u32,
    /// Whether `ip` was interrupted there; otherwise it is the address after a call.
    exact: u32,
    reserved: u32,
}

/// How a walk ended.
pub struct Ended {
    /// Bytes of frames, those before `begin` included.
    pub upto: usize,
    pub end: UnwindEnd,
    /// Whether the agent can do more than this unwinder could: it should get a copy of the stack.
    pub resumable: bool,
}

/// Writes the user frames of the current thread into `scratch`, from byte `begin` of its frames on.
#[inline(always)]
pub fn user_stack(from: From, scratch: &mut Scratch, begin: usize) -> Ended {
    let none = Ended { upto: begin, end: UnwindEnd::NoUser, resumable: false };
    if !task::has_user_side() {
        return none;
    }
    let start = arch::user_registers();
    if start.ip == 0 {
        return none;
    }
    if start.replacing && word(start.sp).is_none() {
        return none;
    }
    let walk = &mut scratch.walk;
    walk.ip = start.ip;
    walk.sp = start.sp;
    walk.bp = start.bp;
    walk.bx = start.bx;
    walk.bx_at = UNSAVED;
    walk.di = start.di;
    walk.mapping = MappingEntry { bias: 0, begin: 0, end: 0, table: 0, reserved: 0 };
    walk.table = TableRange { start: 0, len: 0 };
    walk.at = begin as u32;
    walk.why = GOES_ON;
    walk.exact = 1;
    let tgid = task::tgid();
    // SAFETY: a copy is made at once; an entry that is replaced meanwhile stays whole.
    walk.space = unsafe { SPACES.get(tgid) }.copied().unwrap_or(SpaceRange { start: 0, len: 0 });
    if !start.wide {
        push(scratch);
        return Ended { upto: begin + 8, end: UnwindEnd::Unsupported, resumable: false };
    }
    let mut context = from as u32;
    // SAFETY: the callback has the prototype that the helper wants, and its context outlives the call.
    unsafe { bpf_loop(MAX_FRAMES as u32, step as *mut c_void, (&raw mut context).cast(), 0) };
    let walk = &mut scratch.walk;
    let upto = walk.at as usize;
    if upto > FRAMES_BYTES {
        return none; // Cannot be; the verifier wants to read it.
    }
    let (end, resumable) = match walk.why {
        GOES_ON => (UnwindEnd::Truncated, false),
        PENDING => (UnwindEnd::NoTable, true),
        1 => (UnwindEnd::Entry, false),
        2 => (UnwindEnd::NoMapping, true),
        3 => (UnwindEnd::NoTable, false),
        4 => (UnwindEnd::NoRow, false),
        5 => (UnwindEnd::Unsupported, false),
        6 => (UnwindEnd::BadRead, false),
        7 => (UnwindEnd::Truncated, false),
        8 => (UnwindEnd::Jit, false),
        _ => (UnwindEnd::Stuck, false),
    };
    Ended { upto, end, resumable }
}

impl Walk {
    /// Instruction, stack and frame pointer where it ended, and whether the first is exact.
    #[inline(always)]
    pub fn registers(&self) -> (u64, u64, u64, u32) {
        (self.ip, self.sp, self.bp, self.exact)
    }

    /// The register `rdi` where it ended; 0 when it is not known.
    #[inline(always)]
    pub fn di(&self) -> u64 {
        self.di
    }

    /// The register `rbx` where it ended; 0 when it is not known.
    #[inline(always)]
    pub fn bx(&self) -> u64 {
        match self.bx_at {
            UNSAVED => self.bx,
            UNKNOWN => 0,
            at => word(at).unwrap_or(0),
        }
    }
}

/// Notes the frame at hand. False when there is no room.
#[inline(always)]
fn push(scratch: &mut Scratch) -> bool {
    let at = scratch.walk.at as usize;
    if at > FRAMES_BYTES - 8 {
        return false;
    }
    // SAFETY: 8 bytes may be written there, as was just seen.
    unsafe { scratch.frames.as_mut_ptr().add(at).cast::<u64>().write_unaligned(scratch.walk.ip) };
    scratch.walk.at = at as u32 + 8;
    true
}

/// One frame: notes it and finds its caller. Returns 1 at the end.
extern "C" fn step(_index: u32, context: *mut u32) -> i64 {
    // SAFETY: the context that `user_stack` passed.
    let Some(scratch) = SCRATCH.get_ptr_mut(unsafe { *context }) else { return 1 };
    // SAFETY: a per-CPU value of this context.
    let scratch = unsafe { &mut *scratch };
    if !push(scratch) {
        scratch.walk.why = UnwindEnd::Truncated as u32;
        return 1;
    }
    let why = caller(&mut scratch.walk);
    if why == GOES_ON {
        return 0;
    }
    scratch.walk.why = why;
    1
}

/// Goes on to the caller, or says why not.
#[inline(always)]
fn caller(walk: &mut Walk) -> u32 {
    let look = if walk.exact != 0 { walk.ip } else { walk.ip.wrapping_sub(1) };
    if (look < walk.mapping.begin || look >= walk.mapping.end) && !find_mapping(walk, look) {
        return UnwindEnd::NoMapping as u32;
    }
    match walk.mapping.table {
        MAPPING_JIT => return follow(walk, UnwindEnd::Jit),
        MAPPING_PENDING => return PENDING,
        MAPPING_NO_TABLE => return UnwindEnd::NoTable as u32,
        _ => {}
    }
    if walk.table.len == 0 {
        return UnwindEnd::NoTable as u32;
    }
    let relative = look.wrapping_sub(walk.mapping.bias);
    if relative > u64::from(u32::MAX) {
        return UnwindEnd::NoRow as u32;
    }
    match find_row(walk.table.start, walk.table.len, relative as u32) {
        0 => follow(walk, UnwindEnd::NoRow),
        row => apply(walk, row, relative),
    }
}

const GAP: u8 = CfaRule::Gap as u8;
const RSP: u8 = CfaRule::Rsp as u8;
const RBP: u8 = CfaRule::Rbp as u8;
const PLT: u8 = CfaRule::Plt as u8;
const RBP_DEREF: u8 = CfaRule::RbpDeref as u8;
const RSP_DEREF: u8 = CfaRule::RspDeref as u8;
const SIGNAL: u8 = CfaRule::Signal as u8;
const ENTRY: u8 = CfaRule::Entry as u8;
const RBX: u8 = CfaRule::Rbx as u8;
const RDI: u8 = CfaRule::Rdi as u8;

/// Finds the caller by `row`, the bytes of an [`UnwindRow`].
#[inline(always)]
fn apply(walk: &mut Walk, row: u64, relative: u64) -> u32 {
    let offset = (i64::from((row >> 32) as i16) * 8) as u64;
    let rule = (row >> 48) as u8 & RULE_MASK;
    let saved_bx = (row >> (48 + RULE_BITS)) as u8 & RULE_MASK;
    let saved = (row >> 56) as i8;
    let bad = UnwindEnd::BadRead as u32;
    let cfa = match rule {
        RSP => walk.sp.wrapping_add(offset),
        RBP => walk.bp.wrapping_add(offset),
        RBX => match walk.bx() {
            0 => return UnwindEnd::Unsupported as u32,
            bx => bx.wrapping_add(offset),
        },
        PLT => {
            let pushed = relative & 15 >= offset / 8;
            walk.sp.wrapping_add(if pushed { 16 } else { 8 })
        }
        RBP_DEREF => match word(walk.bp.wrapping_add(offset)) {
            Some(cfa) => cfa,
            None => return bad,
        },
        RSP_DEREF => match word(walk.sp.wrapping_add(offset)) {
            Some(cfa) => cfa.wrapping_add(8),
            None => return bad,
        },
        SIGNAL => return signal(walk, walk.sp.wrapping_add(offset)),
        GAP => return follow(walk, UnwindEnd::NoRow),
        ENTRY => return UnwindEnd::Entry as u32,
        RDI if walk.di != 0 => return go(walk, walk.di, walk.sp.wrapping_add(offset), walk.bp, 0),
        _ => return UnwindEnd::Unsupported as u32,
    };
    // A frame has a size; only a signal handler may run on a stack that lies anywhere.
    if cfa <= walk.sp {
        return UnwindEnd::Stuck as u32;
    }
    let Some(ip) = word(cfa.wrapping_sub(RETURN_AT)) else { return bad };
    let bp = match saved {
        0 => walk.bp,
        RBP_UNDEFINED => 0,
        _ => {
            let at = if saved == RBP_AT_RBP { walk.bp } else { cfa.wrapping_add((i64::from(saved) * 8) as u64) };
            match word(at) {
                Some(bp) => bp,
                None => return bad,
            }
        }
    };
    match saved_bx {
        0 => {}
        RBX_UNKNOWN => walk.bx_at = UNKNOWN,
        words => walk.bx_at = cfa.wrapping_sub((u64::from(words) + 1) * 8),
    }
    go(walk, ip, cfa, bp, 0)
}

/// Out of a signal handler: the registers of what it interrupted lie in `ucontext`.
#[inline(always)]
fn signal(walk: &mut Walk, ucontext: u64) -> u32 {
    let ip = word(ucontext.wrapping_add(SIGNAL_IP));
    let sp = word(ucontext.wrapping_add(SIGNAL_SP));
    let bp = word(ucontext.wrapping_add(SIGNAL_BP));
    match (ip, sp, bp) {
        (Some(ip), Some(sp), Some(bp)) => {
            walk.bx_at = ucontext.wrapping_add(SIGNAL_BX);
            go(walk, ip, sp, bp, 1)
        }
        _ => UnwindEnd::BadRead as u32,
    }
}

/// Follows the frame pointer where it can be one; otherwise ends with `why`.
#[inline(always)]
fn follow(walk: &mut Walk, why: UnwindEnd) -> u32 {
    let frame = walk.bp;
    // The ABI marks the outermost frame so. Of an interrupted function nobody knows what it uses the register for.
    if frame == 0 && walk.exact == 0 {
        return UnwindEnd::Entry as u32;
    }
    if frame & 7 != 0 || frame < walk.sp {
        return why as u32;
    }
    match (word(frame), word(frame.wrapping_add(8))) {
        (Some(bp), Some(ip)) => {
            // What nobody described may have put anything there.
            walk.bx_at = UNKNOWN;
            go(walk, ip, frame.wrapping_add(16), bp, 0)
        }
        _ => why as u32,
    }
}

/// Moves on.
#[inline(always)]
fn go(walk: &mut Walk, ip: u64, sp: u64, bp: u64, exact: u32) -> u32 {
    if ip == 0 {
        return UnwindEnd::Entry as u32;
    }
    if ip >= USER_END {
        return UnwindEnd::BadRead as u32;
    }
    walk.ip = ip;
    walk.sp = sp;
    walk.bp = bp;
    walk.exact = exact;
    walk.di = 0;
    GOES_ON
}

/// The word at an address of the user side.
#[inline(always)]
fn word(address: u64) -> Option<u64> {
    let mut value = 0_u64;
    // SAFETY: the helper writes 8 bytes into `value`, or fails.
    let failed = unsafe { bpf_probe_read_user((&raw mut value).cast(), 8, address as *const c_void) };
    (failed == 0).then_some(value)
}

/// Finds the mapping of `look` and its table.
#[inline(never)]
fn find_mapping(walk: &mut Walk, look: u64) -> bool {
    let start = walk.space.start;
    let (mut low, mut high) = (0, walk.space.len);
    for _ in 0..MAPPING_STEPS {
        if low >= high {
            break;
        }
        let middle = (low + high) / 2;
        let Some(mapping) = MAPPINGS.get(start.wrapping_add(middle)) else { return false };
        if mapping.begin <= look {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low == 0 {
        return false;
    }
    let Some(mapping) = MAPPINGS.get(start.wrapping_add(low - 1)) else { return false };
    if look < mapping.begin || look >= mapping.end {
        return false;
    }
    walk.mapping = *mapping;
    walk.table = TABLES.get(mapping.table).copied().unwrap_or(TableRange { start: 0, len: 0 });
    if let Some(hits) = TABLE_HITS.get_ptr_mut(mapping.table) {
        // SAFETY: a per-CPU value; a count lost to an interrupt changes nothing.
        unsafe { *hits += 1 };
    }
    true
}

/// The row for `pc`, as its bytes; 0 when there is none.
#[inline(never)]
fn find_row(start: u32, len: u32, pc: u32) -> u64 {
    let (mut low, mut high) = (0, len);
    for _ in 0..ROW_STEPS {
        if low >= high {
            break;
        }
        let middle = low + (high - low) / 2;
        let Some(row) = ROWS.get(start.wrapping_add(middle)) else { return 0 };
        if row.pc <= pc {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if low == 0 {
        return 0;
    }
    let Some(row) = ROWS.get(start.wrapping_add(low - 1)) else { return 0 };
    // SAFETY: a row is 8 bytes, and aligned as an array's values are.
    unsafe { core::ptr::from_ref(row).cast::<u64>().read() }
}
