//! Names of the kernel's functions: `/proc/kallsyms` in, a name for an address out. Never tells an address.
//!
//! Only functions are kept, their names in one string: what the kernel prints in ten megabytes takes less than half.

use std::io::{BufRead, BufReader, Read};

use crate::units::Nanos;

/// Where the kernel tells its symbols.
const KALLSYMS: &str = "/proc/kallsyms";

/// A table is read anew no more often than this: modules and BPF programs come and go.
const AGE: Nanos = Nanos::from_secs(60);

/// A function of the kernel is never this long: an address so far behind one lies in something newer than the table.
const LONGEST_FUNCTION: u64 = 1 << 20;

/// What an address without a name is called: never the address, which would tell where the kernel lies.
pub const UNNAMED: &str = "vmlinux+0x?";

/// The functions of the running kernel.
#[derive(Debug, Default)]
pub struct KernelNames {
    table: Table,
    read: Option<Nanos>,
}

impl KernelNames {
    /// The name of the function at `address`, reading the table first if that may help.
    pub fn get(&mut self, address: u64, now: Nanos) -> Option<&str> {
        let due = self.read.is_none_or(|read| now.since(read) >= AGE);
        if due && self.table.find(address).is_none() {
            self.read = Some(now);
            match std::fs::File::open(KALLSYMS) {
                Ok(file) => self.table = Table::parse(file),
                Err(cause) => tracing::warn!(%cause, "no kernel names: {KALLSYMS} cannot be read (mount /proc)"),
            }
            if self.table.starts.is_empty() {
                tracing::warn!(
                    "no kernel names: {KALLSYMS} hides addresses (needs CAP_SYSLOG and kernel.kptr_restrict below 2)"
                );
            }
        }
        self.table.find(address)
    }
}

#[derive(Debug, Default)]
struct Table {
    /// Where a function starts, and where its name lies in `names`.
    starts: Vec<(u64, u32)>,
    names: String,
}

impl Table {
    fn parse(text: impl Read) -> Self {
        let mut starts: Vec<(u64, u32)> = Vec::new();
        let mut names = String::new();
        let mut lines = BufReader::with_capacity(64 << 10, text);
        let mut line = Vec::new();
        loop {
            line.clear();
            if !lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                break;
            }
            let Ok(line) = str::from_utf8(&line) else { continue };
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            if address == 0 || !matches!(kind, "t" | "T" | "w" | "W") {
                continue;
            }
            let Ok(at) = u32::try_from(names.len()) else { break };
            starts.push((address, at));
            names.push_str(name);
            names.push('\n');
        }
        // Of several names of one address the first is kept.
        starts.sort_by_key(|(address, _)| *address);
        starts.dedup_by_key(|(address, _)| *address);
        starts.shrink_to_fit();
        names.shrink_to_fit();
        Self { starts, names }
    }

    fn find(&self, address: u64) -> Option<&str> {
        let after = self.starts.partition_point(|(start, _)| *start <= address);
        let (start, at) = self.starts.get(after.checked_sub(1)?)?;
        if address - start >= LONGEST_FUNCTION {
            return None;
        }
        self.names.get(*at as usize..)?.split('\n').next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"ffffffff81000000 T _text\n\
        ffffffff81000040 t do_one\n\
        ffffffff81000040 T alias_of_one\n\
        ffffffff81000080 D some_data\n\
        garbage\n\
        ffffffff81000100 W weak_one\t[module]\n\
        ffffffffc0000000 t bpf_prog_6deef7357e7b4530_work\t[bpf]\n";

    #[test]
    fn an_address_is_named_after_the_function_it_lies_in() {
        let table = Table::parse(TEXT);
        for (address, name) in [
            (0xffff_ffff_8100_0040, Some("do_one")),
            (0xffff_ffff_8100_0090, Some("do_one")),
            (0xffff_ffff_8100_0100, Some("weak_one")),
            (0xffff_ffff_c000_0010, Some("bpf_prog_6deef7357e7b4530_work")),
            (0xffff_ffff_80ff_ffff, None),
            (0xffff_ffff_a000_0000, None),
        ] {
            assert_eq!(table.find(address), name, "{address:#x}");
        }
    }

    #[test]
    fn a_kernel_that_hides_its_addresses_names_nothing() {
        let table = Table::parse(&b"0000000000000000 T _text\n0000000000000000 T do_one\n"[..]);
        assert_eq!(table.find(0xffff_ffff_8100_0040), None);
    }
}
