//! The map that a JIT writes: text in, ranges with names out. Lines that make no sense are left out; memory is bounded by
//! the size of the file, which the parent has checked.

use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};

use crate::symbolize::wire::Found;

/// Longest line that is read; the rest of a longer one is skipped.
const LONGEST_LINE: u64 = 4096;

/// A map, sorted by address.
pub(super) struct PerfMap {
    /// First address, length, place and length of the name.
    ranges: Vec<(u64, u32, u32, u16)>,
    names: Vec<u8>,
}

impl PerfMap {
    pub(super) fn read(file: &File, size: u64) -> Self {
        let mut lines = BufReader::with_capacity(64 << 10, file.take(size));
        let (mut ranges, mut names) = (Vec::new(), Vec::new());
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line) {
                Ok(n) if n > 0 => {}
                _ => break,
            }
            if line.last() != Some(&b'\n') && line.len() as u64 == LONGEST_LINE {
                skip_line(&mut lines);
            }
            let Some((begin, length, name)) = parse(line.trim_ascii()) else { continue };
            let (Ok(at), Ok(name_length)) = (u32::try_from(names.len()), u16::try_from(name.len())) else { break };
            names.extend_from_slice(name);
            ranges.push((begin, length, at, name_length));
        }
        // Code is replaced in place: of two entries for one address the later one holds, and a stable sort keeps it last.
        ranges.sort_by_key(|(begin, ..)| *begin);
        Self { ranges, names }
    }

    /// Bytes that it takes.
    pub(super) fn weight(&self) -> u64 {
        (self.ranges.capacity() * size_of::<(u64, u32, u32, u16)>() + self.names.capacity()) as u64
    }

    pub(super) fn find(&self, address: u64) -> Found {
        let unnamed = Found { begin: address, end: address.saturating_add(1), names: Vec::new(), function: None };
        let after = self.ranges.partition_point(|(begin, ..)| *begin <= address);
        let Some((begin, length, at, name_length)) = after.checked_sub(1).and_then(|i| self.ranges.get(i)) else {
            return unnamed;
        };
        let next = self.ranges.get(after).map_or(u64::MAX, |(begin, ..)| *begin);
        let end = begin.saturating_add(u64::from(*length)).min(next);
        let at = *at as usize;
        let name = self.names.get(at..at + usize::from(*name_length));
        match name.map(String::from_utf8_lossy) {
            Some(name) if address < end => Found { begin: *begin, end, names: vec![name.into_owned()], function: None },
            _ => unnamed,
        }
    }
}

fn skip_line(lines: &mut impl BufRead) {
    loop {
        let Ok(rest) = lines.fill_buf() else { return };
        let (used, done) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (rest.len(), rest.is_empty()),
        };
        lines.consume(used);
        if done {
            return;
        }
    }
}

/// `START SIZE name with spaces`, numbers hexadecimal.
fn parse(line: &[u8]) -> Option<(u64, u32, &[u8])> {
    let mut words = line.splitn(3, |byte| *byte == b' ');
    let number = |word: &[u8]| u64::from_str_radix(str::from_utf8(word).ok()?.trim_start_matches("0x"), 16).ok();
    let (begin, length) = (number(words.next()?)?, number(words.next()?)?);
    let name = words.next()?.trim_ascii();
    let length = u32::try_from(length).ok().filter(|length| *length > 0)?;
    (!name.is_empty()).then_some((begin, length, name))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;

    fn map(text: &[u8]) -> PerfMap {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        file.rewind().unwrap();
        PerfMap::read(&file, text.len() as u64)
    }

    #[test]
    fn an_address_is_named_after_the_newest_code_at_it() {
        let mut text =
            b"7f00 10 LazyCompile:~work /app/a b.js:3\n0x7f20 8 second\n7f00 10 Turbofan:work\nbad\n7f80 zz x\n"
                .to_vec();
        text.extend_from_slice(b"9000 10 ");
        text.extend_from_slice(&[b'x'; 9000]);
        text.extend_from_slice(b"\n9100 10 after_the_long_line\n");
        let map = map(&text);
        let names = vec!["Turbofan:work".to_owned()];
        assert_eq!(map.find(0x7f0f), Found { begin: 0x7f00, end: 0x7f10, names, function: None });
        assert_eq!(map.find(0x7f20).names, ["second"]);
        assert_eq!(map.find(0x9100).names, ["after_the_long_line"]);
        for unnamed in [0, 0x7eff, 0x7f10, 0x7f28, 0x7f80, u64::MAX] {
            assert_eq!(map.find(unnamed).names.len(), 0, "{unnamed:#x}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read(text: Vec<u8>, address: u64) {
            map(&text).find(address);
        }
    }
}
