//! Every row of real files against gimli's own evaluation of the same bytes, with made-up registers and memory.

use agent_common::{CfaRule, RULE_MASK, UnwindEnd, UnwindRow};
use gimli::{
    BaseAddresses, CieOrFde, EhFrame, Encoding, EndianSlice, EvaluationResult, LittleEndian, Location, Register,
    RegisterRule, UnwindContext, UnwindExpression, UnwindSection as _, UnwindTableRow, Value,
};
use object::{Object as _, ObjectSection as _};

use super::super::{Ip, Mapped, Registers, Space, Table, caller};
use super::{FILES, table};

const RBX: Register = Register(3);
const RDI: Register = Register(5);
const RBP: Register = Register(6);
const RSP: Register = Register(7);
const RIP: Register = Register(16);
const SP: u64 = 0x7000_0000_1230;
const BP: u64 = 0x7000_0000_4560;
const BX: u64 = 0x7000_0000_6780;
const DI: u64 = 0x7000_0000_89a0;

/// Any memory at all, as long as it is always the same: addresses above the stack pointer, so that frames have a size.
fn word(address: u64) -> u64 {
    SP + 8 + (address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24 & !7)
}

struct MadeUp<'t>(&'t [UnwindRow]);

impl Space for MadeUp<'_> {
    fn find(&mut self, _: u64) -> Mapped<'_> {
        Mapped::File { rows: self.0, bias: 0 }
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        Some(word(address))
    }
}

type Bytes<'d> = EndianSlice<'d, LittleEndian>;

struct Reference<'d> {
    frames: EhFrame<Bytes<'d>>,
    encoding: Encoding,
    ip: u64,
}

impl Reference<'_> {
    fn evaluate(&self, expression: &UnwindExpression<usize>, pushed: Option<u64>) -> Option<u64> {
        let expression = expression.get(&self.frames).expect("it lies in the section");
        let mut machine = expression.evaluation(self.encoding);
        if let Some(value) = pushed {
            machine.set_initial_value(value);
        }
        let mut state = machine.evaluate().ok()?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresMemory { address, size: 8, .. } => {
                    machine.resume_with_memory(Value::Generic(word(address))).ok()?
                }
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = match register {
                        RBP => BP,
                        RBX => BX,
                        RSP => SP,
                        RIP => self.ip,
                        _ => return None,
                    };
                    machine.resume_with_register(Value::Generic(value)).ok()?
                }
                _ => return None,
            }
        }
        match machine.result().first()?.location {
            Location::Address { address } => Some(address),
            _ => None,
        }
    }

    /// What the description says; `None` where it needs a register that is not followed.
    fn caller(&self, row: &UnwindTableRow<usize>) -> Option<Registers> {
        let cfa = match row.cfa() {
            gimli::CfaRule::RegisterAndOffset { register: RSP, offset } => SP.wrapping_add_signed(*offset),
            gimli::CfaRule::RegisterAndOffset { register: RBP, offset } => BP.wrapping_add_signed(*offset),
            gimli::CfaRule::RegisterAndOffset { register: RBX, offset } => BX.wrapping_add_signed(*offset),
            gimli::CfaRule::RegisterAndOffset { .. } => return None,
            gimli::CfaRule::Expression(expression) => self.evaluate(expression, None)?,
        };
        let saved = |register| match row.register(register) {
            Some(RegisterRule::Offset(distance)) => Some(word(cfa.wrapping_add_signed(distance))),
            Some(RegisterRule::Expression(expression)) => self.evaluate(&expression, Some(cfa)).map(word),
            Some(RegisterRule::Register(RDI)) => Some(DI),
            _ => None,
        };
        let bp = match row.register(RBP) {
            None | Some(RegisterRule::SameValue) => BP,
            _ => saved(RBP).unwrap_or(0),
        };
        // Nobody needs it of where it is saved far away or in another way: that it is not known is no fault.
        let bx = match row.register(RBX) {
            None | Some(RegisterRule::SameValue) => Some(BX),
            Some(RegisterRule::Offset(distance @ -120..=-16)) if distance % 8 == 0 => saved(RBX),
            _ => None,
        };
        let at = if matches!(row.register(RIP), Some(RegisterRule::Offset(_) | RegisterRule::Register(_))) {
            Ip::Return
        } else {
            Ip::Next
        };
        // The kernel saves all of them for a signal handler, and the description says so by expressions.
        let bx = if at == Ip::Next { saved(RBX) } else { bx };
        Some(Registers { ip: saved(RIP)?, sp: cfa, bp, bx, di: None, at })
    }
}

