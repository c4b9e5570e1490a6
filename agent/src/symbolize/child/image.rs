//! The outline of an ELF file: a descriptor in, its segments, sections, build id and links out. What is long, symbols and
//! debug information, is read when it is asked for, in pieces, and not kept.
//!
//! The file is read, never mapped: it may shrink while it is looked at.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use addr2line::gimli::RunTimeEndian;
use object::elf::{self, FileHeader32, FileHeader64};
use object::pod::slice_from_bytes;
use object::read::elf::{CompressionHeader as _, FileHeader, ProgramHeader as _, SectionHeader as _, Sym as _};
use object::read::{CompressedData, CompressedFileRange, CompressionFormat, ReadCache};
use object::{Endian as _, Endianness, FileKind, ReadRef as _};

/// Sections, and segments, that are looked at: programs have some dozens.
const MOST_PARTS: usize = 32_768;
/// Bytes of a section that is a link or an identity.
const LONGEST_NOTE: u64 = 64 << 10;
/// Bytes of symbols that are held at a time.
const PIECE: usize = 64 << 10;

/// An ELF file, as far as its headers tell.
pub(super) struct Image {
    file: File,
    kind: FileKind,
    endian: Endianness,
    machine: u16,
    pub(super) segments: Vec<Segment>,
    sections: Vec<Section>,
    pub(super) build_id: Option<Vec<u8>>,
}

/// A part of the file that is mapped.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) size: u64,
    pub(super) address: u64,
}

/// A part of the file with a name.
struct Section {
    name: Box<[u8]>,
    kind: u32,
    address: u64,
    /// Number of the section with its strings.
    strings: usize,
    range: CompressedFileRange,
}

/// Which of the symbol tables of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    /// The one for linkers and debuggers, which `strip` takes out.
    Full,
    /// The one for the loader.
    Dynamic,
}

/// A function by a symbol table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Symbol {
    pub(super) address: u64,
    /// Bytes; none when the table does not say.
    pub(super) size: u64,
    /// Where its name begins, in the strings of the table.
    pub(super) name: u32,
}

impl Image {
    pub(super) fn open(file: File) -> Result<Self, String> {
        let cache = ReadCache::new(&file);
        let kind = FileKind::parse(&cache).map_err(|why| why.to_string())?;
        let outline = match kind {
            FileKind::Elf64 => outline::<FileHeader64<Endianness>>(&cache),
            FileKind::Elf32 => outline::<FileHeader32<Endianness>>(&cache),
            _ => return Err("it is no ELF file".to_owned()),
        };
        let Outline { endian, machine, segments, sections, build_id } = outline.map_err(|why| why.to_string())?;
        Ok(Self { file, kind, endian, machine, segments, sections, build_id })
    }

    pub(super) fn endian(&self) -> RunTimeEndian {
        if self.endian.is_little_endian() { RunTimeEndian::Little } else { RunTimeEndian::Big }
    }

    /// Whether it holds debug information itself.
    pub(super) fn has_debug(&self) -> bool {
        self.debug(".debug_info").is_some_and(|section| section.range.compressed_size > 0)
    }

    /// Whether it is for the same machine as `other` and its code lies where `other`'s does.
    pub(super) fn is_laid_out_like(&self, other: &Self) -> bool {
        let code = |image: &Self| image.section(".text").map(|s| (s.address, s.range.uncompressed_size));
        self.machine == other.machine && code(self).is_some() && code(self) == code(other)
    }

