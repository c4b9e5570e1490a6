//! The bytes of an ELF file in, what unwinding needs of it out: executable segments, build id, call frame sections.
//!
//! It reads by offset and only what it needs, so a file may be larger than memory; nothing is mapped, because whoever
//! owns a file may truncate it at any time and a mapping would kill the reader.

use std::borrow::Cow;
use std::fs::File;

use object::elf::{
    ELFCOMPRESS_ZLIB, EM_AARCH64, EM_X86_64, FileHeader64, NT_GNU_BUILD_ID, PF_X, PT_GNU_EH_FRAME, PT_LOAD, PT_NOTE,
    ProgramHeader64, SectionHeader64,
};
use object::read::ReadCache;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _};
use object::{LittleEndian, ReadRef};

/// What a file may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one section, unpacked.
    pub section_bytes: u64,
    /// Rows of one table.
    pub rows: usize,
    /// Bytes of the description of one function.
    pub entry_bytes: usize,
}

impl Default for Limits {
    /// Chromium, the largest program that is common, has 14 MB of frame section.
    fn default() -> Self {
        Self { section_bytes: 128 << 20, rows: 8 << 20, entry_bytes: 64 << 10 }
    }
}

const MAX_HEADERS: usize = 4_096;
const MAX_NOTE_BYTES: u64 = 64 << 10;
const LE: LittleEndian = LittleEndian;

type Header = FileHeader64<LittleEndian>;
type Program = ProgramHeader64<LittleEndian>;
type Section = SectionHeader64<LittleEndian>;

/// Why a file has no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// It is not an ELF file of this machine.
    #[error("not a little-endian 64-bit ELF file: {0}")]
    NotElf(String),
    /// A part of it lies outside of the file or contradicts itself.
    #[error("damaged ELF file: {0}")]
    Damaged(String),
    /// It is of a processor for which no tables are built.
    #[error("no unwind tables are built for ELF machine {0} (x86-64 is 62)")]
    Machine(u16),
    /// Nothing in it can be executed.
    #[error("no executable segment")]
    NoCode,
    /// It describes no frames.
    #[error("no call frame information (neither .eh_frame nor .debug_frame)")]
    NoFrames,
    /// It asks for more than the limits give.
    #[error("{what} is {size}, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size: u64,
        /// What is allowed.
        limit: u64,
    },
    /// Packed by a method that is not read here.
    #[error("frame section packed by method {0} (only zlib, 1, is read)")]
    Packed(u32),
    /// The time for it is over.
    #[error("the time for one file is over")]
    Timeout,
}

/// An executable part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file.
    pub offset: u64,
    /// Its length in the file.
    pub file_size: u64,
    /// Address it was linked for.
    pub address: u64,
    /// Its length in memory.
    pub size: u64,
}

impl Segment {
    /// Address after its last; a damaged length ends where addresses do.
    pub fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }
}

/// What a linker wrote into a file to tell it from others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BuildId(pub Box<[u8]>);

impl std::fmt::Display for BuildId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which frame section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// `.eh_frame`: what exceptions unwind by.
    Eh,
    /// `.debug_frame`: the same for debuggers.
    Debug,
}

/// A section with descriptions of frames.
#[derive(Clone, Debug)]
pub struct FrameSection<'data> {
    /// Which one.
    pub kind: FrameKind,
    /// Address it was linked for.
    pub address: u64,
    /// Its bytes, unpacked.
    pub bytes: Cow<'data, [u8]>,
}

/// An ELF file whose headers make sense.
pub struct Elf<'data, R: ReadRef<'data>> {
    data: R,
    machine: u16,
    programs: &'data [Program],
    sections: &'data [Section],
    header: &'data Header,
    limits: Limits,
}

