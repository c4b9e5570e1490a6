//! Frame sections in, rows of each described function out: one function at a time, in the order of the section.

use std::collections::HashMap;

use agent_common::{CfaRule, RBP_AT_RBP, RBP_UNDEFINED, RBX_UNKNOWN, RULE_BITS, UnwindRow};
use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, Encoding, EndianSlice, LittleEndian, Register, RegisterRule,
    UnwindContext, UnwindExpression, UnwindSection, UnwindTableRow,
};

use super::elf::{FrameKind, Limits, Segment, TableError};
use super::expression::{Shape, shape, words};
use super::table::Skipped;

/// DWARF numbers of the registers of `x86_64` that unwinding follows.
pub(super) const RBX: Register = Register(3);
const RDI: Register = Register(5);
pub(super) const RBP: Register = Register(6);
pub(super) const RSP: Register = Register(7);
pub(super) const RIP: Register = Register(16);

/// Where the kernel puts registers into the `ucontext` that a signal handler returns to, in bytes.
const SIGNAL_RBP: i64 = 120;
const SIGNAL_RSP: i64 = 160;
const SIGNAL_RIP: i64 = 168;

/// What all functions of one compiler have in common takes some twenty bytes; it is run anew for every function, so a
/// large one makes work by the square.
const MAX_COMMON_BYTES: usize = 1_024;
/// Functions between two looks at the time.
const PER_LOOK: u32 = 256;

type Bytes<'d> = EndianSlice<'d, LittleEndian>;
type Row = UnwindTableRow<usize>;

/// A described function; its rows lie in [`Functions::rows`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Function {
    pub(super) start: u32,
    pub(super) end: u32,
    pub(super) kind: FrameKind,
    pub(super) first: usize,
    pub(super) count: usize,
}

/// What was found in all frame sections of a file.
pub(super) struct Functions<'f> {
    pub(super) all: Vec<Function>,
    pub(super) rows: Vec<UnwindRow>,
    pub(super) skipped: Skipped,
    base: u64,
    code: &'f [Segment],
    limits: Limits,
}

impl<'f> Functions<'f> {
    pub(super) fn new(base: u64, code: &'f [Segment], limits: Limits) -> Self {
        Self { all: Vec::new(), rows: Vec::new(), skipped: Skipped::default(), base, code, limits }
    }

