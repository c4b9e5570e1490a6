//! The unwinder on the stack of the test itself: tables of the files that are mapped, biases as the kernel laid them out.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use agent_common::UnwindEnd;

use super::super::{Ip, Mapped, Registers, Space, Table, walk};
use super::table;

/// This process.
struct Here {
    mapped: Vec<(u64, u64, u64, Table)>,
    memory: File,
}

impl Here {
    fn new() -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").expect("it is always there");
        let mapped = maps.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [range, access, offset, _, _, path] = fields[..] else { return None };
            if !access.contains('x') || !path.starts_with('/') {
                return None;
            }
            let hex = |text| u64::from_str_radix(text, 16).expect("a number");
            let (start, end) = range.split_once('-').map(|(a, b)| (hex(a), hex(b))).expect("a range");
            let table = table(path)?;
            let bias = table.bias(start, hex(offset)).expect("it shows this file");
            Some((start, end, bias, table))
        });
        Self { mapped: mapped.collect(), memory: File::open("/proc/self/mem").expect("it is always there") }
    }
}

impl Space for Here {
    fn find(&mut self, address: u64) -> Mapped<'_> {
        self.mapped
            .iter()
            .find(|(start, end, ..)| (*start..*end).contains(&address))
            .map_or(Mapped::Nothing, |(.., bias, table)| Mapped::File { rows: &table.rows, bias: *bias })
    }

    fn word(&mut self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

#[inline(never)]
fn deep(space: &mut Here, left: u32) -> (UnwindEnd, Vec<u64>) {
    if left > 0 {
        let found = deep(space, left - 1);
        return std::hint::black_box(found);
    }
    let (ip, sp, bp): (u64, u64, u64);
    // SAFETY: it reads three registers and writes nothing else.
    unsafe {
        std::arch::asm!("lea {}, [rip]", "mov {}, rsp", "mov {}, rbp", out(reg) ip, out(reg) sp, out(reg) bp,
            options(nomem, nostack, preserves_flags));
    }
    let mut frames = Vec::new();
    let end = walk(space, Registers { ip, sp, bp, bx: None, di: None, at: Ip::Next }, 512, &mut frames);
    (end, frames)
}

#[test]
fn a_live_stack_is_whole_to_the_entry_of_its_thread() {
    let (end, frames) = deep(&mut Here::new(), 60);
    assert_eq!(end, UnwindEnd::Entry, "{} frames", frames.len());
    let again = frames.iter().filter(|ip| **ip == frames[30]).count();
    assert_eq!(again, 60, "one frame for each level of the recursion: {frames:x?}");
}

#[test]
fn a_stack_that_is_too_deep_is_cut_and_says_so() {
    let mut space = Here::new();
    let (_, whole) = deep(&mut space, 60);
    let mut frames = Vec::new();
    let registers = Registers { ip: whole[0], sp: 0, bp: 0, bx: None, di: None, at: Ip::Next };
    assert_eq!(walk(&mut space, registers, 1, &mut frames), UnwindEnd::BadRead, "there is no memory at 0");
    let mut few = vec![0; 512];
    assert_eq!(walk(&mut space, registers, 512, &mut few), UnwindEnd::Truncated);
}

#[test]
fn an_address_that_is_not_mapped_ends_the_stack() {
    let mut frames = Vec::new();
    let registers = Registers { ip: 0x10, sp: 0, bp: 0, bx: None, di: None, at: Ip::Next };
    assert_eq!(walk(&mut Here::new(), registers, 512, &mut frames), UnwindEnd::NoMapping);
    assert_eq!(frames, [0x10]);
}