    /// Name of its separate debug file, where it says one.
    pub(super) fn debug_link(&self) -> Option<String> {
        let bytes = self.short(".gnu_debuglink")?;
        Some(String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next()?).into_owned())
    }

    /// Name and build id of the file that its debug information shares with others.
    pub(super) fn shared_link(&self) -> Option<(String, Vec<u8>)> {
        let bytes = self.short(".gnu_debugaltlink")?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        let (name, id) = bytes.split_at_checked(end)?;
        Some((String::from_utf8_lossy(name).into_owned(), id.get(1..)?.to_vec()))
    }

    fn section(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| *section.name == *name.as_bytes())
    }

    /// A section of debug information, which old tools that packed it named otherwise.
    fn debug(&self, name: &str) -> Option<&Section> {
        self.section(name).or_else(|| self.section(&name.replacen(".debug_", ".zdebug_", 1)))
    }

    fn short(&self, name: &str) -> Option<Vec<u8>> {
        let section = self.section(name)?;
        let length = section.range.uncompressed_size.max(section.range.compressed_size);
        (length <= LONGEST_NOTE).then(|| self.bytes(section)).and_then(Result::ok)
    }

    /// Bytes of a section of debug information, unpacked; none where it has no such section.
    pub(super) fn debug_size(&self, name: &str) -> u64 {
        self.debug(name).map_or(0, |section| section.range.uncompressed_size)
    }

    /// A section of debug information, unpacked; empty where it has no such section.
    pub(super) fn debug_bytes(&self, name: &str) -> Result<Vec<u8>, String> {
        self.debug(name).map_or(Ok(Vec::new()), |section| self.bytes(section))
    }

    fn bytes(&self, section: &Section) -> Result<Vec<u8>, String> {
        let CompressedFileRange { format, offset, compressed_size, uncompressed_size } = section.range;
        let length = usize::try_from(compressed_size).map_err(too_long)?;
        let mut data = Vec::new();
        data.try_reserve_exact(length).map_err(too_long)?;
        data.resize(length, 0);
        self.file.read_exact_at(&mut data, offset).map_err(|why| format!("a section cannot be read: {why}"))?;
        if format == CompressionFormat::None {
            return Ok(data);
        }
        let unpacked = CompressedData { format, data: &data, uncompressed_size }.decompress();
        Ok(unpacked.map_err(|why| why.to_string())?.into_owned())
    }

    /// Shows every function of a symbol table once, in the order of the table, and never holds more than a piece of it.
    pub(super) fn each_function(&self, table: Table, see: &mut dyn FnMut(Symbol)) {
        match self.kind {
            FileKind::Elf32 => self.each::<FileHeader32<Endianness>>(table, see),
            _ => self.each::<FileHeader64<Endianness>>(table, see),
        }
    }

    fn each<Elf: FileHeader<Endian = Endianness>>(&self, table: Table, see: &mut dyn FnMut(Symbol)) {
        let Some(section) = self.table(table) else { return };
        let length = size_of::<Elf::Sym>();
        let mut piece = vec![0; PIECE / length * length];
        let end = section.range.offset.saturating_add(section.range.uncompressed_size);
        let mut at = section.range.offset;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len()) / length * length;
            let Some(part) = piece.get_mut(..wanted).filter(|part| !part.is_empty()) else { return };
            // What is cut off is done without: the symbols before it hold all the same.
            if self.file.read_exact_at(part, at).is_err() {
                return;
            }
            let Ok((symbols, _)) = slice_from_bytes::<Elf::Sym>(part, wanted / length) else { return };
            for symbol in symbols {
                let (address, size) = (symbol.st_value(self.endian).into(), symbol.st_size(self.endian).into());
                let is_function = matches!(symbol.st_type(), elf::STT_FUNC | elf::STT_GNU_IFUNC);
                if is_function && symbol.st_shndx(self.endian) != elf::SHN_UNDEF && address != 0 {
                    see(Symbol { address, size, name: symbol.st_name(self.endian) });
                }
            }
            at += wanted as u64;
        }
    }

    fn table(&self, table: Table) -> Option<&Section> {
        let kind = if table == Table::Full { elf::SHT_SYMTAB } else { elf::SHT_DYNSYM };
        self.sections.iter().find(|section| section.kind == kind)
    }

    /// The name of a symbol, cut off after `longest` bytes.
    pub(super) fn name(&self, table: Table, symbol: &Symbol, longest: usize) -> Option<Vec<u8>> {
        let strings = self.sections.get(self.table(table)?.strings)?;
        let left = strings.range.uncompressed_size.checked_sub(u64::from(symbol.name))?;
        let begin = strings.range.offset.checked_add(u64::from(symbol.name))?;
        // Most names are short.
        for length in [longest.min(256), longest] {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(length);
            let mut name = vec![0; length];
            self.file.read_exact_at(&mut name, begin).ok()?;
            if let Some(end) = name.iter().position(|byte| *byte == 0) {
                name.truncate(end);
                return (end > 0).then_some(name);
            }
            if length == longest {
                return Some(name);
            }
        }
        None
    }
}