    /// Reads one section to its end or to its first damage.
    pub(super) fn read<'d, S>(
        &mut self,
        kind: FrameKind,
        section: &S,
        bases: &BaseAddresses,
        go_on: &mut dyn FnMut() -> bool,
    ) -> Result<(), TableError>
    where
        S: UnwindSection<Bytes<'d>>,
        S::Offset: std::hash::Hash + Eq,
    {
        let mut common: HashMap<S::Offset, Option<CommonInformationEntry<Bytes<'d>>>> = HashMap::new();
        let mut context = UnwindContext::new();
        let mut entries = section.entries(bases);
        let mut looked = 0_u32;
        loop {
            let partial = match entries.next() {
                Ok(Some(CieOrFde::Fde(partial))) => partial,
                Ok(Some(CieOrFde::Cie(_))) => continue,
                Ok(None) => return Ok(()),
                Err(_damage) => {
                    self.skipped.damaged += 1;
                    return Ok(());
                }
            };
            looked = looked.wrapping_add(1);
            if looked.is_multiple_of(PER_LOOK) && !go_on() {
                return Err(TableError::Timeout);
            }
            let described = partial.parse(|section, bases, offset| {
                let entry = common.entry(offset).or_insert_with(|| section.cie_from_offset(bases, offset).ok());
                entry.clone().ok_or(gimli::Error::NotCieId(0))
            });
            let Ok(described) = described else {
                self.skipped.damaged += 1;
                continue;
            };
            let cie = described.cie();
            let fits = described.entry_len() <= self.limits.entry_bytes && cie.entry_len() <= MAX_COMMON_BYTES;
            if !fits || cie.return_address_register() != RIP {
                self.skipped.damaged += 1;
                continue;
            }
            let Some((start, end)) = self.place(described.initial_address(), described.end_address()) else {
                self.skipped.outside += 1;
                continue;
            };
            let first = self.rows.len();
            let encoding = cie.encoding();
            match described.rows(section, bases, &mut context) {
                Ok(mut rows) => loop {
                    match rows.next_row() {
                        Ok(Some(row)) => {
                            let mut translator = Translator { section, encoding, skipped: &mut self.skipped };
                            let rules = translator.rules(row);
                            self.push(row.start_address(), (start, end), first, rules);
                        }
                        Ok(None) => break,
                        Err(_damage) => {
                            self.cut(start, first);
                            break;
                        }
                    }
                },
                Err(_damage) => self.cut(start, first),
            }
            let count = self.rows.len() - first;
            if self.rows.len() > self.limits.rows {
                let (size, limit) = (self.rows.len() as u64, self.limits.rows as u64);
                return Err(TableError::TooLarge { what: "number of rows", size, limit });
            }
            self.all.push(Function { start, end, kind, first, count });
        }
    }

    /// Where a function lies, from the table's base on; `None` when it is not in the code.
    fn place(&self, start: u64, end: u64) -> Option<(u32, u32)> {
        let segment = self.code.iter().find(|s| (s.address..s.end()).contains(&start))?;
        let relative = |address: u64| u32::try_from(address.checked_sub(self.base)?).ok();
        relative(start).zip(relative(end.min(segment.end()))).filter(|(start, end)| start < end)
    }

    /// The rest of a function whose description does not decode.
    fn cut(&mut self, start: u32, first: usize) {
        self.skipped.damaged += 1;
        // The last row was meant to end where the damage is; nobody knows where that is.
        let pc = if self.rows.len() > first { self.rows.pop().map_or(start, |row| row.pc) } else { start };
        self.rows.push(UnwindRow { pc, cfa: 0, rule: CfaRule::Unsupported as u8, rbp: 0 });
    }

    fn push(&mut self, pc: u64, function: (u32, u32), first: usize, rules: Rules) {
        let Some(pc) = pc.checked_sub(self.base).and_then(|pc| u32::try_from(pc).ok()) else { return };
        if !(function.0..function.1).contains(&pc) {
            return;
        }
        let Rules { rule, cfa, rbp, rbx } = rules;
        let row = UnwindRow { pc, cfa, rule: rule as u8 | rbx << RULE_BITS, rbp };
        match self.rows.get_mut(first..).and_then(<[_]>::last_mut) {
            // Two rows for one address: the earlier one covers nothing.
            Some(last) if last.pc == pc => *last = row,
            _ => self.rows.push(row),
        }
    }
}

/// What a row says, see [`UnwindRow`].
#[derive(Clone, Copy)]
struct Rules {
    rule: CfaRule,
    cfa: i16,
    rbp: i8,
    rbx: u8,
}

impl Rules {
    fn alone(rule: CfaRule) -> Self {
        Self { rule, cfa: 0, rbp: 0, rbx: 0 }
    }
}

/// Where `rbx` is saved, see [`UnwindRow::rule`].
fn other_base(row: &Row) -> u8 {
    match row.register(RBX) {
        None | Some(RegisterRule::SameValue) => 0,
        // Right below the return address it is 1.
        Some(RegisterRule::Offset(distance)) if distance % 8 == 0 => {
            let place = distance.checked_neg().and_then(|bytes| u8::try_from(bytes / 8 - 1).ok());
            place.filter(|place| (1..RBX_UNKNOWN).contains(place)).unwrap_or(RBX_UNKNOWN)
        }
        Some(_) => RBX_UNKNOWN,
    }
}

/// Turns the rules of one row into those that the unwinder knows.
struct Translator<'a, S> {
    section: &'a S,
    encoding: Encoding,
    skipped: &'a mut Skipped,
}