impl<'data, R: ReadRef<'data>> Elf<'data, R> {
    /// Reads the headers.
    pub fn parse(data: R, limits: Limits) -> Result<Self, TableError> {
        let header = Header::parse(data).map_err(|error| TableError::NotElf(error.to_string()))?;
        if !header.is_little_endian() || !header.is_class_64() {
            return Err(TableError::NotElf("of another width or byte order".to_owned()));
        }
        for count in [header.phnum(LE, data).map_err(damaged)?, header.shnum(LE, data).unwrap_or(0)] {
            if count > MAX_HEADERS {
                let (size, limit) = (count as u64, MAX_HEADERS as u64);
                return Err(TableError::TooLarge { what: "number of headers", size, limit });
            }
        }
        let programs = header.program_headers(LE, data).map_err(damaged)?;
        // Sections are a convenience: a program runs without them, and a stripped or damaged list is no list.
        let sections = header.section_headers(LE, data).unwrap_or(&[]);
        Ok(Self { data, machine: header.e_machine(LE), programs, sections, header, limits })
    }

    /// ELF machine number.
    pub fn machine(&self) -> u16 {
        self.machine
    }

    /// Whether tables can be built for its processor.
    pub fn check_machine(&self) -> Result<(), TableError> {
        match self.machine {
            EM_X86_64 => Ok(()),
            // The rows know two registers and a return address at a fixed place: true there for most functions, but the
            // link register of a leaf needs a rule of its own first.
            EM_AARCH64 => Err(TableError::Machine(EM_AARCH64)),
            other => Err(TableError::Machine(other)),
        }
    }

    /// Executable segments, by address.
    pub fn code(&self) -> Vec<Segment> {
        let executable = |p: &&Program| p.p_type(LE) == PT_LOAD && p.p_flags(LE) & PF_X != 0 && p.p_memsz(LE) != 0;
        let mut segments: Vec<Segment> = self.programs.iter().filter(executable).map(segment).collect();
        segments.sort_unstable_by_key(|s| s.address);
        segments
    }

    /// Address at which the program begins; 0 in a library that is none.
    pub fn entry(&self) -> u64 {
        self.header.e_entry(LE)
    }

    /// Its build id, when it has one.
    pub fn build_id(&self) -> Option<BuildId> {
        self.programs.iter().filter(|p| p.p_type(LE) == PT_NOTE && p.p_filesz(LE) <= MAX_NOTE_BYTES).find_map(|p| {
            let mut notes = p.notes(LE, self.data).ok()??;
            while let Ok(Some(note)) = notes.next() {
                if note.name() == b"GNU" && note.n_type(LE) == NT_GNU_BUILD_ID && !note.desc().is_empty() {
                    return Some(BuildId(note.desc().into()));
                }
            }
            None
        })
    }

    /// Its frame sections, `.eh_frame` first.
    pub fn frames(&self) -> Result<Vec<FrameSection<'data>>, TableError> {
        let strings = self.header.section_strings(LE, self.data, self.sections).unwrap_or_default();
        let mut found: Vec<FrameSection<'data>> = Vec::new();
        for section in self.sections {
            let kind = match section.name(LE, strings) {
                Ok(b".eh_frame") => FrameKind::Eh,
                Ok(b".debug_frame") => FrameKind::Debug,
                _ => continue,
            };
            if found.iter().any(|other| other.kind == kind) || section.file_range(LE).is_none() {
                continue;
            }
            let bytes = self.section_bytes(section)?;
            if !bytes.is_empty() {
                found.push(FrameSection { kind, address: section.sh_addr(LE), bytes });
            }
        }
        if found.iter().all(|section| section.kind != FrameKind::Eh) {
            found.extend(self.frames_by_header());
        }
        found.sort_by_key(|section| section.kind);
        if found.is_empty() { Err(TableError::NoFrames) } else { Ok(found) }
    }

    /// Address of a section, by name.
    pub fn address_of(&self, name: &str) -> Option<u64> {
        let strings = self.header.section_strings(LE, self.data, self.sections).ok()?;
        let named = |s: &&Section| s.name(LE, strings) == Ok(name.as_bytes());
        self.sections.iter().find(named).map(|section| section.sh_addr(LE))
    }

    fn section_bytes(&self, section: &Section) -> Result<Cow<'data, [u8]>, TableError> {
        self.check_size(section.sh_size(LE))?;
        let Some((header, offset, size)) = section.compression(LE, self.data).map_err(damaged)? else {
            return section.data(LE, self.data).map(Cow::Borrowed).map_err(damaged);
        };
        let method = header.ch_type.get(LE);
        if method != ELFCOMPRESS_ZLIB {
            return Err(TableError::Packed(method));
        }
        let unpacked = header.ch_size.get(LE);
        self.check_size(unpacked)?;
        let packed = self.data.read_bytes_at(offset, size);
        unpack(packed.map_err(|()| damage("a packed section lies outside of the file"))?, unpacked)
    }

    fn check_size(&self, size: u64) -> Result<(), TableError> {
        let limit = self.limits.section_bytes;
        if size > limit { Err(TableError::TooLarge { what: "frame section in bytes", size, limit }) } else { Ok(()) }
    }

    /// `.eh_frame` of a file without section headers: its own header says where it begins, a terminator where it ends.
    fn frames_by_header(&self) -> Option<FrameSection<'data>> {
        let header = self.programs.iter().find(|p| p.p_type(LE) == PT_GNU_EH_FRAME)?;
        let bytes = self.data.read_bytes_at(header.p_offset(LE), header.p_filesz(LE).min(64)).ok()?;
        let address = header.p_vaddr(LE);
        let bases = gimli::BaseAddresses::default().set_eh_frame_hdr(address);
        let parsed = gimli::EhFrameHdr::new(bytes, gimli::LittleEndian).parse(&bases, 8).ok()?;
        let frames = parsed.eh_frame_ptr().direct().ok()?;
        let inside = |p: &&Program| {
            p.p_type(LE) == PT_LOAD && frames.checked_sub(p.p_vaddr(LE)).is_some_and(|d| d < p.p_filesz(LE))
        };
        let segment = self.programs.iter().find(inside)?;
        let skip = frames - segment.p_vaddr(LE);
        let size = (segment.p_filesz(LE) - skip).min(self.limits.section_bytes);
        let bytes = self.data.read_bytes_at(segment.p_offset(LE).checked_add(skip)?, size).ok()?;
        Some(FrameSection { kind: FrameKind::Eh, address: frames, bytes: Cow::Borrowed(bytes) })
    }
}

/// What reads a file by offset, and keeps what it read.
pub(super) fn reader(file: &File) -> ReadCache<&File> {
    ReadCache::new(file)
}

fn segment(program: &Program) -> Segment {
    Segment {
        offset: program.p_offset(LE),
        file_size: program.p_filesz(LE),
        address: program.p_vaddr(LE),
        size: program.p_memsz(LE),
    }
}

/// At most `size` bytes: a bomb fills its own announced size and no more.
fn unpack(packed: &[u8], size: u64) -> Result<Cow<'static, [u8]>, TableError> {
    let size = usize::try_from(size).map_err(|_wide| damage("a packed section larger than memory"))?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(size).map_err(|_full| damage("a packed section larger than memory"))?;
    let mut inflate = flate2::Decompress::new(true);
    let status = inflate.decompress_vec(packed, &mut bytes, flate2::FlushDecompress::Finish);
    if status.is_err() || bytes.len() != size {
        return Err(damage("a packed section that does not unpack to its size"));
    }
    Ok(Cow::Owned(bytes))
}

fn damaged(error: object::read::Error) -> TableError {
    TableError::Damaged(error.to_string())
}

fn damage(what: &str) -> TableError {
    TableError::Damaged(what.to_owned())
}
