//! One ELF file: its descriptor and places in, names out, functions that were inlined there included. Line numbers are not
//! read for anybody.
//!
//! Debug information that was read stays until the process ends, which is how the symbolizer lets go of memory (see
//! [`super::serve`]).

use std::fs::File;

use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, RunTimeEndian, SectionId};

use super::demangle::demangle;
use super::image::{Image, Segment};
use super::symbols::{self, Function};
use crate::symbolize::wire::{Found, MOST_INLINED, Wish};

/// Bytes of the names at one place.
const LONGEST_NAMES: usize = 16 << 10;

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
    /// The file, and its separate debug file.
    images: Vec<Image>,
    dwarf: Option<Context<Reader>>,
    /// Why debug information is done without.
    pub(super) without: Option<String>,
    /// Bytes that were read and stay.
    pub(super) weight: u64,
}

impl Elf {
    /// Reads debug information if it is no more than `most_debug` bytes.
    pub(super) fn open(file: File, debug: Beside, shared: Beside, most_debug: u64) -> Result<Opened, String> {
        let main = Image::open(file)?;
        let mut without = None;
        let mut images = Vec::new();
        if !main.has_debug() {
            match debug {
                Beside::Unasked => {
                    if let Some(wish) = debug_wish(&main) {
                        return Ok(Opened::WantsDebug(wish));
                    }
                }
                Beside::Absent => {}
                Beside::There(file) => match matching(file, &main) {
                    Ok(image) => images.push(image),
                    Err(why) => without = Some(why),
                },
            }
        }
        images.insert(0, main);
        let (mut weight, mut dwarf) = (0, None);
        if let Some(image) = images.iter().find(|image| image.has_debug()) {
            let shared = match (image.shared_link(), shared) {
                (Some((name, id)), Beside::Unasked) => {
                    return Ok(Opened::WantsShared(Wish { build_id: Some(hex(&id)), name: Some(name) }));
                }
                (Some((_, id)), Beside::There(file)) => match Image::open(file) {
                    Ok(image) => Some(image).filter(|image| image.build_id.as_ref() == Some(&id)),
                    Err(why) => {
                        without = Some(format!("what its debug information shares with others: {why}"));
                        None
                    }
                },
                _ => None,
            };
            match debug_context(image, shared.as_ref(), most_debug) {
                Ok((context, size)) => {
                    weight = size;
                    dwarf = Some(context);
                }
                Err(why) => without = Some(why),
            }
        }
        Ok(Opened::Ready(Box::new(Self { images, dwarf, without, weight })))
    }

    /// The functions at each place in the file.
    pub(super) fn find(&self, offsets: &[u64]) -> Vec<Found> {
        let segments: Vec<Option<Segment>> = offsets.iter().map(|offset| self.segment(*offset)).collect();
        let places = segments.iter().zip(offsets);
        let addresses: Vec<u64> =
            places.clone().map(|(segment, offset)| segment.map_or(0, |segment| segment.address_of(*offset))).collect();
        let functions = symbols::look_up(&self.images, &addresses, LONGEST_NAMES);
        places
            .zip(addresses)
            .zip(functions)
            .map(|(((segment, offset), address), function)| {
                let unnamed =
                    Found { begin: *offset, end: offset.saturating_add(1), names: Vec::new(), function: None };
                segment.map_or(unnamed.clone(), |segment| self.name(segment, address, function, unnamed))
            })
            .collect()
    }

    fn name(&self, segment: Segment, address: u64, function: Option<Function>, unnamed: Found) -> Found {
        let range = function.as_ref().map(|function| segment.places(function.begin, function.end, address));
        let inlined = self.inlined(address);
        match (function, range) {
            // Where a function begins that was inlined, and where it ends, is not asked: the answer is for this place.
            (_, function) if !inlined.is_empty() => Found { names: inlined, function, ..unnamed },
            (Some(function), Some((begin, end))) => {
                let name = demangle(&String::from_utf8_lossy(&function.name));
                Found { begin, end, names: vec![name], function: None }
            }
            _ => unnamed,
        }
    }

    fn segment(&self, offset: u64) -> Option<Segment> {
        let holds = |s: &&Segment| offset.checked_sub(s.offset).is_some_and(|within| within < s.size);
        self.images.first()?.segments.iter().find(holds).copied()
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
}

impl Segment {
    fn address_of(&self, offset: u64) -> u64 {
        self.address.wrapping_add(offset.wrapping_sub(self.offset))
    }

    /// Places of the addresses from `begin` to `end`, as far as they lie in the segment; `within` does.
    fn places(&self, begin: u64, end: u64, within: u64) -> (u64, u64) {
        let begin = begin.max(self.address);
        let end = end.min(self.address.saturating_add(self.size)).max(within.saturating_add(1));
        let place = |address: u64| self.offset.saturating_add(address.wrapping_sub(self.address));
        (place(begin), place(end))
    }
}

/// By what the debug file of a stripped one could be found.
fn debug_wish(image: &Image) -> Option<Wish> {
    let build_id = image.build_id.as_deref().map(hex);
    let name = image.debug_link();
    (build_id.is_some() || name.is_some()).then_some(Wish { build_id, name })
}

/// The debug file, if it belongs to `main`: one of another build would give wrong names, which is worse than none.
fn matching(file: File, main: &Image) -> Result<Image, String> {
    let debug = Image::open(file).map_err(|why| format!("its debug file: {why}"))?;
    match (&main.build_id, &debug.build_id) {
        (Some(wanted), Some(got)) if wanted == got => Ok(debug),
        (Some(_), _) => Err("its debug file is of another build".to_owned()),
        // Linked by name alone: the checksum is over the whole file, so the architecture and sections must do.
        (None, _) if debug.is_laid_out_like(main) => Ok(debug),
        (None, _) => Err("its debug file has other sections".to_owned()),
    }
}

/// Sections by which inlined functions are found. Variables and macros have no part in a stack.
const NEEDED: [SectionId; 12] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugNames,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugTypes,
];

fn debug_context(image: &Image, shared: Option<&Image>, most: u64) -> Result<(Context<Reader>, u64), String> {
    let sizes =
        [Some(image), shared].into_iter().flatten().flat_map(|image| NEEDED.map(|id| image.debug_size(id.name())));
    let weight = sizes.fold(0, u64::saturating_add);
    if weight > most {
        return Err(format!("it has {} MiB of debug information, of {} that are read", weight >> 20, most >> 20));
    }
    let mut dwarf = Dwarf::load(|id| section(image, id))?;
    if let Some(shared) = shared {
        dwarf.load_sup(|id| section(shared, id))?;
    }
    let context = Context::from_dwarf(dwarf).map_err(|why| format!("its debug information: {why}"))?;
    Ok((context, weight))
}

fn section(image: &Image, id: SectionId) -> Result<Reader, String> {
    if !NEEDED.contains(&id) {
        return Ok(EndianSlice::new(&[], image.endian()));
    }
    let bytes = image.debug_bytes(id.name()).map_err(|why| format!("{}: {why}", id.name()))?;
    Ok(EndianSlice::new(Box::leak(bytes.into_boxed_slice()), image.endian()))
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}