impl<'d, S: UnwindSection<Bytes<'d>>> Translator<'_, S> {
    fn rules(&mut self, row: &Row) -> Rules {
        match row.register(RIP) {
            Some(RegisterRule::Undefined) => return Rules::alone(CfaRule::Entry),
            Some(RegisterRule::Offset(-8)) => {}
            Some(RegisterRule::Register(RDI)) => {
                return match row.cfa() {
                    gimli::CfaRule::RegisterAndOffset { register: RSP, offset } => words(*offset),
                    _ => None,
                }
                .map_or(Rules::alone(CfaRule::Unsupported), |cfa| Rules { cfa, ..Rules::alone(CfaRule::Rdi) });
            }
            _ => {
                let Some(words) = self.signal(row) else {
                    self.skipped.return_address += 1;
                    return Rules::alone(CfaRule::Unsupported);
                };
                return Rules { cfa: words, ..Rules::alone(CfaRule::Signal) };
            }
        }
        match self.cfa(row) {
            Ok((rule, cfa)) => Rules { rule, cfa, rbp: self.frame_pointer(row, rule, cfa), rbx: other_base(row) },
            Err(reason) => {
                *reason += 1;
                Rules::alone(CfaRule::Unsupported)
            }
        }
    }

    /// The rule of the frame's address, or the counter of why there is none.
    fn cfa(&mut self, row: &Row) -> Result<(CfaRule, i16), &mut u32> {
        let (rule, distance) = match row.cfa() {
            gimli::CfaRule::RegisterAndOffset { register: RSP, offset } => (CfaRule::Rsp, *offset),
            gimli::CfaRule::RegisterAndOffset { register: RBP, offset } => (CfaRule::Rbp, *offset),
            gimli::CfaRule::RegisterAndOffset { register: RBX, offset } => (CfaRule::Rbx, *offset),
            gimli::CfaRule::RegisterAndOffset { .. } => return Err(&mut self.skipped.register),
            gimli::CfaRule::Expression(expression) => match self.shape(expression) {
                Some(Shape::At(RSP, distance)) => (CfaRule::Rsp, distance),
                Some(Shape::At(RBP, distance)) => (CfaRule::Rbp, distance),
                Some(Shape::Deref(RBP, distance, 0)) => (CfaRule::RbpDeref, distance),
                Some(Shape::Deref(RSP, distance, 8)) => (CfaRule::RspDeref, distance),
                Some(Shape::Plt(from)) => return Ok((CfaRule::Plt, i16::from(from))),
                _ => return Err(&mut self.skipped.expression),
            },
        };
        words(distance).map(|words| (rule, words)).ok_or(&mut self.skipped.distance)
    }

    fn frame_pointer(&mut self, row: &Row, rule: CfaRule, cfa: i16) -> i8 {
        // From the frame's address, which is what a row counts from.
        let distance = match row.register(RBP) {
            None | Some(RegisterRule::SameValue) => return 0,
            Some(RegisterRule::Undefined) => return RBP_UNDEFINED,
            Some(RegisterRule::Offset(distance)) => Some(distance),
            Some(RegisterRule::Expression(expression)) => match (self.shape(&expression), rule) {
                (Some(Shape::At(RBP, 0)), _) => return RBP_AT_RBP,
                (Some(Shape::At(RBP, distance)), CfaRule::Rbp) | (Some(Shape::At(RSP, distance)), CfaRule::Rsp) => {
                    distance.checked_sub(i64::from(cfa) * 8)
                }
                _ => None,
            },
            Some(_) => None,
        };
        let words = distance.and_then(words).and_then(|words| i8::try_from(words).ok());
        words.filter(|words| ![0, RBP_UNDEFINED, RBP_AT_RBP].contains(words)).unwrap_or_else(|| {
            self.skipped.frame_pointer += 1;
            RBP_UNDEFINED
        })
    }

    /// Where the `ucontext` lies, when all three registers are taken from one.
    fn signal(&self, row: &Row) -> Option<i16> {
        let at = |register| match row.register(register)? {
            RegisterRule::Expression(expression) => match self.shape(&expression)? {
                Shape::At(RSP, distance) => Some(distance),
                _ => None,
            },
            _ => None,
        };
        let begin = at(RIP)?.checked_sub(SIGNAL_RIP)?;
        let gimli::CfaRule::Expression(cfa) = row.cfa() else { return None };
        let frame = Shape::Deref(RSP, begin.checked_add(SIGNAL_RSP)?, 0);
        let whole = self.shape(cfa) == Some(frame) && at(RBP) == begin.checked_add(SIGNAL_RBP);
        whole.then(|| words(begin)).flatten()
    }

    fn shape(&self, expression: &UnwindExpression<usize>) -> Option<Shape> {
        shape(expression.get(self.section).ok()?, self.encoding)
    }
}
