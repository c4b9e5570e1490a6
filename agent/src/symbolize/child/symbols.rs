//! Functions by the symbol tables of a file: addresses in, the function around each out. One pass over the tables answers
//! all addresses of a question, and nothing of the tables is kept: a big program has more symbols than it is ever asked
//! for.

use std::cmp::Ordering;

use super::image::{Image, Symbol, Table};

/// A function: its first address, the first one behind it, and its name as the table has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) name: Vec<u8>,
}

/// The function around each address. Where two begin at one place, the longer one; of equal ones the first.
pub(super) fn look_up(images: &[Image], addresses: &[u64], longest_name: usize) -> Vec<Option<Function>> {
    let mut sorted = addresses.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut search = Search::of(&sorted);
    for (number, image) in images.iter().enumerate() {
        for table in [Table::Full, Table::Dynamic] {
            image.each_function(table, &mut |symbol| search.see(symbol, (number, table)));
        }
    }
    let found = search.finish();
    let function = |address: &u64| {
        let (symbol, end, (number, table)) = *found.get(sorted.binary_search(address).ok()?)?.as_ref()?;
        let name = images.get(number)?.name(table, &symbol, longest_name)?;
        Some(Function { begin: symbol.address, end, name })
    };
    addresses.iter().map(function).collect()
}

/// Where a symbol stands.
type Place = (usize, Table);

/// What is known of the gap below an address and of the address itself.
#[derive(Clone, Copy, Default)]
struct Slot {
    /// The last symbol that begins in the gap above the address before this one, up to this address.
    below: Option<(Symbol, Place)>,
    /// The last symbol that begins at or below the address and by its size reaches behind it.
    around: Option<(Symbol, Place)>,
    /// Where the first symbol begins in the gap above this address, up to the address behind it.
    above: Option<u64>,
}

/// A pass over symbols, in whatever order they come.
struct Search<'a> {
    /// In order.
    addresses: &'a [u64],
    slots: Vec<Slot>,
}

impl<'a> Search<'a> {
    fn of(addresses: &'a [u64]) -> Self {
        Self { addresses, slots: vec![Slot::default(); addresses.len()] }
    }

    fn see(&mut self, symbol: Symbol, place: Place) {
        let later =
            |known: &Option<(Symbol, Place)>| known.is_none_or(|(known, _)| order(&known, &symbol) == Ordering::Less);
        let first = self.addresses.partition_point(|address| *address < symbol.address);
        let (before, from) = self.slots.split_at_mut(first);
        if let Some(slot) = before.last_mut() {
            slot.above = Some(slot.above.map_or(symbol.address, |above| above.min(symbol.address)));
        }
        if let Some(slot) = from.first_mut().filter(|slot| later(&slot.below)) {
            slot.below = Some((symbol, place));
        }
        let end = symbol.address.saturating_add(symbol.size);
        for (slot, address) in from.iter_mut().zip(self.addresses.iter().skip(first)) {
            if *address >= end {
                break;
            }
            if later(&slot.around) {
                slot.around = Some((symbol, place));
            }
        }
    }

    /// The symbol around each address, and where its function ends: at the next symbol at the latest.
    fn finish(self) -> Vec<Option<(Symbol, u64, Place)>> {
        let Self { addresses, mut slots } = self;
        let mut above = u64::MAX;
        for slot in slots.iter_mut().rev() {
            above = slot.above.unwrap_or(above);
            slot.above = Some(above);
        }
        let mut below = None;
        let around = slots.iter().zip(addresses).map(|(slot, address)| {
            below = slot.below.or(below);
            let next = slot.above.unwrap_or(u64::MAX);
            // Without a size a symbol reaches to the next one, and so only the nearest can be meant.
            let (symbol, place) = below.filter(|(symbol, _)| symbol.size == 0).or(slot.around)?;
            let end = if symbol.size == 0 { next } else { symbol.address.saturating_add(symbol.size).min(next) };
            (*address < end).then_some((symbol, end, place))
        });
        around.collect()
    }
}

fn order(a: &Symbol, b: &Symbol) -> Ordering {
    (a.address, a.size).cmp(&(b.address, b.size))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place = (0, Table::Full);

    fn symbol(address: u64, size: u64) -> Symbol {
        Symbol { address, size, name: 0 }
    }

    fn search(symbols: &[Symbol], addresses: &[u64]) -> Vec<Option<(u64, u64)>> {
        let mut search = Search::of(addresses);
        for symbol in symbols {
            search.see(*symbol, PLACE);
        }
        search.finish().into_iter().map(|found| found.map(|(symbol, end, _)| (symbol.address, end))).collect()
    }

    /// The same, symbol by symbol for each address.
    fn plainly(symbols: &[Symbol], address: u64) -> Option<(u64, u64)> {
        let next = symbols.iter().map(|s| s.address).filter(|a| *a > address).min().unwrap_or(u64::MAX);
        let nearest = symbols.iter().filter(|s| s.address <= address).max_by(|a, b| order(a, b))?;
        if nearest.size == 0 {
            return Some((nearest.address, next));
        }
        let holds = |s: &&Symbol| s.address <= address && address < s.address.saturating_add(s.size);
        let found = symbols.iter().filter(holds).max_by(|a, b| order(a, b))?;
        Some((found.address, (found.address + found.size).min(next)))
    }

    #[test]
    fn an_address_lies_in_the_innermost_function_and_behind_the_last_in_none() {
        let symbols = [symbol(10, 100), symbol(20, 10), symbol(200, 0)];
        let addresses = [5, 10, 25, 40, 150, 500];
        let found = [None, Some((10, 20)), Some((20, 30)), Some((10, 110)), None, Some((200, u64::MAX))];
        assert_eq!(search(&symbols, &addresses), found);
    }

    proptest! {
        #[test]
        fn one_pass_finds_what_a_search_for_each_address_finds(
            symbols in prop::collection::vec((1..60_u64, 0..12_u64).prop_map(|(a, s)| symbol(a, s)), 0..30),
            addresses in prop::collection::btree_set(0..80_u64, 0..20),
        ) {
            let addresses: Vec<u64> = addresses.into_iter().collect();
            let plain: Vec<_> = addresses.iter().map(|address| plainly(&symbols, *address)).collect();
            prop_assert_eq!(search(&symbols, &addresses), plain);
        }
    }
}
