//! One ELF file: its descriptor and places in, names out, functions that were inlined there included. Line numbers are not
//! read for anybody.
//!
//! The file is read, not mapped: it may shrink while it is looked at. What was read stays until the process ends, which
//! is how the symbolizer lets go of memory (see [`super::serve`]).

use std::borrow::Cow;
use std::fs::File;

use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, RunTimeEndian, SectionId};
use object::read::ReadCache;
use object::{Object as _, ObjectSection as _, ObjectSegment as _, ObjectSymbol as _, SymbolIndex, SymbolKind};

use super::demangle::demangle;
use crate::symbolize::wire::{Found, MOST_INLINED, Wish};

/// Debug information beyond this is done without; the symbol table still names functions.
const MOST_DEBUG: u64 = 384 << 20;

/// Symbols that may start before the one that is looked for and still hold it: aliases and functions within functions.
const LOOK_BACK: usize = 16;

/// Bytes of the names at one place.
const LONGEST_NAMES: usize = 16 << 10;

type Image = object::File<'static, &'static ReadCache<File>>;
type Reader = EndianSlice<'static, RunTimeEndian>;

/// What else is needed before a file can be read.
pub(super) enum Opened {
    /// Nothing.
    Ready(Box<Elf>),
    /// Its separate debug file.
    WantsDebug(Wish),
    /// The file that its debug information shares with others.
    WantsShared(Wish),
}

/// A companion of a file: looked for or not, there or not.
pub(super) enum Beside {
    Unasked,
    Absent,
    There(File),
}

/// An ELF file that has been read.
pub(super) struct Elf {
    segments: Vec<Segment>,
    /// Sorted by address.
    symbols: Vec<Symbol>,
    tables: Vec<Image>,
    dwarf: Option<Context<Reader>>,
    /// Why debug information is done without.
    pub(super) without: Option<String>,
    /// Bytes that were read.
    pub(super) weight: u64,
}

#[derive(Clone, Copy)]
struct Segment {
    offset: u64,
    size: u64,
    address: u64,
}

impl Segment {
    /// Places of the addresses from `begin` to `end`, as far as they lie in the segment; `within` does.
    fn places(&self, begin: u64, end: u64, within: u64) -> (u64, u64) {
        let begin = begin.max(self.address);
        let end = end.min(self.address.saturating_add(self.size)).max(within.saturating_add(1));
        let place = |address: u64| self.offset.saturating_add(address.wrapping_sub(self.address));
        (place(begin), place(end))
    }
}

#[derive(Clone, Copy)]
struct Symbol {
    address: u64,
    size: u32,
    index: u32,
    /// Which of `tables`, and whether its dynamic one.
    table: u8,
    dynamic: bool,
}