/// Ends of rows that agree, those of rows that say what the unwinder cannot do, and the others.
#[derive(Default)]
struct Score {
    agree: usize,
    unsupported: usize,
    wrong: Vec<String>,
}

fn compare(path: &str, table: &Table) -> Score {
    let bytes = std::fs::read(path).expect("it is there");
    let file = object::read::elf::ElfFile64::<object::LittleEndian>::parse(&*bytes).expect("an ELF file");
    let section = file.section_by_name(".eh_frame").expect("it has frames");
    let data = section.data().expect("in the file");
    let frames = EhFrame::new(data, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(section.address());
    let mut entries = frames.entries(&bases);
    let mut context = UnwindContext::new();
    let mut score = Score::default();
    while let Some(entry) = entries.next().expect("a whole section") {
        let CieOrFde::Fde(partial) = entry else { continue };
        let function = partial.parse(EhFrame::cie_from_offset).expect("a whole entry");
        let encoding = function.cie().encoding();
        let mut rows = function.rows(&frames, &bases, &mut context).expect("a whole entry");
        while let Some(row) = rows.next_row().expect("a whole entry") {
            let (start, end) = (row.start_address(), row.end_address().min(function.end_address()));
            // Both ends of what the row covers, in the addresses of the table.
            for ip in [start, end.saturating_sub(1)].into_iter().filter(|_| start < end).map(|ip| ip - table.base) {
                let reference = Reference { frames, encoding, ip };
                let found = caller(
                    &mut MadeUp(&table.rows),
                    Registers { ip, sp: SP, bp: BP, bx: Some(BX), di: Some(DI), at: Ip::Next },
                );
                let entry = matches!(row.register(RIP), Some(RegisterRule::Undefined));
                match (found, reference.caller(row)) {
                    (Err(UnwindEnd::Entry), _) if entry => score.agree += 1,
                    (Err(UnwindEnd::Unsupported), _) => score.unsupported += 1,
                    // Below the stack pointer there is no frame: a description that is wrong for an instruction or two.
                    (Err(UnwindEnd::Stuck), Some(caller)) if caller.sp <= SP => score.agree += 1,
                    (Ok(found), Some(caller)) if found == caller => score.agree += 1,
                    (found, wanted) => {
                        score.wrong.push(format!("{:#x}: {found:x?}, not {wanted:x?}: {row:?}", ip + table.base));
                    }
                }
            }
        }
    }
    score
}

#[test]
fn every_row_does_what_its_description_says() {
    for path in FILES {
        let Some(table) = table(path) else { continue };
        let Score { agree, unsupported, wrong } = compare(path, &table);
        eprintln!("{path}: {agree} ends of rows agree, {unsupported} are unsupported");
        assert!(wrong.is_empty(), "{path}: {} wrong, first {}", wrong.len(), wrong[0]);
        assert!(agree > 1_000 && unsupported * 20 < agree, "{path}: {agree} agree, {unsupported} are unsupported");
    }
}

#[test]
fn a_wrong_row_is_noticed() {
    let path = "/lib64/ld-linux-x86-64.so.2";
    let Some(mut table) = table(path) else { return };
    for row in table.rows.iter_mut().filter(|row| row.rule & RULE_MASK == CfaRule::Rsp as u8) {
        row.cfa += 1;
    }
    assert!(compare(path, &table).wrong.len() > 1_000);
}