fn too_long(why: impl std::fmt::Display) -> String {
    format!("a section does not fit into memory: {why}")
}

struct Outline {
    endian: Endianness,
    machine: u16,
    segments: Vec<Segment>,
    sections: Vec<Section>,
    build_id: Option<Vec<u8>>,
}

fn outline<Elf: FileHeader<Endian = Endianness>>(data: &ReadCache<&File>) -> Result<Outline, object::Error> {
    let header = Elf::parse(data)?;
    let endian = header.endian()?;
    let segments = header.program_headers(endian, data)?.iter().take(MOST_PARTS);
    let segments = segments.filter(|segment| segment.p_type(endian) == elf::PT_LOAD).map(|segment| {
        let (offset, size) = segment.file_range(endian);
        Segment { offset, size, address: segment.p_vaddr(endian).into() }
    });
    let headers = header.section_headers(endian, data)?;
    let strings = header.section_strings(endian, data, headers)?;
    let mut sections = Vec::new();
    let mut build_id = None;
    for section in headers.iter().take(MOST_PARTS) {
        let name: Box<[u8]> = section.name(endian, strings).unwrap_or_default().into();
        let (kind, size) = (section.sh_type(endian), section.sh_size(endian).into());
        if kind == elf::SHT_NOTE && build_id.is_none() && size <= LONGEST_NOTE {
            build_id = note::<Elf>(section, endian, data);
        }
        let (offset, size) = section.file_range(endian).unwrap_or((0, 0));
        let unreadable = CompressedFileRange {
            format: CompressionFormat::Unknown,
            ..CompressedFileRange::none(Some((offset, size)))
        };
        let range = match section.compression(endian, data) {
            // It costs what is in it, and nothing else.
            Err(_) => unreadable,
            Ok(Some((packed, offset, compressed_size))) => {
                let format = match packed.ch_type(endian) {
                    elf::ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
                    elf::ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
                    _ => CompressionFormat::Unknown,
                };
                let uncompressed_size = packed.ch_size(endian).into();
                CompressedFileRange { format, offset, compressed_size, uncompressed_size }
            }
            Ok(None) => old_packing(&name, offset, size, data)
                .unwrap_or_else(|| CompressedFileRange::none(Some((offset, size)))),
        };
        let strings = usize::try_from(section.sh_link(endian)).unwrap_or(usize::MAX);
        sections.push(Section { name, kind, address: section.sh_addr(endian).into(), strings, range });
    }
    Ok(Outline { endian, machine: header.e_machine(endian), segments: segments.collect(), sections, build_id })
}

fn note<Elf: FileHeader<Endian = Endianness>>(
    section: &Elf::SectionHeader,
    endian: Endianness,
    data: &ReadCache<&File>,
) -> Option<Vec<u8>> {
    let mut notes = section.notes(endian, data).ok()??;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == elf::ELF_NOTE_GNU && note.n_type(endian) == elf::NT_GNU_BUILD_ID {
            return Some(note.desc().to_vec());
        }
    }
    None
}

/// As packed before ELF had a way of its own: a magic word and the size, big-endian, before the stream.
fn old_packing(name: &[u8], offset: u64, size: u64, data: &ReadCache<&File>) -> Option<CompressedFileRange> {
    const HEAD: u64 = 12;
    if !name.starts_with(b".zdebug_") {
        return None;
    }
    let head = data.read_bytes_at(offset, HEAD).ok()?.strip_prefix(b"ZLIB")?;
    let uncompressed_size = u64::from_be_bytes(head.try_into().ok()?);
    let (offset, compressed_size) = (offset.checked_add(HEAD)?, size.checked_sub(HEAD)?);
    Some(CompressedFileRange { format: CompressionFormat::Zlib, offset, compressed_size, uncompressed_size })
}