impl Elf {
    pub(super) fn open(file: File, debug: Beside, shared: Beside) -> Result<Opened, object::Error> {
        let main = image(file)?;
        let mut tables = vec![main];
        let mut without = None;
        if !has_debug(&tables[0]) {
            match debug {
                Beside::Unasked => {
                    if let Some(wish) = debug_wish(&tables[0])? {
                        return Ok(Opened::WantsDebug(wish));
                    }
                }
                Beside::Absent => {}
                Beside::There(file) => match matching(file, &tables[0]) {
                    Ok(image) => tables.push(image),
                    Err(why) => without = Some(why),
                },
            }
        }
        let mut weight = 0;
        let mut dwarf = None;
        if let Some(image) = tables.iter().find(|image| has_debug(image)) {
            let shared = match (image.gnu_debugaltlink().unwrap_or(None), shared) {
                (Some((name, id)), Beside::Unasked) => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Ok(Opened::WantsShared(Wish { build_id: Some(hex(id)), name: Some(name) }));
                }
                (Some((_, id)), Beside::There(file)) => {
                    let file = crate::symbolize::child::elf::image(file)?;
                    (file.build_id().unwrap_or(None) == Some(id)).then_some(file)
                }
                _ => None,
            };
            match debug_context(image, shared.as_ref()) {
                Ok((context, size)) => {
                    weight += size;
                    dwarf = Some(context);
                }
                Err(why) => without = Some(why),
            }
        }
        let symbols = symbols(&tables);
        for image in &tables {
            weight +=
                image.sections().filter(|s| is_symbol_section(s.name().unwrap_or(""))).map(|s| s.size()).sum::<u64>();
        }
        weight += (symbols.capacity() * size_of::<Symbol>()) as u64;
        let segments = tables[0].segments().map(|segment| {
            let (offset, size) = segment.file_range();
            Segment { offset, size, address: segment.address() }
        });
        let segments = segments.collect();
        Ok(Opened::Ready(Box::new(Self { segments, symbols, tables, dwarf, without, weight })))
    }

    /// The functions at a place in the file.
    pub(super) fn find(&self, offset: u64) -> Found {
        let unnamed = Found { begin: offset, end: offset.saturating_add(1), names: Vec::new(), function: None };
        let holds = |s: &&Segment| offset.checked_sub(s.offset).is_some_and(|within| within < s.size);
        let Some(segment) = self.segments.iter().find(holds) else { return unnamed };
        let address = segment.address.wrapping_add(offset - segment.offset);
        let symbol = self.symbol(address);
        let function = symbol.as_ref().map(|(begin, end, _)| segment.places(*begin, *end, address));
        let inlined = self.inlined(address);
        match (symbol, function) {
            // Where a function begins that was inlined, and where it ends, is not asked: the answer is for this place.
            (_, function) if !inlined.is_empty() => Found { names: inlined, function, ..unnamed },
            (Some((.., name)), Some((begin, end))) => {
                Found { begin, end, names: vec![demangle(&name)], function: None }
            }
            _ => unnamed,
        }
    }

    /// By debug information: outermost first.
    fn inlined(&self, address: u64) -> Vec<String> {
        let Some(dwarf) = &self.dwarf else { return Vec::new() };
        let Ok(mut frames) = dwarf.find_frames(address).skip_all_loads() else { return Vec::new() };
        let (mut names, mut bytes) = (Vec::new(), 0);
        while let Ok(Some(frame)) = frames.next() {
            let Some(function) = frame.function else { continue };
            let Ok(raw) = function.raw_name() else { continue };
            let name = demangle(&raw);
            bytes += name.len();
            if names.len() == MOST_INLINED || bytes > LONGEST_NAMES {
                break;
            }
            names.push(name);
        }
        names.reverse();
        names
    }

    /// By the symbol tables: where the function starts, where it ends, its name.
    fn symbol(&self, address: u64) -> Option<(u64, u64, Cow<'static, str>)> {
        let after = self.symbols.partition_point(|s| s.address <= address);
        let next = self.symbols.get(after).map_or(u64::MAX, |s| s.address);
        for (back, at) in (after.saturating_sub(LOOK_BACK)..after).rev().enumerate() {
            let symbol = self.symbols.get(at)?;
            // Without a size it reaches to the next one, and so only the nearest can be meant.
            let end = match symbol.size {
                0 if back == 0 => next,
                size => symbol.address.saturating_add(u64::from(size)),
            };
            if address < end {
                let name = self.name(symbol)?;
                return Some((symbol.address, end.min(next), name));
            }
        }
        None
    }

    fn name(&self, symbol: &Symbol) -> Option<Cow<'static, str>> {
        let image = self.tables.get(usize::from(symbol.table))?;
        let index = SymbolIndex(symbol.index as usize);
        let bytes = if symbol.dynamic {
            object::ObjectSymbolTable::symbol_by_index(&image.dynamic_symbol_table()?, index).ok()?.name_bytes().ok()?
        } else {
            image.symbol_by_index(index).ok()?.name_bytes().ok()?
        };
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes))
    }
}

fn image(file: File) -> Result<Image, object::Error> {
    let cache: &'static ReadCache<File> = Box::leak(Box::new(ReadCache::new(file)));
    object::File::parse(cache)
}

fn has_debug(image: &Image) -> bool {
    image.section_by_name(".debug_info").is_some_and(|s| s.file_range().is_some_and(|(_, size)| size > 0))
}

