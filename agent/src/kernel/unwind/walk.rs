//! The unwinder of the user side: registers, rows and a stack in, frames and the reason for the end out.
//!
//! It finds callers as the kernel side does, rule by rule, and goes on where that one could not: on a copy of a stack whose
//! tables came late, and on threads that were silent. It never guesses where a table speaks.

use agent_common::{CfaRule, RBP_AT_RBP, RBP_UNDEFINED, RBX_UNKNOWN, RULE_BITS, UnwindEnd, UnwindRow};

use super::table::row_at;

/// Where a frame's registers lie in the `ucontext` to which a signal handler returns, in bytes.
const SIGNAL_BP: u64 = 120;
const SIGNAL_BX: u64 = 128;
const SIGNAL_SP: u64 = 160;
const SIGNAL_IP: u64 = 168;
/// The return address lies this far below the frame's address.
const RETURN_AT: u64 = 8;
/// User addresses end here, with page tables of four levels; with five nothing of interest lies above.
const USER_END: u64 = 1 << 47;

/// What is known of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer.
    pub bp: u64,
    /// The register `rbx`, where it is known.
    pub bx: Option<u64>,
    /// The register `rdi`, where it is known: of no frame but the innermost.
    pub di: Option<u64>,
    /// What `ip` is.
    pub at: Ip,
}

/// What an instruction pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    /// The instruction that comes next: the thread was interrupted there.
    Next,
    /// The address after a call.
    Return,
}

/// What is mapped at an address.
#[derive(Clone, Copy, Debug)]
pub enum Mapped<'t> {
    /// Code of a file: its rows, and what to take off the address.
    File {
        /// Rows of the file.
        rows: &'t [UnwindRow],
        /// See [`super::Table::bias`].
        bias: u64,
    },
    /// Code made at run time.
    Jit,
    /// Code of a file that has no table.
    NoTable,
    /// No code.
    Nothing,
}

/// What the unwinder asks: of the address space, and of its memory.
pub trait Space {
    /// What is mapped at `address`.
    fn find(&mut self, address: u64) -> Mapped<'_>;
    /// The word at `address`.
    fn word(&mut self, address: u64) -> Option<u64>;
}

/// Appends frames from `registers` outwards, innermost first, until the stack ends or `frames` has `max`.
pub fn walk(space: &mut impl Space, mut registers: Registers, max: usize, frames: &mut Vec<u64>) -> UnwindEnd {
    loop {
        if frames.len() >= max {
            return UnwindEnd::Truncated;
        }
        frames.push(registers.ip);
        match caller(space, registers) {
            Ok(next) => registers = next,
            Err(end) => return end,
        }
    }
}

/// Registers of the caller, or why there is none.
pub fn caller(space: &mut impl Space, registers: Registers) -> Result<Registers, UnwindEnd> {
    let look = match registers.at {
        Ip::Next => registers.ip,
        Ip::Return => registers.ip.wrapping_sub(1),
    };
    let (row, pc) = match space.find(look) {
        Mapped::File { rows, bias } => {
            let pc = look.wrapping_sub(bias);
            (row_at(rows, pc), pc)
        }
        Mapped::Jit => return follow(space, registers, UnwindEnd::Jit),
        Mapped::NoTable => return Err(UnwindEnd::NoTable),
        Mapped::Nothing => return Err(UnwindEnd::NoMapping),
    };
    match row {
        Some(row) => apply(space, registers, row, pc),
        None => follow(space, registers, UnwindEnd::NoRow),
    }
}

fn apply(space: &mut impl Space, registers: Registers, row: UnwindRow, pc: u64) -> Result<Registers, UnwindEnd> {
    let Registers { sp, bp, bx, .. } = registers;
    let offset = bytes(i64::from(row.cfa));
    let cfa = match CfaRule::of(&row) {
        CfaRule::Rsp => sp.wrapping_add(offset),
        CfaRule::Rbp => bp.wrapping_add(offset),
        CfaRule::Rbx => bx.ok_or(UnwindEnd::Unsupported)?.wrapping_add(offset),
        CfaRule::Plt => sp.wrapping_add(if pc & 15 >= offset / 8 { 16 } else { 8 }),
        CfaRule::RbpDeref => word(space, bp.wrapping_add(offset))?,
        CfaRule::RspDeref => word(space, sp.wrapping_add(offset))?.wrapping_add(8),
        CfaRule::Signal => {
            let context = sp.wrapping_add(offset);
            let (ip, sp, bp) = (
                word(space, context.wrapping_add(SIGNAL_IP))?,
                word(space, context.wrapping_add(SIGNAL_SP))?,
                word(space, context.wrapping_add(SIGNAL_BP))?,
            );
            let bx = space.word(context.wrapping_add(SIGNAL_BX));
            return go(Registers { ip, sp, bp, bx, di: None, at: Ip::Next });
        }
        CfaRule::Gap => return follow(space, registers, UnwindEnd::NoRow),
        CfaRule::Rdi => {
            let (ip, sp) = (registers.di.ok_or(UnwindEnd::Unsupported)?, sp.wrapping_add(offset));
            return go(Registers { ip, sp, bp, bx, di: None, at: Ip::Return });
        }
        CfaRule::Entry => return Err(UnwindEnd::Entry),
        CfaRule::Unsupported => return Err(UnwindEnd::Unsupported),
    };
    // A frame has a size; only a signal handler may run on a stack that lies anywhere.
    if cfa <= sp {
        return Err(UnwindEnd::Stuck);
    }
    let ip = word(space, cfa.wrapping_sub(RETURN_AT))?;
    let bp = match row.rbp {
        0 => bp,
        RBP_UNDEFINED => 0,
        RBP_AT_RBP => word(space, bp)?,
        words => word(space, cfa.wrapping_add(bytes(i64::from(words))))?,
    };
    let bx = match row.rule >> RULE_BITS {
        0 => bx,
        RBX_UNKNOWN => None,
        words => space.word(cfa.wrapping_sub((u64::from(words) + 1) * 8)),
    };
    go(Registers { ip, sp: cfa, bp, bx, di: None, at: Ip::Return })
}

/// Follows the frame pointer where it can be one; otherwise ends with `why`.
fn follow(space: &mut impl Space, registers: Registers, why: UnwindEnd) -> Result<Registers, UnwindEnd> {
    let Registers { sp, bp, at, .. } = registers;
    // The ABI marks the outermost frame so. Of an interrupted function nobody knows what it uses the register for.
    if bp == 0 && at == Ip::Return {
        return Err(UnwindEnd::Entry);
    }
    if bp & 7 != 0 || bp < sp {
        return Err(why);
    }
    match (space.word(bp), space.word(bp.wrapping_add(8))) {
        // What nobody described may have put anything into the other register.
        (Some(caller), Some(ip)) => {
            go(Registers { ip, sp: bp.wrapping_add(16), bp: caller, bx: None, di: None, at: Ip::Return })
        }
        _ => Err(why),
    }
}

fn go(registers: Registers) -> Result<Registers, UnwindEnd> {
    match registers.ip {
        0 => Err(UnwindEnd::Entry),
        ip if ip >= USER_END => Err(UnwindEnd::BadRead),
        _ => Ok(registers),
    }
}

fn word(space: &mut impl Space, address: u64) -> Result<u64, UnwindEnd> {
    space.word(address).ok_or(UnwindEnd::BadRead)
}

/// Words as bytes, to be added.
fn bytes(words: i64) -> u64 {
    words.wrapping_mul(8).cast_unsigned()
}
