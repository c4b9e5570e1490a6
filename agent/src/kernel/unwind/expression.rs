//! DWARF expressions in, the few shapes that the unwinder knows out. Nothing is evaluated: a shape matches or it does not.

use gimli::{Encoding, EndianSlice, Expression, LittleEndian, Operation, Register};

use super::cfi::{RBP, RIP, RSP};

type Bytes<'d> = EndianSlice<'d, LittleEndian>;

/// An expression that can be followed. Distances are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Register + distance.
    At(Register, i64),
    /// The word at register + distance, + a constant.
    Deref(Register, i64, u64),
    /// `rsp + 8 + ((rip & 15) >= n) * 8`: a PLT entry that has pushed its index from byte `n` on.
    Plt(u8),
}

/// More operations than any known shape has.
const MAX_OPERATIONS: usize = 9;

/// The shape of `expression`, if it is a known one.
pub(super) fn shape(expression: Expression<Bytes<'_>>, encoding: Encoding) -> Option<Shape> {
    use Operation::{And, Deref, Ge, Plus, PlusConstant, RegisterOffset, Shl, UnsignedConstant};
    const WORD: u8 = 8;
    let mut operations = expression.operations(encoding);
    let mut found: [Option<Operation<Bytes<'_>>>; MAX_OPERATIONS] = [const { None }; MAX_OPERATIONS];
    let mut count = 0;
    while let Some(operation) = operations.next().ok()? {
        *found.get_mut(count)? = Some(operation);
        count += 1;
    }
    match found {
        [Some(RegisterOffset { register, offset, .. }), None, ..] => Some(Shape::At(register, offset)),
        [Some(RegisterOffset { register, offset, .. }), Some(Deref { size: WORD, space: false, .. }), None, ..] => {
            Some(Shape::Deref(register, offset, 0))
        }
        [
            Some(RegisterOffset { register, offset, .. }),
            Some(Deref { size: WORD, space: false, .. }),
            Some(PlusConstant { value }),
            None,
            ..,
        ] => Some(Shape::Deref(register, offset, value)),
        [
            Some(RegisterOffset { register: RSP, offset: 8, .. }),
            Some(RegisterOffset { register: RIP, offset: 0, .. }),
            Some(UnsignedConstant { value: 15 }),
            Some(And),
            Some(UnsignedConstant { value: from }),
            Some(Ge),
            Some(UnsignedConstant { value: 3 }),
            Some(Shl),
            Some(Plus),
        ] => u8::try_from(from).ok().filter(|from| *from <= 15).map(Shape::Plt),
        _ => None,
    }
}

/// A distance in bytes as words, when it is one.
pub(super) fn words(distance: i64) -> Option<i16> {
    (distance % 8 == 0).then(|| i16::try_from(distance / 8).ok()).flatten()
}

const _: () = assert!(RBP.0 == 6 && RSP.0 == 7 && RIP.0 == 16);