fn is_symbol_section(name: &str) -> bool {
    [".symtab", ".strtab", ".dynsym", ".dynstr"].contains(&name)
}

/// By what the debug file of a stripped one could be found.
fn debug_wish(image: &Image) -> Result<Option<Wish>, object::Error> {
    let build_id = image.build_id()?.map(hex);
    let link = image.gnu_debuglink().unwrap_or(None);
    let name = link.map(|(name, _)| String::from_utf8_lossy(name).into_owned());
    Ok((build_id.is_some() || name.is_some()).then_some(Wish { build_id, name }))
}

/// The debug file, if it belongs to `main`: one of another build would give wrong names, which is worse than none.
fn matching(file: File, main: &Image) -> Result<Image, String> {
    let debug = image(file).map_err(|why| format!("its debug file: {why}"))?;
    let (wanted, got) = (main.build_id().unwrap_or(None), debug.build_id().unwrap_or(None));
    match (wanted, got) {
        (Some(wanted), Some(got)) if wanted == got => Ok(debug),
        (Some(_), _) => Err("its debug file is of another build".to_owned()),
        // Linked by name alone: the checksum is over the whole file, so the architecture and sections must do.
        (None, _) if debug.architecture() == main.architecture() && same_sections(&debug, main) => Ok(debug),
        (None, _) => Err("its debug file has other sections".to_owned()),
    }
}

fn same_sections(a: &Image, b: &Image) -> bool {
    let text = |image: &Image| image.section_by_name(".text").map(|s| (s.address(), s.size()));
    text(a).is_some() && text(a) == text(b)
}

fn debug_context(image: &Image, shared: Option<&Image>) -> Result<(Context<Reader>, u64), String> {
    let mut weight = 0;
    let mut dwarf = Dwarf::load(|id| section(image, id, &mut weight))?;
    if let Some(shared) = shared {
        dwarf.load_sup(|id| section(shared, id, &mut weight))?;
    }
    let context = Context::from_dwarf(dwarf).map_err(|why| format!("its debug information: {why}"))?;
    Ok((context, weight))
}

fn section(image: &Image, id: SectionId, weight: &mut u64) -> Result<Reader, String> {
    let endian = if image.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big };
    let Some(section) = image.section_by_name(id.name()) else { return Ok(EndianSlice::new(&[], endian)) };
    let bad = |why: object::Error| format!("{}: {why}", id.name());
    let range = section.compressed_file_range().map_err(bad)?;
    *weight = weight.saturating_add(range.uncompressed_size);
    if *weight > MOST_DEBUG {
        return Err(format!("more than {} MiB of debug information", MOST_DEBUG >> 20));
    }
    let bytes = match section.compressed_data().and_then(object::CompressedData::decompress).map_err(bad)? {
        Cow::Borrowed(bytes) => bytes,
        Cow::Owned(bytes) => Box::leak(bytes.into_boxed_slice()),
    };
    Ok(EndianSlice::new(bytes, endian))
}

fn symbols(tables: &[Image]) -> Vec<Symbol> {
    let mut symbols = Vec::new();
    for (number, image) in tables.iter().enumerate() {
        let table = u8::try_from(number).unwrap_or(u8::MAX);
        let own = image.symbols().map(|symbol| (false, symbol));
        for (dynamic, symbol) in own.chain(image.dynamic_symbols().map(|symbol| (true, symbol))) {
            let (address, size) = (symbol.address(), symbol.size());
            if symbol.kind() != SymbolKind::Text || symbol.is_undefined() || address == 0 {
                continue;
            }
            let Ok(index) = u32::try_from(symbol.index().0) else { break };
            symbols.push(Symbol { address, size: u32::try_from(size).unwrap_or(u32::MAX), index, table, dynamic });
        }
    }
    // Of two names for one function the longer one's, and of equal ones the first: the sort is stable.
    symbols.sort_by_key(|s| (s.address, s.size));
    symbols.dedup_by_key(|s| (s.address, s.size));
    symbols.shrink_to_fit();
    symbols
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}
